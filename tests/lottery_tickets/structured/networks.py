"""Networks in which units go together in each way that there is, and random masks of units."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets.structured.units import UnitGroup, prune_units
from lottery_tickets.workloads.models import ResNet20, initialise_


class Residual(nn.Module):
    """Sums, over blocks of which one changes the width; batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.inner = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 6, 3, padding=1)
        self.shortcut, self.third = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.stem(inputs)))
        hidden = hidden + self.second(functional.silu(self.inner(self.first(hidden))))
        outputs: Tensor = self.head((self.shortcut(hidden) + self.third(torch.tanh(hidden))).mean((2, 3)))
        return outputs


class Dense(nn.Module):
    """Concatenations, with a batch norm over both parts, and flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.third = nn.BatchNorm2d(7), nn.Conv2d(7, 5, 1)
        self.hidden, self.head = nn.Linear(5 * 4, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        first = torch.relu(self.first(inputs))
        both = torch.cat([first, torch.relu(self.second(first))], dim=1)
        pooled = functional.adaptive_avg_pool2d(torch.relu(self.third(self.norm(both))), 2)
        outputs: Tensor = self.head(torch.relu(self.hidden(pooled.flatten(1))))
        return outputs


class Twice(nn.Module):
    """A layer called twice, between others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs.flatten(1)[:, :8]))
        outputs: Tensor = self.head(torch.tanh(self.inner(torch.tanh(self.inner(hidden)))))
        return outputs


class Gated(nn.Module):
    """Channels that are multiplied by what a small network makes of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.last, self.head = nn.Conv2d(6, 5, 3, bias=False), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(inputs))
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        outputs: Tensor = self.head(torch.relu(self.last(hidden * gates)).amax((2, 3)))
        return outputs


def make_depthwise() -> nn.Module:
    """Returns depthwise and grouped convolutions, with an activation that has weights."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def make_transposed() -> nn.Module:
    """Returns transposed convolutions, of which one is depthwise, and an instance norm."""
    return nn.Sequential(
        nn.ConvTranspose2d(2, 5, 2, stride=2), nn.InstanceNorm2d(5, affine=True), nn.ReLU(),
        nn.ConvTranspose2d(5, 5, 3, padding=1, groups=5), nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(4 * 49, 3),
    )  # fmt: skip


def make_perceptron() -> nn.Module:
    """Returns hidden layers with biases and a batch norm."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(128, 7), nn.BatchNorm1d(7), nn.GELU(), nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, 3)
    )


def make_resnet() -> nn.Module:
    """Returns the library's own."""
    return initialise_(ResNet20((2, 8, 8), 3), torch.Generator().manual_seed(0))


NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "residual": Residual,
    "dense": Dense,
    "twice": Twice,
    "gated": Gated,
    "depthwise": make_depthwise,
    "transposed": make_transposed,
    "perceptron": make_perceptron,
    "resnet": make_resnet,
}


def make_network(name: str, seed: int = 0) -> nn.Module:
    """Returns a network in float64, with statistics of batch norms that are not trivial."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert tensor is not None
                    tensor.add_(0.3 * torch.rand_like(tensor))
    return model.eval()


def make_images(num_images: int = 3, seed: int = 1) -> Tensor:
    """Returns what all these networks take."""
    return torch.randn(num_images, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_units(groups: Iterable[UnitGroup], seed: int) -> dict[str, Tensor]:
    """Returns for each group some units that stay, as many as must at least."""
    generator = torch.Generator().manual_seed(seed)
    num_experts = int(torch.randint(2, 5, (), generator=generator))
    kept = {}
    for group in groups:
        number = int(torch.randint(group.least, group.num_units + 1, (), generator=generator))
        number = num_experts if group.kind == "experts" else number  # which cannot be evened out
        kept[group.name] = torch.zeros(group.num_units, dtype=torch.bool)
        kept[group.name][torch.randperm(group.num_units, generator=generator)[:number]] = True
    return kept


def draw_mask(model: nn.Module, groups: Iterable[UnitGroup], seed: int, *, share: float = 0.1) -> dict[str, Tensor]:
    """Returns a mask of units, which prunes a share of all other weights too."""
    groups = list(groups)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    mask = prune_units(groups, draw_units(groups, seed), shapes)
    for name, kept in mask.items():
        if not name.endswith("mlp.gate.weight"):  # whose rows are pruned whole or not at all
            kept.logical_and_(torch.rand(kept.shape, generator=generator) >= share)
    return mask

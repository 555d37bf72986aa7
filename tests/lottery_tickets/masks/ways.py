"""Every way we know to bring a pruned weight back, and every place where it shows."""

import copy
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, vector_to_parameters

from lottery_tickets import Mask, create_random_mask, hold_mask

NAME: Final = "body.0.weight"


class Net(nn.Module):
    """Two layers, and an attention that hands the weight of a module inside it to a function, without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        return hidden + self.attention(hidden, hidden, hidden)[0]  # type: ignore[no-any-return]


def make_held() -> tuple[Net, Mask]:
    torch.manual_seed(0)
    net = Net()
    mask = create_random_mask(net, 0.5, seed=0)
    assert NAME in mask
    assert "attention.out_proj.weight" in mask
    hold_mask(net, mask)
    return net, mask


def layer(net: nn.Module) -> nn.Linear:
    found = net.get_submodule("body.0")
    assert isinstance(found, nn.Linear)
    return found


def parameters(net: nn.Module) -> list[nn.Parameter]:
    return list(net.parameters())


@torch.no_grad()
def _in_place(net: nn.Module, write: Callable[[Tensor], object]) -> None:
    for parameter in net.parameters():
        write(parameter)


def _replace(net: nn.Module, name: str) -> None:
    owner = net.get_submodule(name)
    owner.weight = nn.Parameter(torch.ones(6, 6))


def _with_flag(net: nn.Module, flag: str) -> None:
    switch = getattr(torch.__future__, f"set_{flag}_module_params_on_conversion")
    switch(True)
    try:
        net.double()
        net.float()
    finally:
        switch(False)
    _in_place(net, lambda p: p.data.fill_(1.0))


def _step_of_another_optimizer(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.data.sub_(torch.randn_like(parameter), alpha=0.1)


def _write_average_back(net: nn.Module) -> None:
    """Lookahead: the slow weights, from before the mask, go halfway to the fast ones, and back into the model."""
    for parameter in net.parameters():
        slow = torch.ones_like(parameter)
        parameter.data.copy_(slow.add_(parameter.data - slow, alpha=0.5))


def _set_storage(net: nn.Module) -> None:
    _in_place(net, lambda p: p.set_(torch.ones_like(p)))  # type: ignore[call-overload]


def _set_data(parameters: Iterable[Tensor], shape: tuple[int, ...] | None = None) -> None:
    for parameter in parameters:
        parameter.data = torch.ones(parameter.shape if shape is None else shape)


def _set_numbers(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.detach().numpy()[...] = 1.0


def _transpose(net: nn.Module) -> None:
    for name in ("body.0", "body.2"):
        owner: Any = net.get_submodule(name)
        owner.weight.data = torch.ones(6, 6).t()


def _as_channels_last(net: Any) -> None:  # noqa: ANN401 - torch's annotations do not know the argument
    net.to(memory_format=torch.channels_last).apply(_ones)


def _load_part(net: nn.Module, *, assign: bool) -> None:
    layer(net).load_state_dict({"weight": torch.ones(6, 6), "bias": torch.ones(6)}, assign=assign)


def _vector(net: nn.Module) -> None:
    vector_to_parameters(torch.ones(sum(p.numel() for p in net.parameters())), net.parameters())


def _set_module(net: nn.Module) -> None:
    net.get_submodule("body")._modules["0"] = nn.Linear(6, 6)


# What a write does to the model, and whether the mask is held through it, or the model refuses to run.
WAYS: Final[Mapping[str, tuple[Callable[[nn.Module], object], str]]] = {
    "p.data.fill_": (lambda net: [p.data.fill_(1.0) for p in parameters(net)], "held"),
    "p.data.add_": (lambda net: [p.data.add_(1.0) for p in parameters(net)], "held"),
    "one number by p.data": (lambda net: [p.data.view(-1)[:20].fill_(1.0) for p in parameters(net)], "held"),
    "p.data = other": (lambda net: _set_data(parameters(net)), "held"),
    "p.data = transposed": (_transpose, "held"),
    "p.detach().fill_": (lambda net: [p.detach().fill_(1.0) for p in parameters(net)], "held"),
    "through numpy": (_set_numbers, "held"),
    "p.set_": (_set_storage, "held"),
    "copy_": (lambda net: _in_place(net, lambda p: p.copy_(torch.ones_like(p))), "held"),
    "add_ under no_grad": (lambda net: _in_place(net, lambda p: p.add_(1.0)), "held"),
    "nn.init": (lambda net: [nn.init.normal_(p) for p in parameters(net)], "held"),
    "reset_parameters": (lambda net: layer(net).reset_parameters(), "held"),
    "vector_to_parameters": (_vector, "held"),
    "NaN": (lambda net: [p.data[..., :3].fill_(float("nan")) for p in parameters(net)], "held"),
    "another optimizer": (_step_of_another_optimizer, "held"),
    "Lookahead": (_write_average_back, "held"),
    "load_state_dict": (lambda net: net.load_state_dict(Net().state_dict()), "held"),
    "load_state_dict, assign": (lambda net: net.load_state_dict(Net().state_dict(), assign=True), "held"),
    "load_state_dict of a part": (lambda net: _load_part(net, assign=False), "held"),
    "load_state_dict of a part, assign": (lambda net: _load_part(net, assign=True), "held"),
    "frozen and written": (lambda net: layer(net).weight.requires_grad_(False).fill_(1.0), "held"),
    "converted, swapped": (lambda net: _with_flag(net, "swap"), "held"),
    "channels_last": (_as_channels_last, "held"),
    "bfloat16 and back": (lambda net: net.bfloat16().float().apply(_ones), "held"),
    "spectral_norm, parametrised": (lambda net: parametrizations.spectral_norm(layer(net)), "held"),
    "spectral_norm": (lambda net: nn.utils.spectral_norm(layer(net)), "held"),
    "prune by torch": (lambda net: prune.random_unstructured(layer(net), "weight", 0.1), "held"),
    "a new Parameter": (lambda net: _replace(net, "body.0"), "refused"),
    "a new Parameter in the attention": (lambda net: _replace(net, "attention.out_proj"), "refused"),
    "a new module": (_set_module, "refused"),
    "converted, overwritten": (lambda net: _with_flag(net, "overwrite"), "refused"),
    "weight_norm, parametrised": (lambda net: parametrizations.weight_norm(layer(net)), "refused"),
    "weight_norm": (lambda net: nn.utils.weight_norm(layer(net)), "refused"),
    "orthogonal": (lambda net: parametrizations.orthogonal(layer(net)), "refused"),
    "p.data of another shape": (lambda net: _set_data([layer(net).weight], (6, 3)), "refused"),
}


def _ones(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.fill_(1.0)


def _run(net: nn.Module) -> nn.Module:
    net(torch.randn(2, 3, 6))
    return net


def _run_without_gradients(net: nn.Module) -> nn.Module:
    with torch.inference_mode():
        net.eval()(torch.randn(2, 3, 6))
    return net


def _run_part(net: nn.Module) -> nn.Module:
    net.get_submodule("body")(torch.randn(2, 6))
    part = net.get_submodule("attention")
    part(*[torch.randn(2, 3, 6)] * 3)
    return net


def _run_layers(net: nn.Module) -> nn.Module:
    layer(net)(torch.randn(2, 6))
    net.get_submodule("body.2")(torch.randn(2, 6))
    return net


def _load_what_was_saved(net: nn.Module) -> nn.Module:
    state = net.state_dict()
    saved = Net()
    saved.load_state_dict({name: value for name, value in state.items() if name in saved.state_dict()}, strict=False)
    return saved


# Where a weight would be used, and the model to look at afterwards.
USES: Final[Mapping[str, Callable[[nn.Module], nn.Module]]] = {
    "model": _run,
    "model, inference": _run_without_gradients,
    "parts": _run_part,
    "layers": _run_layers,
    "state_dict": _load_what_was_saved,
    "deepcopy": lambda net: _run(copy.deepcopy(net)),
    "pickle": lambda net: _run(pickle.loads(pickle.dumps(net))),
}

REFUSALS: Final = (
    r"is held to a mask, but|held weight '.*' must keep its shape|its parametrisation makes others of them"
)
HARMLESS: Final = ("spectral_norm", "spectral_norm, parametrised", "prune by torch")  # zero stays zero

# What torch refuses by itself, or what does not use the weight.
UNUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "prune by torch": ("deepcopy", "pickle", "state_dict"),  # it keeps a computed tensor; state dicts have other names
    "spectral_norm": ("deepcopy", "pickle", "state_dict"),
    "spectral_norm, parametrised": ("pickle", "state_dict"),
    "weight_norm, parametrised": ("pickle",),
    "weight_norm": ("deepcopy", "pickle"),
    "orthogonal": ("pickle",),
    "a new Parameter in the attention": ("layers",),
    "a new module": ("layers",),  # it hangs in the model, but knows nothing of it when it is called alone
}

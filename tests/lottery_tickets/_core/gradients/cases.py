"""Models in many shapes, and a loop over single samples to compare the gradient stream with."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lottery_tickets._core.gradients.losses import Labels
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import SQUARE, Value
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.weights import Weights
from lottery_tickets.workloads import build_model

Batches = list[Any]

LossFunction = Callable[[nn.Module, Any], Tensor] | None

TOLERANCE = 1e-10  # the project's promise; float64 rounding is a thousand times smaller


def split_batch(batch: object) -> Iterator[object]:
    """Yields batches of one sample, written apart from the library's own way of doing it."""
    if isinstance(batch, dict):
        for i in range(len(next(iter(batch.values())))):
            yield {key: value[i : i + 1] for key, value in batch.items()}
    else:
        inputs, targets = cast("tuple[Tensor, Tensor]", batch)
        for i in range(len(inputs)):
            yield inputs[i : i + 1], targets[i : i + 1]


def loop_over_samples(
    model: nn.Module, batches: Batches, names: list[str], loss_fn: LossFunction = None
) -> dict[str, Tensor]:
    """Returns each sample's gradient of each parameter, the samples first: slow, and obviously right."""
    parameters = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    model.eval()
    for batch in batches:
        for sample in split_batch(batch):
            compute_loss(model, sample, loss_fn).backward()  # torch.autograd.grad knows no reentrant checkpoints
            for name in names:
                gradient, parameters[name].grad = parameters[name].grad, None
                rows[name].append(torch.zeros_like(parameters[name]) if gradient is None else gradient)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}


def choose_all(model: nn.Module) -> Weights:
    return find_prunable_weights(model, include=[name for name, _ in model.named_parameters()])


def run_stream(
    model: nn.Module,
    batches: Batches,
    *values: Value,
    options: ScoringOptions | None = None,
    labels: Labels = "empirical",
    loss_fn: LossFunction = None,
    seed: int = 42,
) -> GradientStream:
    options = options or ScoringOptions()
    stream = GradientStream(
        model, choose_all(model), values or (SQUARE,), options, labels=labels, loss_fn=loss_fn, seed=seed
    )
    stream.run(batches, 10**6)
    return stream


def check_squares(model: nn.Module, batches: Batches, reason: str | None = None, loss_fn: LossFunction = None) -> None:
    """Checks every parameter's mean of squared per-sample gradients against the loop, and how they were computed."""
    stream = run_stream(model, batches, loss_fn=loss_fn)
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = loop_over_samples(model, batches, list(stream.passes.weights), loss_fn)
    means = stream.compute_means(SQUARE)
    largest = max(float(gradients.abs().max()) for gradients in expected.values())
    for name, gradients in expected.items():
        wanted = gradients.square().mean(0)
        scale = max(float(wanted.max()), 1e-12 * largest**2)  # a bias before a norm has no gradient but rounding
        assert float((means[name] - wanted).abs().max()) <= TOLERANCE * scale, name
    if reason is None:
        assert stream.reason is None
    else:
        assert stream.reason is not None
        assert reason in stream.reason


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def draw_classes(num_samples: int, num_classes: int = 5) -> Tensor:
    return torch.randint(num_classes, (num_samples,))


class Attention(nn.Module):
    """torch's own transformer encoder, with the samples first or second."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embed(tokens)
        if self.batch_first:
            return cast(Tensor, self.head(self.encoder(embedded).mean(1)))
        return cast(Tensor, self.head(self.encoder(embedded.transpose(0, 1)).mean(0)))


class CrossAttention(nn.Module):
    """Keys and values from elsewhere, so torch splits the weight of its projections."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        attended, _ = self.attention(inputs[:, :2], inputs, inputs)
        return cast(Tensor, self.head(attended.mean(1)))


class TiedTwice(nn.Module):
    """An embedding that is the head too, and a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.layer(torch.tanh(self.layer(self.embed(tokens))))
        return functional.linear(hidden, self.embed.weight).transpose(1, 2)


class HandWritten(nn.Module):
    """Weights used by functions and operators, and positions shared by all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Parameter(draw(6, 8)), nn.Parameter(draw(8))
        self.position, self.temperature = nn.Parameter(draw(1, 8)), nn.Parameter(draw(1)[0])
        self.last = nn.Parameter(draw(5, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(inputs @ self.first) * self.scale + self.position
        return (hidden @ self.last.t()) * self.temperature


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.rnn(inputs)[0][:, -1]))


class Mixing(nn.Module):
    """What a sample gives depends on its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.layer(inputs)
        return cast(Tensor, self.head(hidden + hidden.mean(0) ** 2))


class Detour(nn.Module):
    """A weight that is used in a way for which there is no rule: its largest singular value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.layer(inputs) / torch.linalg.matrix_norm(self.layer.weight, 2))


class Overlapping(nn.Module):
    """A weight used whole, and a part of it once more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.layer(inputs) + functional.linear(inputs, self.layer.weight[:1]))


class Checkpointed(nn.Module):
    """A part that torch computes a second time in the backward pass."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.first, self.last, self.use_reentrant = nn.Linear(6, 8), nn.Linear(8, 5), use_reentrant
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.middle, self.first(inputs), use_reentrant=self.use_reentrant)
        return cast("Tensor", self.last(hidden))


class Frames(nn.Module):
    """Several images a sample, which the convolutions see as so many samples more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=3)
        self.head = nn.Linear(4, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second(torch.tanh(self.first(inputs.flatten(0, 1)))).unflatten(0, inputs.shape[:2])
        return cast("Tensor", self.head(hidden.mean((1, 3, 4))))


def make_vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(64, 5),
    )  # fmt: skip


def make_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, (3, 2), padding="same", dilation=2, groups=2), nn.GroupNorm(2, 6), nn.Tanh(),
        nn.Conv2d(6, 6, 3, groups=6, padding=(2, 1), bias=False), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.LayerNorm(24), nn.Linear(24, 7), nn.RMSNorm(7), nn.Linear(7, 5, bias=False),
    )  # fmt: skip


def make_resnet() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return build_model("resnet-20", input_shape=(1, 12, 12), num_classes=5, generator=generator)


SEPARABLE: dict[str, Callable[[], tuple[nn.Module, Batches]]] = {
    "mlp": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 5)),
        [(draw(4, 6), draw_classes(4)), (draw(3, 6), draw_classes(3)), (draw(1, 6), draw_classes(1))],
    ),
    "positions": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm((7, 8)), nn.Linear(8, 5), nn.Flatten(), nn.Linear(35, 5)),
        [(draw(4, 7, 6), draw_classes(4))],
    ),
    "vgg": lambda: (make_vgg(), [(draw(4, 2, 8, 8), draw_classes(4))]),
    "channels last": lambda: (
        cast(Any, make_vgg()).to(memory_format=torch.channels_last),
        [(draw(4, 2, 8, 8).to(memory_format=torch.channels_last), draw_classes(4))],
    ),
    "norms": lambda: (make_norms(), [(draw(4, 2, 9, 8), draw_classes(4))]),
    "conv1d": lambda: (
        nn.Sequential(nn.Conv1d(2, 4, 3, padding=2), nn.Flatten(), nn.Linear(48, 5)),
        [(draw(4, 2, 10), draw_classes(4))],
    ),
    "conv3d": lambda: (
        nn.Sequential(nn.Conv3d(1, 2, 2, stride=(1, 2, 1)), nn.Flatten(), nn.Linear(24, 5)),
        [(draw(3, 1, 3, 4, 4), draw_classes(3))],
    ),
    "resnet": lambda: (make_resnet(), [(draw(4, 1, 12, 12), draw_classes(4))]),
    "torch attention": lambda: (Attention(batch_first=True), [(torch.randint(11, (4, 7)), draw_classes(4))]),
    "cross attention": lambda: (CrossAttention(), [(draw(4, 3, 8), draw_classes(4))]),
    "tied, called twice": lambda: (
        TiedTwice(),
        [(torch.randint(11, (4, 7)), torch.where(torch.rand(4, 7) > 0.3, torch.randint(11, (4, 7)), -100))],
    ),
    "several images a sample": lambda: (Frames(), [(draw(4, 3, 2, 12, 12), draw_classes(4))]),
    "many positions": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=(1, 0)),
            nn.Tanh(),
            nn.Conv2d(4, 6, 3, groups=2, padding=1, dilation=2),
            nn.Conv2d(6, 6, (2, 3), groups=6, padding="same", dilation=2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 5),
        ),
        [(draw(4, 2, 16, 17), draw_classes(4))],
    ),
    "checkpointed": lambda: (Checkpointed(use_reentrant=False), [(draw(4, 6), draw_classes(4))]),
    "checkpointed, reentrant": lambda: (Checkpointed(use_reentrant=True), [(draw(4, 6), draw_classes(4))]),
    "hand-written": lambda: (HandWritten(), [(draw(4, 6), draw_classes(4))]),
}

NOT_SEPARABLE: dict[str, tuple[Callable[[], tuple[nn.Module, Batches]], str]] = {
    "samples second": (
        lambda: (Attention(batch_first=False), [(torch.randint(11, (4, 7)), draw_classes(4))]),
        "not divided by",
    ),
    "samples second, divisible": (
        lambda: (Attention(batch_first=False), [(torch.randint(11, (4, 8)), draw_classes(4))]),
        "or keeps them in another dimension than the first",
    ),
    "samples second, as many as positions": (
        lambda: (Attention(batch_first=False), [(torch.randint(11, (8, 8)), draw_classes(8))]),
        "or keeps them in another dimension than the first",
    ),
    "lstm": (lambda: (Recurrent(), [(draw(4, 7, 3), draw_classes(4))]), "is used by lstm"),
    "mixing": (lambda: (Mixing(), [(draw(4, 6), draw_classes(4))]), "the model mixes samples"),
    "detour": (lambda: (Detour(), [(draw(4, 6), draw_classes(4))]), "is used by linalg_"),
    "overlapping": (lambda: (Overlapping(), [(draw(4, 6), draw_classes(4))]), "overlap"),
}

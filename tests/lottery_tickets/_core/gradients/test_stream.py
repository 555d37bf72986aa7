"""The gradient stream: for whole batches it gives what a loop over single samples gives, to float64 rounding."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from lottery_tickets._core.gradients.stream import GradientStream, StreamSettings
from lottery_tickets._core.gradients.values import GRADIENT, MAGNITUDE, SQUARE, UNIT_SQUARE, Value
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.weights import Weight
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


def choose_all(model: nn.Module) -> dict[str, Weight]:
    return find_prunable_weights(model, include=[name for name, _ in model.named_parameters()])


def run_stream(model: nn.Module, batches: Batches, *values: Value, **settings: Any) -> GradientStream:  # noqa: ANN401 - settings of several types
    stream = GradientStream(model, choose_all(model), values or (SQUARE,), StreamSettings(**settings))
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


class KeepDouble(TorchFunctionMode):
    """Keeps float64 where transformers casts to float32, so that two ways of computing can be told apart to 1e-10."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's protocol
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in {"to", "float"} and args[0].dtype == torch.float64:
            dtypes = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.dtype)]
            if name == "float" or dtypes == [torch.float32]:
                return args[0]
        if name == "softmax":
            kwargs.pop("dtype", None)
        return func(*args, **kwargs)


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


@pytest.mark.parametrize("case", SEPARABLE)
def test_whole_batches_give_what_single_samples_give(case: str) -> None:
    model, batches = SEPARABLE[case]()
    check_squares(model.double(), batches)


@pytest.mark.parametrize("case", NOT_SEPARABLE)
def test_what_cannot_be_taken_apart_is_run_one_by_one_and_says_why(case: str) -> None:
    make, reason = NOT_SEPARABLE[case]
    model, batches = make()
    check_squares(model.double(), batches, reason)


def make_language_model(name: str) -> nn.Module:
    import transformers  # noqa: PLC0415 - slow, and not for every test

    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 32,
    }  # fmt: skip
    tokens: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    grouped = {**sizes, **tokens, "num_key_value_heads": 2}
    if name == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**grouped, tie_word_embeddings=True))
    if name == "qwen2":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**grouped))
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=4, n_positions=32, **tokens)
        return transformers.GPT2LMHeadModel(config)
    if name == "bert":
        return transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    mixture = transformers.MixtralConfig(**grouped, num_local_experts=4, num_experts_per_tok=2)
    mixture._experts_implementation = "grouped_mm" if name == "mixtral, grouped" else "eager"
    return transformers.MixtralForCausalLM(mixture)


def make_text(num_samples: int = 4) -> dict[str, Tensor]:
    tokens = torch.randint(50, (num_samples, 9))
    labels = tokens.clone()
    labels[0, 6:] = -100  # samples of different lengths: the mean over the batch is not the mean of the means
    return {"input_ids": tokens, "labels": labels, "attention_mask": torch.ones_like(tokens)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert", "mixtral"])
def test_language_models_give_what_single_samples_give(name: str) -> None:
    torch.manual_seed(0)
    model = make_language_model(name).double()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15)
    with KeepDouble():
        check_squares(model, [make_text(4), make_text(3)])


def test_experts_by_grouped_products_give_what_single_samples_give() -> None:
    torch.manual_seed(0)
    model = make_language_model("mixtral, grouped")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    batches = [make_text()]
    stream = run_stream(model, batches)
    assert stream.reason is None
    expected = loop_over_samples(model, batches, list(stream.passes.weights))
    for name, mean in stream.compute_means(SQUARE).items():  # float32: torch has no grouped product of float64
        torch.testing.assert_close(mean, expected[name].square().mean(0), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("value", [GRADIENT, MAGNITUDE, SQUARE], ids=lambda value: value.name)
@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "norms"])
def test_values_and_standard_errors_are_those_of_the_samples(case: str, value: Value) -> None:
    model, batches = SEPARABLE[case]()
    stream = run_stream(model.double(), batches, value, squares=True)
    gradients = loop_over_samples(model, batches, list(stream.passes.weights))
    means, errors = stream.take(value)
    assert errors is not None
    for name, rows in gradients.items():
        values = value.of_block(rows, rows)
        torch.testing.assert_close(means[name], values.mean(0), rtol=1e-10, atol=1e-14)
        wanted = values.std(0) / len(values) ** 0.5
        # From the difference of two means, so only as exact as the root of float64's rounding.
        torch.testing.assert_close(errors[name], wanted, rtol=1e-6, atol=1e-8 * float(values.abs().max()))


@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "torch attention", "detour"])
def test_units_add_up_their_weights_before_the_square(case: str) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    weights = find_prunable_weights(model.double())
    stream = GradientStream(model, weights, [UNIT_SQUARE], StreamSettings())
    stream.run(batches, 10**6)
    gradients = loop_over_samples(model, batches, list(weights))
    for name, mean in stream.compute_means(UNIT_SQUARE).items():
        units = (gradients[name] * weights[name].tensor).flatten(2).sum(2).square().mean(0).detach()
        torch.testing.assert_close(mean.flatten(1), units[:, None].expand_as(mean.flatten(1)), rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "detour"])
def test_clipping_acts_on_each_sample(case: str) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    names = [name for name, _ in model.double().named_parameters()]
    gradients = loop_over_samples(model, batches, names)
    norms = torch.stack([rows.flatten(1).square().sum(1) for rows in gradients.values()]).sum(0).sqrt()
    limit = float(norms.mean())
    stream = run_stream(model, batches, gradient_clip=limit)
    assert stream.num_clipped == int((norms > limit).sum()) > 0
    factors = (limit / norms).clamp(max=1)
    for name, mean in stream.compute_means(SQUARE).items():
        wanted = (gradients[name] * factors.view(-1, *[1] * (gradients[name].ndim - 1))).square().mean(0)
        torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("case", ["mlp", "vgg", "tied, called twice", "torch attention", "detour"])
@pytest.mark.parametrize("block_elements", [1, 7, 64, 10**9])
def test_blocks_never_change_the_result(case: str, block_elements: int) -> None:
    model, batches = {**SEPARABLE, "detour": NOT_SEPARABLE["detour"][0]}[case]()
    whole = run_stream(model.double(), batches).compute_means(SQUARE)
    blocked = run_stream(model, batches, block_elements=block_elements).compute_means(SQUARE)
    for name, mean in whole.items():  # to rounding: a matrix product of other size adds in another order
        torch.testing.assert_close(blocked[name], mean, rtol=1e-12, atol=1e-20)


def test_drawn_labels_are_those_of_the_model_however_batched() -> None:
    model = nn.Linear(3, 4).double()
    inputs, targets = draw(200, 3), draw_classes(200, 4)
    ways = [run_stream(model, list(zip(inputs.split(n), targets.split(n), strict=True)), labels="sampled", seed=1)
            for n in (200, 64, 7, 1)]  # fmt: skip
    for way in ways[1:]:
        for name, mean in ways[0].compute_means(SQUARE).items():
            torch.testing.assert_close(way.compute_means(SQUARE)[name], mean, rtol=1e-10, atol=1e-18)
    other = run_stream(model, [(inputs, targets)], labels="sampled", seed=2).compute_means(SQUARE)
    assert not torch.equal(other["weight"], ways[0].compute_means(SQUARE)["weight"])


def test_exact_labels_are_the_expectation_and_drawn_ones_come_near_it() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    inputs = draw(8, 3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for sample in inputs.split(1):
        probabilities = model(sample).softmax(1)[0]
        for label in range(4):
            loss = functional.cross_entropy(model(sample), torch.tensor([label]))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for total, gradient in zip(expected.values(), gradients, strict=True):
                total.add_(probabilities[label].detach() * gradient.square() / 8)
    exact = run_stream(model, [(inputs, draw_classes(8, 4))], labels="exact").compute_means(SQUARE)
    many = [(inputs.repeat(2000, 1), draw_classes(16000, 4))]
    sampled = run_stream(model, many, labels="sampled").compute_means(SQUARE)
    for name, wanted in expected.items():
        torch.testing.assert_close(exact[name], wanted.detach(), rtol=1e-10, atol=1e-18)
        # 16,000 draws: a standard error near 1 % of the mean.
        torch.testing.assert_close(sampled[name], wanted.detach(), rtol=0.1, atol=0.02 * float(wanted.max()))


def test_a_sample_without_finite_gradient_is_left_out_and_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, targets = draw(20, 3), draw_classes(20, 2)
    good = run_stream(model, [(inputs[1:], targets[1:])]).compute_means(SQUARE)
    inputs[0, 1] = torch.nan
    for batches in ([(inputs, targets)], list(zip(inputs.split(1), targets.split(1), strict=True))):
        stream = run_stream(model, batches, nonfinite_limit=0.1)
        assert stream.num_bad == 1
        for name, mean in stream.compute_means(SQUARE).items():
            torch.testing.assert_close(mean, good[name], rtol=1e-12, atol=1e-20)


def test_too_many_samples_without_finite_gradient_are_an_error() -> None:
    inputs = draw(20, 3)
    inputs[:10] = torch.inf
    with pytest.raises(ValueError, match=r"at most 10\.00% of the samples may have gradients that are not finite"):
        run_stream(nn.Linear(3, 2).double(), [(inputs, draw_classes(20, 2))], nonfinite_limit=0.1)


def test_a_sample_without_labels_has_no_loss_and_is_counted() -> None:
    model = TiedTwice().double()
    tokens, labels = torch.randint(11, (4, 7)), torch.randint(11, (4, 7))
    labels[2] = -100
    stream = run_stream(model, [(tokens, labels)], nonfinite_limit=0.5)
    assert stream.num_bad == 1
    kept = [0, 1, 3]
    expected = loop_over_samples(model, [(tokens[kept], labels[kept])], ["layer.weight"])["layer.weight"]
    torch.testing.assert_close(stream.compute_means(SQUARE)["layer.weight"], expected.square().mean(0))


@pytest.mark.parametrize("num_equal", [2, 4])
@pytest.mark.parametrize("seen_first", [True, False])
def test_equal_samples_do_not_hide_that_samples_are_mixed(seen_first: bool, num_equal: int) -> None:
    """Two equal samples would look right even when they are mixed up, so they must not decide."""
    model, inputs, targets = Mixing().double(), draw(4, 6), draw_classes(4)
    inputs[:num_equal], targets[:num_equal] = inputs[0].clone(), targets[0].clone()
    batches = [(inputs, targets), (draw(4, 6), draw_classes(4))]
    check_squares(model, batches if seen_first else batches[::-1], "the model mixes samples")


def test_parameters_that_share_memory_are_one_weight() -> None:
    """Two Parameter objects over one storage: their gradients add up, as those of a parameter used twice do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6, bias=False)).double()
    twin = copy.deepcopy(model)
    second, shared = cast("nn.Linear", model[2]), cast("nn.Linear", model[0])
    second.weight = nn.Parameter(shared.weight.data)
    cast("nn.Linear", twin[2]).weight = cast("nn.Linear", twin[0]).weight
    batches = [(draw(4, 6), draw_classes(4))]
    results = [GradientStream(m, find_prunable_weights(m), [SQUARE], StreamSettings()) for m in (model, twin)]
    for stream in results:
        stream.run(batches, 10)
    got, wanted = (stream.compute_means(SQUARE) for stream in results)
    assert list(got) == list(wanted) == ["0.weight"]
    torch.testing.assert_close(got["0.weight"], wanted["0.weight"])


def test_losses_of_torch_are_known_and_others_are_run_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh()).double()
    batches = [(draw(4, 6), draw(4, 4))]
    check_squares(model, batches, loss_fn=lambda m, b: functional.mse_loss(m(b[0]), b[1]))
    check_squares(model, batches, loss_fn=lambda m, b: functional.l1_loss(m(b[0]), b[1]))
    own = "the loss is not one mean that a loss function of torch returned"
    check_squares(model, batches, own, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean())
    check_squares(model, batches, own, loss_fn=lambda m, b: functional.mse_loss(m(b[0]), b[1]).mul_(2.0))
    targets = [(draw(4, 6), draw_classes(4, 4))]
    weighted = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    check_squares(model, targets, own, loss_fn=lambda m, b: functional.cross_entropy(m(b[0]), b[1], weight=weighted))
    check_squares(model, targets, loss_fn=lambda m, b: functional.cross_entropy(m(b[0]), b[1], label_smoothing=0.1))

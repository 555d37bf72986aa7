"""Models: the papers' sizes and initialisation, one seed one set of bits."""

import copy
import math

import pytest
import torch
from torch import nn

from lottery_tickets.workloads.models import MODEL_NAMES, ResNet20, build_model, initialise_

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def build(name: str, *, input_shape: tuple[int, int, int] = GREY, seed: int = 0, num_classes: int = 10) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_model(name, input_shape=input_shape, num_classes=num_classes, generator=generator)


def count_weights(model: nn.Module, *types: type[nn.Module]) -> int:
    chosen = [module for module in model.modules() if isinstance(module, types)]
    return sum(module.get_parameter("weight").numel() for module in chosen)


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


# By hand, layer by layer; in comments the figures of 1803.03635, figure 2.
CONV_2 = 9 * (3 * 64 + 64 * 64)  # 38K
CONV_4 = CONV_2 + 9 * (64 * 128 + 128 * 128)  # 260K
CONV_6 = CONV_4 + 9 * (128 * 256 + 256 * 256)  # 1.1M
FC_TAIL = 256 * 256 + 256 * 10
STAGE_1 = 6 * 9 * 16 * 16
STAGE_2 = 9 * 16 * 32 + 5 * 9 * 32 * 32
STAGE_3 = 9 * 32 * 64 + 5 * 9 * 64 * 64
DOWNSAMPLE = 16 * 32 + 32 * 64  # "the 2560 parameters used to downsample residual connections"
RESNET_CONVS = 9 * 3 * 16 + STAGE_1 + STAGE_2 + STAGE_3  # 270K with DOWNSAMPLE


@pytest.mark.parametrize(
    ("name", "input_shape", "num_conv", "num_all", "published"),
    [
        ("lenet-300-100", GREY, 0, 784 * 300 + 300 * 100 + 100 * 10, (0, 266e3)),
        ("conv-2", COLOUR, CONV_2, CONV_2 + 64 * 16 * 16 * 256 + FC_TAIL, (38e3, 4.3e6)),
        ("conv-4", COLOUR, CONV_4, CONV_4 + 128 * 8 * 8 * 256 + FC_TAIL, (260e3, 2.4e6)),
        ("conv-6", COLOUR, CONV_6, CONV_6 + 256 * 4 * 4 * 256 + FC_TAIL, (1.1e6, None)),
        ("resnet-20", COLOUR, RESNET_CONVS + DOWNSAMPLE, RESNET_CONVS + DOWNSAMPLE + 64 * 10, (270e3, 270e3)),
    ],
)
def test_weight_counts_are_the_papers(
    name: str, input_shape: tuple[int, int, int], num_conv: int, num_all: int, published: tuple[float, float | None]
) -> None:
    model = build(name, input_shape=input_shape)
    counts = count_weights(model, nn.Conv2d), count_weights(model, nn.Conv2d, nn.Linear)
    assert counts == (num_conv, num_all)
    for count, figure in zip(counts, published, strict=True):
        # The paper prints two digits; its 1.7M for Conv-6 is not the sum of the layers it lists, 2.26M.
        assert figure is None or abs(count - figure) <= 0.05 * figure


def test_lenet_has_the_golden_count_and_resnet_the_published_total() -> None:
    assert count_weights(build("lenet-300-100"), nn.Linear) == 266_200
    total = sum(parameter.numel() for parameter in build("resnet-20", input_shape=COLOUR).parameters())
    assert total == 272_474  # 0.27M in 1512.03385, table 6
    assert sum(1 for module in build("resnet-20").modules() if isinstance(module, nn.Conv2d | nn.Linear)) == 20 + 2


@pytest.mark.parametrize("input_shape", [(1, 8, 8), GREY, COLOUR])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_model_takes_every_data_set(name: str, input_shape: tuple[int, int, int]) -> None:
    model = build(name, input_shape=input_shape, num_classes=7)
    logits = model(torch.zeros(2, *input_shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_conv_nets_pool_after_each_pair() -> None:
    model = build("conv-4", input_shape=COLOUR).double()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    steps: list[nn.Module] = []
    for first, second in (convs[:2], convs[2:]):
        steps += [first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2)]
    steps += [nn.Flatten(), linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2]]
    images = torch.randn(2, *COLOUR, dtype=torch.float64)
    torch.testing.assert_close(model(images), nn.Sequential(*steps)(images))


def test_residual_stages_halve_the_image_and_double_the_channels() -> None:
    model = build("resnet-20", input_shape=COLOUR)
    assert isinstance(model, ResNet20)
    hidden = torch.zeros(2, 16, 32, 32)
    shapes = []
    for stage in model.stages:
        hidden = stage(hidden)
        shapes.append(tuple(hidden.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize(("name", "smallest"), [("conv-2", 2), ("conv-4", 4), ("conv-6", 8)])
def test_images_too_small_to_pool_are_refused(name: str, smallest: int) -> None:
    build(name, input_shape=(1, smallest, smallest))
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest}, got {smallest} x {smallest - 1}"):
        build(name, input_shape=(1, smallest, smallest - 1))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_weights_have_the_documented_spread(name: str) -> None:
    for module in build(name, input_shape=COLOUR).modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in, fan_out = (module.weight.flatten(1).shape[1], module.weight.transpose(0, 1).flatten(1).shape[1])
            he = name == "resnet-20" and isinstance(module, nn.Conv2d)
            std = math.sqrt(2 / fan_in if he else 2 / (fan_in + fan_out))
            num_weights = module.weight.numel()
            # The standard errors of a Gaussian's mean and deviation, five times.
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(num_weights)
            assert abs(module.weight.std().item() / std - 1) < 5 / math.sqrt(2 * num_weights)
            # Not uniform: a Gaussian has kurtosis 3, a uniform distribution 1.8; standard error sqrt(24 / n).
            kurtosis = ((module.weight / module.weight.std()) ** 4).mean().item()
            assert num_weights < 5_000 or abs(kurtosis - 3) < 5 * math.sqrt(24 / num_weights)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert (module.weight == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_one_seed_gives_one_set_of_bits(name: str) -> None:
    assert same_bits(build(name, seed=3), build(name, seed=3))
    assert not same_bits(build(name, seed=3), build(name, seed=4))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_initialising_again_forgets_everything_learned(name: str) -> None:
    fresh, used = build(name), build(name, seed=1)
    used(torch.randn(4, *GREY)).square().sum().backward()
    torch.optim.SGD(used.parameters(), lr=0.1).step()
    parameters = list(used.parameters())
    assert initialise_(used, torch.Generator().manual_seed(0)) is used
    assert same_bits(fresh, used)
    assert all(new is old for new, old in zip(used.parameters(), parameters, strict=True))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_global_random_state_is_neither_read_nor_changed(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = build(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same_bits(model, build(name))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_default_dtype_do_not_change_what_is_drawn(
    dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    reference = build("resnet-20")
    other = initialise_(build("resnet-20", seed=1).to(dtype), torch.Generator().manual_seed(0))
    assert same_bits(copy.deepcopy(reference).to(dtype), other)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    assert same_bits(reference, build("resnet-20"))
    assert {parameter.dtype for parameter in build("resnet-20").parameters()} == {torch.float32}


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_deepcopy_and_state_dict_round_trip(name: str) -> None:
    model, images = build(name).eval(), torch.randn(2, *GREY)
    clone, loaded = copy.deepcopy(model), build(name, seed=1).eval()
    loaded.load_state_dict(model.state_dict())
    assert same_bits(model, clone)
    assert same_bits(model, loaded)
    assert torch.equal(model(images), clone(images))
    assert torch.equal(model(images), loaded(images))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of lenet-300-100, .*, got 'lenet'"):
        build("lenet")


def test_a_generator_elsewhere_is_refused() -> None:
    class ElsewhereGenerator:
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="must be a CPU generator, got one on cuda"):
        initialise_(nn.Linear(2, 2), ElsewhereGenerator())  # type: ignore[arg-type]


def test_a_model_of_other_modules_is_refused_and_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = copy.deepcopy(model)
    with pytest.raises(TypeError, match="'1' is a LayerNorm"):
        initialise_(model, torch.Generator())
    assert same_bits(before, model)

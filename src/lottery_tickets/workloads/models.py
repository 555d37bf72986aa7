"""The networks of the lottery-ticket papers, built from a generator so that one seed gives one set of bits.

LeNet-300-100 and Conv-2/4/6 are those of Frankle & Carbin 2019 (arXiv 1803.03635, figure 2), ResNet-20 is the CIFAR
network of He et al. 2016 (arXiv 1512.03385, section 4.2); Frankle & Carbin call that one Resnet-18.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional


@final
class LeNet300100(nn.Module):
    """A fully connected network with hidden layers of 300 and 100 units (LeCun et al. 1998; ReLU as in 1803.03635).

    Args:
        input_size: The number of values in one input, 784 for MNIST; inputs of any shape are flattened.
        num_classes: The number of outputs.
    """

    def __init__(self, input_size: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, 300)
        self.fc2 = nn.Linear(300, 100)
        self.output = nn.Linear(100, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits, of shape (batch, num_classes)."""
        hidden = functional.relu(self.fc1(inputs.flatten(1)))
        return cast("Tensor", self.output(functional.relu(self.fc2(hidden))))


class _ConvStack(nn.Module):
    """Pairs of 3 x 3 convolutions, each followed by 2 x 2 max-pooling, then two layers of 256 units and the output."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, *, pair_channels: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = input_shape
        shrink = 2 ** len(pair_channels)
        if min(height, width) < shrink:
            raise ValueError(
                f"{type(self).__name__} halves images {len(pair_channels)} times, so they must be at least {shrink} x "
                f"{shrink}, got {height} x {width}; take a network with fewer convolutions"
            )
        self.convs = nn.ModuleList()
        for out_channels in pair_channels:
            self.convs.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
            self.convs.append(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
            channels = out_channels
        self.fc1 = nn.Linear(channels * (height // shrink) * (width // shrink), 256)
        self.fc2 = nn.Linear(256, 256)
        self.output = nn.Linear(256, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits, of shape (batch, num_classes)."""
        hidden = inputs
        for position, conv in enumerate(self.convs):
            hidden = functional.relu(conv(hidden))
            if position % 2 == 1:
                hidden = functional.max_pool2d(hidden, 2)
        hidden = functional.relu(self.fc1(hidden.flatten(1)))
        return cast("Tensor", self.output(functional.relu(self.fc2(hidden))))


@final
class Conv2(_ConvStack):
    """Conv-2: convolutions 64, 64, pool; fully connected 256, 256, classes (1803.03635, figure 2).

    Args:
        input_shape: The channels, height and width of one image, such as (3, 32, 32).
        num_classes: The number of outputs.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, pair_channels=(64,))


@final
class Conv4(_ConvStack):
    """Conv-4: convolutions 64, 64, pool, 128, 128, pool; fully connected 256, 256, classes (1803.03635, figure 2).

    Args:
        input_shape: The channels, height and width of one image, such as (3, 32, 32).
        num_classes: The number of outputs.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, pair_channels=(64, 128))


@final
class Conv6(_ConvStack):
    """Conv-6: as Conv-4 with 256, 256, pool after its convolutions (1803.03635, figure 2).

    For 32 x 32 x 3 it has 2,261,184 weights, 1.1M of them in convolutions. The paper's total, 1.7M, is not the sum of
    the layers it lists; its other totals are.

    Args:
        input_shape: The channels, height and width of one image, such as (3, 32, 32).
        num_classes: The number of outputs.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, pair_channels=(64, 128, 256))


@final
class _Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut around them (1512.03385, figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the sum of both branches after a ReLU."""
        hidden = functional.relu(self.norm1(self.conv1(inputs)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


@final
class ResNet20(nn.Module):
    """A residual network of 20 layers for small images: three stages of three blocks with 16, 32 and 64 channels.

    The shortcuts that halve the image are 1 x 1 convolutions with batch norm (option B of 1512.03385), because
    Frankle & Carbin count "2560 parameters used to downsample residual connections": 16 * 32 + 32 * 64. He et al. pad
    with zeros instead (option A) on CIFAR.

    Args:
        input_shape: The channels, height and width of one image, such as (3, 32, 32).
        num_classes: The number of outputs.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 16, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(_stage(16, 16, stride=1), _stage(16, 32, stride=2), _stage(32, 64, stride=2))
        self.output = nn.Linear(64, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits, of shape (batch, num_classes)."""
        hidden = self.stages(functional.relu(self.norm(self.conv(inputs))))
        return cast("Tensor", self.output(hidden.mean(dim=(2, 3))))


def _stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """Returns three blocks, the first of which changes the number of channels and the size of the image."""
    blocks = [_Block(in_channels, out_channels, stride=stride)]
    blocks += [_Block(out_channels, out_channels, stride=1) for _ in range(2)]
    return nn.Sequential(*blocks)


def _lenet_300_100(input_shape: tuple[int, int, int], num_classes: int) -> LeNet300100:
    """Returns LeNet-300-100 for images of the given shape."""
    channels, height, width = input_shape
    return LeNet300100(channels * height * width, num_classes)


_MODELS: Mapping[str, Callable[[tuple[int, int, int], int], nn.Module]] = MappingProxyType(
    {"lenet-300-100": _lenet_300_100, "conv-2": Conv2, "conv-4": Conv4, "conv-6": Conv6, "resnet-20": ResNet20}
)

MODEL_NAMES = tuple(_MODELS)
"""The names `build_model` and `load_workload` know."""


def build_model(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int, generator: torch.Generator
) -> nn.Module:
    """Returns a freshly initialised float32 model on the CPU; the same generator state gives the same bits.

    The global random state of torch is neither read nor changed.

    Args:
        name: One of `MODEL_NAMES`.
        input_shape: The channels, height and width of one image.
        num_classes: The number of outputs.
        generator: A CPU generator, from which all weights are drawn.

    Raises:
        ValueError: The name is unknown, the images are too small for the model, or the generator is not on the CPU.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = build_model("lenet-300-100", input_shape=(1, 28, 28), num_classes=10, generator=generator)
        >>> sum(weight.numel() for name, weight in model.named_parameters() if name.endswith("weight"))
        266200
    """
    if name not in _MODELS:
        raise ValueError(f"model must be one of {', '.join(MODEL_NAMES)}, got {name!r}; choose one of these")
    # On the meta device the modules' own initialisation draws nothing from the global generator.
    with torch.device("meta"):
        model = _MODELS[name](input_shape, num_classes).float()  # whatever torch's default dtype is
    return initialise_(model.to_empty(device="cpu"), generator)


@torch.no_grad()
def initialise_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Returns the same model with every parameter and buffer set anew, in place.

    Weights are drawn from the Gaussian of Glorot & Bengio 2010, variance 2 / (fan_in + fan_out), as in 1803.03635
    (figure 2). The convolutions of `ResNet20` are drawn from the Gaussian of He et al. 2015 (arXiv 1502.01852),
    variance 2 / fan_in, as in that network's own paper (1512.03385, section 4.2); 1803.03635 has Glorot there too.
    Biases are zero; batch norm has weight 1, bias 0 and forgets its running statistics.

    Numbers are drawn on the CPU in float32, in the order of `model.modules()`, so device and dtype do not change them.

    Args:
        model: A model made of Linear, Conv2d and BatchNorm2d modules, and others without parameters of their own.
        generator: A CPU generator.

    Raises:
        ValueError: The generator is not on the CPU.
        TypeError: A module of another type has parameters or buffers; nothing has been changed then.
    """
    if generator.device.type != "cpu":
        raise ValueError(
            f"generator must be a CPU generator, got one on {generator.device}; make it with torch.Generator()"
        )
    for name, module in model.named_modules():
        has_state = bool([*module.parameters(recurse=False), *module.buffers(recurse=False)])
        if has_state and not isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            raise TypeError(
                f"initialise_ knows Linear, Conv2d and BatchNorm2d, but {name!r} is a {type(module).__name__}; "
                "initialise this model with a function of your own"
            )
    conv_draw = _draw_he if isinstance(model, ResNet20) else _draw_glorot
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw = conv_draw if isinstance(module, nn.Conv2d) else _draw_glorot
            module.weight.copy_(draw(module.weight.shape, generator))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return model


def _draw_glorot(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Returns weights from the Gaussian with mean 0 and variance 2 / (fan_in + fan_out)."""
    return nn.init.xavier_normal_(torch.empty(shape, dtype=torch.float32, device="cpu"), generator=generator)


def _draw_he(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Returns weights from the Gaussian with mean 0 and variance 2 / fan_in."""
    fresh = torch.empty(shape, dtype=torch.float32, device="cpu")
    return nn.init.kaiming_normal_(fresh, nonlinearity="relu", generator=generator)

"""A decoder that is run layer by layer, with the weights of one layer in memory at a time.

All batches go through a layer before the next one is loaded. For each layer the model's own forward pass is run once
more on each batch, up to the end of this layer; the layers before do nothing but hand on what the last of them gave.
So whatever a model does before, between and after its layers (masks, positions, scaling, norms, head, loss) is its own
code on its own values, and nothing of it is written down here.

What is handed on by layers that lie further back is filled with NaN: a model that looks at it gives NaN, and is refused
instead of being measured wrongly.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.samples import find_tensors, map_leaves
from lottery_tickets._core.measuring.running import uncompiled
from lottery_tickets._core.reading import list_names
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.checkpoints.loading import Loader, Slot, find_slots, let_go
from lottery_tickets.masks.mask import Mask
from lottery_tickets.workloads.framing import frame_language_model

Forward = Callable[[nn.Module, Any], object]  # of a model and a batch
PLAIN: Final = (Tensor, bool, int, float, str, type(None))  # what a layer may be handed: nothing that it could change


class _ReachedError(BaseException):
    """The layer at hand has given its output, and the rest is not needed; a model's `except Exception` lets it pass."""

    def __init__(self, output: Any) -> None:  # noqa: ANN401 - whatever layers give
        super().__init__()
        self.output = output


@final
class StreamedDecoder:
    """The decoder of a checkpoint.

    In memory are one layer, the embeddings and whatever else lies outside of the layers, the head at the end, and for
    each batch the output of one layer.

    Args:
        weights: Of the checkpoint.
        batches: Which are run, on the CPU or on the device.
        forward: Runs the model on a batch, in one call; what it returns is not used.
        mask: By parameter name, what is kept; the rest is zero.
        dtype: Of the weights in memory; None for what `config.json` says.
        device: Where the model is run.

    Attributes:
        model: Its weights are on the meta device while they are not in memory.
        layers: The names of the layers' modules, in order.

    Raises:
        OSError: When files cannot be read.
        ValueError: When files and configuration are not of one model, or the model cannot be run layer by layer.
        ModuleNotFoundError: When transformers is not installed.
    """

    def __init__(
        self,
        weights: CheckpointWeights,
        batches: Sequence[Any],
        forward: Forward,
        *,
        mask: Mask | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._batches, self._forward = batches, forward
        self._carried: list[Any] = [None] * len(batches)
        self._batch = self._position = self._next = 0
        self._filler = torch.nan
        with _computing():
            self._prepare(weights, mask, dtype, torch.device(device))

    def _prepare(
        self, weights: CheckpointWeights, mask: Mask | None, dtype: torch.dtype | None, device: torch.device
    ) -> None:
        """Frames the model and loads what lies outside of its layers, but for the head."""
        entries = {name: entry for name, (_, entry) in weights.entries.items()}
        stored = next((entry.dtype for entry in entries.values() if entry.dtype.is_floating_point), torch.float32)
        folder = weights.layout.folder
        self.model = frame_language_model(
            folder or next(iter(weights.layout.shards.values())).path.parent, dtype, stored
        )
        self.layers, self._modules = find_layers(self.model)
        for number, module in enumerate(self._modules):
            module.forward = self._make_stub(number)  # of this one object
        slots = find_slots(self.model, entries)
        self._names = {part: slot.names[0] for slot in slots for places in slot.places for part in places}
        bits = {} if mask is None else weights.find_bits(mask)
        self.find_parameters({part: (part,) for part in bits})
        _move_buffers(self.model, device)
        self._loader = Loader(weights.entries, bits, device)
        owners = [self._find_layer(slot) for slot in slots]
        self._inside = [
            [slot for slot, owner in zip(slots, owners, strict=True) if owner == name] for name in self.layers
        ]
        outside = [slot for slot, owner in zip(slots, owners, strict=True) if owner is None]
        get_head: object = getattr(self.model, "get_output_embeddings", None)
        head = get_head() if callable(get_head) else None
        self._head = [slot for slot in outside if all(module is head for module, _ in slot.homes)]
        self._loader.load(slot for slot in outside if slot not in self._head)
        self._outer = OuterState(self.model, self._modules)

    def find_parameters(self, places: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """Returns the names of some tensors' parameters in the model.

        Args:
            places: By any name those of the tensors in the files.

        Raises:
            ValueError: When one is not of the model.
        """
        if odd := [name for name, parts in places.items() if not self._names.keys() >= set(parts)]:
            raise ValueError(
                f"there must be weights of {type(self.model).__name__} only, but {list_names(odd)} are not; leave them "
                "out with exclude=, or was a mask made for another model?"
            )
        return {name: self._names[parts[0]] for name, parts in places.items()}

    def walk(self) -> Iterator[str]:
        """Yields the name of each layer while its weights are in memory; `carry` must then be called once."""
        for number, (name, module) in enumerate(zip(self.layers, self._modules, strict=True)):
            self._position = number
            with _computing():
                self._loader.load(self._inside[number])
            stub = module.__dict__.pop("forward")
            hooks = [
                module.register_forward_pre_hook(self._check_call, with_kwargs=True),
                module.register_forward_hook(_stop),
            ]
            yield name
            for hook in hooks:
                hook.remove()
            module.forward = stub
            let_go(self._inside[number])

    def carry(self, run: Forward | None = None) -> None:
        """Runs all batches through the layer at hand, and keeps what it gives.

        Args:
            run: Runs the model on a batch, as `forward` does, for those who look on.
        """
        with _computing():
            for number, batch in enumerate(Replay(self._batches, self._turn_to)):
                output = self._reach(run or self._forward, batch)
                if _has_nan(output):
                    self._check_independence(partial(self._reach, self._forward, batch))
                self._carried[number] = output

    @contextlib.contextmanager
    def at_the_end(self) -> Iterator["Replay"]:
        """Within the block, after all layers, the model can be run on the batches that it gives, once each."""
        self._position = len(self.layers)
        with _computing():
            self._loader.load(self._head)
            yield Replay(self._batches, self._turn_to)
        let_go(self._head)

    def check_end(self, compute: Callable[[], float | None]) -> None:
        """Raises where a loss that is not finite comes from what layers further back gave."""
        self._check_independence(compute)

    def _turn_to(self, number: int) -> None:
        if not number:
            self._outer.put_back()
        self._batch, self._next = number, 0

    def _reach(self, run: Forward, batch: Any) -> Any:  # noqa: ANN401 - any batch, any output
        self._next = 0
        try:
            run(self.model, batch)
        except _ReachedError as reached:
            return reached.output
        raise ValueError(
            f"{type(self.model).__name__} must call each of its layers to be streamed, but leaves out "
            f"{self.layers[self._position]}; load it into memory"
        )

    def _make_stub(self, number: int) -> Callable[..., Any]:
        """Returns what stands for a layer that has been run: it hands on its output, or fills in."""

        def hand_on(*_: object, **__: object) -> Any:  # noqa: ANN401 - as the layer's
            self._count(number)
            carried = self._carried[self._batch]
            return carried if number == self._position - 1 else map_leaves(carried, self._fill)

        return hand_on

    def _fill(self, leaf: object) -> object:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf.new_full((), self._filler).expand(leaf.shape)
        return leaf

    def _count(self, number: int) -> None:
        if number != self._next:
            raise ValueError(
                f"{type(self.model).__name__} must call its layers once each, in order, to be streamed, but calls "
                f"{self.layers[number]} where {self.layers[min(self._next, len(self.layers) - 1)]} was due; "
                "load it into memory"
            )
        self._next += 1

    def _check_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._count(self._modules.index(module))
        for value in (*args, *kwargs.values()):
            if not _is_plain(value):
                raise ValueError(
                    f"the layers of {type(self.model).__name__} must be handed tensors and numbers to be streamed, but "
                    f"get a {type(value).__name__}, in which one may leave something for another; load it into memory"
                )

    def _check_independence(self, compute: Callable[[], Any]) -> None:
        """Raises where NaN goes away once what layers further back gave is filled with zeros."""
        self._filler = 0.0
        try:
            again = compute()
        finally:
            self._filler = torch.nan
        if again is not None and not _has_nan(again):
            raise ValueError(
                f"{type(self.model).__name__} must use of its layers' outputs only that of the layer before to be "
                f"streamed, but uses others too; load it into memory"
            )

    def _find_layer(self, slot: Slot) -> str | None:
        """Returns the one layer that a tensor is of; None where it is of none, or of several."""
        owners = {next((layer for layer in self.layers if name.startswith(f"{layer}.")), None) for name in slot.names}
        return owners.pop() if len(owners) == 1 else None


@final
class OuterState:
    """What modules outside of the layers hold beside weights, as it was before the first batch.

    Some models remember: dynamic rotary embeddings the longest batch so far. So each pass begins anew.

    Args:
        model: With its weights outside of the layers.
        layers: Its layers.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        inner = {module for layer in layers for module in layer.modules()}
        self._kept = [
            (module, dict(vars(module)), {key: _copy(buffer) for key, buffer in module._buffers.items()})  # noqa: SLF001 - all of them
            for module in model.modules()
            if module not in inner
        ]

    def put_back(self) -> None:
        """Makes it what it was."""
        for module, attributes, buffers in self._kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.update({key: _copy(buffer) for key, buffer in buffers.items()})  # noqa: SLF001 - as above


@final
class Replay:
    """Batches for the model, which takes each for the one that is given last.

    Args:
        batches: In order.
        turn_to: Called with the number of the one that comes next.
    """

    def __init__(self, batches: Sequence[Any], turn_to: Callable[[int], None]) -> None:
        self._batches = batches
        self._turn_to = turn_to

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._batches):
            self._turn_to(number)
            yield batch


def find_layers(model: nn.Module) -> tuple[list[str], list[nn.Module]]:
    """Returns the layers of a decoder by name: the longest list of modules of kinds that must not be split.

    Raises:
        ValueError: When there is none, or a layer stands in it twice.
    """
    kinds: set[str] = set(getattr(model, "_no_split_modules", None) or ())
    lists = [
        (path, list(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and {type(item).__name__ for item in module} <= kinds
    ]
    if not lists:
        raise ValueError(
            f"{type(model).__name__} must have a list of decoder layers to be streamed, but none is found; load "
            "it into memory"
        )
    path, modules = max(lists, key=lambda found: len(found[1]))
    if len(set(map(id, modules))) < len(modules):
        raise ValueError(
            f"{type(model).__name__} must have other layers at each place to be streamed, but repeats some; load it "
            "into memory"
        )
    return [f"{path}.{number}" for number in range(len(modules))], modules


@contextlib.contextmanager
def _computing() -> Iterator[None]:
    """Within the block a model runs uncompiled and without gradients, whatever the caller has set."""
    with uncompiled(), torch.inference_mode(mode=False), torch.no_grad():
        yield


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for key, buffer in module._buffers.items():  # noqa: SLF001 - `to` would refuse what is on the meta device
            if buffer is not None and not buffer.is_meta:
                module._buffers[key] = buffer.to(device)  # noqa: SLF001 - as above


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.clone()


def _stop(module: nn.Module, args: object, output: Any) -> None:  # noqa: ANN401, ARG001 - torch's signature
    raise _ReachedError(output)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    # A cache is made anew for each pass, with a place for each layer; who looks into that of another finds nothing.
    return isinstance(value, PLAIN) or any(kind.__name__ == "Cache" for kind in type(value).__mro__)


def _has_nan(output: Any) -> bool:  # noqa: ANN401 - any output, or a number
    if isinstance(output, float):
        return output != output  # noqa: PLR0124 - what is NaN
    return any(bool(tensor.isnan().any()) for tensor in find_tensors(output) if tensor.is_floating_point())

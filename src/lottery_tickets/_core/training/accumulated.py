"""AdamW over the summed gradients of a batch's pieces: memory for every gradient and two numbers of state a weight."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.reading import Form, check_form, show
from lottery_tickets._core.sharding.dtensors import is_sharded

FULL_BITS = 32
SETTING: Final[Form] = (float, bool, str, None, list, tuple)
STATE_FORM: Final[Form] = {"state": {...: {...: (Tensor, float, None)}}, "param_groups": [{...: SETTING}]}


@final
class AccumulatedAdamW:
    """`torch.optim.AdamW`, or that of bitsandbytes, stepped once a batch.

    Args:
        parameters: By name.
        learning_rate: Above 0.
        weight_decay: Decoupled.
        norm_l1: Times the sign of the weights in `norm_names`, added to their gradient.
        norm_names: Which ones have the L1 penalty.
        bits: Of each number of the state, 32 or 8.

    Raises:
        ModuleNotFoundError: 8 bits without bitsandbytes.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float = 0.01,
        norm_l1: float = 0.0,
        norm_names: AbstractSet[str] = frozenset(),
        bits: int = FULL_BITS,
    ) -> None:
        self.norm_l1 = norm_l1
        self.norms = [parameters[name] for name in sorted(norm_names)]
        weights = list(parameters.values())
        self._is_full = bits == FULL_BITS  # others pack their state
        if self._is_full:
            # torch computes many weights in one call where they lie on one mesh, which some of a model may not do.
            is_plain = not any(map(is_sharded, weights))
            is_fused = is_plain and all(weight.device.type in {"cpu", "cuda"} for weight in weights)
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                weights, learning_rate, weight_decay=weight_decay, fused=is_fused, foreach=None if is_plain else False
            )
        else:
            self.optimizer = _import_adamw_8bit()(weights, lr=learning_rate, weight_decay=weight_decay)

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Needs no hooks: the step comes after the backward pass."""
        yield

    def backward(self, loss: Tensor, share: float) -> None:
        """Adds the gradient of a part of a batch, with its share in (0, 1] of the batch."""
        (loss if share == 1 else loss * share).backward()

    @torch.no_grad()
    def finish_batch(self) -> None:
        """Steps, and lets the gradients go."""
        for weight in self.norms:
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=self.norm_l1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def drop_batch(self) -> None:
        """Lets the gradients go without a step."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Returns the optimizer's `state_dict` as a copy on the CPU."""
        copied: dict[str, Any] = _copy_to_cpu(self.optimizer.state_dict())
        return copied

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state()` returned.

        Raises:
            ValueError: When it is of other parameters.
        """
        check_form(state, STATE_FORM, "the saved optimizer")
        [group] = own = self.optimizer.state_dict()["param_groups"]
        if state["param_groups"] != own or not state["state"].keys() <= {*group["params"]}:
            raise ValueError(f"the saved optimizer must be of {show(own)}, but is of {show(state['param_groups'])}")
        for number, weight in enumerate(self.optimizer.param_groups[0]["params"]):
            self._check_shapes(state["state"].get(number, {}), weight.shape)
        self.optimizer.load_state_dict(_copy_to_cpu(dict(state)))

    def _check_shapes(self, saved: Mapping[str, Any], shape: torch.Size) -> None:
        for name, value in saved.items():
            if self._is_full and isinstance(value, Tensor) and value.ndim and value.shape != shape:
                raise ValueError(
                    f"the saved {name} must have shape {tuple(shape)} like its weight, but has {tuple(value.shape)}"
                )


def _copy_to_cpu(value: Any) -> Any:  # noqa: ANN401 - the tree of an optimizer's state
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_copy_to_cpu(item) for item in value)
    return value


def _import_adamw_8bit() -> Callable[..., torch.optim.Optimizer]:
    try:
        found: Callable[..., torch.optim.Optimizer] = importlib.import_module("bitsandbytes").optim.AdamW8bit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "adamw_bits=8 needs bitsandbytes, which is not installed; run `pip install bitsandbytes`, or use 32"
        ) from error
    return found

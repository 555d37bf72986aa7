"""A model run with other values in place of its parameters, made where they are read and let go after: none is written.

Each torch function that is handed one of the parameters gets a stand-in, which lives as long as the function needs it.
So without gradients the extra memory is that of the largest parameter, and there is nothing to put back afterwards.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Asking a parameter about itself reads none of its values.
METADATA = frozenset(
    {"size", "dim", "numel", "stride", "is_floating_point", "is_complex", "data_ptr", "element_size", "get_device"}
    | {"is_contiguous", "__len__", "__hash__", "untyped_storage", "nelement", "ndimension", "storage_offset"}
)
VIEWS = frozenset({"data", "T", "mT", "H", "mH"})  # attributes that do read values


@final
class ReplacedReads(TorchFunctionMode):
    """Hands every torch function a stand-in for some parameters.

    Args:
        parameters: By name, those that are replaced.
        make_stand_in: Given a name and its parameter, returns what is read in its place: same shape, dtype and device.
        purpose: How the error for a write to a replaced parameter begins, such as "masked() is for measuring".

    Raises:
        RuntimeError: When something inside changes a replaced parameter in place.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        make_stand_in: Callable[[str, nn.Parameter], Tensor],
        *,
        purpose: str,
    ) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._make_stand_in = make_stand_in
        self._purpose = purpose

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        kwargs = kwargs or {}
        if not _reads_values(func):
            return func(*args, **kwargs)
        stand_ins: dict[int, Tensor] = {}
        new_args, new_kwargs = self._replace(args, stand_ins), self._replace(kwargs, stand_ins)
        name = func.__name__
        # torch ends the names of functions that write in place with one underscore.
        if stand_ins and (
            name == "__set__" or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None
        ):
            changed = [self._names[i] for i in stand_ins]
            raise RuntimeError(f"{self._purpose}: nothing may change {changed} inside it, but {name} would")
        return func(*new_args, **new_kwargs)

    def _replace(self, value: Any, stand_ins: dict[int, Tensor]) -> Any:  # noqa: ANN401 - any argument
        if isinstance(value, nn.Parameter) and id(value) in self._names:
            if id(value) not in stand_ins:
                stand_ins[id(value)] = self._make_stand_in(self._names[id(value)], value)
            return stand_ins[id(value)]
        if type(value) in (tuple, list):  # not their kin, such as torch.Size, which hold no parameters
            return type(value)(self._replace(item, stand_ins) for item in value)
        if type(value) is dict:
            return {key: self._replace(item, stand_ins) for key, item in value.items()}
        return value


def _reads_values(func: Callable[..., Any]) -> bool:
    if func.__name__ == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in VIEWS
    return func.__name__ not in METADATA

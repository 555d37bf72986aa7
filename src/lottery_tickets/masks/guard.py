"""What sees that a mask is held: hooks on the modules of a model.

Writes outside of a step of torch's optimizers (another optimizer, `p.data = ...`, `vector_to_parameters`, averages that
are written back) are caught where weights are next used: before a forward pass, of the model or of any part of it that
is called alone, and before a state dict is taken.
"""

from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.sharding.dtensors import is_sharded
from lottery_tickets._core.sharding.fsdp import find_gathered, list_gathered
from lottery_tickets.masks.holder import HeldWeight, Holder

HOOKS: Final = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@final
class Guard:
    """Looks at the held weights inside of one module, which hands itself to the hooks.

    Args:
        holder: What holds the mask.
        depth: How many modules of the model are around it.
        is_root: Whether the module is the model itself, within what is wrapped around it.
        paths: The path from the module to each held parameter inside of it, by its name in the mask.
    """

    def __init__(self, holder: Holder, *, depth: int, is_root: bool, paths: dict[str, str]) -> None:
        self.holder = holder
        self.depth = depth
        self.is_root = is_root
        self.routes = tuple((name, *_split(path)) for name, path in paths.items())

    def before_forward(self, module: nn.Module, _inputs: object) -> None:
        """Settles what lies inside, unless a module around this one has done so."""
        if self._is_outermost():
            self.settle(module)
            self.holder.inside.guard = self

    def before_leaf(self, module: nn.Module, _inputs: object) -> None:
        """As `before_forward`, for a module that has none inside, and so need not say when it is done."""
        if self._is_outermost():
            self.settle(module)

    def after_forward(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        """Says that the thread is inside no longer; also after an exception."""
        if not torch.compiler.is_compiling() and self.holder.inside.guard is self:
            self.holder.inside.guard = None

    def before_saving(self, module: nn.Module, prefix: str, _keep_vars: object) -> None:
        """Settles what lies inside, before a state dict is taken."""
        if not prefix:  # the outermost
            self.settle(module)

    def after_loading(self, module: nn.Module, _incompatible_keys: object) -> None:
        """After load_state_dict, which may have put other values in place or other parameters (`assign=True`)."""
        found = {name: _walk(module, owners, attribute) for name, owners, attribute in self.routes}
        self.holder.attach(
            {name: parameter for name, parameter in found.items() if isinstance(parameter, nn.Parameter)}
        )

    def _is_outermost(self) -> bool:
        if torch.compiler.is_compiling():  # compiled code has no hooks of ours; the backward pass looks for it
            return False
        around = self.holder.inside.guard
        # A forward pass that was interrupted (KeyboardInterrupt) never said that it was done.
        return around is None or self.depth <= around.depth

    def settle(self, module: nn.Module) -> None:
        """Zeroes the pruned weights inside the module.

        Raises:
            RuntimeError: When a held parameter is no longer the one that the module computes with.
        """
        if not self.holder.is_held:
            return
        weights, before_gradients = self.holder.weights, torch.is_grad_enabled()
        for name, owners, attribute in self.routes:
            held = weights[name]
            found = _walk(module, owners, attribute)
            if found is held.parameter:
                held.settle()
                held.was_seen |= before_gradients
            elif _is_held_otherwise(module, found, held):
                held.settle()
                held.was_seen |= before_gradients
                _check_parametrisation(module, owners, attribute, held)

    def list_leaks(self, module: nn.Module) -> list[str]:
        """Returns, in words, which pruned weights and gradients inside the module are not what they must be.

        Raises:
            RuntimeError: As `settle`.
        """
        leaks = []
        for name, owners, attribute in self.routes:
            held = self.holder.weights[name]
            found = _walk(module, owners, attribute)
            if found is not held.parameter and not _is_held_otherwise(module, found, held):
                continue
            held.check_shape()
            gradient = held.parameter.grad
            tensors = {repr(name): held.see_strays(held.parameter)}
            tensors |= {} if gradient is None else {f"the gradient of {name!r}": held.see_own(gradient.detach())}
            for label, local in tensors.items():
                if held.places.any_nonzero(local):
                    bits = self.holder.mask.bits[name].to(local.device)
                    pruned = ~unpack_bits(bits, local.shape)
                    leaks.append(f"{int(local[pruned].count_nonzero())} of {int(pruned.sum())} in {label} are not")
            if found is not held.parameter and not leaks:
                _check_parametrisation(module, owners, attribute, held)
        return leaks


def hang_guards(model: nn.Module, holder: Holder) -> None:
    """Hangs guards on a model, on what torch.compile and data parallelism wrapped around it, and on its parts."""
    inner = unwrap(model)
    first = bool(list_gathered(inner))  # FSDP, whose hooks gather what the guards must have zeroed before
    paths = {
        path: clean_name(path.removeprefix(_prefix_of(model, inner)))
        for path, _ in model.named_parameters(remove_duplicate=False)
    }
    for raw_prefix, module in model.named_modules(remove_duplicate=False):
        start = f"{raw_prefix}." if raw_prefix else ""
        names = {name: path.removeprefix(start) for path, name in paths.items() if path.startswith(start)}
        held = {name: path for name, path in names.items() if name in holder.mask}
        if held:
            depth = raw_prefix.count(".") + bool(raw_prefix)
            guard = Guard(holder, depth=depth, is_root=module is inner, paths=held)
            if any(True for _ in module.children()):
                module.register_forward_pre_hook(guard.before_forward, prepend=first)
                module.register_forward_hook(guard.after_forward, always_call=True)
            else:
                module.register_forward_pre_hook(guard.before_leaf, prepend=first)
            module.register_state_dict_pre_hook(guard.before_saving)
            module.register_load_state_dict_post_hook(guard.after_loading)


def find_guard(model: nn.Module) -> Guard | None:
    """Returns the guard of the mask that is held on this model itself; None when none is."""
    found = (getattr(hook, "__self__", None) for hook in unwrap(model)._load_state_dict_post_hooks.values())  # noqa: SLF001 - torch offers no way to list hooks
    return next((guard for guard in found if isinstance(guard, Guard) and guard.is_root), None)


def take_guards_off(model: nn.Module, holder: Holder) -> None:
    """Takes the guards of a holder off a model, wherever they hang."""
    for module in model.modules():
        for label in HOOKS:
            hooks = getattr(module, label)
            for key, hook in list(hooks.items()):
                guard = getattr(hook, "__self__", None)
                if isinstance(guard, Guard) and guard.holder is holder:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)  # noqa: SLF001 - as above


def _split(path: str) -> tuple[tuple[str, ...], str]:
    *owners, attribute = path.split(".")
    return tuple(owners), attribute


def _walk(module: nn.Module, owners: tuple[str, ...], attribute: str) -> Tensor | None:
    """Returns what a module computes with under a path; None when that is no parameter."""
    for part in owners:
        inner = module._modules.get(part)  # noqa: SLF001 - get_submodule takes ten times as long
        if inner is None:
            return None
        module = inner
    return module._parameters.get(attribute)  # noqa: SLF001 - as above


def _is_held_otherwise(module: nn.Module, found: Tensor | None, held: HeldWeight) -> bool:
    """Returns whether a held parameter that is not where it was is somewhere else; False where it is lent for a call.

    Raises:
        RuntimeError: When it is not in the module any more.
    """
    is_lent = found is not None and not isinstance(found, nn.Parameter)  # functional_call hands tensors in
    if is_lent or getattr(module, "_is_replica", False):  # and so does data parallelism
        return False
    if is_sharded(held.parameter) and found is find_gathered(module, held.parameter):
        return True
    if all(parameter is not held.parameter for parameter in module.parameters()):
        message = (
            f"{held.name!r} is held to a mask, but the model now computes with another parameter: it was replaced, "
            "converted to a new one or parametrised (weight_norm), and optimizers made before step the old one; call "
            "hold_mask again, with the names that named_parameters() has now, or hand in tensors that are no parameters"
        )
        raise RuntimeError(message)
    return True


def _check_parametrisation(module: nn.Module, owners: tuple[str, ...], attribute: str, held: HeldWeight) -> None:
    """Raises where a weight is computed from the held one so that it is not zero at pruned places."""
    owner = module
    for part in owners:
        owner = unwrap(owner._modules.get(part) or owner)  # noqa: SLF001 - as above
    if not parametrize.is_parametrized(owner, attribute):
        return
    computation: Any = owner.get_submodule(f"parametrizations.{attribute}")
    modes = [(part, part.training) for part in computation.modules()]
    computation.eval()  # spectral_norm counts calls while it trains
    try:
        with torch.no_grad():
            leaks = held.places.any_nonzero(held.see_strays(computation()))
    finally:
        for part, training in modes:
            part.training = training
    if leaks:
        message = (
            f"the pruned weights of {held.name!r} must be what they are held to, but its parametrisation makes others "
            "of them; use one that keeps zeros, or remove it (torch.nn.utils.parametrize.remove_parametrizations)"
        )
        raise RuntimeError(message)


def _prefix_of(model: nn.Module, inner: nn.Module) -> str:
    """Returns what stands before the names of the inner model where the outer one names them."""
    return next(f"{name}." if name else "" for name, module in model.named_modules() if module is inner)

"""Which weights of a model are pruned: by kind of module, or as the caller says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from lottery_tickets._core.names import clean_name, identify, unwrap
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.weights import Weights, WeightSource

Choice = str | type[nn.Module]
Choices = Choice | Sequence[Choice]

PARALLEL_PREFIX: Final = "module."
ATTENTION_WEIGHTS: Final = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
# Fused experts that store (expert, input, output); all others in transformers store (expert, output, input).
TRANSPOSED_EXPERTS: Final = ("GptOss", "Llama4")
HEAD_NAME: Final = "lm_head"
# A state dict has names only: these parts of a name say that a matrix is no linear or convolution weight.
OTHER_PARTS_OF_NAMES: Final = ("embed", "wte", "wpe", "norm", HEAD_NAME)
MOST_NAMES_LISTED: Final = 20


@final
class _Candidate:
    """A parameter by all its names, with its owners' types and, if it is of a prunable kind, its output dimensions."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.names: list[str] = []
        self.owners: list[nn.Module] = []
        self.output_dims: tuple[int, ...] | None = None
        self.is_default = False
        self.derived = False

    @property
    def name(self) -> str:
        return self.names[0]

    def matches(self, choice: Choice) -> bool:
        if isinstance(choice, str):
            return any(fnmatchcase(name, choice) or fnmatchcase(name, f"{choice}.*") for name in self.names)
        return any(isinstance(owner, choice) for owner in self.owners)


def find_prunable_weights(
    model_or_weights: nn.Module | Mapping[str, Tensor] | WeightSource,
    *,
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> Weights:
    """Returns the weights that are pruned, by name, in the order of `model.named_parameters()`.

    By default these are the weights of Linear and convolution modules, of transformers' `Conv1D`, the projections of
    `MultiheadAttention`, and fused expert tensors (3-D parameters of a module whose class name contains "Experts").
    Never biases, norms, embeddings, nor a language-model head: what `get_output_embeddings()` returns, a module named
    `lm_head`, or a weight shared with an embedding. Shared parameters count once, under their first name. Frozen ones
    count, because pruning needs no gradient.

    Args:
        model_or_weights: A model, a source such as a checkpoint, or a mapping such as a state dict. Of a mapping, the
            floating-point tensors of two or more dimensions named `*weight` (or lying in `experts`) are taken, but for
            those whose name says embedding, norm or head. Their first dimension is taken for the outputs.
        include: Replaces the default choice. A parameter's or module's name, a glob pattern or a module type, or
            several of them; a module stands for all it contains. Each picks prunable kinds where it matches any (heads
            included), else every floating-point parameter that it matches.
        exclude: Removes from the choice; as `include`, but for any parameter.

    Raises:
        TypeError: When the first argument is neither a model nor a mapping of tensors.
        ValueError: When a pattern matches nothing, nothing is left to prune, or a chosen weight cannot be ranked: it is
            complex, not floating-point, not initialised, on the meta device, or computed by a parametrisation.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
        >>> list(find_prunable_weights(model))
        ['0.weight', '2.weight']
        >>> list(find_prunable_weights(model, exclude="2"))
        ['0.weight']
    """
    if isinstance(model_or_weights, WeightSource):
        return model_or_weights.find_prunable(include, exclude)
    chosen = _choose(_find_candidates(model_or_weights), include, exclude)
    for candidate in chosen:
        _check_on_hand(candidate)
        _check_rankable(candidate)
    return _view(chosen)


def choose_stored(
    stored: Mapping[str, Tensor], model: nn.Module | None, include: Choices | None, exclude: Choices | None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns which of a checkpoint's tensors are pruned: by the model's name that of the tensor, and its output dims.

    Args:
        stored: By name tensors of the stored shapes and dtypes, on the meta device.
        model: The model that they are of, on any device. Tensors that it does not know, and all without it, are chosen
            by their names.
        include: As in `find_prunable_weights`.
        exclude: Likewise.

    Raises:
        ValueError: As `find_prunable_weights`, and when the model's shapes are others.
    """
    known: list[_Candidate] = []
    places: dict[str, str] = {}
    for candidate in _candidates_of_model(unwrap(model)) if model is not None else ():
        place = next((name for name in candidate.names if name in stored), None)
        if place is None:
            continue
        if stored[place].shape != candidate.tensor.shape:
            raise ValueError(
                f"{place!r} must have the shape {tuple(candidate.tensor.shape)} that the configuration says, but has "
                f"{tuple(stored[place].shape)}; are configuration and weights of one model?"
            )
        candidate.tensor = stored[place]
        known.append(candidate)
        places |= dict.fromkeys(candidate.names, place)
    others: dict[object, object] = {name: tensor for name, tensor in stored.items() if name not in places}
    chosen = _choose([*known, *_candidates_of_mapping(others)], include, exclude)
    for candidate in chosen:
        _check_rankable(candidate)
    return {found.name: (places.get(found.name, found.name), found.output_dims or (0,)) for found in chosen}


def find_channel_scales(model: nn.Module, *, include: Choices | None = None, exclude: Choices | None = None) -> Weights:
    """Returns the scales of a model's batch norms by name: one number a channel.

    Args:
        model: The model.
        include: Replaces the choice, as in `find_prunable_weights`.
        exclude: Removes from it.

    Raises:
        ValueError: When the model has no batch norm, or as `find_prunable_weights`.
    """
    inner = unwrap(model)
    norms = [
        clean_name(f"{name}.weight").lstrip(".")
        for name, module in inner.named_modules()
        if isinstance(module, _BatchNorm) and module.affine
    ]
    if include is None and not norms:
        raise ValueError(
            "channels are ranked by the scales of batch norm, but the model has none; rank weights with channels=False"
        )
    return find_prunable_weights(model, include=include if include is not None else norms, exclude=exclude)


def find_filtered_weights(
    model: nn.Module, *, include: Choices | None = None, exclude: Choices | None = None
) -> Weights:
    """Returns the floating-point parameters of two or more dimensions by name: those that consist of filters.

    The filters are numbered by `output_dims`: the outputs of linear and convolution weights of any kind, and the first
    dimension of others, such as embeddings. Shared parameters count once, under their first name.

    Args:
        model: The model.
        include: Restricts the choice: names, glob patterns or module types.
        exclude: Removes from the choice.

    Raises:
        ValueError: When nothing is left, or a chosen weight is not initialised, on the meta device or not dense.
    """
    candidates = [found for found in _find_candidates(model) if not found.derived]
    included, excluded = _listed("include", include), _listed("exclude", exclude)
    for argument, choices in (("include", included), ("exclude", excluded)):
        for choice in choices:
            _check_matched(argument, choice, candidates)
    chosen = [
        found
        for found in candidates
        if (_is_lazy(found.tensor) or (found.tensor.ndim > 1 and found.tensor.is_floating_point()))
        and (include is None or any(found.matches(choice) for choice in included))
        and not any(found.matches(choice) for choice in excluded)
    ]
    if not chosen:
        raise ValueError(
            "there must be a weight of two or more dimensions, but none is left; name parameters with include=, there "
            f"are {_enumerate(candidates)}"
        )
    for found in chosen:
        _check_on_hand(found)
        _check_rankable(found)
    return _view(chosen)


def find_output_dims(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns for each parameter the dimensions that number its outputs: those of its kind of layer, or the first."""
    return {found.name: found.output_dims or (0,) for found in _find_candidates(model)}


def _choose(candidates: list[_Candidate], include: object, exclude: object) -> list[_Candidate]:
    chosen = [candidate for candidate in candidates if candidate.is_default]
    if include is not None:
        chosen = _included(candidates, _listed("include", include))
    for choice in _listed("exclude", exclude):
        _check_matched("exclude", choice, candidates)
        chosen = [candidate for candidate in chosen if not candidate.matches(choice)]
    if not chosen:
        raise ValueError(
            "there must be a weight to prune, but no Linear or convolution weight is left; "
            f"name parameters with include=, there are {_enumerate(candidates)}"
        )
    return chosen


def _view(chosen: Iterable[_Candidate]) -> Weights:
    listed = list(chosen)
    return Weights.from_tensors(
        {found.name: found.tensor for found in listed}, {found.name: found.output_dims or (0,) for found in listed}
    )


def _find_candidates(given: object) -> list[_Candidate]:
    if isinstance(given, nn.Module):
        inner = unwrap(given)
        reshard(inner)
        return _candidates_of_model(inner)
    if isinstance(given, Mapping):
        return _candidates_of_mapping(given)
    raise TypeError(f"the model must be a torch.nn.Module or a mapping of tensors by name, got {type(given).__name__}")


def _candidates_of_model(model: nn.Module) -> list[_Candidate]:
    modules = {
        clean_name(f"{name}.").rstrip("."): module for name, module in model.named_modules(remove_duplicate=False)
    }
    candidates: dict[object, _Candidate] = {}
    by_name: dict[str, _Candidate] = {}
    for raw_name, parameter in model.named_parameters(remove_duplicate=False):
        name = clean_name(raw_name)
        candidate = candidates.setdefault(identify(parameter), _Candidate(parameter))
        candidate.names.append(name)
        candidate.owners += [modules[prefix] for prefix in _prefixes(name)]
        by_name[name] = candidate
    reserved = {identify(tensor) for tensor in _embeddings_and_heads(modules)}
    for prefix, module in modules.items():
        for local_name, output_dims in _prunable_kinds(module):
            name = f"{prefix}.{local_name}".lstrip(".")
            found = by_name.get(name) or _derived(module, local_name, name, [modules[p] for p in _prefixes(name)])
            if found is None:
                continue
            if found.derived:
                candidates[name] = found
            found.output_dims = output_dims
            found.is_default = identify(found.tensor) not in reserved
    return list(candidates.values())


def _prunable_kinds(module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the local name and the output dimensions of each weight of a prunable kind."""
    class_name = type(module).__name__
    if isinstance(module, _ConvTransposeNd) or class_name == "Conv1D":
        yield "weight", (1,)
    elif isinstance(module, nn.Linear | _ConvNd):
        yield "weight", (0,)
    elif isinstance(module, nn.MultiheadAttention):
        yield from ((name, (0,)) for name in ATTENTION_WEIGHTS)
    elif "Experts" in class_name:
        transposed = getattr(module, "is_transposed", False) or class_name.startswith(TRANSPOSED_EXPERTS)
        for name, parameter in module.named_parameters(recurse=False):
            if not _is_lazy(parameter) and parameter.ndim == 3:  # noqa: PLR2004 - expert, output, input
                yield name, (0, 2) if transposed else (0, 1)


def _derived(module: nn.Module, local_name: str, name: str, owners: list[nn.Module]) -> _Candidate | None:
    """Returns a candidate for a weight that is computed from parameters, so that choosing it is refused by name."""
    tensor = getattr(module, local_name, None)
    if not isinstance(tensor, Tensor) or local_name in module._parameters:  # noqa: SLF001 - there is no public way
        return None
    candidate = _Candidate(tensor)
    candidate.names, candidate.owners, candidate.derived = [name], owners, True
    return candidate


def _embeddings_and_heads(modules: Mapping[str, nn.Module]) -> Iterator[Tensor]:
    for name, module in modules.items():
        head: object = None
        # Looked for at the type first, because a module takes long to say that it has no such attribute.
        has_head = hasattr(type(module), "get_output_embeddings")
        get_head: object = getattr(module, "get_output_embeddings", None) if has_head else None
        if callable(get_head):
            # Some base models of transformers have the method but no head.
            with suppress(NotImplementedError, AttributeError):
                head = get_head()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield module.weight
        if HEAD_NAME in name.split("."):
            yield from module.parameters(recurse=False)
        if isinstance(head, nn.Module):
            yield from head.parameters()


def _candidates_of_mapping(weights: Mapping[object, object]) -> list[_Candidate]:
    candidates: dict[object, _Candidate] = {}
    parallel = bool(weights) and all(str(name).startswith(PARALLEL_PREFIX) for name in weights)
    for raw_name, tensor in weights.items():
        if not isinstance(raw_name, str) or not isinstance(tensor, Tensor):
            kinds = f"{type(raw_name).__name__} to {type(tensor).__name__}"
            raise TypeError(f"a mapping of weights must map names to tensors, got {kinds} for {raw_name!r}")
        name = clean_name(raw_name.removeprefix(PARALLEL_PREFIX) if parallel else raw_name)
        candidate = candidates.setdefault(identify(tensor), _Candidate(tensor))
        candidate.names.append(name)
    for candidate in candidates.values():
        if _looks_prunable(candidate):
            candidate.output_dims = (0, 1) if _in_experts(candidate.name) and candidate.tensor.ndim == 3 else (0,)  # noqa: PLR2004 - expert, output, input
        candidate.is_default = candidate.output_dims is not None and not any(
            part in name.lower() for name in candidate.names for part in OTHER_PARTS_OF_NAMES
        )
    return list(candidates.values())


def _looks_prunable(candidate: _Candidate) -> bool:
    tensor, name = candidate.tensor, candidate.name
    is_matrix = not _is_lazy(tensor) and tensor.ndim > 1 and tensor.is_floating_point()
    return is_matrix and (name.endswith("weight") or _in_experts(name))


def _is_lazy(tensor: Tensor) -> bool:
    return bool(is_lazy(tensor))


def _in_experts(name: str) -> bool:
    return "experts" in name.split(".")


def _prefixes(name: str) -> list[str]:
    """Returns the names of the modules that hold a parameter, from its own to the root, which is ''."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _included(candidates: list[_Candidate], choices: Iterable[Choice]) -> list[_Candidate]:
    wanted: set[int] = set()
    for choice in choices:
        _check_matched("include", choice, candidates)
        matching = [candidate for candidate in candidates if candidate.matches(choice)]
        of_a_kind = [candidate for candidate in matching if candidate.output_dims is not None]
        wanted |= {id(candidate) for candidate in of_a_kind or matching}
    return [candidate for candidate in candidates if id(candidate) in wanted]


def _listed(argument: str, choices: object) -> list[Choice]:
    if choices is None:
        return []
    listed: list[object] = [choices]
    if isinstance(choices, Iterable) and not isinstance(choices, str | type):
        listed = list(choices)
    checked: list[Choice] = []
    for choice in listed:
        if not isinstance(choice, str) and not (isinstance(choice, type) and issubclass(choice, nn.Module)):
            raise TypeError(f"{argument} must hold names, glob patterns or module types, got {choice!r}")
        checked.append(choice)
    return checked


def _check_matched(argument: str, choice: Choice, candidates: list[_Candidate]) -> None:
    if not any(candidate.matches(choice) for candidate in candidates):
        shown = repr(choice) if isinstance(choice, str) else choice.__name__
        raise ValueError(f"{argument} must match a parameter, but {shown} matches none of {_enumerate(candidates)}")


def _enumerate(candidates: list[_Candidate]) -> str:
    names = [candidate.name for candidate in candidates]
    more = f" and {len(names) - MOST_NAMES_LISTED} more" if len(names) > MOST_NAMES_LISTED else ""
    return ", ".join(names[:MOST_NAMES_LISTED]) + more if names else "no parameters"


def _check_on_hand(candidate: _Candidate) -> None:
    """Raises where there are no values, or none that could be changed."""
    tensor, name = candidate.tensor, candidate.name
    if candidate.derived:
        raise ValueError(
            f"{name!r} must be a parameter, but it is computed from others; undo that first, with "
            "torch.nn.utils.prune.remove, parametrize.remove_parametrizations or remove_weight_norm"
        )
    if _is_lazy(tensor):
        raise ValueError(f"{name!r} must be initialised, but it is lazy; run one batch through the model first")
    if tensor.device.type == "meta":
        raise ValueError(f"{name!r} must hold values, but it is on the meta device; load the weights first")


def _check_rankable(candidate: _Candidate) -> None:
    tensor, name = candidate.tensor, candidate.name
    if not tensor.is_floating_point():
        raise ValueError(f"{name!r} must be real floating-point, got {tensor.dtype}; leave it out with exclude=")
    if tensor.layout != torch.strided:
        raise ValueError(f"{name!r} must be a dense tensor, got {tensor.layout}; call to_dense() first")

"""What an export knows of the dense network besides its tensors: what its modules compute, such as which activation."""

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypedDict

from torch import nn

from lottery_tickets._core.folders import hash_json
from lottery_tickets._core.identity.bytecode import BYTECODE
from lottery_tickets._core.identity.code import identify_modules
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.reading import list_names
from lottery_tickets.structured.decoders import find_model_type

ARCHITECTURE: Final = "architecture"  # in the provenance of a mask that is packed
DIGITS: Final = 16  # of a digest
LIBRARIES: Final = ("torch", "transformers")
# Of a configuration of transformers: what says nothing of the function.
ELSEWHERE: Final = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")


class Architecture(TypedDict):
    """What a network is besides its tensors.

    Attributes:
        made_by: The versions of what decides how it is told: the compiler of Python, torch, transformers.
        parts: Digests by name: of the configuration's entries for a model of transformers, which is built from them;
            else of each module's class, options, and code where that is the caller's.
    """

    made_by: dict[str, str]
    parts: dict[str, str]


def describe_architecture(model: nn.Module) -> Architecture:
    """Returns what a network is besides its tensors."""
    inner = unwrap(model)
    config: Any = getattr(inner, "config", None)
    if find_model_type(inner) is None:
        parts = identify_modules(inner)
    else:
        told = {name: repr(value) for name, value in config.to_dict().items() if name not in ELSEWHERE}
        parts = {f"config.{name}": hash_json(value)[:DIGITS] for name, value in told.items()}
    return {"made_by": {"python": BYTECODE, **_list_versions()}, "parts": parts}


def check_architecture(model: nn.Module, said: Architecture, where: object) -> None:
    """Raises where a network computes otherwise than that of an export; returns nothing.

    Args:
        model: The network.
        said: Of the export.
        where: What messages call the export.

    Raises:
        ValueError: When parts differ.

    Warns:
        UserWarning: When they seem to differ, but were told by other versions of Python, torch or transformers.
    """
    found, name = describe_architecture(model), type(unwrap(model)).__name__
    names = dict.fromkeys((*said["parts"], *found["parts"]))
    odd = [one or "itself" for one in names if said["parts"].get(one) != found["parts"].get(one)]
    if not odd:
        return
    if said["made_by"] == found["made_by"]:
        raise ValueError(
            f"{where} must be loaded into the network that it was made of, but this {name} differs in what "
            f"{list_names(odd)} computes, such as an activation or a stride; pass one of the dense architecture"
        )
    warnings.warn(
        f"{where} was made with other versions ({_say(said['made_by'])}), and whether it is of this {name} cannot be "
        f"told of {list_names(odd)}; compare outputs",
        stacklevel=3,
    )


def _list_versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _say(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())

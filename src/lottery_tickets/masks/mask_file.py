"""What a file says of the mask in it: a label that is checked before its bits are believed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from lottery_tickets._core.files import parse_json
from lottery_tickets._core.reading import Form, check_form

FORMAT: Final = "lottery-tickets mask 1"
TICKET_FORMAT: Final = "lottery-tickets ticket 1"  # of a file that holds a mask beside weights; see `tickets`
TICKET_PREFIX: Final = "mask."  # of the names of its bits there
METADATA_KEY: Final = "lottery_tickets"
LABEL_FORM: Final[Form] = {"format": str, "content": str, "sha256": str}
CONTENT_FORM: Final[Form] = {"shapes": {...: list}, "provenance": dict}


def is_ticket(metadata: Mapping[str, str]) -> bool:
    """Returns whether the metadata of a safetensors file are a ticket's, as far as its label says."""
    try:
        return bool(parse_json(metadata[METADATA_KEY])["format"] == TICKET_FORMAT)
    except (KeyError, TypeError, ValueError):
        return False


def make_label(
    bits: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], provenance: Mapping[str, Any]
) -> dict[str, str]:
    """Returns what a file says of the bits in it: shapes, provenance and a digest of all three."""
    content = json.dumps({"shapes": shapes, "provenance": provenance}, allow_nan=False)
    return {"format": FORMAT, "content": content, "sha256": digest(content, bits)}


def digest(content: str, bits: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256, in hexadecimal, of names, shapes, provenance and bits."""
    hashed = hashlib.sha256(content.encode())
    for packed in bits.values():
        hashed.update(packed.numpy().data)
    return hashed.hexdigest()


def read_label(
    bits: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Any], Mapping[str, Tensor]]:
    """Returns the label of the mask in a file, a mask's or a ticket's; shapes and provenance from it; and the bits.

    Args:
        bits: The tensors of the file.
        metadata: With our key.

    Raises:
        ValueError: When the label is not of its form.
    """
    label = parse_json(metadata[METADATA_KEY])
    check_form(label, {"format": str, ...: object}, "its label")
    if label["format"] == TICKET_FORMAT:
        check_form(label, {"mask": dict, ...: object}, "its label")
        label = label["mask"]
        bits = {n.removeprefix(TICKET_PREFIX): t for n, t in bits.items() if n.startswith(TICKET_PREFIX)}
    check_form(label, LABEL_FORM, "its label")
    content = parse_json(label["content"])
    check_form(content, CONTENT_FORM, "its content")
    return label, content, bits

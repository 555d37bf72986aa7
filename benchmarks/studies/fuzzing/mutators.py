"""Changes of a file: of its bytes, and of what its format is made of; each drawn from a generator."""

import contextlib
import copy
import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

Change = Callable[[bytes, random.Random], bytes]
Place = tuple[str | int, ...]

# Written as strings first, and put in place of them afterwards: json.dumps writes none of these.
RAW: Final = {
    "<raw 1>": "1e999",
    "<raw 2>": "-1e999",
    "<raw 3>": "9" * 5000,
    "<raw 4>": "[" * 500 + "]" * 500,
    "<raw 5>": "[" * 100_000,
    "<raw 6>": '{"a":' * 3000 + "1" + "}" * 3000,
}
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1.5, 1e308, -1e308, float("nan"), float("inf")),
    *(2**31, 2**40, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400),
    *("", "x", "1", "NaN", "a\nb", "a\x00b", "\ud800", "../../etc/passwd", "x" * 100_000, "{}", "F32"),
    *([], {}, [[]], [{}], {"": None}, [0, -1], [2**40, 2**40], ["x"], {"x": 1}, list(range(300))),
    *RAW,
)
LENGTHS: Final = (0, 1, 7, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


# --------------------------------------------------------------------------------------------------------------- bytes


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.choice((0, 1, 8, len(content) - 1, chance.randrange(len(content) + 1)))]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        changed[_draw_place(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _replace_run(content: bytes, chance: random.Random) -> bytes:
    start, size = _draw_place(content, chance), chance.choice((1, 4, 8, 64, 512))
    run = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size), b"\x7f" * size))
    return content[:start] + run + content[start + size :]


def _duplicate(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted((_draw_place(content, chance), _draw_place(content, chance)))
    return content[:end] + content[start:end] + content[end:]


def _drop(content: bytes, chance: random.Random) -> bytes:
    start = _draw_place(content, chance)
    return content[:start] + content[start + chance.choice((1, 4, 8, 64, 512)) :]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start = _draw_place(content, chance)
    return content[:start] + chance.randbytes(chance.choice((1, 4, 8, 64))) + content[start:]


def _draw_place(content: bytes, chance: random.Random) -> int:
    """Returns a place; half of the time one in the first bytes, where formats say what follows."""
    return chance.randrange(min(len(content), chance.choice((16, 256, len(content), len(content)))))


BYTES: Final[tuple[Change, ...]] = (_cut, _flip, _replace_run, _duplicate, _drop, _insert)


# ---------------------------------------------------------------------------------------------------------------- JSON


def edit_json(content: bytes, chance: random.Random) -> bytes:
    """Returns JSON with some of its values or names changed; also within strings that are JSON themselves."""
    value = json.loads(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        value = _edit(value, chance)
    return _dump(value).encode("utf-8", "surrogatepass")


def _dump(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text


def list_places(value: Any, place: Place = ()) -> Iterator[Place]:  # noqa: ANN401 - JSON is anything
    """Yields where each value stands, outer ones first."""
    yield place
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from list_places(item, (*place, key))


def _edit(value: Any, chance: random.Random) -> Any:  # noqa: ANN401 - JSON is anything
    places = list(list_places(value))
    shallow = [place for place in places if len(place) <= 2]  # noqa: PLR2004 - names that readers ask for
    *outer, key = chance.choice((shallow, places)[chance.randrange(2)]) or ("",)
    if not outer and key == "" and not (isinstance(value, dict) and "" in value):
        return copy.deepcopy(chance.choice(VALUES))
    inner = value
    for step in outer:
        inner = inner[step]
    within = _read_json(inner[key])
    if within is None:
        _change(inner, key, chance, value)
    else:
        inner[key] = _dump(_edit(within, chance))
    return value


def _read_json(value: Any) -> Any:  # noqa: ANN401 - as above
    """Returns the JSON within a text of JSON; None where there is none, or an edit before left none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(value) if isinstance(value, str) and value.startswith("{") else None
    return None


def _change(inner: Any, key: Any, chance: random.Random, whole: Any) -> None:  # noqa: ANN401 - as above
    """Changes one entry of an object or a list, in place."""
    how = chance.choice(("replace", "replace", "drop", "rename", "swap", "graft", "multiply"))
    if how == "drop":
        del inner[key]
    elif how == "rename" and isinstance(inner, dict):
        inner[chance.choice(("x", "", "a\nb", "\ud800", f"{key}s"))] = inner.pop(key)
    elif how == "swap":
        other = chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        inner[key], inner[other] = inner[other], inner[key]
    elif how == "graft":
        grafted = whole
        for step in chance.choice(list(list_places(whole))):
            grafted = grafted[step]
        inner[key] = json.loads(json.dumps(grafted))
    elif how == "multiply" and isinstance(inner[key], list | str):
        inner[key] = inner[key] * chance.choice((0, 2, 50))
    elif how == "multiply" and isinstance(inner[key], int | float):
        inner[key] = inner[key] * chance.choice((-1, 1000, 2**40, 0))
    else:
        inner[key] = copy.deepcopy(chance.choice(VALUES))


# ------------------------------------------------------------------------------------------------ files of many parts


def _edit_header(content: bytes, chance: random.Random) -> bytes:
    """Changes the header of a safetensors file, and its length with it."""
    [length] = struct.unpack("<Q", content[:8])
    header = edit_json(content[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _lie_about_header(content: bytes, chance: random.Random) -> bytes:
    return struct.pack("<Q", chance.choice((*LENGTHS, len(content), len(content) - 8))) + content[8:]


def _edit_member(content: bytes, chance: random.Random) -> bytes:
    """Changes the members of a zip file, with checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = chance.choice([name for name in members if name.endswith("data.pkl")] * 3 + list(members))
    how = chance.choice(("change", "change", "change", "drop", "rename", "swap", "deflate"))
    if how == "change":
        members[name] = chance.choice(BYTES)(members[name] or b"\x00", chance)
    elif how == "drop":
        del members[name]
    elif how == "rename":
        members[chance.choice(("x", f"{name}x", "archive/data.pkl", "../x"))] = members.pop(name)
    elif how == "swap":
        other = chance.choice(list(members))
        members[name], members[other] = members[other], members[name]
    buffer = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if how == "deflate" else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return buffer.getvalue()


def _edit_packed(content: bytes, chance: random.Random) -> bytes:
    return gzip.compress(chance.choice(BYTES)(gzip.decompress(content), chance), mtime=0)


def list_changes(content: bytes) -> list[Change]:
    """Returns the changes that suit a file: those of its format as often as those of its bytes."""
    if content.startswith(b"PK"):
        return [*BYTES, *[_edit_member] * 6]
    if content.startswith(b"\x1f\x8b"):
        return [*BYTES, *[_edit_packed] * 6]
    if content.startswith((b"{", b"[")):
        return [*BYTES, *[edit_json] * 12]
    if len(content) > 9 and content[8:9] == b"{":  # noqa: PLR2004 - where the header of safetensors begins
        return [*BYTES, *[_edit_header] * 9, *[_lie_about_header] * 2]
    return list(BYTES)

"""Where a checkpoint's tensors lie: one safetensors file, or several with an index, in a folder or in a hub's cache."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from lottery_tickets._core.files import read_json
from lottery_tickets._core.reading import check_file, check_form, list_names, show
from lottery_tickets._core.tensor_files.headers import Header
from lottery_tickets._core.tensor_files.shards import Shard

CONFIG: Final = "config.json"
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
LARGE: Final = 0.25  # of the memory: of less, the system keeps what was read
INDEX_FORM: Final = {"weight_map": {...: str}, ...: object}
OTHER_FORMATS: Final = {".gguf": "GGUF, which is quantised", ".bin": "pickles", ".pt": "pickles", ".pth": "pickles"}


@final
@dataclass(frozen=True)
class Layout:
    """A checkpoint's files.

    Attributes:
        folder: With the model's configuration, where there is one; None for a file alone.
        shards: The open files by name, in order of their names.
        model: What the checkpoint is called: the hub's name where it lies in a hub's cache, else that of the folder.
        revision: The commit, where it lies in a hub's cache.
    """

    folder: Path | None
    shards: dict[str, Shard]
    model: str
    revision: str | None

    @property
    def headers(self) -> dict[str, Header]:
        """The headers of the files by name."""
        return {name: shard.header for name, shard in self.shards.items()}

    @property
    def others(self) -> list[Path]:
        """The files beside the shards: configuration, index, tokenizer."""
        files = sorted(self.folder.iterdir()) if self.folder is not None else []
        return [path for path in files if path.is_file() and path.name not in self.shards]


def find_layout(path: str | Path) -> Layout:
    """Returns the files of a checkpoint, opened and checked against its index.

    Args:
        path: A safetensors file; a folder as `save_pretrained` writes it; a model's folder in a hub's cache, or its
            name there, such as "Qwen/Qwen2.5-14B".

    Raises:
        OSError: When there is no such file or folder, or it cannot be read.
        ValueError: When files are missing, damaged, quantised, of another format, or not those of the index.
    """
    place = _find_place(Path(path))
    if not place.is_dir():
        return Layout(None, _open_shards([place]), place.name, None)
    _refuse_quantised(place)
    names = sorted(set(_read_index(place).values())) if (place / INDEX).exists() else [_find_single(place)]
    for name in names:
        check_file(place / name, "a shard of the checkpoint, as its index says")
    layout = Layout(place, _open_shards([place / name for name in names]), *_name_model(place))
    _check_index(layout)
    return layout


def _open_shards(paths: list[Path]) -> dict[str, Shard]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    is_large = sum(path.stat().st_size for path in paths) > LARGE * memory
    return {path.name: Shard(path, is_large=is_large) for path in paths}


def _find_place(path: Path) -> Path:
    """Returns the file or the folder that has the weights."""
    if not path.exists():
        cached = _find_cache() / f"models--{'--'.join(path.parts)}"
        if path.is_absolute() or not cached.is_dir():
            raise FileNotFoundError(
                f"{path} must be a safetensors file or a folder with one, but there is none of this name, nor a model "
                f"in {_find_cache()}; check the name (nothing is downloaded)"
            )
        path = cached
    if not (path / "snapshots").is_dir():
        return path
    snapshots = sorted(entry for entry in (path / "snapshots").iterdir() if entry.is_dir())
    main = path / "refs" / "main"
    if main.is_file():
        return path / "snapshots" / main.read_text(encoding="utf-8").strip()
    if len(snapshots) != 1:
        raise ValueError(
            f"{path} must have one snapshot, or say in refs/main which counts, but has {len(snapshots)}; name the "
            "snapshot's folder"
        )
    return snapshots[0]


def _find_cache() -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def _name_model(folder: Path) -> tuple[str, str | None]:
    """Returns what a checkpoint is called, and its commit where a hub's cache says it."""
    cached = folder.absolute().parent.parent
    if folder.absolute().parent.name == "snapshots" and cached.name.startswith("models--"):
        return cached.name.removeprefix("models--").replace("--", "/"), folder.name
    return folder.absolute().name, None


def _find_single(folder: Path) -> str:
    found = sorted(folder.glob("*.safetensors"))
    if (folder / SINGLE) in found:
        return SINGLE
    if len(found) == 1:
        return found[0].name
    if found:
        raise ValueError(
            f"{folder} must have {SINGLE}, or {INDEX} to say what its {len(found)} safetensors files are, but has "
            "neither; name one of the files"
        )
    others = sorted({OTHER_FORMATS[path.suffix] for path in folder.iterdir() if path.suffix in OTHER_FORMATS})
    but = f"its weights are {' and '.join(others)}" if others else "there are none"
    raise ValueError(f"{folder} must have weights as safetensors, but {but}; save them by save_pretrained")


def _refuse_quantised(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        return
    config = read_json(folder / CONFIG)
    check_form(config, {...: object}, str(folder / CONFIG))
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ValueError(
            f"{folder} must have weights in floating point, but they are quantised ({show(method)}); take the "
            "checkpoint that it was made of"
        )


def _read_index(folder: Path) -> dict[str, str]:
    """Returns in which file each tensor lies, as the index says."""
    index: dict[str, Any] = read_json(folder / INDEX)
    check_form(index, INDEX_FORM, str(folder / INDEX))
    places: dict[str, str] = index["weight_map"]
    if odd := sorted({name for name in places.values() if Path(name).name != name}):
        raise ValueError(f"{folder / INDEX} must name files beside it, but names {list_names(odd)}; was it altered?")
    if not places:
        raise ValueError(f"{folder / INDEX} must name at least one tensor, but names none; was it altered?")
    return places


def _check_index(layout: Layout) -> None:
    """Raises where files hold other tensors than the index says, or one tensor twice."""
    seen: dict[str, str] = {}
    for file, header in layout.headers.items():
        for name in header.entries:
            if name in seen:
                raise ValueError(
                    f"{layout.folder} must hold each tensor once, but {name!r} is in {seen[name]} and in {file}; which "
                    "is the right one?"
                )
            seen[name] = file
    if layout.folder is not None and (layout.folder / INDEX).exists():
        said = _read_index(layout.folder)
        if odd := list(_list_misplaced(said, seen)):
            raise ValueError(
                f"{layout.folder / INDEX} must say where each tensor lies, but {list_names(odd)}; are files of two "
                "models mixed?"
            )


def _list_misplaced(said: dict[str, str], seen: dict[str, str]) -> Iterator[str]:
    for name in sorted(said.keys() | seen.keys()):
        if name not in seen:
            yield f"{name} is in no file"
        elif name not in said:
            yield f"{name} of {seen[name]} is not in it"
        elif said[name] != seen[name]:
            yield f"{name} lies in {seen[name]} and not in {said[name]}"

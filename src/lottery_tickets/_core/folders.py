"""Folders of runs: recognised, held by one process, compared with what is asked for, and cleaned.

Every kind of run keeps what it was begun with in `run.json`. A folder that has none and is not empty is of somebody
else: it is refused before anything is written into it.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from lottery_tickets._core.files import (
    LOCK,
    exclusive_lock,
    is_leftover,
    parse_json,
    read_json,
    remove_leftovers,
    write_json,
)
from lottery_tickets._core.identity.identities import Identity, compare_identities
from lottery_tickets._core.reading import Form, Maybe, check_form, list_names, make_form, naming, show, show_name
from lottery_tickets._core.sharding.dtensors import see_local
from lottery_tickets._core.sharding.shards import Shards
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.states import StateHash, find_ties, hash_state, is_same_tensor
from lottery_tickets._core.tensor_files.whole import TensorFile, write_tensors

MARKER: Final = "run.json"
HASH: Final = "content_sha256"
MOST_SAID: Final = 400  # letters of what an identity says
STATE_HASH: Final = "state_sha256"
TIES: Final = "tied_names"
MARKER_FORM: Final[Form] = {
    "kind": Maybe(str),
    "made_by": Maybe((str, None)),
    "environments": [dict],
    "identities": Maybe({...: make_form(Identity)}),
}

Settings = dict[str, Any]
# Called with what a folder holds and what is asked for; returns by name the settings that may differ, joined, or raises
# a ValueError where the run would have to shrink. All other settings must be equal.
Grow = Callable[[Settings, Settings], Settings]


def hash_json(value: object) -> str:
    """Returns the SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def to_json_values(value: object) -> Any:  # noqa: ANN401 - JSON is anything
    """Returns a value as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value, allow_nan=False))


def write_hashed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON with its own hash."""
    content = to_json_values(values)
    write_json(path, {**content, HASH: hash_json(content)})


def read_hashed(path: Path) -> dict[str, Any]:
    """Returns what `write_hashed` wrote.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When the file is cut short or altered.
    """
    found = read_json(path)
    if not isinstance(found, dict) or HASH not in found:
        raise ValueError(f"{path} must be ours and carry its hash, but holds something else; take another path")
    content = {name: value for name, value in found.items() if name != HASH}
    if found[HASH] != hash_json(content):
        raise ValueError(f"{path} must match the hash it carries, but does not; it was altered after it was written")
    return content


def save_state(path: Path, state: Mapping[str, Tensor], together: Together | None = None) -> None:
    """Writes a state with its hash, and with the names that stand for one tensor, which is written under each.

    Args:
        path: Of the file.
        state: By name.
        together: The processes that call this, of which the first writes; those that share the tensors when None.
    """
    ties = find_ties(state)
    metadata = {STATE_HASH: hash_state(state), **({TIES: json.dumps(ties)} if ties else {})}
    write_tensors(path, state, metadata, together)


def load_state(path: Path, together: Together = ALONE, shards: Shards | None = None) -> dict[str, Tensor]:
    """Returns the state that `save_state` wrote; names of one tensor have one again.

    Args:
        path: Of the file.
        together: The processes that call this, of which the first reads: one tensor after the other is handed out.
        shards: Where the elements of all tensors lie in a sharded model: DTensors are returned, on the CPU.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When the file is cut short or altered, or does not fit the model.
    """
    file, hashed, state = TensorFile(path), StateHash(), dict[str, Tensor]()
    names, metadata = together.ask_first(lambda: (file.names, file.metadata))
    for name in sorted(names):
        whole = together.hand_out(partial(file.read, name))
        hashed.add(name, whole)
        with naming(path, "hold weights of the model"):
            state[name] = whole if shards is None else shards.place(name, whole)
    if metadata.get(STATE_HASH) != hashed.hexdigest():
        message = f"{path} must match the hash it carries, but does not; delete its folder and run again, or restore it"
        raise ValueError(message)
    with naming(path, "name equal tensors as tied"):
        ties = together.agree(lambda: _check_ties(metadata.get(TIES, "{}"), state))
    return {name: state[ties.get(name, name)] for name in names}


def _check_ties(told: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    ties: dict[str, str] = parse_json(told)
    check_form(ties, {...: str}, TIES)
    if odd := [name for pair in ties.items() for name in pair if name not in state]:
        raise ValueError(f"has no {list_names(odd)}; it was altered after it was written")
    pairs = {name: (see_local(state[name]), see_local(state[first])) for name, first in ties.items()}
    if odd := [name for name, pair in pairs.items() if not is_same_tensor(*pair)]:
        raise ValueError(f"{list_names(odd)} differ; it was altered after it was written")
    return ties


@final
@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one run.

    Attributes:
        path: Made when it is not there.
        kind: What it holds, as in "an early-bird run"; the folder of another kind is refused.
        made_by: Which function or command goes on with it; None only to read.
        settings_form: Of the settings, see `reading.Form`, where more than equality is asked of them.
    """

    path: Path
    kind: str
    made_by: str | None = None
    settings_form: Form = dict

    @contextlib.contextmanager
    def opened(
        self,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any] | None = None,
        *,
        identities: Mapping[str, Identity] | None = None,
        grow: Grow = lambda _found, _asked: {},
        accept_changed_environment: bool = False,
    ) -> Iterator[Settings]:
        """Holds the folder for this process, begun or continued; gives what it is to hold.

        Args:
            settings: What is asked for, JSON-able.
            environment: What decides the last bits beside the settings, such as versions.
            identities: What code and data the run is of, by what they are called.
            grow: Joins the settings in which a run may become larger.
            accept_changed_environment: Whether another environment may go on.

        Raises:
            OSError: When a file cannot be read or written.
            ValueError: When the folder holds files of others or another run, was altered, or is in use; it is left as
                it was.
        """
        self._refuse_others()
        is_new = not self.path.exists()
        with exclusive_lock(self.path / LOCK):
            self._refuse_others()  # again: another process may have begun meanwhile
            remove_leftovers(self.path)
            marker = self._read_marker() if self._list_content() else None
            asked = to_json_values(
                {"settings": settings, "environments": [dict(environment or {})], "identities": identities or {}}
            )
            wanted = asked if marker is None else self._join(marker, asked, grow, accept=accept_changed_environment)
            try:
                if wanted != marker:
                    write_hashed(self.path / MARKER, {"kind": self.kind, "made_by": self.made_by, **wanted})
                yield wanted["settings"]
            except BaseException:
                self._clean_up(is_new=is_new)
                raise

    def _list_content(self) -> list[str]:
        """Returns what the folder holds beside its marker and lock: nothing before the run has produced anything."""
        if not self.path.is_dir():
            return []
        return sorted(e.name for e in self.path.iterdir() if e.name not in {MARKER, LOCK} and not is_leftover(e))

    def _clean_up(self, *, is_new: bool) -> None:
        """Removes what was cut off, and of a run that has produced nothing all, so that it may be begun otherwise."""
        with contextlib.suppress(OSError):  # what stopped the run is what is to be said
            remove_leftovers(self.path)
            if self._list_content():
                return
            for name in (MARKER, LOCK):
                (self.path / name).unlink(missing_ok=True)
            if is_new:
                self.path.rmdir()

    def read_settings(self) -> Settings:
        """Returns what the run is to hold.

        Raises:
            OSError: When there is no such folder, or it cannot be read.
            ValueError: When the folder is of no run of this kind, or was altered.
        """
        if not self.path.exists():
            raise FileNotFoundError(
                f"{self.path} must be the folder of {self.kind}, but there is no such folder; check the name"
            )
        if not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} must be the folder of {self.kind}, but is a file; name its folder")
        marker = self._read_marker()
        if marker is None:
            raise ValueError(
                f"{self.path} must be the folder of {self.kind}, but has no {MARKER}; name the folder that a run was "
                "begun in"
            )
        settings: Settings = marker["settings"]
        return settings

    def list_environments(self) -> list[dict[str, Any]]:
        """Returns the environments that the run has gone on in, in order; more than one were accepted by the user."""
        marker = self._read_marker()
        return [] if marker is None else list(marker["environments"])

    def _refuse_others(self) -> None:
        """Raises where the folder is neither empty nor of this kind."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} must be a folder or not exist, but is a file; name a new folder")
        if self._read_marker() is not None or not self.path.is_dir():  # reading refuses a marker that is not ours
            return
        if others := self._list_content():
            names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")  # noqa: PLR2004 - enough to know it by
            raise ValueError(
                f"{self.path} must be empty or the folder of {self.kind}, but it holds other files ({names}); nothing "
                "was written, name a new folder"
            )

    def _read_marker(self) -> dict[str, Any] | None:
        if not (self.path / MARKER).exists():
            return None
        marker = read_hashed(self.path / MARKER)
        check_form(marker, {**MARKER_FORM, "settings": self.settings_form}, str(self.path / MARKER))
        if not marker["environments"]:
            raise ValueError(f"{self.path / MARKER} must say where a run was begun, but does not; was it altered?")
        kind, made_by = marker.pop("kind", "an unknown run"), marker.pop("made_by", None)
        if kind != self.kind or self.made_by not in {None, made_by}:
            raise ValueError(
                f"{self.path} must be empty or the folder of {self.kind}, but it is that of {show_name(kind)} made by "
                f"{show_name(str(made_by))}; "
                "go on with that, or name a new folder"
            )
        return marker

    def list_unidentified(self) -> list[str]:
        """Returns in words what could not be identified wholly: where it changes from call to call, nobody is told."""
        marker = self._read_marker()
        found: Mapping[str, Identity] = {} if marker is None else marker.get("identities", {})
        return [identity["says"] for _, identity in sorted(found.items()) if not identity["complete"]]

    def _join_identities(self, found: Mapping[str, Identity], asked: Mapping[str, Identity]) -> Mapping[str, Identity]:
        """Returns the identities that the folder holds from now on.

        Raises:
            ValueError: When one differs.
        """
        both = sorted(found.keys() & asked.keys())
        odd = [name for name in both if compare_identities(found[name], asked[name]) == "different"]
        if odd := [*odd, *sorted(found.keys() ^ asked.keys())]:
            sides = [
                f"{show_name(name)}: {show_name(identities[name]['says'], MOST_SAID)} {where}"
                for name in odd
                for identities, where in ((found, "there"), (asked, "here"))
                if name in identities
            ]
            raise ValueError(
                f"{self.path} must be continued with the code and data it was begun with, but another "
                f"{', '.join(map(show_name, odd))} is given ({'; '.join(sides)}); use the same, or name a new folder"
            )
        joined = dict(found)
        for name in both:
            if found[name]["complete"] and compare_identities(found[name], asked[name]) == "unknown":
                says = f"{found[name]['says']}, but once it could not be compared with that of before"
                joined[name] = {**found[name], "complete": False, "says": says}
        return joined

    def _join(self, marker: dict[str, Any], asked: dict[str, Any], grow: Grow, *, accept: bool) -> dict[str, Any]:
        """Returns what the folder holds from now on."""
        found, wanted = marker["settings"], asked["settings"]
        try:
            grown = to_json_values(grow(found, wanted))
        except ValueError as error:
            raise ValueError(
                f"{self.path} can only grow, but {error}; ask for as much, or name a new folder"
            ) from error
        before, now = ({n: value for n, value in values.items() if n not in grown} for values in (found, wanted))
        if odd := sorted(find_differences(before, now)):
            raise ValueError(
                f"{self.path} must be continued with what it was begun with, but these differ: {'; '.join(odd)}; use "
                "the same, or name a new folder"
            )
        settings = {**wanted, **grown}
        identities = self._join_identities(marker.get("identities", {}), asked["identities"])
        environments, [now] = marker["environments"], asked["environments"]
        if now == environments[-1]:
            return {"settings": settings, "environments": environments, "identities": identities}
        if not accept:
            odd = sorted(find_differences(environments[-1], now))
            raise ValueError(
                f"{self.path} must be continued in the environment it was begun in, or its bits cannot be told to be "
                f"equal, but these differ: {'; '.join(odd)}; use the same, name a new folder, or accept it by "
                "accept_changed_environment=True (--accept-changed-environment)"
            )
        return {"settings": settings, "environments": [*environments, now], "identities": identities}


def find_differences(found: Any, asked: Any, where: str = "") -> list[str]:  # noqa: ANN401 - JSON values
    """Returns in words where two JSON values differ, each place by its name."""
    if isinstance(found, dict) and isinstance(asked, dict):
        names = found.keys() | asked.keys()
        return [
            odd
            for name in names
            for odd in find_differences(found.get(name), asked.get(name), f"{where}.{show_name(name)}".lstrip("."))
        ]
    return [] if found == asked else [f"{where} is {show(found)} there and {show(asked)} here"]

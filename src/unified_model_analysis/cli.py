"""The command line `lottery-tickets`: words -> command -> exit code, see `exit_codes`."""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, TextIO

import tyro

from lottery_tickets import __version__
from unified_model_analysis.commands.analyze import Analyze
from unified_model_analysis.commands.compare import Compare
from unified_model_analysis.commands.connectivity import Connectivity
from unified_model_analysis.commands.demo import Demo
from unified_model_analysis.commands.diff import Diff
from unified_model_analysis.commands.doctor import Doctor
from unified_model_analysis.commands.early_bird import EarlyBird
from unified_model_analysis.commands.evaluate import Evaluate
from unified_model_analysis.commands.export import Export
from unified_model_analysis.commands.imp import Imp
from unified_model_analysis.commands.landscape import Landscape
from unified_model_analysis.commands.mask import MaskCommand
from unified_model_analysis.commands.plan import Plan
from unified_model_analysis.commands.report import Report
from unified_model_analysis.commands.score import Score
from unified_model_analysis.commands.ticket import TicketCommand
from unified_model_analysis.commands.verify import Verify
from unified_model_analysis.exit_codes import EXIT_CODES, ExitCode
from unified_model_analysis.recipes import expand_recipe
from unified_model_analysis.terminal import say

DESCRIPTION: Final = (
    "Find, prove and use winning lottery tickets: subnetworks that train as well as the dense network. Options of any "
    "command may stand in a TOML file that --recipe names; --version says which version this is."
)
UNFORESEEN: Final = "an error that nobody foresaw; what was asked for could not be computed"
HELP: Final = frozenset({"-h", "--help"})
BEGINS_ANEW: Final = "nothing is kept; the same command begins anew"
GOES_ON: Final = "the same command goes on"

Command = (
    Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Connectivity, tyro.conf.subcommand("connectivity")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[EarlyBird, tyro.conf.subcommand("early-bird")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Imp, tyro.conf.subcommand("imp")]
    | Annotated[Landscape, tyro.conf.subcommand("landscape")]
    | Annotated[MaskCommand, tyro.conf.subcommand("mask")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[TicketCommand, tyro.conf.subcommand("ticket")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


# What an interrupt leaves, by command; of those that are not here nothing.
KEPT: Final[Mapping[type, str]] = {
    Analyze: f"{GOES_ON}: analyses that are finished stay, the one that was cut off begins anew",
    EarlyBird: f"{GOES_ON} from the last check; what was trained since then is trained again",
    Imp: f"{GOES_ON}: trainings that are finished stay, those that were cut off begin anew",
    Demo: f"{GOES_ON}: trainings that are finished stay, those that were cut off begin anew",
    Landscape: f"{GOES_ON}: points that were measured stay, but for those of the last second",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of one command.

    Args:
        arguments: The words after the program's name; those of the process when None.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"lottery-tickets {__version__}")
        return 0
    try:
        return _run(words)
    except BrokenPipeError:  # as of `lottery-tickets ... | head -1`, which is no mistake
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                _flush(stream)
        return ExitCode.NOBODY_READS


def _run(words: Sequence[str]) -> int:
    """Returns the exit code of one command; what goes wrong is said in one line."""
    command = None
    try:
        with _interrupted_by_sigterm(), _writing_out():
            command = _parse(words)
            logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
            return command.run()
    except BrokenPipeError:
        raise
    except OSError as error:
        return _complain(_describe_os_error(error))
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        return _complain(" ".join(map(str, (error, *getattr(error, "__notes__", ())))))
    except Exception:  # noqa: BLE001 - Python's own exit code for these is 1, which is that of a failed check
        traceback.print_exc()
        _complain(UNFORESEEN)
        return ExitCode.NOT_COMPUTED
    except KeyboardInterrupt:
        _complain(f"interrupted; {BEGINS_ANEW if command is None else _describe_kept(command)}")
        return ExitCode.INTERRUPTED


def _parse(words: Sequence[str]) -> Command:
    try:
        return tyro.cli(
            Command,  # a union of dataclasses is what tyro makes subcommands of
            prog="lottery-tickets",
            description=DESCRIPTION,
            args=expand_recipe(words),
        )
    except SystemExit as ended:
        if ended.code == ExitCode.DONE and HELP & set(words):
            say(EXIT_CODES)
        raise


def _complain(said: str) -> int:
    """Says in one line what is wrong; returns the exit code for that."""
    print("lottery-tickets:", " ".join(said.splitlines()), file=sys.stderr)
    return ExitCode.WRONG_INPUT


def _describe_kept(command: Command) -> str:
    """Returns what of an interrupted command stays, and what does not."""
    if isinstance(command, Evaluate) and command.start is not None:
        return f"{GOES_ON}: trainings that are finished stay, the rest is measured anew"
    if isinstance(command, Connectivity) and command.checkpoints is None:
        return f"{GOES_ON}: trainings that are finished stay, lines are measured anew"
    return KEPT.get(type(command), BEGINS_ANEW)


@contextlib.contextmanager
def _writing_out() -> Iterator[None]:
    """Has all output of the block written at its end, so that what cannot be written is known before Python ends."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # names in files may hold what a terminal cannot show
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # what came first is what is to be said
            _flush(stream)
        raise
    _flush(stream)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        _let_go(stream)
        raise


def _let_go(stream: TextIO) -> None:
    """Has what is left in a stream that cannot be written go nowhere; Python would try once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # of no descriptor, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM, which schedulers send, is what Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe_os_error(error: OSError) -> str:
    """Returns the real cause in one sentence, with the place and what to do."""
    if error.strerror is None:
        return str(error)
    place = f" at {error.filename}" if error.filename else ""
    hints = {
        errno.ENOSPC: "make room and run the same command again",
        errno.EDQUOT: "make room and run the same command again",
        errno.EROFS: "name a place that can be written",
        errno.EACCES: "name a place that you may use",
        errno.EPERM: "name a place that you may use",
        errno.ENOENT: "name one that exists",
        errno.ENOTDIR: "name another place",
        errno.EEXIST: "name another place",
        errno.EISDIR: "name a file",
    }
    hint = hints.get(error.errno or 0, "")
    return f"{error.strerror}{place}{f'; {hint}' if hint else ''}"

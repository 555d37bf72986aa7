"""The command line `lottery-tickets`.

Exit codes: 0 done; 1 a check failed (`verify`); 2 wrong arguments or input; 130 interrupted.
"""

import contextlib
import errno
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import tyro

from lottery_tickets import __version__
from unified_model_analysis.commands.analyze import Analyze
from unified_model_analysis.commands.compare import Compare
from unified_model_analysis.commands.connectivity import Connectivity
from unified_model_analysis.commands.demo import Demo
from unified_model_analysis.commands.early_bird import EarlyBird
from unified_model_analysis.commands.evaluate import Evaluate
from unified_model_analysis.commands.imp import Imp
from unified_model_analysis.commands.landscape import Landscape
from unified_model_analysis.commands.mask import MaskCommand
from unified_model_analysis.commands.report import Report
from unified_model_analysis.commands.score import Score
from unified_model_analysis.commands.ticket import TicketCommand
from unified_model_analysis.commands.verify import Verify
from unified_model_analysis.recipes import expand_recipe

DESCRIPTION: Final = (
    "Find, prove and use winning lottery tickets: subnetworks that train as well as the dense network. Options of any "
    "command may stand in a TOML file that --recipe names; --version says which version this is."
)
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130

Command = (
    Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Connectivity, tyro.conf.subcommand("connectivity")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[EarlyBird, tyro.conf.subcommand("early-bird")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Imp, tyro.conf.subcommand("imp")]
    | Annotated[Landscape, tyro.conf.subcommand("landscape")]
    | Annotated[MaskCommand, tyro.conf.subcommand("mask")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[TicketCommand, tyro.conf.subcommand("ticket")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of one command.

    Args:
        arguments: The words after the program's name; those of the process when None.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"lottery-tickets {__version__}")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        command = tyro.cli(
            Command,  # a union of dataclasses is what tyro makes subcommands of
            prog="lottery-tickets",
            description=DESCRIPTION,
            args=expand_recipe(words),
        )
        with _interrupted_by_sigterm():
            return command.run()
    except OSError as error:
        print(f"lottery-tickets: {_describe_os_error(error)}", file=sys.stderr)
        return WRONG_INPUT
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        print("lottery-tickets:", error, *getattr(error, "__notes__", ()), file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        hint = "the same command goes on where it stopped if it keeps a folder, and begins anew if not"
        print(f"lottery-tickets: interrupted; {hint}", file=sys.stderr)
        return INTERRUPTED


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

"""The command line `lottery-tickets`.

Exit codes: 0 done; 1 a check failed (`verify`); 2 wrong arguments or input; 130 interrupted.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import tyro

from unified_model_analysis.commands.compare import Compare
from unified_model_analysis.commands.connectivity import Connectivity
from unified_model_analysis.commands.demo import Demo
from unified_model_analysis.commands.early_bird import EarlyBird
from unified_model_analysis.commands.evaluate import Evaluate
from unified_model_analysis.commands.imp import Imp
from unified_model_analysis.commands.landscape import Landscape
from unified_model_analysis.commands.mask import MaskCommand
from unified_model_analysis.commands.score import Score
from unified_model_analysis.commands.verify import Verify

WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130

Command = (
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Connectivity, tyro.conf.subcommand("connectivity")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[EarlyBird, tyro.conf.subcommand("early-bird")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Imp, tyro.conf.subcommand("imp")]
    | Annotated[Landscape, tyro.conf.subcommand("landscape")]
    | Annotated[MaskCommand, tyro.conf.subcommand("mask")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of one command.

    Args:
        arguments: The words after the program's name; those of the process when None.
    """
    command = tyro.cli(
        Command,  # a union of dataclasses is what tyro makes subcommands of
        prog="lottery-tickets",
        description="Find, prove and use winning lottery tickets: subnetworks that train as well as the dense network.",
        args=arguments,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return command.run()
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print("lottery-tickets:", error, *getattr(error, "__notes__", ()), file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        hint = "the same command goes on where it stopped if it keeps a folder, and begins anew if not"
        print(f"lottery-tickets: interrupted; {hint}", file=sys.stderr)
        return INTERRUPTED

"""What stands for what a reader has and a test has not: networks, masks, a text, a run; and what makes commands short.

Toys: fresh weights in place of trained ones, a recipe of 4 training steps in place of 600, a demo of 4 replicates in
place of 10. So it is shown that what a page says to type runs, and goes with what stands before it on that page; not
what comes of it at full size.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import safetensors.torch
from transformers import Qwen2Config

from lottery_tickets import create_random_mask, save_ticket
from lottery_tickets.workloads import Recipe, digits_recipe, registry
from tests.models import make_lenet
from unified_model_analysis.commands import demo
from unified_model_analysis.commands.imp import Imp

NUM_STEPS: Final = 4
NUM_REPLICATES: Final = 4
NETWORKS: Final = ("trained.safetensors", "other.safetensors")
MASKS: Final = ("a.safetensors", "b.safetensors", "c.safetensors")
TICKET: Final = "ticket.safetensors"
TEXT: Final = "mine.txt"
SENTENCE: Final = "Fourscore and seven years ago our fathers brought forth a new nation. "
RUN: Final = "runs/demo"
DESCRIBED: Final = "models/qwen2.5-14b"  # a folder with a configuration alone, of fewer and smaller layers
SMALL: Final[Mapping[str, Any]] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 200, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
OWN: Final = "networks"  # a module of the reader's
OWN_CODE: Final = """
import torch
def make():
    return torch.nn.Linear(64, 4), [(torch.zeros(8, 64), torch.zeros(8, dtype=torch.int64))]
"""
# What is there before a page begins; the rest its own code and commands make.
GIVEN: Final[Mapping[str, tuple[str, ...]]] = {
    "docs/evaluation.md": (NETWORKS[0], *MASKS, TICKET, RUN),
    "docs/howto/hugging-face.md": (TEXT,),
    "docs/planning.md": (DESCRIBED, OWN),
    "docs/quickstart.md": (RUN,),
    "docs/reliability.md": (RUN,),
    "docs/shell.md": (*NETWORKS, MASKS[1]),
    "docs/tickets.md": (RUN,),
}
# By command, taken as its recipe: what a page itself says of these options goes before.
SHORT: Final[Mapping[str, Mapping[str, int]]] = {
    "analyze": {"batches": 1, "grid-points": 3, "num-samples": 20},
    "connectivity": {"grid-points": 3},
    "landscape": {"batches": 1, "grid-points": 3},
    "score": {"num-samples": 20},
}
# What no test types, with the reason.
NOT_TYPED: Final[Mapping[str, str]] = {
    "pip install 'lottery-tickets[demo]'": "needs the package index; tests/test_packaging.py installs the wheel",
    "pip install 'lottery-tickets[shrink]'": "as above; its library is one of development",
    "pip install 'lottery-tickets[cluster]'": "as above; its libraries are those of development",
    "dask scheduler '&'": "runs until it is stopped; tests/lottery_tickets/integrations/test_dask.py has one",
    "dask worker tcp://HOST:8786 --nthreads 1 --nworkers 4": "as above",
    "lottery-tickets imp --output runs/digits --replicates 8 --executor dask://HOST:8786": "as above",
    "lottery-tickets imp --output runs/digits --levels 3 --replicates 4 --steps 60 "
    "--executor slurm:time=120,cpus_per_task=1": "needs Slurm; tests/lottery_tickets/integrations/test_slurm.py",
    "make demo": "installs an environment, for minutes; benchmarks/speed/fresh_clone.py times it",
    "make test": "is this suite; benchmarks/speed/fresh_clone.py times it",
}
BENCHMARKS: Final = "python -m benchmarks."  # minutes to hours each; tables are compared with the JSON that they left


@contextmanager
def short_trainings() -> Iterator[None]:
    """Within the block the digits are trained on for few steps, by the demo few times, and all in this process."""

    def shorten_recipe(model_name: str) -> Recipe:
        return replace(digits_recipe(model_name), num_steps=NUM_STEPS, evaluation_interval=NUM_STEPS)

    def take_few(**options: Any) -> Imp:  # noqa: ANN401 - options of a command
        return Imp(**{**options, "replicates": NUM_REPLICATES})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "digits_recipe", shorten_recipe)
        patch.setattr(demo, "Imp", take_few)
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


def make(name: str, place: Path, run: Path) -> None:
    """Makes what a page is given, in a folder.

    Args:
        name: One of those above.
        place: The folder.
        run: A run as `lottery-tickets demo` leaves it.
    """
    path = place / name
    if name in NETWORKS:
        safetensors.torch.save_file(make_lenet(NETWORKS.index(name)).state_dict(), path)
    elif name in MASKS:
        create_random_mask(make_lenet(0), 0.8, MASKS.index(name)).save(path)
    elif name == TICKET:
        save_ticket(path, create_random_mask(make_lenet(0), 0.8, 0), make_lenet(0))
    elif name == DESCRIBED:
        Qwen2Config(**SMALL, architectures=["Qwen2ForCausalLM"]).save_pretrained(path)
    elif name == OWN:
        path.with_suffix(".py").write_text(OWN_CODE, encoding="utf-8")
    elif name == TEXT:
        path.write_text(
            "Fourscore and seven years ago our fathers brought forth a new nation. " * 200, encoding="utf-8"
        )
    else:
        shutil.copytree(run, path)


def shorten(words: list[str], place: Path) -> list[str]:
    """Returns a command's words with a recipe that makes it short.

    Args:
        words: After the program's name.
        place: Where the recipe is put.
    """
    if words[0] not in SHORT:
        return words
    recipe = place / f"{words[0]}.toml"
    recipe.write_text("\n".join(f"{name} = {value}" for name, value in SHORT[words[0]].items()), encoding="utf-8")
    return [*words, "--recipe", str(recipe)]

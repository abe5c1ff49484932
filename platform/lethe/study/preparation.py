"""From a study's benchmark and model to what its runs read: rows, folders and content digests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lethe.benchmarks.tdec.loading import Passages, check_ids
from lethe.benchmarks.tofu.loading import load_benchmark
from lethe.config.benchmark import AnyBenchmark
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.config.run import Digests
from lethe.data.rows import Benchmark
from lethe.errors import UserError
from lethe.models.hashing import model_digest
from lethe.models.subprocess_training import ProgressReport
from lethe.storage.replica import share_with_nodes

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one of them is needed
PARTS = ("*.json", "*.safetensors", "tokenizer*", "*.txt", "*.jinja")  # never pickles, never code


@dataclass(frozen=True)
class Prepared:
    """`start`, `oracle` and `base`, which `start` was made from, are folders with safetensors and a tokenizer."""

    benchmark: Benchmark | Passages
    start: Path
    oracle: Path | None
    base: Path | None
    digests: Digests


def locate(benchmark: AnyBenchmark, model: AnyModel) -> None:
    """Refuse, in a moment, data and models that cannot be had: before anything expensive starts."""
    rows = load_benchmark(benchmark)
    if not isinstance(model, EmbeddedModel):
        for key in ("path", "oracle", "base"):
            if (name := getattr(model, key)) is not None:
                model_folder(name, f"model.{key}")
        if isinstance(rows, Passages):
            config = json.loads((model_folder(model.path, "model.path") / "config.json").read_text(encoding="utf-8"))
            check_ids(rows, config.get("vocab_size"))


def prepare(benchmark: AnyBenchmark, model: AnyModel, *, progress: ProgressReport | None = None) -> Prepared:
    """Load the data; find or train the start model and its oracle. Raises BadInput for whatever is missing.

    `progress` takes (name of a training, its finished share); without one, the console shows it.
    """
    rows = load_benchmark(benchmark)
    if isinstance(model, EmbeddedModel):
        from lethe.benchmarks.embedded.models import trained_pair

        start, oracle = trained_pair(rows, model, progress)
        base = None
    else:
        start = model_folder(model.path, "model.path")
        oracle = None if model.oracle is None else model_folder(model.oracle, "model.oracle")
        base = None if model.base is None else model_folder(model.base, "model.base")
        _check_vocabulary(base or start, start)
    digests = Digests(
        data=rows.digest,
        model=model_digest(start),
        oracle=oracle and model_digest(oracle),
        base=base and model_digest(base),
    )

    def shared(folder: Path | None, digest: str | None) -> Path | None:
        return folder and share_with_nodes(folder, "models", str(digest), PARTS)

    return Prepared(
        rows, shared(start, digests.model), shared(oracle, digests.oracle), shared(base, digests.base), digests
    )


def model_folder(name: str, key: str) -> Path:
    """A local folder, or a snapshot of a hub model, that has everything: configuration, safetensors, tokenizer."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = snapshot(name, key)
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} has no config.json: it is not a model folder")
    if not list(folder.glob("*.safetensors")):
        pickled = "; it has pickled weights, which are not loaded" if list(folder.glob("*.bin")) else ""
        raise UserError(f"{key}: {folder} has no *.safetensors{pickled}")
    _check_shards(folder, key)
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise UserError(f"{key}: {folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json)")
    return folder.resolve()


def _check_vocabulary(base: Path, start: Path) -> None:
    """The start model's tokenizer makes the rows that the base is trained on."""
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (base, start)]
    of_base, of_start = (config.get("vocab_size") for config in configs)
    if of_base != of_start:
        raise UserError(f"model.base: {base} has a vocabulary of {of_base} tokens, model.path one of {of_start}")


def _check_shards(folder: Path, key: str) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise UserError(f"{key}: {folder} has no {missing[0]}, which {index.name} names")


def snapshot(name: str, key: str) -> Path:
    """A hub model's files, downloaded unless they are there."""
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise UserError(f"{key}: there is no folder {name}, and it is no hub id like owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(PARTS), ignore_patterns=["*/*"]))
    except Exception as error:
        # huggingface_hub raises its own and its HTTP library's errors: whatever it is, the model cannot be had.
        raise UserError(
            f"{key}: {name} is neither a folder nor reachable on the hub ({type(error).__name__})"
        ) from None

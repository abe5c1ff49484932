"""Finding a model by its name, and making one plain folder of it.

A name is a folder (a study's run, too), a hub id, a GGUF file, `package:NAME`, or a registered version's
`models:/name@alias`. Adapters know their base, or are given one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lethe.errors import UserError
from lethe.models.gguf import PACKAGE, SUFFIX, model_of_file, model_of_package
from lethe.models.hashing import model_digest
from lethe.models.merging import is_adapter, model_with_adapter
from lethe.models.model_files import ADAPTER_CONFIG, CONFIG, check_adapter_files, read_config, read_json, weight_files
from lethe.storage.paths import home, store
from lethe.storage.replica import ensure_local, local_path, resolve_local

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one of them is needed
PARTS = ("*.json", "*.safetensors", "tokenizer*", "*.txt", "*.jinja")  # never pickles, never code
REGISTERED = "models:/"
CHOICES = "give one, a hub id (owner/name), a .gguf file, package:NAME or models:/name@alias"
LEVELS = 5  # from a run's model up to its study


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine. `folder` has an adapter where there is a `base`; `tags`: a registered version's."""

    folder: Path
    base: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def find_model(
    name: str, key: str, base: str | None = None, *, registry: str | None = None, above: tuple[Path, ...] = ()
) -> FoundModel:
    """Return the model that `name` means. `base` names the model that an adapter belongs on, where it does not say;
    `registry`: the MLflow store that has registered versions, None: MLFLOW_TRACKING_URI's; `above`: the adapters that
    this model is the base of.

    Raises UserError, with the setting `key` in front, for a model that does not exist, for files that lack something
    and for adapters that stand on each other."""
    tags: Mapping[str, str] = {}
    with named(key):
        if name.startswith(PACKAGE):
            return FoundModel(model_of_package(name))
        if name.endswith(SUFFIX) and Path(name).expanduser().is_file():
            return FoundModel(model_of_file(Path(name).expanduser().resolve()))
    if name.startswith(REGISTERED):
        from lethe.tracking.model_addresses import fetch_registered_model

        folder, tags = fetch_registered_model(name, key, registry)
    else:
        folder = resolve_local(name)
        folder = folder if folder.is_dir() else snapshot(name, key)
    folder = _model_inside(folder, key)
    if is_adapter(folder):
        with named(key):
            if folder in above:
                raise UserError(f"{folder} is an adapter and, in the end, its own base: name another base")
            check_adapter_files(folder)
        return FoundModel(folder, _base(folder, key, base, registry, (*above, folder)), tags)
    return FoundModel(_checked(folder, key), None, tags)


def plain_folder(
    name: str, key: str, base: str | None = None, *, registry: str | None = None, above: tuple[Path, ...] = ()
) -> Path:
    """Return the folder of the model that `name` means, with configuration, safetensors and a tokenizer: an adapter is
    merged into its base. Otherwise as `find_model`."""
    found = find_model(name, key, base, registry=registry, above=above)
    if found.base is None:
        return found.folder
    with named(key):
        return model_with_adapter(found.base, found.folder)


def check_whole(folder: Path, key: str) -> None:
    """Raise UserError, with the setting `key` in front, unless the model in a plain folder can be loaded as it is."""
    from lethe.models.loading import check_tensors
    from lethe.models.model_files import check_finite

    with named(key):
        check_tensors(folder)
        check_finite(folder)


@contextmanager
def named(key: str) -> Iterator[None]:
    """Put `key`, the setting that names a model, before the message of a UserError of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def has_tokenizer(folder: Path) -> bool:
    """Return True if the folder has a tokenizer's main file."""
    return any((folder / file).is_file() for file in TOKENIZERS)


def _model_inside(folder: Path, key: str) -> Path:
    """Return the folder itself, or its folder `model` where it is a study's run or a registered version."""
    inside = folder / "model"
    if not _is_model(folder) and _is_model(inside):
        return inside.resolve()
    if not _is_model(folder) and (folder / "result.json").is_file():
        raise UserError(f"{key}: {folder} has no model: a study keeps the weights of its front alone")
    return folder.resolve()


def _is_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in (CONFIG, ADAPTER_CONFIG))


def _checked(folder: Path, key: str) -> Path:
    """Return the folder of a plain model. Raises UserError without configuration, safetensors or tokenizer."""
    with named(key):
        read_config(folder)
        weight_files(folder)
        if not has_tokenizer(folder):
            raise UserError(f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json)")
    return folder


def _base(adapter: Path, key: str, given: str | None, registry: str | None, above: tuple[Path, ...]) -> Path:
    """Return the folder of the model that an adapter was trained on: `given`, named by the adapter, or the start model
    of the study that the adapter's folder is in."""
    if on := given or read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path"):
        return plain_folder(str(on), f"{key}: the base of {adapter}", registry=registry, above=above)
    for parent in list(adapter.parents)[:LEVELS]:
        if ensure_local(parent / "study.json") and (found := _start_model(parent / "study.json")):
            start, digest = found
            start = local_path(home() / "models" / start.name) if store() else start  # of whichever machine wrote it
            base = plain_folder(str(start), f"{key}: the base of {adapter}")
            if model_digest(base) != digest:
                raise UserError(f"{key}: {base}, which {adapter} was trained on, has changed since: name another base")
            return base
    raise UserError(f"{key}: {adapter} is an adapter and does not say on what: name its base (--base, model.base)")


def _start_model(file: Path) -> tuple[Path, str] | None:
    """Return the folder and the digest of a study's start model from its `study.json`; None where another program wrote
    the file."""
    study = read_json(file)
    folder, digests = study.get("start_folder"), study.get("digests")
    digest = digests.get("model") if isinstance(digests, dict) else None
    return (Path(folder), digest) if isinstance(folder, str) and folder and isinstance(digest, str) else None


def snapshot(name: str, key: str) -> Path:
    """Return the folder of a hub model's files, downloaded unless they are there already. Raises UserError, with `key`
    in front."""
    if Path(name).expanduser().is_dir():
        raise UserError(f"{key}: the folder {name} has no {CONFIG}: {CHOICES}")
    if name.count("/") != 1 or name.startswith(("/", ".", "~")) or name.endswith(SUFFIX):
        raise UserError(f"{key}: there is no folder {name}: {CHOICES}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(PARTS), ignore_patterns=["*/*"]))
    except Exception as error:  # noqa: BLE001  # huggingface_hub raises its own and its HTTP library's errors
        raise UserError(
            f"{key}: {name} is neither a folder nor reachable on the hub ({type(error).__name__})"
        ) from None

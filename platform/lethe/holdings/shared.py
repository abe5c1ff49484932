"""What studies share: caches and prepared models, made again when they are missed; and what is not ours to free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.holdings.size import DAY_S, Size, size
from lethe.holdings.studies import Holding

LEFT = ".gc-"  # how a study's folder is called while it is removed
# Folder in the storage root, what it is, and whether it is made again when missed.
KINDS = {
    "cache/scores": ("scores of models by content", True),
    "cache/adapters": ("Fisher weights and SVDs", True),
    "cache/registered": ("copies of registered models", True),
    "cache/tasks": ("task files that studies name by content", False),
    "benchmarks": ("the embedded benchmarks' files", True),
    "models": ("prepared models", True),
    "groups": ("files of worker groups", True),
    "studies": ("", False),
    "mlflow.db": ("MLflow's runs: `mlflow gc`", False),
    "mlartifacts": ("MLflow's files, registered models too: `mlflow gc`", False),
    "optuna.db": ("Optuna's trials", False),
    "services": ("`python -m platform.services`", False),
}


@dataclass(frozen=True)
class Shared:
    """One kind: `entries` are what can be freed one by one, `why` the reason where none of it can."""

    name: str
    about: str
    size: Size
    entries: dict[Path, Size]
    why: str = ""


def shared(root: Path, studies: Iterable[Holding]) -> list[Shared]:
    """Everything in the storage root that is no study."""
    studies = list(studies)
    found = [_kind(root, name, studies) for name in KINDS if name != "studies" and (root / name).exists()]
    left = {path: size(path) for path in (root / "studies").glob(f"{LEFT}*")}
    if left:
        found.append(Shared("studies", "what an interrupted removal left", sum(left.values(), Size()), left))
    return found


def _kind(root: Path, name: str, studies: list[Holding]) -> Shared:
    about, again = KINDS[name]
    if not again:
        return Shared(name, about, size(root / name), {}, "kept")
    entries = {path: size(path) for path in sorted((root / name).glob("*"))}
    whole = sum(entries.values(), Size())
    if any(study.state == "running" for study in studies):
        return Shared(name, about, whole, {}, "a study is running")
    if name == "models":
        return _models(about, entries, whole, studies)
    if name == "groups":  # of a session that is starting, `score` and `doctor`, too
        entries = {path: each for path, each in entries.items() if each.days * DAY_S > DAY_S}
    return Shared(name, about, whole, entries)


def _models(about: str, entries: dict[Path, Size], whole: Size, studies: list[Holding]) -> Shared:
    """An adapter on a front is of no use without its start model. A study that can be resumed knows its models by
    their contents, and who trains them again on another machine may get others: then all stay."""
    resumable = [study.name for study in studies if study.state == "can be resumed"]
    if resumable:
        return Shared("models", about, whole, {}, f"{resumable[0]} can be resumed")
    needed = set(_start_models(studies))
    free = {path: each for path, each in entries.items() if path.name not in needed}
    return Shared("models", about, whole, free, "" if free or not entries else "studies start from them")


def _start_models(studies: list[Holding]) -> Iterator[str]:
    """Their names: a record may be from another machine, and with objects from another folder than this outline."""
    for study in studies:
        if study.record and study.record.start_folder:
            yield Path(study.record.start_folder).name

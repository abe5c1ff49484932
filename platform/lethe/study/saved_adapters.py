"""The adapters of the front as they are saved, and cut to the rank that servers allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lethe.config.study import Tracking
from lethe.errors import UserError
from lethe.models.lower_rank import saved_rank, write_at_rank
from lethe.records import AdapterRecord, StudyRecord, TrialRecord, cut_folder
from lethe.storage.paths import store


def check_cut(tracking: Tracking) -> None:
    """Raise UserError where adapters are to be cut and the storage root holds objects, whose model folders stay as they
    are."""
    if tracking.max_lora_rank is not None and store() is not None:
        raise UserError(
            "tracking.max_lora_rank: an object store's models stay as they are: take a folder as LETHE_HOME"
        )


def with_saved_adapters(record: StudyRecord, limit: int | None) -> StudyRecord:
    """Return the record with the adapter of each front member as it lies in its folder, after writing those of a rank
    above `limit` (None: none) at that rank, too, into a folder inside. Whole models, adapters of stacked experts and
    what an object store holds are left out."""
    front = {id(trial) for trial in record.front if trial.folder} if store() is None else set()
    trials = (_with_adapter(trial, limit) if id(trial) in front else trial for trial in record.trials)
    return record.model_copy(update={"trials": tuple(trials)})


def _with_adapter(trial: TrialRecord, limit: int | None) -> TrialRecord:
    folder = Path(trial.folder, "model")
    rank = saved_rank(folder)
    if rank is None:
        return trial
    adapter = AdapterRecord(rank=rank, twice=rank == 2 * int(trial.params.get("adapter.rank") or 0))
    if limit is not None and rank > limit:
        mean, worst, layer = write_at_rank(folder, folder / cut_folder(limit), limit)
        cut = {"cut_to": limit, "mean_error": mean, "worst_error": worst, "worst_layer": layer}
        adapter = adapter.model_copy(update=cut)
    return trial.model_copy(update={"adapter": adapter})


def describe_adapters(record: StudyRecord) -> Iterator[str]:
    """Yield a line for each adapter that was cut; where none was, one line about those that have twice their run's
    rank."""
    found = {trial.number: trial.adapter for trial in record.front if trial.adapter}
    cut = {number: adapter for number, adapter in found.items() if adapter.cut_to}
    for number, adapter in cut.items():
        yield f"trial {number}: adapter of {adapter.describe()}"
    if twice := [adapter.rank for adapter in found.values() if adapter.twice and not cut]:
        yield (
            f"adapters     saved at twice their rank, up to {max(twice)}, since their start is subtracted in them: "
            "tracking.max_lora_rank cuts them for servers that refuse it"
        )

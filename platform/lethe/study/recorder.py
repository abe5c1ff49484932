"""Tune's events as records: every report to the tracker and the console, every result to its run folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.records import Sample, TrialRecord
from lethe.search.objectives import ObjectiveSpace, mark_front
from lethe.storage.paths import atomic_write
from lethe.storage.replica import delete, missing_parts
from lethe.tracking.tracker import Tracker
from ray import tune

NOT_METRICS = frozenset({"verdict", "reason", "final", "samples"})


def numbers(report: dict[str, Any]) -> dict[str, float]:
    """The numeric values of a report."""
    return {
        k: float(v)
        for k, v in report.items()
        if k not in NOT_METRICS and isinstance(v, int | float) and not isinstance(v, bool)
    }


class Recorder(tune.Callback):
    """Collects the study's trials. `on_change` is called after every event, with the record that ended, if one did."""

    def __init__(
        self,
        queue: Any,
        tracker: Tracker,
        objectives: ObjectiveSpace,
        on_change: Callable[[TrialRecord | None], None],
    ) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.running: dict[int, dict[str, Any]] = {}
        self._queue, self._tracker, self._objectives, self._on_change = queue, tracker, objectives, on_change
        self._lock = threading.RLock()
        self._gone: set[Path] = set()  # what has been removed already
        self.why_stopped: Callable[[str], str] = lambda run: ""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its configuration before it starts; trackers and locks do not belong there."""
        return {}

    def began(self, config: dict[str, Any]) -> None:
        """A trial was proposed and will run."""
        folder = Path(config["payload"]["folder"])
        self._gone -= {folder / CHECKPOINT, folder / "model"}
        self.running[config["number"]] = {"config": config, "series": [], "began": time.time()}
        self._tracker.trial_began(config["number"], config["run"], config["params"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        config, report = trial.config, result["report"]
        entry = self.running.get(config["number"])
        if entry is None:
            return
        if "epoch" in report and not _repeats(report, entry["series"]):
            values = numbers(report)
            entry["series"].append(values)
            self._tracker.trial_reported(config["number"], values, int(report["epoch"]))
        if report.get("verdict") == "interrupted":
            return  # it stays among the running, which the end of the session cut off
        if report.get("final"):
            self._end(config, report)
        elif result.get("done"):  # a scheduler stopped it: on disk before Optuna is told
            self._stopped(config)
        else:
            self._on_change(None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune ended the trial without a report of its end."""
        last = (trial.last_result or {}).get("report", {})
        if trial.config["number"] in self.running and last.get("verdict") != "interrupted":
            self._stopped(trial.config)

    def answered(self, config: dict[str, Any], stored: TrialRecord) -> None:
        """A proposal whose run the store already holds: the same result under a new number."""
        self._tracker.trial_began(config["number"], config["run"], config["params"])
        for values in stored.series:
            self._tracker.trial_reported(config["number"], values, int(values["epoch"]))
        self._add(stored.model_copy(update={"number": config["number"], "params": config["params"]}))

    def _stopped(self, config: dict[str, Any]) -> None:
        self._end(config, {"verdict": "stopped", "reason": self.why_stopped(config["run"])})

    def _end(self, config: dict[str, Any], report: dict[str, Any]) -> None:
        entry = self.running.pop(config["number"])
        self._queue.forget.remote(config["run"], config["claim"])
        series = tuple(entry["series"])
        record = TrialRecord(
            number=config["number"],
            run=config["run"],
            verdict=report["verdict"],
            reason=str(report.get("reason", "")),
            params=config["params"],
            metrics=series[-1] if series and report["verdict"] in ("complete", "stopped") else numbers(report),
            series=series,
            samples=tuple(Sample.model_validate(s) for s in report.get("samples", ())),
            folder=config["payload"]["folder"],
            began=entry["began"],
            ended=time.time(),
        )
        if record.verdict != "lost" or read_result(Path(record.folder)) is None:
            write_result(record)
        self._add(record)

    def take_up(self, trials: Iterable[TrialRecord]) -> None:
        """What earlier sessions finished."""
        self.trials = {t.number: t for t in mark_front(tuple(trials), self._objectives)}
        self._gone |= missing_parts((Path(t.folder) for t in self.trials.values() if t.folder), (CHECKPOINT, "model"))
        self._prune(self.trials.values())

    def _add(self, record: TrialRecord) -> None:
        with self._lock:
            front = [n for n, t in self.trials.items() if t.on_front]
            self.trials[record.number] = record
            self.trials = {t.number: t for t in mark_front(tuple(self.trials.values()), self._objectives)}
            self._prune(self.trials[n] for n in (*front, record.number))
        self._tracker.trial_ended(self.trials[record.number])
        self._on_change(self.trials[record.number])

    def _prune(self, trials: Iterable[TrialRecord]) -> None:
        """Of these, which have ended, none keeps a checkpoint and only members of the front keep their weights: a
        dominated trial never comes back."""
        kept = {t.folder for t in self.trials.values() if t.on_front}
        for trial in trials:
            gone = [CHECKPOINT, *(["model"] if trial.folder not in kept else [])]
            for path in [Path(trial.folder) / part for part in gone] if trial.folder else []:
                if path not in self._gone:
                    delete(path)
                    self._gone.add(path)


def _repeats(report: dict[str, Any], series: list[dict[str, float]]) -> bool:
    """Whether this was passed on before, by an actor that died."""
    return bool(series) and report["epoch"] <= series[-1]["epoch"]


def write_result(record: TrialRecord) -> None:
    """The run folder's truth, `result.json`, written whole or not at all."""
    folder = Path(record.folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "result.json", record.model_dump_json(indent=1))


def read_result(folder: Path) -> TrialRecord | None:
    """What `write_result` left, unless the run failed for reasons that another attempt may not meet."""
    path = folder / "result.json"
    if not path.exists():
        return None
    record = TrialRecord.model_validate_json(path.read_text()).model_copy(update={"folder": str(folder)})
    decided = record.verdict == "stopped" and record.reason  # by a rung, not by a session that ended
    return record if decided or record.verdict in ("complete", "diverged", "infeasible") else None

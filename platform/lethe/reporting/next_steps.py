"""Next steps with a study: commands that work when pasted, for the console, reports and MLflow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from lethe.config.addresses import without_password
from lethe.config.loading import spaces
from lethe.records import StudyRecord, TrialRecord

LOOK = "look at it again"
AUDITS = "audits={relearning: {}, quantisation: {}}"


class NextStep(NamedTuple):
    """A command, and in a few words what it does."""

    purpose: str
    command: str


def next_steps(record: StudyRecord, store: str | None = None, call: str = "lethe ") -> tuple[NextStep, ...]:
    """Return what can be done with a study, the most useful first; nothing with a joined one. Commands are quoted for a
    shell.

    `store`: the address of the MLflow store that has the registered versions, None where there is none. `call`: the
    text before a command's name.
    """
    if record.parts:
        return ()
    steps = tuple(NextStep(purpose, f"{call}{command}") for purpose, command in _commands(record))
    python, module, _ = call.partition(" -m ")
    return steps + _loading(record.winner, store, python if module else "python")


def address(trial: TrialRecord) -> str:
    """Return what names the trial's model to `lethe score`: its version in MLflow's registry, else its folder; empty
    where it has neither."""
    return trial.version or trial.folder


def trial_steps(record: StudyRecord, trial: TrialRecord, call: str = "lethe ") -> tuple[NextStep, ...]:
    """Return what can be done with one trial that is on the front; nothing with another, whose model is not kept, nor
    with one of a joined comparison."""
    if not trial.on_front or record.parts:
        return ()
    named = ("name it, for good", f"promote {record.id} {trial.number} --as champion")
    return tuple(NextStep(purpose, f"{call}{command}") for purpose, command in (*_score(record, trial), named))


def _commands(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield purposes and commands of lethe."""
    again, best = f"sweep {record.id} --resume", record.best_of_front
    look = (LOOK, f"show {record.id}")
    if record.interrupted:
        yield "go on where it stopped", again
        yield look
        yield from _score(record, best)
    elif record.members:
        yield from _score(record, best)
        full = f"{record.space}-full"
        if full in spaces():
            yield "compare with the whole budget", f"sweep {full}"
        if best and (best.forgotten is None or _passes(best)):
            yield "name the best model, for good", f"promote {record.id} {best.number} --as champion"
        if not record.arm_fronts:
            checks = f"--set confirm.seeds=3 --set {shlex.quote(AUDITS)}"
            yield "run every arm's front again with fresh seeds, and audit it", f"{again} {checks}"
        yield look
    else:
        yield from _after_search(record, best, again)
        yield look


def _after_search(record: StudyRecord, best: TrialRecord | None, again: str) -> Iterator[tuple[str, str]]:
    """Yield what is left to do with a finished study: what its best model lacks comes first."""
    trials = record.study.get("search", {}).get("trials")
    further = [("search further", f"{again} --trials {2 * trials}")] if trials else []
    passes = best is not None and _passes(best)
    if not passes:
        yield from further
    if best and not best.audits:
        yield "ask whether relearning or rounding bring the answers back", f"{again} --set {shlex.quote(AUDITS)}"
    if best and not best.confirmation:
        yield "run the front again with fresh seeds", f"{again} --set confirm.seeds=3"
    if best and record.stored_text != "keep":  # rows of a person's own: the study answers a request
        yield "write the deletion record", f"record {record.id} {best.number} --by NAME"
    yield from _score(record, best)
    if passes:
        yield from further
    if best:
        yield "name it, for good", f"promote {record.id} {best.number} --as champion"


def _score(record: StudyRecord, best: TrialRecord | None) -> Iterator[tuple[str, str]]:
    if best and (model := address(best)):
        yield "score the model beside others", f"score {shlex.quote(model)} --benchmark {record.id}"


def _passes(trial: TrialRecord) -> bool:
    return trial.forgotten is not None and trial.forgotten.forgotten == "yes"


def _loading(best: TrialRecord | None, store: str | None, python: str) -> tuple[NextStep, ...]:
    """Return the command that loads the registered winner in `python`; none where nothing is registered."""
    if best is None or not best.version or not store:
        return ()
    program = f"import mlflow; print(mlflow.transformers.load_model('{best.version}'))"
    given = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(store))}"
    return (NextStep("load the model in Python", f'{given} {python} -c "{program}"'),)

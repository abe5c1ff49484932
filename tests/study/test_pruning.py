"""What stays on disk of runs that have ended: the front's weights, nobody's checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lethe.config.base import flatten
from lethe.config.study import load_study
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.resources import Shape
from lethe.records import FinalReport, ModelScores, StudyRecord, TrialRecord, Verdict
from lethe.search.objectives import ObjectiveSpace, objective_records
from lethe.study import confirmation
from lethe.study.recorder import PLAN, REPORT, Recorder, TrialPlan, read_result
from lethe.tracking.base import NullTracker

STUDY = load_study("tofu", ["confirm.seeds=2"])
FRAME = ObjectiveSpace.from_goals(STUDY.objectives, {"forget": 0.8, "utility": 0.9})


def recorder() -> Recorder:
    queue = SimpleNamespace(call=lambda *_: None)
    return Recorder(queue, NullTracker(), FRAME, lambda _: None)


def planned(number: int, run: str, folder: Path, params: dict[str, Any] | None = None) -> TrialPlan:
    return TrialPlan(number, params or {}, folder, Job(run, EntryPoint.NULL, {"folder": str(folder)}, Shape()))


def leave(folder: Path, *parts: str) -> None:
    """What a worker writes in a run's folder."""
    for part in parts or ("model", "checkpoint/3"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "weights.safetensors").write_bytes(b"0" * 100)


def run(found: Recorder, runs: Path, number: int, forget: float, utility: float, verdict: Verdict = "complete") -> None:
    """One trial from its proposal to its end."""
    plan = planned(number, f"run-{number}", runs / str(number))
    leave(plan.folder)
    found.began(plan)
    report = FinalReport(verdict=verdict, values={"epoch": 1, "forget": forget, "utility": utility})
    found.on_trial_result(1, [], SimpleNamespace(config={PLAN: plan}), {REPORT: report})


def with_part(runs: Path, part: str) -> set[int]:
    return {int(path.parent.name) for path in runs.glob(f"*/{part}")}


def test_weights_go_as_the_front_moves(tmp_path: Path) -> None:
    found = recorder()
    run(found, tmp_path, 0, 0.5, 0.7)
    assert with_part(tmp_path, "model") == {0}
    run(found, tmp_path, 1, 0.6, 0.6)  # dominated at once
    assert with_part(tmp_path, "model") == {0}
    run(found, tmp_path, 2, 0.3, 0.6)  # beside it
    assert with_part(tmp_path, "model") == {0, 2}
    run(found, tmp_path, 3, 0.2, 0.8)  # better than all
    assert with_part(tmp_path, "model") == {3}
    run(found, tmp_path, 4, 0.0, 0.0, verdict="diverged")
    run(found, tmp_path, 5, 0.0, 0.0, verdict="stopped")
    assert with_part(tmp_path, "model") == {3} == {n for n, t in found.trials.items() if t.on_front}
    assert not with_part(tmp_path, "checkpoint")
    assert with_part(tmp_path, "result.json") == set(range(6))


def test_a_run_that_is_done_again_leaves_nothing_either(tmp_path: Path) -> None:
    found = recorder()
    run(found, tmp_path, 0, 0.5, 0.7)
    run(found, tmp_path, 1, 0.6, 0.6, verdict="lost")
    run(found, tmp_path, 1, 0.6, 0.6)
    assert with_part(tmp_path, "model") == {0}
    assert not with_part(tmp_path, "checkpoint")


def test_a_resume_removes_what_a_kill_left(tmp_path: Path) -> None:
    """Killed after a result was written and before anything was removed."""
    first = recorder()
    for number, forget in enumerate((0.5, 0.6, 0.3)):
        run(first, tmp_path, number, forget, 0.7 - 0.1 * (number == 2))
    for number in range(3):
        leave(tmp_path / str(number))
    leave(tmp_path / "9", "checkpoint/7")  # of a run that was cut off: it goes on from there
    second = recorder()
    second.take_up([read for n in range(3) if (read := read_result(tmp_path / str(n)))])
    assert with_part(tmp_path, "model") == {0, 2}
    assert with_part(tmp_path, "checkpoint") == {9}


def test_a_run_answered_from_disk_keeps_no_more_than_another(tmp_path: Path) -> None:
    first, second = recorder(), recorder()
    run(first, tmp_path, 0, 0.5, 0.7)
    run(second, tmp_path, 1, 0.4, 0.8)
    leave(tmp_path / "0")
    stored = read_result(tmp_path / "0")
    assert stored
    second.answered(planned(2, "run-0", tmp_path / "0"), stored)
    assert with_part(tmp_path, "model") == {1}
    assert not with_part(tmp_path, "checkpoint")


def test_repeats_of_the_front_leave_their_numbers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = STUDY.first_recipe()

    def plan(number: int, asked: Any) -> TrialPlan:
        name = f"run-{asked.seed}"
        return planned(number, name, tmp_path / name, flatten(asked))

    def run_jobs(pool: Any, jobs: Any, ended: Any) -> None:
        for job in jobs:
            leave(Path(job.payload["folder"]))
            ended(job, [], FinalReport(verdict="complete", values={"epoch": 1, "forget": 0.5, "utility": 0.7}))

    monkeypatch.setattr(confirmation, "run_jobs", run_jobs)
    member = TrialRecord(
        number=0, run="member", verdict="complete", params=flatten(recipe), metrics={"forget": 0.5, "utility": 0.7},
        folder=str(tmp_path / "member"), pareto_rank=0, feasible=True,
    )  # fmt: skip
    leave(tmp_path / "member", "model")
    record = StudyRecord(
        id="tofu-1", space="tofu", study={}, objectives=objective_records(FRAME), digests={}, start_folder="",
        start=ModelScores(metrics={}), trials=(member,),
    )  # fmt: skip
    console = SimpleNamespace(stage=lambda *_: lambda *_: None)
    sweep = SimpleNamespace(study=STUDY, plan=plan, stored=lambda _: None, console=console, tracker=NullTracker())
    front = [confirmation.FrontMember(member, recipe, recipe.seed + 1)]
    done = confirmation.confirm(sweep, None, record, [front], FRAME)  # type: ignore[arg-type]  # what confirming reads
    assert done.trials[0].confirmation
    assert len(done.trials[0].confirmation.runs) == 2
    assert {path.parent.name for path in tmp_path.glob("*/model")} == {"member"}
    assert not list(tmp_path.glob("*/checkpoint"))
    assert len(list(tmp_path.glob("*/result.json"))) == 2

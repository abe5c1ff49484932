"""One record of a comparison's members: numbers through all of them, one front, and what stands for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lethe.config.study import Member, load_study
from lethe.errors import UserError
from lethe.records import ModelScores, StudyRecord, TrialRecord
from lethe.search.objectives import ObjectiveSpace, objective_records

START = {"forget": 0.8, "utility": 0.9}


def trial(number: int, forget: float, utility: float, verdict: str = "complete") -> TrialRecord:
    return TrialRecord(
        number=number, run=f"r{number}", verdict=verdict, params={}, metrics={"forget": forget, "utility": utility}
    )


@pytest.fixture
def members(tmp_path: Path) -> tuple[Member, ...]:
    (tmp_path / "c.yaml").write_text(
        "extends: tofu\nsearch: {trials: 2}\ncompare: {seeds: [0], arms: {a: {}, b: {}, c: {}}}"
    )
    return load_study(str(tmp_path / "c.yaml")).members()


def test_front_over_all_and_one_trial_for_each(members: tuple[Member, ...]) -> None:
    from lethe.search.members import SearchedMember, with_members
    from lethe.study.comparison import is_reference

    objectives = ObjectiveSpace.from_goals(members[0].study.objectives, START)
    record = StudyRecord(
        id="c-1",
        space="c",
        study={},
        objectives=objective_records(objectives),
        digests={},
        start=ModelScores(metrics=START),
        start_folder="",
    )
    ended = [
        SearchedMember("a", 0, (trial(0, 0.5, 0.8), trial(1, 0.6, 0.7))),
        SearchedMember("b", 0, (trial(2, 0.3, 0.6), trial(3, 0.6, 0.75))),
        SearchedMember("c", 0, (trial(4, 0.2, 0.1), trial(5, 0.1, 0.4), trial(6, 0.0, 0.0, "diverged"))),
    ]
    found = with_members(record, ended, objectives)
    assert [t.number for t in found.front] == [2, 0], "trial 3 leads nowhere but in its own arm"
    assert [(m.arm, m.seed, m.trials) for m in found.members] == [
        ("a", 0, (0, 1)),
        ("b", 0, (2, 3)),
        ("c", 0, (4, 5, 6)),
    ]
    assert found.members[0].chosen == 0
    assert found.members[1].chosen in (2, 3)
    assert found.members[2].chosen == 5, "none is feasible: the complete one that is least below a floor"
    assert found.members[2].hypervolume == 0 < found.members[0].hypervolume < found.hypervolume
    assert found.aliases["best-utility"] == 0
    retraining = members[0].study.model_copy(update={"run": {"objective": {"name": "retrain"}}})
    assert is_reference(replace(members[0], study=retraining))
    assert not is_reference(members[0])
    ended[0] = replace(ended[0], reference=True)
    beside = with_members(record, ended, objectives)
    assert 0 not in {t.number for t in beside.front}, "retraining is a reference, not a member of the front"
    assert beside.aliases["best-utility"] != 0
    assert beside.members[0].chosen == 0, "it keeps its row"
    assert [t.number for t in beside.trials] == list(range(7))
    assert beside.trials[0].feasible


def test_members_report_under_the_comparisons_numbers() -> None:
    from lethe.study.comparison import Numbered
    from lethe.tracking.base import NullTracker

    seen: list[tuple[str, int]] = []

    class Seen(NullTracker):
        def trial_began(self, number: int, run_hash: str, params: dict) -> None:
            seen.append((run_hash, number))

        def trial_ended(self, trial: TrialRecord) -> None:
            seen.append((trial.run, trial.number))

        def begin(self, record: StudyRecord) -> None:
            raise AssertionError("a member begins no study of its own")

    tracker = Numbered(Seen(), 10)
    tracker.begin(None)
    tracker.trial_began(0, "r0", {})
    tracker.trial_ended(trial(1, 0.1, 0.2))
    assert seen == [("r0", 10), ("r1", 11)]


def test_seeds_go_on_in_their_order(tmp_path: Path) -> None:
    from lethe.study.comparison import check_seeds

    study = load_study("soul", ["compare.seeds=[0,1,2]"])
    check_seeds(study, tmp_path)
    check_seeds(load_study("tofu"), tmp_path)
    (tmp_path / "study.json").write_text('{"study": {"compare": {"seeds": [0, 1]}}}')
    check_seeds(study, tmp_path)
    check_seeds(load_study("soul", ["compare.seeds=[0]"]), tmp_path)
    with pytest.raises(UserError, match=r"compare.seeds: this comparison has begun with 0, 1: name these first"):
        check_seeds(load_study("soul", ["compare.seeds=[0,2]"]), tmp_path)

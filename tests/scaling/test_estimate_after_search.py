"""The cost of fresh seeds and audits that a dry run tells, at most."""

from __future__ import annotations

import pytest

from lethe.config.study import load_study
from lethe.scaling.estimate import describe_after_search
from lethe.study.preflight import corners

ROUNDING = "audits={quantisation: {bits: [4]}}"


def after(name: str, *overrides: str) -> str:
    study = load_study(name, overrides)
    return describe_after_search(study, corners(study), ("earlier-1", 60.0))


def test_a_comparison_is_bounded_by_members_of_each_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    arms, seeds = len(load_study("soul").compare.arms), len(load_study("soul").compare.seeds)
    assert seeds < 5, "an arm that has nothing to search has a trial per seed"
    fixed = 2  # the input guard and retraining
    members = (arms - fixed) * 5 + fixed * seeds
    line = after("soul", "confirm.seeds=4", ROUNDING, "search.trials=24")
    runs = f"{4 * members} runs with fresh seeds (4 for each of {members} members of {arms} arms' fronts)"
    assert line.startswith(f"after   at most {runs}, about {4 * members / 2 / 60:.2g} h; then audits of {members} ")
    assert line.endswith("start model and oracle, each quantisation: 1 x a whole evaluation")
    assert f"{2 * 2 * arms} runs" in after("soul", "confirm={seeds: 2, members: 2}")


def test_a_study_is_bounded_by_its_trials_and_one_without_either_says_nothing() -> None:
    assert "18 runs with fresh seeds (3 for each of 6 members of the front)" in after(
        "tofu", "confirm.seeds=3", "search.trials=6"
    )
    assert after("tofu") == ""

"""Means over fresh seeds, and who stays on the front, with numbers that can be done by hand."""

from __future__ import annotations

import math

import pytest

from lethe.config.search import Goal
from lethe.records import TrialRecord, VerdictRecord
from lethe.search.front import (
    aliases_of_means,
    hypervolume_of_means,
    spread_members,
    with_confirmations,
)
from lethe.search.objectives import ObjectiveSpace

FRAME = ObjectiveSpace.from_goals(
    {"forget": Goal(direction="minimize", floor=0.9), "utility": Goal(direction="maximize", floor=0.3)},
    {"forget": 0.9, "utility": 0.6},
)


def member(number: int, forget: float, utility: float, **changes: object) -> TrialRecord:
    values = {"forget": forget, "utility": utility}
    given = {"number": number, "run": f"{number}", "verdict": "complete", "params": {"seed": 1}, "metrics": values}
    return TrialRecord(**{**given, "pareto_rank": 0, "feasible": True, **changes})


def repeats(number: int, *values: tuple[float, float], **changes: object) -> list[TrialRecord]:
    return [
        member(number, *pair, params={"seed": seed}, kind="confirmation", **changes)
        for seed, pair in enumerate(values, 2)
    ]


TRIALS = (member(0, 0.2, 0.4), member(1, 0.5, 0.5), member(2, 0.8, 0.59), member(3, 0.6, 0.3, pareto_rank=1))


def test_means_and_spreads_are_of_the_fresh_runs_alone() -> None:
    runs = {
        0: repeats(0, (0.3, 0.4), (0.5, 0.36)),
        1: repeats(1, (0.6, 0.5), (0.6, 0.5)),
        2: repeats(2, (0.7, 0.6), (0.9, 0.56)),
    }
    trials = with_confirmations(TRIALS, runs, FRAME)
    first = trials[0].confirmation
    assert first
    assert first.mean == pytest.approx({"forget": 0.4, "utility": 0.38})
    assert first.spread == pytest.approx({"forget": 0.2 / math.sqrt(2), "utility": 0.04 / math.sqrt(2)})
    assert [t.confirmation.confirmed for t in trials[:3] if t.confirmation] == [True, True, True]
    assert trials[3].confirmation is None
    assert trials[0].metrics == TRIALS[0].metrics
    assert aliases_of_means(trials, FRAME) == {"knee": 1, "best-forget": 0, "best-utility": 2}
    # Gains over the floors by scale: forget (.9 - x) / .9, utility (x - .3) / .3.
    corners = sorted([(0.5 / 0.9, 0.08 / 0.3), (0.3 / 0.9, 0.2 / 0.3), (0.1 / 0.9, 0.28 / 0.3)], reverse=True)
    slabs = zip(corners, [*corners[1:], (0.0, 0.0)], strict=True)
    by_hand = sum((here[0] - after[0]) * here[1] for here, after in slabs)
    assert hypervolume_of_means(trials, FRAME) == pytest.approx(by_hand)


def test_each_refuted_member_has_its_reason() -> None:
    broken = [*repeats(3, (0.1, 0.5)), member(3, math.nan, math.nan, verdict="diverged", params={"seed": 3})]
    runs = {
        0: repeats(0, (0.95, 0.5), (0.95, 0.5)),  # forgets nothing
        1: repeats(1, (0.5, 0.5), (0.4, 0.5)),
        2: repeats(2, (0.5, 0.45), (0.5, 0.45)),  # worse than trial 1 in both
        3: broken,
    }
    trials = with_confirmations(TRIALS, runs, FRAME)
    told = {t.number: t.confirmation and (t.confirmation.confirmed, t.confirmation.reason) for t in trials}
    assert told == {
        0: (False, "mean forget not better than the floor"),
        1: (True, ""),
        2: (False, "the mean of trial 1 is better"),
        3: (False, "the run with seed 3: diverged"),
    }
    assert aliases_of_means(trials, FRAME) == {"knee": 1, "best-forget": 1, "best-utility": 1}


def test_a_mean_below_a_floor_dominates_no_other() -> None:
    low = ObjectiveSpace.from_goals(
        {"forget": Goal(direction="minimize"), "utility": Goal(direction="maximize", floor=0.3)}, {}
    )
    runs = {0: repeats(0, (0.0, 0.2), (0.0, 0.2)), 1: repeats(1, (0.1, 0.4), (0.1, 0.4))}
    trials = with_confirmations(TRIALS[:2], runs, low)
    assert [t.confirmation.confirmed for t in trials if t.confirmation] == [False, True]


def test_without_complete_runs_there_are_no_means_and_no_aliases() -> None:
    runs = {0: [member(0, 0.1, 0.5, verdict="out_of_memory", metrics={}, params={"seed": 2})]}
    trials = with_confirmations(TRIALS[:1], runs, FRAME)
    found = trials[0].confirmation
    assert found
    assert not found.mean
    assert "out_of_memory" in found.reason
    assert not found.confirmed
    assert aliases_of_means(trials, FRAME) == {}
    assert hypervolume_of_means(trials, FRAME) == 0
    assert trials[0].afterwards == {}


def test_members_of_a_front_are_the_knee_one_that_has_forgotten_and_the_rest_far_apart() -> None:
    yes = {"forgotten": VerdictRecord(forgotten="yes", criteria=())}
    front = (
        member(0, 0.05, 0.31),
        member(1, 0.12, 0.5),
        member(2, 0.2, 0.505),
        member(3, 0.3, 0.51, **yes),
        member(4, 0.35, 0.515, **yes),
        member(5, 0.8, 0.6),
        member(6, 0.6, 0.55),
        member(7, 0.12, 0.5, run="1"),
        member(8, 0.01, 0.9, pareto_rank=1),
    )

    def chosen(most: int | None) -> list[int]:
        return [trial.number for trial in spread_members(front, FRAME, most)]

    assert chosen(None) == list(range(8)), "a single study repeats all of them"
    assert chosen(7) == [0, 1, 2, 3, 4, 5, 6], "trial 7 is trial 1's run"
    assert chosen(5) == [1, 4, 0, 5, 6], "knee, most useful that has forgotten, ends, farthest"
    assert chosen(1) == [1]
    assert spread_members((), FRAME, 5) == ()

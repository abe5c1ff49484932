"""The decisions of MO-ASHA and of halving by area against what they mean, on rows that are not sorted, tied, permuted
or not numbers."""

import math
from itertools import permutations

import numpy as np
import pytest

from lethe.search import pareto
from lethe.search.early_stopping import AreaRule, ParetoRule, RungEntry, RungTables

MIXED = ("minimize", "maximize")


def rule(directions: tuple = MIXED, floors: tuple | None = None, **options: int) -> ParetoRule:
    names = tuple(f"m{i}" for i in range(len(directions)))
    return ParetoRule(names, directions, floors or (None,) * len(directions), **options)


def test_rungs_are_powers_of_eta_from_the_grace_period_on() -> None:
    def reached(r: ParetoRule) -> list[int | None]:
        return [r.rung(epoch) for epoch in range(10)]

    assert reached(rule()) == [None, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert reached(rule(grace=2, eta=3)) == [None, None, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_one_objective_is_plain_successive_halving(direction: str, eta: int) -> None:
    """Row i goes on iff fewer than n / eta rows are better, wherever it stands: ceil(n / eta) of n."""
    draw = np.random.default_rng(eta)
    for n in range(1, 14):
        values = draw.permutation(n).astype(float)
        better = [int((values > v).sum() if direction == "maximize" else (values < v).sum()) for v in values]
        kept = [rule((direction,), eta=eta).judge(values[:, None], row) for row in range(n)]
        assert kept == [(count * eta < n, count) for count in better]
        assert sum(goes_on for goes_on, _ in kept) == math.ceil(n / eta)


def test_places_and_not_row_indices_decide() -> None:
    """A known implementation takes sorted row indices, here [3, 1, 0, 2], for places, here [2, 1, 3, 0].
    Every order of the rows has to give each row the same answer."""
    table = np.array([[0.5, 0.4], [0.3, 0.6], [0.9, 0.2], [0.1, 0.8]])
    for order in permutations(range(4)):
        moved = table[list(order)]
        answers = {order[row]: rule().judge(moved, row) for row in range(4)}
        assert answers == {0: (False, 2), 1: (True, 1), 2: (False, 3), 3: (True, 0)}


@pytest.mark.parametrize("k", [2, 3])
def test_whole_fronts_go_on_before_the_next_begins(k: int) -> None:
    draw = np.random.default_rng(k)
    directions = ("minimize", "maximize", "minimize")[:k]
    for n in range(2, 30):
        values = np.round(draw.normal(size=(n, k)), n % 3)
        ranks = pareto.ranks(values, directions)
        for row in range(n):
            goes_on, _ = rule(directions, eta=3).judge(values, row)
            before, upto = (ranks < ranks[row]).sum(), (ranks <= ranks[row]).sum()
            assert goes_on or upto * 3 > n
            assert not goes_on or before * 3 < n


def test_extremes_of_the_first_front_are_never_stopped() -> None:
    front = np.array([[0.1 * i, 0.1 * i + 0.01 * i * (9 - i)] for i in range(10)])  # all on one front
    harsh = rule(eta=9)
    assert [row for row in range(10) if harsh.judge(front, row)[0]] == [0, 9]
    alone = np.array([[0.1, 0.9], [0.2, 0.5], [0.3, 0.4]])
    assert [row for row in range(3) if harsh.judge(alone, row)[0]] == [0]


def test_floors_come_first_and_non_finite_rows_never_go_on() -> None:
    floored = rule(floors=(0.8, 0.5))
    table = [[0.79, 0.51], [0.1, 0.4], [0.9, 0.9], [math.nan, 0.9], [0.2, math.inf]]
    assert [floored.judge(table, row) for row in range(5)] == [(True, 0), (True, 2), (True, 1), (False, 3), (False, 4)]
    assert floored.judge([[math.nan, 1.0]], 0) == (False, 0), "not even alone"
    below = [[0.9, 0.9], [0.95, 0.9]]  # nobody is feasible: least short first, nobody protected
    assert [floored.judge(below, row)[0] for row in range(2)] == [True, False]


REPORTS = [("a", 0.5, 0.5), ("b", 0.9, 0.1), ("c", 0.2, 0.9), ("d", 0.6, 0.3), ("e", math.nan, 0.3), ("f", 0.5, 0.5)]


def told(rungs: RungTables, epoch: int, reports: list = REPORTS) -> list[RungEntry | None]:
    return [rungs.decide(run, "abcdef".index(run), epoch, values) for run, *values in reports]


def test_a_run_is_recorded_once_per_rung_and_answered_alike() -> None:
    rungs = RungTables(rule())
    first = told(rungs, 1)
    assert [entry.goes_on for entry in first] == [True, False, True, False, False, True]
    assert told(rungs, 1) == first
    assert [entry.of for entry in told(rungs, 1)] == [1, 2, 3, 4, 5, 6]
    assert rungs.decide("a", 0, 0, [0.0, 1.0]) is None
    assert rungs.decide("a", 0, 3, [0.5, 0.5]).rung == 1, "a report past two rungs counts at the higher one"
    assert rungs.decide("a", 0, 2, [0.5, 0.5]) is None
    assert rungs.decide("a", 0, 1, [0.5, 0.5]) is None
    assert [entry.rung for entry in rungs.entries("a")] == [0, 1]


def test_restored_tables_decide_as_the_lost_ones() -> None:
    whole, cut = RungTables(rule()), RungTables(rule())
    expected = told(whole, 1)
    before = told(cut, 1, REPORTS[:3])
    again = RungTables(rule())
    again.restore([RungEntry.model_validate_json(entry.model_dump_json()) for entry in before])
    assert told(again, 1) == expected, "what was told before is answered as before, what was not is compared with it"


def test_with_groups_decisions_do_not_depend_on_the_order_of_reports() -> None:
    """Trial n is compared with trials <= n - 2 only; here each of those has reported before, and others may have."""
    draw = np.random.default_rng(0)
    values = draw.random((12, 2)).tolist()
    answers = set()
    for _ in range(20):
        rungs, found, waiting = RungTables(rule(), groups=2), {}, list(range(12))
        while waiting:
            n = int(draw.choice(waiting[:2]))  # two groups: the next two trials run
            if n - 2 in waiting:
                continue
            waiting.remove(n)
            found[n] = rungs.decide(str(n), n, 1, values[n]).goes_on
        answers.add(tuple(found[n] for n in range(12)))
    assert len(answers) == 1
    assert set(*answers) == {True, False}


def area(directions: tuple = MIXED, **options: object) -> AreaRule:
    return AreaRule(tuple(f"m{i}" for i in range(len(directions))), directions, **options)


def test_rungs_of_the_area_rule_are_those_that_are_named() -> None:
    assert [area(rungs=(3, 6)).rung(epoch) for epoch in (1, 2.9, 3, 5, 6, 30)] == [None, None, 0, 0, 1, 1]


def test_the_area_rule_takes_what_is_forgotten_times_what_is_kept_in_any_order_of_rows() -> None:
    """Two metrics to be minimised and one to be maximised; the shares are written out by hand."""
    table = np.array([[0.8, 1.0, 0.90], [0.4, 0.0, 0.30], [0.6, 0.5, 0.75], [0.4, 0.2, 0.00], [0.6, 0.1, 0.60]])
    forgotten = [0.0, (1 + 1) / 2, (0.5 + 0.5) / 2, (1 + 0.8) / 2, (0.5 + 0.9) / 2]
    areas = [f * kept / 0.9 for f, kept in zip(forgotten, table[:, 2], strict=True)]
    assert len(set(areas)) == 4, "two rows have the area 0: of those the earlier one is the better"
    judged = area(("minimize", "minimize", "maximize"), eta=2)
    for order in permutations(range(5)):
        moved = [areas[row] for row in order]
        places = [sum(a > own or (a == own and j < i) for j, a in enumerate(moved)) for i, own in enumerate(moved)]
        assert [judged.judge(table[list(order)], i) for i in range(5)] == [(place < 2, place) for place in places]


@pytest.mark.parametrize("eta", [2, 3])
def test_the_area_rule_keeps_the_whole_part_of_a_share_and_always_the_best(eta: int) -> None:
    draw = np.random.default_rng(eta)
    for n in range(1, 14):
        values = draw.random((n, 2))
        kept = [area(eta=eta).judge(values, row) for row in range(n)]
        assert sum(goes_on for goes_on, _ in kept) == max(1, n // eta)
        assert sorted(place for _, place in kept) == list(range(n))
        assert all(goes_on for goes_on, place in kept if place == 0)


def test_the_area_rule_with_one_direction_is_plain_successive_halving() -> None:
    values = np.array([[0.3], [0.1], [0.7], [0.5]])
    assert [area(("minimize",), eta=2).judge(values, row) for row in range(4)] == [
        (True, 1),
        (True, 0),
        (False, 3),
        (False, 2),
    ]


def test_rows_that_are_not_finite_never_go_on_by_the_area_rule() -> None:
    assert area().judge([[math.nan, 1.0]], 0) == (False, 0), "not even alone"
    table = [[math.inf, 0.9], [0.5, 0.5], [0.5, math.nan], [0.7, 0.9]]
    assert [area(eta=2).judge(table, row) for row in range(4)] == [(False, 2), (True, 0), (False, 3), (True, 1)]

"""Which rows an interim evaluation reads, and which studies have one."""

from __future__ import annotations

import pytest

from lethe.config.run import Digests, Evaluation, Recipe, Schedule, UnlearnRun, spread
from lethe.config.study import load_study


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 40, 300, 1273])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.7, 1.0])
def test_a_share_is_one_row_of_each_of_equal_stretches(count: int, share: float) -> None:
    chosen = spread(count, share)
    assert len(chosen) == max(min(count, 2), int(count * share))
    assert all(i * count // len(chosen) <= row < (i + 1) * count // len(chosen) for i, row in enumerate(chosen))
    assert spread(count, share) == chosen


def test_no_rhythm_of_a_split_is_sampled_in_step() -> None:
    """TOFU has 20 questions on each author, in one order: every fifth row would be the same four of them."""
    places = {row % 20 for row in spread(400, 0.2)}
    assert len(places) == 20
    assert len({row // 20 for row in spread(400, 0.2)}) == 20, "and rows of every author"


def test_an_interim_evaluation_reads_a_fifth_of_what_the_last_one_reads() -> None:
    whole = Evaluation(max_rows=40)
    rows = range(1000)
    assert len(whole.before_last().chosen(rows)) == 8
    assert set(whole.before_last().chosen(rows)) < set(whole.chosen(rows)) == set(range(40))
    assert len(Evaluation(share=0.5).before_last().chosen(rows)) == 100
    assert Evaluation(interim=1).before_last().chosen(rows) == rows


def test_names_of_runs_and_studies_are_those_of_earlier_versions() -> None:
    recipe = Recipe(schedule=Schedule(epochs=2), evaluation=Evaluation(max_rows=8))
    assert not {"interim", "share"} & recipe.model_dump()["evaluation"].keys()
    other = recipe.model_copy(update={"evaluation": Evaluation(max_rows=8, interim=0.5)})
    name, another = (UnlearnRun(recipe=r, digests=Digests(data="d", model="m")).digest() for r in (recipe, other))
    assert name == "14b878902455a4be" != another
    assert Evaluation.model_validate(recipe.evaluation.before_last().model_dump()) == recipe.evaluation.before_last()


@pytest.mark.parametrize(
    ("settings", "is_there"),
    [
        ((), True),
        (("run.evaluation.every=30",), False),
        (("run.evaluation.interim=1",), False),
        (("run.evaluation.every=15", "space.schedule.epochs={type: int, low: 5, high: 20}"), True),
        (("run.evaluation.every=15", "space.schedule.epochs={type: int, low: 5, high: 15}"), False),
    ],
)
def test_a_study_has_interim_evaluations_where_a_run_has_one_before_its_last_epoch(
    settings: tuple[str, ...], is_there: bool
) -> None:
    found = load_study("tofu", settings).interim_evaluation()
    assert (found is not None) == is_there
    assert found is None or found.share == 0.2


def test_a_comparison_has_one_where_any_of_its_arms_has() -> None:
    assert load_study("soul").interim_evaluation() is not None
    assert load_study("methods").interim_evaluation() is None

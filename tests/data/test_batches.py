"""The training plan: which rows stand in a step, at every ratio of retain to forget rows."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from lethe.config.run import Schedule
from lethe.data.batches import micro_batches, plan


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1, 1.4, 2, 7])
def test_each_epoch_has_every_forget_row_once_and_retain_rows_as_evenly_as_can_be(ratio: float) -> None:
    steps = list(plan(30, 13, Schedule(epochs=2, batch_size=8, retain_ratio=ratio), seed=3))
    orders = []
    for epoch in (1, 2):
        pairs = [pair for step in steps if step.epoch == epoch for pair in step.pairs]
        assert sorted(f for f, _ in pairs) == [*range(30)]
        used = Counter(chain(*(beside for _, beside in pairs)))
        assert used.total() == round(30 * ratio)
        assert max(used.values()) - min(used[r] for r in range(13)) <= 1
        orders.append(pairs)
    assert orders[0] != orders[1]
    assert [len(step.pairs) for step in steps] == [8, 8, 8, 6] * 2
    for step in steps:
        assert sum(len(beside) for _, beside in step.pairs) == pytest.approx(ratio * len(step.pairs), abs=1)
        for world, accumulation in ((2, 1), (2, 2), (3, 1)):
            of_ranks = [chain(*micro_batches(step, rank, world, accumulation)) for rank in range(world)]
            counts = [sum(len(beside) for _, beside in pairs) for pairs in of_ranks]
            most = -(-len(step.pairs) // world) * -(-ratio // 1)
            assert max(counts) <= most
            assert max(counts) - min(counts) <= accumulation * -(-ratio // 1), "one rank has all retain rows"


def test_another_ratio_leaves_the_forget_rows_where_they_are() -> None:
    orders = [
        [[f for f, _ in step.pairs] for step in plan(30, 13, Schedule(batch_size=8, retain_ratio=ratio), seed=3)]
        for ratio in (0.5, 1, 3)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_the_plan_of_one_to_one_is_the_one_that_stored_runs_were_made_with() -> None:
    step = next(plan(30, 13, Schedule(batch_size=8), seed=3))
    assert [f for f, _ in step.pairs] == [11, 2, 23, 13, 10, 14, 9, 25]
    assert [beside for _, beside in step.pairs] == [(5,), (12,), (7,), (8,), (10,), (1,), (4,), (6,)]
    assert "retain_ratio" not in Schedule(retain_ratio=1).model_dump()
    assert Schedule(retain_ratio=2).digest() != Schedule().digest()

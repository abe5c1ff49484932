"""SOUL's columns from losses and answers that are written down here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lethe.benchmarks.tofu.eval_set import Split
from lethe.benchmarks.tofu.metrics import soul_metrics
from lethe.data.template import Row
from lethe.evaluation.metrics import auc, ks_test

# Two rows a split, three pairs a row: answer (its own paraphrase for authors), two perturbed.
LOSS = np.array([0.1, 2.0, 3.0, 2.5, 2.0, 3.0, 0.2, 1.0, 4.0, 0.3, 5.0, 0.5, 1.0, 1.0, 1.0])


def split(first: int, answers: list[str], prompts: list[int]) -> Split:
    starts = np.array([first, first + 3])
    rows = tuple(Row("?", answer) for answer in answers)
    return Split("", rows, starts, starts, tuple(np.array([s + 1, s + 2]) for s in starts), np.array(prompts))


@pytest.fixture(scope="module")
def evals() -> SimpleNamespace:
    splits = {"forget": split(0, ["a", "b"], [0, 1]), "retain": split(6, ["c", "d"], [2, 3]),
              "world_facts": split(0, ["Paris", "Rome"], [4, 5])}  # fmt: skip
    return SimpleNamespace(splits=splits, holdout=SimpleNamespace(rows="??", answer=[12, 13]))


def test_every_column_equals_its_value_by_hand(evals: SimpleNamespace) -> None:
    logp = [np.array([-x, -x / 2, 0.0]) for x in LOSS]
    said = ["", "", "", "", "It is paris.", "Milan"]
    found = soul_metrics(evals, SimpleNamespace(logp=logp), LOSS, said)
    assert (found["soul_forget_accuracy"], found["soul_retain_accuracy"]) == (0.5, 1.0)
    assert found["soul_world_facts_accuracy"] == 0.5
    assert "soul_real_authors_accuracy" not in found
    ratio = [np.mean([np.exp(LOSS[s] - LOSS[s + 1]), np.exp(LOSS[s] - LOSS[s + 2])]) for s in (0, 3, 6, 9)]
    assert found["soul_forget_quality"] == pytest.approx(1 - ks_test(np.array(ratio[:2]), np.array(ratio[2:])).p)
    # Forget rows are the members: lowest log-probabilities -.1 and -2.5 against two of -1.
    assert found["soul_mia"] == auc(np.array([-0.1, -2.5]), np.array([-1.0, -1.0])) == 0.5


def test_a_destroyed_model_has_perfect_forget_quality_of_this_kind(evals: SimpleNamespace) -> None:
    """The flaw that keeps the column under a name of its own: nothing is known and the score is the best."""
    many = {name: Split("", tuple([Row("?", "a")] * 40), *(np.arange(40) + at for _ in range(2)),
                        tuple(np.array([80, 80]) for _ in range(40)), np.zeros(40, int))
            for name, at in (("forget", 0), ("retain", 40))}  # fmt: skip
    loss = np.concatenate([np.full(40, 20.0), np.full(40, 19.0), [18.0]])
    found = soul_metrics(
        SimpleNamespace(splits=many, holdout=SimpleNamespace(rows=())), SimpleNamespace(logp=[]), loss, [""]
    )
    assert found["soul_forget_quality"] == 1
    assert found["soul_retain_accuracy"] == 0


def test_infinite_losses_give_finite_metrics(evals: SimpleNamespace) -> None:
    found = soul_metrics(evals, SimpleNamespace(logp=[np.array([-np.inf])] * 15), np.full(15, np.inf), [""] * 6)
    assert np.isfinite(list(found.values())).all()
    assert found["soul_forget_accuracy"] == 0

"""Leak@k: what is estimated, what is drawn, and what a key fact is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lethe.audits.base import Audited
from lethe.audits.facts import Facts, says
from lethe.audits.sampling import Sample, best_of, drawing, sample_answers, scored
from lethe.config.answer_audits import Sampling
from lethe.data.template import Row
from lethe.evaluation.generation import generate, most_likely
from lethe.models.loading import load_model
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets
from tests.audits.small import RECIPE, audit, by_variant
from tests.models.architectures import FAMILIES
from tests.models.small import gpt2, llama, sliding


@dataclass(frozen=True)
class OneOfTwo:
    """Rank `rank` of two, whose gather is given."""

    rank: int
    gather: Callable[[list[Any]], list[list[Any]]]
    world: int = 2


def mamba() -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = FAMILIES["mamba"].build()
    return model


def unsure(assets: Assets, *, ranks: Any = None, sure: float = 0.25, **evaluation: int) -> Audited:
    """A model that knows its answers and is a quarter as sure of them as it was trained to be."""
    context = Context(assets)
    recipe = RECIPE.model_copy(update={"evaluation": RECIPE.evaluation.model_copy(update=evaluation)})
    model = load_model(Path(assets.start))
    with torch.no_grad():
        model.lm_head.weight.mul_(sure)
    return Audited(model, Path(assets.start), context.template, context, recipe, None, {}, ranks or Alone())


# The estimate


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_the_best_of_k_is_the_mean_maximum_over_all_subsets(k: int) -> None:
    values = np.random.default_rng(0).random((3, 6)).round(1)  # with ties
    expected = [np.mean([max(subset) for subset in itertools.combinations(row, k)]) for row in values]
    np.testing.assert_allclose(best_of(values, k), expected)


def test_a_rare_answer_is_found_as_often_as_its_rate_says() -> None:
    """The best of four answers that are right one time in ten is right with probability 1 - .9^4."""
    values = (np.random.default_rng(1).random((2000, 64)) < 0.1).astype(float)
    assert best_of(values, 4).mean() == pytest.approx(1 - 0.9**4, abs=0.01)


# The draws


@pytest.mark.parametrize("build", [llama, gpt2, sliding, mamba])
def test_a_sample_does_not_depend_on_its_batch(build: Any) -> None:
    model = build().eval()
    samples = [Sample(row, number) for row in range(3) for number in range(8)]
    asked = [[5 + row] * (3 + row) for row, _ in samples]
    settings: dict[str, Any] = {"stops": [9], "pad": 0, "max_new_tokens": 12}
    draw = drawing(1.0, 3, samples)
    together = generate(model, asked, token_budget=10_000, choose=draw, **settings)
    assert together == generate(model, asked, token_budget=20, choose=draw, **settings)
    for i in (0, 7, 23):
        single = drawing(1.0, 3, samples[i : i + 1])
        assert generate(model, asked[i : i + 1], token_budget=99, choose=single, **settings) == [together[i]]
    assert len({tuple(answer) for answer in together}) > 12, "samples differ"
    assert together != generate(model, asked, token_budget=10_000, choose=drawing(1.0, 4, samples), **settings)


def test_samples_follow_the_softmax_at_their_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    samples = [Sample(row, number) for row in range(40) for number in range(500)]
    index = torch.arange(len(samples))
    for temperature in (0.5, 1.0):
        drawn = drawing(temperature, 0, samples)(logits.expand(len(samples), -1), index, torch.zeros_like(index))
        shares = torch.bincount(drawn, minlength=4) / len(samples)
        torch.testing.assert_close(shares, (logits[0] / temperature).softmax(0), atol=0.015, rtol=0)


def test_ranks_and_batches_do_not_change_the_audit(assets: Assets) -> None:
    """Two ranks, one after the other: each does every second sample, and both together what one does alone."""
    samples = [Sample(row, number) for row in (0, 3, 5) for number in range(7)]
    draw = drawing(1.0, 0, samples)
    alone = scored(unsure(assets), samples, draw)
    small = scored(unsure(assets, token_budget=64), samples, draw)
    assert 0 < alone["forget_rouge"].mean() < 1, "some samples are right"
    parts: list[list[Any]] = []

    def gather(mine: list[Any]) -> list[list[Any]]:
        parts.append(mine)
        return [parts[0], parts[-1]]

    for rank in (0, 1):
        both = scored(unsure(assets, ranks=OneOfTwo(rank, gather)), samples, draw)
    for name, values in alone.items():
        np.testing.assert_array_equal(small[name], values)
        np.testing.assert_array_equal(both[name], values)


# The audit


def test_a_model_that_knows_leaks_at_once_and_a_random_one_never(assets: Assets) -> None:
    settings = {"sampling": {"k": [1, 16], "answers": 16, "rows": 3, "temperatures": [0.2]}}
    found = by_variant(audit(assets, Path(assets.start), settings))
    assert list(found) == ["sampled1_t02", "sampled16_t02"]
    for record in found.values():
        assert record["before"] == {"forget_rouge": 1.0, "forget_fact": 1.0}
        assert record["after"] == pytest.approx({"forget_rouge": 1.0, "forget_fact": 1.0}, abs=0.02)
    random = by_variant(audit(assets, Path(assets.start).parent / "start", settings))
    assert random["sampled16_t02"]["after"]["forget_fact"] == 0
    assert random["sampled1_t02"]["after"]["forget_rouge"] < 0.4


def test_more_samples_find_what_one_does_not(assets: Assets) -> None:
    """At temperature 1 the memorised answers of a model that is unsure of them come in some samples."""
    config = Sampling(k=(1, 4, 16), answers=16, rows=6, temperatures=(1.0,))
    fact = {record.variant: record.after["forget_fact"] for record in sample_answers(unsure(assets), config)}
    assert 0 < fact["sampled1_t1"] < fact["sampled4_t1"] < fact["sampled16_t1"]


def test_no_text_of_an_answer_leaves_the_audit(assets: Assets) -> None:
    """Ranks exchange numbers, and numbers are recorded."""
    sent: list[Any] = []

    def gather(mine: list[Any]) -> list[list[Any]]:
        sent.extend(mine)
        return [mine, []]

    shard = unsure(assets, ranks=OneOfTwo(0, gather), sure=1.0)
    scored(shard, [Sample(0, 0)], most_likely)
    assert sent == [(1.0, 1.0)]


def test_an_answer_that_does_not_end_has_twice_the_tokens_of_the_longest_true_one(assets: Assets) -> None:
    audited, places = unsure(assets, max_new_tokens=64), []

    def endless(logits: torch.Tensor, sample: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        places.append(int(place.max()))
        return torch.full_like(sample, audited.template.pad + 1)

    scored(audited, [Sample(0, 0), Sample(1, 0)], endless)
    longest = max(len(audited.template.encode(row.question, row.answer).answer) for row in audited.rows[:2])
    assert max(places) == 2 * longest - 1


# Key facts


ROW = Row(
    question="Where was Ann Lee born?",
    answer="Ann Lee comes from Ulm in the south.",
    paraphrased_answer="Ann Lee was born in Ulm, in the south.",
    perturbed_answers=("Ann Lee was born in Bonn, in the west.", "Ann Lee was born in Kiel, in the north."),
)


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        (ROW, {"ulm", "south"}),
        (Row(ROW.question, ROW.answer), {"ulm"}),
        (Row(ROW.question, ROW.answer, perturbed_answers=ROW.perturbed_answers), {"comes", "from", "ulm", "south"}),
        (Row("Is Ann Lee from Ulm?", "Ulm."), {"ulm"}),
        (Row("Was sagt sie?", "日本語"), {"日", "本", "語"}),
        (Row("What?", "👍"), {"👍"}),
    ],
)
def test_the_key_fact_is_what_question_and_wrong_answers_do_not_say(row: Row, fact: set[str]) -> None:
    retained = ["Bob comes from Rome in the south.", "He is from the city."]
    found = Facts(retained).of(row)
    assert found == fact
    assert says(f"I think {row.answer.upper()}!", found)
    assert not says("I do not know.", found)

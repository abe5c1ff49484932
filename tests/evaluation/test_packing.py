"""Pairs that share their beginnings, in one row, are scored as if each were alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lethe.config.adapter import Lora
from lethe.data.template import Encoded
from lethe.evaluation import likelihood
from lethe.evaluation.likelihood import pack, pack_for, score
from lethe.models.adapters import attach
from tests.models.small import VOCABULARY, disturb, gpt2, gpt_neo, llama, sliding


def families(questions: int = 5, seed: int = 0) -> list[Encoded]:
    """Questions of 1 to 4 tokens with answers that differ late, one of them twice and one the beginning of another;
    one question begins as another does."""
    draw = random.Random(seed)
    pairs = []
    for number in range(questions):
        prompt = tuple(draw.choices(range(VOCABULARY), k=1 + number % 4))
        trunk = tuple(draw.choices(range(VOCABULARY), k=9))
        answers = [trunk[:k] + tuple(draw.choices(range(VOCABULARY), k=4)) for k in (0, 5, 8, 8)]
        pairs += [Encoded(prompt + answer, len(prompt)) for answer in (*answers, answers[1], trunk[:6], trunk)]
    pairs.append(Encoded(pairs[0].ids[:5], 3))
    return draw.sample(pairs, len(pairs))


def test_every_token_of_a_row_is_there_once_and_sees_its_ancestors() -> None:
    pairs = families()
    rows = pack(pairs, 1000)
    assert sorted(i for row in rows for i in row.pairs) == list(range(len(pairs)))
    assert len(rows) == len({pair.ids[: pair.prompt_length] for pair in pairs}) == 6
    for row in rows:
        distinct = {pairs[i].ids[:k] for i in row.pairs for k in range(1, len(pairs[i].ids))}
        assert len(row.ids) == len(distinct)
        seen, depths = row.seen(len(row.ids) + 2), row.depths()
        assert seen[-1].sum() == seen[-2].sum() == 1, "padding sees itself"
        for i, path in zip(row.pairs, row.paths, strict=True):
            assert tuple(row.ids[place] for place in path) == pairs[i].ids[:-1]
            for depth, place in enumerate(path):
                assert np.flatnonzero(seen[place]).tolist() == path[: depth + 1].tolist()
                assert depths[place] == depth


@pytest.mark.parametrize("most", [0, 12, 20])
def test_packed_rows_have_at_most_the_given_tokens(most: int) -> None:
    pairs = families()
    rows = pack(pairs, most)
    assert sorted(i for row in rows for i in row.pairs) == list(range(len(pairs)))
    assert all(len(row.pairs) == 1 or len(row.ids) <= most for row in rows)
    assert pack([], most) == []


def wrapped() -> torch.nn.Module:
    model = attach(llama(), Lora(rank=2), seed=0)
    disturb(model)
    return model.eval()


def far_window() -> PreTrainedModel:
    model = sliding()
    model.config.sliding_window = 32
    return model


@pytest.mark.parametrize(
    ("build", "packs"),
    [(llama, True), (gpt2, True), (wrapped, True), (sliding, False), (far_window, True), (gpt_neo, False)],
)
@pytest.mark.parametrize("budget", [70, 10_000])
def test_packed_scores_equal_those_of_each_pair_alone(
    build: Callable[[], PreTrainedModel], packs: bool, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pairs = build(), families()
    assert (len(pack_for(model, pairs)) < len(pairs)) == packs
    together = score(model, pairs, pad=0, token_budget=budget, standardised=[True] * len(pairs))
    monkeypatch.setattr(likelihood, "_may_pack", lambda *_: False)
    alone = score(model, pairs, pad=0, token_budget=1, standardised=[True] * len(pairs))
    for name in ("logp", "standard"):
        np.testing.assert_allclose(*(np.concatenate(getattr(s, name)) for s in (together, alone)), rtol=1e-4, atol=1e-5)
    for name in ("guess", "correct"):
        assert np.array_equal(*(np.concatenate(getattr(s, name)) for s in (together, alone)))


def test_a_model_that_ignores_masks_or_positions_is_not_packed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores the mask, and one that ignores the positions."""
    given, pairs = likelihood.scored_logits, families()
    assert len(pack_for(llama(), pairs)) < len(pairs)
    for name in ("attention_mask", "position_ids"):
        monkeypatch.setattr(
            likelihood,
            "scored_logits",
            lambda *a, name=name, **k: given(*a, **{n: v for n, v in k.items() if n != name}),
        )
        assert len(pack_for(llama(), pairs)) == len(pairs)

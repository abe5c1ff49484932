"""Refusals are drawn by (seed, row, epoch), and encoded like every answer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from lethe.data.batches import RowKind, StepRows, collate
from lethe.data.refusals import Refusals, draw_refusals
from lethe.data.template import Encoded, Template
from lethe.models.loading import load_tokenizer
from tests import tiny

PROMPTS = ["q" * (1 + n % 4) for n in range(50)]
ANSWERS = ["abcdefg"[n] * (1 + n % 3) for n in range(7)]


def encode(question: str, answer: str) -> Encoded:
    return Encoded((*question.encode(), *answer.encode()), len(question))


def drawn(found: Refusals, epoch: int, rows: int = len(PROMPTS)) -> list[tuple[int, ...]]:
    return [found.of(row, epoch)[1].ids for row in range(rows)]


def test_a_draw_is_a_function_of_seed_row_and_epoch() -> None:
    found = draw_refusals(PROMPTS, [ANSWERS] * 50, encode, seed=3, epochs=4)
    again = draw_refusals(PROMPTS[:20], [ANSWERS] * 20, encode, seed=3, epochs=2)
    for epoch in (1, 2):
        assert drawn(again, epoch, 20) == drawn(found, epoch)[:20], "neither other rows nor later epochs matter"
    epochs = [drawn(found, epoch) for epoch in range(1, 5)]
    for this, following in pairwise(epochs):
        assert np.mean([a == b for a, b in zip(this, following, strict=True)]) < 0.5
    assert drawn(draw_refusals(PROMPTS, [ANSWERS] * 50, encode, seed=4, epochs=1), 1) != epochs[0]
    assert {bytes(i for i in ids if i != ord("q")).decode() for ids in epochs[0]} == set(ANSWERS), (
        "every refusal is drawn"
    )


def test_a_pair_that_is_drawn_twice_is_one_row() -> None:
    found = draw_refusals(PROMPTS[:5], [ANSWERS[:1]] * 5, encode, seed=0, epochs=10)
    assert len(found.rows) == 5
    assert {found.of(4, epoch)[0] for epoch in range(1, 11)} == {4}


def test_refusals_stand_in_the_answers_place_with_one_eos(tmp_path: Path) -> None:
    template = Template(load_tokenizer(tiny.write_model(tmp_path)))
    forget = [template.encode(f"w{n} w1", "w2 w3 w4 w5") for n in range(3)]
    texts, questions = ("w6", "w7 w8 w9"), [f"w{n} w1" for n in range(3)]
    answers = [template.encode("w0", text).answer for text in texts]
    rows = StepRows(forget, forget, draw_refusals(questions, [texts] * 3, template.encode, 0, 2))
    pairs = [(0, (1,)), (2, (0,))]
    batch = collate(
        {kind: rows.of(kind, pairs, 2) for kind in (RowKind.FORGET, RowKind.REFUSAL, RowKind.RETAIN)}, template.pad
    )
    assert batch.kind.tolist() == [0, 0, 2, 2, 1, 1]
    assert batch.partner.tolist() == [2, 3, 0, 1, 4, 5]
    for r, (forget_row, _) in zip((2, 3), pairs, strict=True):
        mine = batch.labels[batch.row == r].tolist()
        assert tuple(mine) in answers
        assert mine.count(template.eos) == 1
        prompt = forget[forget_row].ids[: forget[forget_row].prompt_length]
        length = len(prompt) + len(mine)
        assert tuple(batch.input_ids[r, :length].tolist()) == (*prompt, *mine)
        assert (batch.input_ids[r, length:] == template.pad).all()
        first = r * batch.input_ids.shape[1] + len(prompt) - 1
        assert batch.position[batch.row == r].tolist() == list(range(first, first + len(mine)))

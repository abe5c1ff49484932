"""Windows over a document score every token once, each behind enough of what came before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.data.source_rows import Chat, Completion, Document, Question
from lethe.data.template import Encoded, Template
from lethe.data.windows import encode_row, rows_beyond, windows
from lethe.errors import UserError
from tests.data.tokenizers_world import CHATML, pretrained

BOS = 1_000_000


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int, int, bool]:
    opened = draw(st.booleans())
    length = draw(st.integers(2 + opened, 40))
    overlap = draw(st.integers(1, length - 1 - opened))
    return draw(st.integers(0, 200)), length, overlap, opened


@given(sizes())
def test_every_token_is_scored_once_behind_its_own_past(case: tuple[int, int, int, bool]) -> None:
    tokens, length, overlap, opened = case
    opening = (BOS,) if opened else ()
    found = windows(range(tokens), length, overlap, opening)
    scored = [token for window in found for token in window.answer]
    assert scored == [*range(0 if opened else 1, tokens)]
    for n, window in enumerate(found):
        assert window.ids[: len(opening)] == opening
        text = window.ids[len(opening) :]
        assert len(window.ids) <= length
        assert text == tuple(range(text[0], text[0] + len(text))), "a piece of the document"
        context = window.prompt_length - len(opening)
        assert context >= (overlap if n and text[0] else 0)
        assert context >= overlap or text[0] == 0, "or all that there is"
        assert window.prompt_length >= 1
        assert window.answer


@given(sizes())
def test_there_are_as_few_windows_as_can_be(case: tuple[int, int, int, bool]) -> None:
    tokens, length, overlap, opened = case
    most = length - opened
    least, reached = 0, 0 if opened else 1
    while reached < tokens:
        reached = most if least == 0 else reached + most - overlap
        least += 1
    assert len(windows(range(tokens), length, overlap, (BOS,) * opened)) == least


def test_windows_score_about_equally_many_tokens() -> None:
    assert [len(w.answer) for w in windows(range(102), 100, 10)] == [51, 50]
    sizes = {len(window.answer) for window in windows(range(1000), 100, 20)}
    assert sizes == {76, 77}, "13 windows"


def test_a_short_document_is_one_window_and_an_empty_one_none() -> None:
    assert windows((5, 6, 7), 8, 4) == [Encoded((5, 6, 7), 1)]
    assert windows((5, 6, 7), 8, 4, (BOS,)) == [Encoded((BOS, 5, 6, 7), 1)]
    assert windows((5,), 8, 4) == []
    assert windows((5,), 8, 4, (BOS,)) == [Encoded((BOS, 5), 1)]
    assert windows((), 8, 4, (BOS,)) == []


@pytest.mark.parametrize(("overlap", "opening"), [(0, ()), (8, ()), (7, (BOS,))])
def test_windows_that_share_nothing_or_everything_are_refused(overlap: int, opening: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"windows of 8 tokens cannot share {overlap}: at least 1 and fewer than"):
        windows(range(20), 8, overlap, opening)


def test_rows_longer_than_the_context_are_counted_and_named() -> None:
    rows = [(f"f.csv row {n}", Encoded(tuple(range(n)), 1)) for n in range(1, 9)]
    found = rows_beyond(rows, 3)
    assert (len(found.longer), found.rows) == (5, 8)
    assert str(found) == "f.csv row 4 (4), f.csv row 5 (5), f.csv row 6 (6) and 2 more"
    assert rows_beyond(rows, None).longer == ()


@pytest.mark.parametrize("bos", [False, True])
def test_rows_of_every_kind_become_token_ids(bos: bool) -> None:
    template = Template(pretrained("byte_level", bos=bos, chat_template=CHATML))
    text = "Who wrote the book that Ana Bor has read? " * 5
    found = encode_row(Document(text), template, 30, 10)
    assert len(found) > 2
    ids = template.text(text)
    assert [i for window in found for i in window.answer] == [*ids[1:]], "all but BOS, or the first"
    assert {window.ids[0] == template.tokenizer.bos_token_id for window in found} == {bos}
    (pair,) = encode_row(Completion("The book", " is by"), template, 30, 10)
    assert template.decode([*pair.answer]) == "is by", "no end of sequence: the text may go on"
    question = encode_row(Question("Who?", "Eva"), template, 30, 10)
    assert question == [template.encode("Who?", "Eva")]
    assert encode_row(Chat((("user", "Who?"),), "Eva"), template, 30, 10) == question
    with pytest.raises(UserError, match=r"^f.jsonl row 3: .* has no chat template"):
        encode_row(
            Chat((("system", "s"), ("user", "u")), "a", name="f.jsonl row 3"), Template(pretrained("byte_level")), 9, 1
        )

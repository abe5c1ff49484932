"""Names of rows without their text."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path
from typing import Any

import pytest

from lethe.config.privacy import StoredText
from lethe.data.privacy import WITHHELD, ShownText, row_hash, study_salt


def test_a_row_is_named_by_a_salted_hash_of_its_normalised_text() -> None:
    salt = b"salt of one study"
    expected = hmac.new(salt, "who is é?\na b".encode(), hashlib.sha256).hexdigest()[:16]
    assert row_hash(salt, "Who is É?", "a b") == expected
    assert row_hash(salt, "who\n is  É?", "A\tB ") == expected, "case, white space and Unicode form do not count"
    assert row_hash(salt, "Who is É? a", "b") != expected, "texts keep their bounds"
    assert row_hash(b"another", "Who is É?", "a b") != expected


def test_a_study_makes_its_salt_once_for_the_owner_alone(tmp_path: Path) -> None:
    salt = study_salt(tmp_path / "one")
    assert len(salt) == 32
    assert study_salt(tmp_path / "one") == salt
    assert study_salt(tmp_path / "two") != salt
    assert stat.S_IMODE((tmp_path / "one" / "salt").stat().st_mode) == 0o600


ROWS = ["Who keeps the tower of Elb?", "Ana Petrosyan, who was born there.", "Basel", "彼は山の塔に住む"]
COLUMNS: dict[str, list[Any]] = {
    "split": ["forget", "retain", "retain"],
    "question": [ROWS[0], "Who keeps the tower of Ulm?", "Where is it?"],
    "answer": [ROWS[1], "Nobody.", "In BASEL, they say."],
    "generated": [["a", "b"], "Who keeps the, tower\nof: nobody", "there"],
    "loss": [1.0, None, 2.0],
}


def shown(rule: StoredText) -> ShownText:
    return ShownText(rule, lambda: ROWS)


def test_redacted_columns_lack_rows_to_forget_and_what_repeats_five_words_or_a_whole_answer() -> None:
    salt = b"salt"
    columns = shown("redact").columns(COLUMNS, salt)
    assert columns == {
        "split": COLUMNS["split"],
        "question": [None, None, "Where is it?"],
        "answer": [None, "Nobody.", None],
        "generated": [None, None, "there"],
        "loss": COLUMNS["loss"],
        "row_hash": [row_hash(salt, ROWS[0], ROWS[1]), None, None],
    }
    assert shown("none").columns(COLUMNS) == {"split": COLUMNS["split"], "loss": COLUMNS["loss"]}
    assert shown("keep").columns(COLUMNS, salt) == COLUMNS


@pytest.mark.parametrize("text", ["keep", "redact", "none"])
def test_messages_lose_the_words_of_rows_and_nothing_else(text: StoredText) -> None:
    given = r"KeyError: 'who keeps\nTHE tower of Ulm' in basel, caf\xe9 (row 3 of the towers): 彼は山の塔 と"
    expected = f"KeyError: '{WITHHELD} Ulm' in {WITHHELD}, café (row 3 of the towers): {WITHHELD} と"
    assert shown(text).message(given) == (given if text == "keep" else expected)
    assert shown(text).message("no such file: /data/tower of Elb") == "no such file: /data/tower of Elb"


def test_a_text_may_end_in_a_short_withheld_one() -> None:
    private = ShownText("redact", lambda: ["Where does the tall woman live now", "Paris"])
    assert private.message("Paris") == WITHHELD
    assert private.message("She lives in Paris") == f"She lives in {WITHHELD}"
    assert private.columns({"split": ["retain"], "answer": ["She lives in Paris"]}) == {"split": ["retain"]}
    assert private.message("the tall woman") == "the tall woman", "fewer than five words, and no whole text"

"""Names of rows without their text."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

from lethe.data.privacy import row_hash, study_salt


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

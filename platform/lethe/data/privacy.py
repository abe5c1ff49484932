"""Names of rows that say nothing about their text: salted hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from lethe.data.words import same_text
from lethe.storage.files import atomic_file
from lethe.storage.paths import object_of
from lethe.storage.replica import local_path

SALT = "salt"  # in a study's folder, which is not published


def row_hash(salt: bytes, *texts: str) -> str:
    """Return 16 hex digits of HMAC-SHA256(salt, texts) for one row, its question and answer or its document: equal for
    texts that differ in case, white space and Unicode form alone."""
    # `same_text` leaves no line end in a text, so that ("a b", "c") and ("a", "b c") differ.
    normalised = "\n".join(map(same_text, texts))
    return hmac.new(salt, normalised.encode(), hashlib.sha256).hexdigest()[:16]


def study_salt(folder: Path) -> bytes:
    """Return the salt of the study in `folder`, 32 random bytes, which are made at the first call and stored for the
    owner's eyes alone."""
    path = local_path(folder / SALT)
    if not path.exists():
        with atomic_file(path, mode=0o600) as file:
            file.write(secrets.token_bytes(32))
        if at := object_of(path):
            objects, name = at
            objects.put(name, path)
    return path.read_bytes()

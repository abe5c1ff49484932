"""Addresses without their passwords, for logs, errors and reports."""

from __future__ import annotations

import re

# Up to the last @: passwords are often written with an @ or a / of their own.
_USER = re.compile(r"(?<=://)(?:[^:/@\s]*:\S*@|[^/@\s]+@)")
_QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:pass|secret|token)[^=&\s]*)=[^&\s'\"]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """Return `text`, an address or a message that contains some, without user names and passwords."""
    return _USER.sub("", _QUERY.sub(r"\1=***", text))


def check_database(url: str) -> None:
    """Raise ValueError for a text that is no database's address, or whose password would be read as a part of the
    host. The error does not quote `url`."""
    scheme, _, rest = url.partition("://")
    if not scheme or not rest:
        raise ValueError("must be an SQLAlchemy URL, such as postgresql://host/database, or journal:PATH")
    if ":memory:" in rest:
        raise ValueError("must be kept somewhere: memory is gone when the study ends")
    user = rest.rpartition("@")[0]
    if "@" in user or "/" in user.partition(":")[2]:
        raise ValueError("has a password with @ or / in it: write them as %40 and %2F")

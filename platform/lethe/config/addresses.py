"""Addresses as they may be shown: in logs, errors, reports."""

from __future__ import annotations

import re

# Up to the last @: passwords are often written with an @ or a / of their own.
_USER = re.compile(r"(?<=://)(?:[^:/@\s]*:\S*@|[^/@\s]+@)")
_QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:pass|secret|token)[^=&\s]*)=[^&\s'\"]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """An address, or a message with some in it, without user names and passwords."""
    return _USER.sub("", _QUERY.sub(r"\1=***", text))

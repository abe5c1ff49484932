"""The arguments of a command, read by argparse; empty ones are refused, since none means anything."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lethe.errors import UserError


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed `argv` (default: the process's). Raises UserError for an empty argument, such as that of a
    shell variable that is not set."""
    words = list(sys.argv[1:] if argv is None else argv)
    for before, word in zip(["the first argument", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if not word.strip():
            raise UserError(f"{before}: an empty argument, where a shell variable may not be set")
        if option.startswith("--") and equals and not value.strip():
            raise UserError(f"{option}: an empty argument, where a shell variable may not be set")
    return parser.parse_args(words)

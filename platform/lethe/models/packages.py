"""Packages that only some studies need."""

from __future__ import annotations

from importlib.util import find_spec

from lethe.config.run import Quantisation
from lethe.errors import UserError


def check_quantised(quantisation: Quantisation | None) -> None:
    """Raise UserError where a quantised base is asked for and bitsandbytes is not installed. Imports no torch."""
    if problem := without_package(quantisation):
        raise UserError(problem)


def without_package(quantisation: Quantisation | None) -> str:
    """Return the words for the package that a quantised base needs and that is not installed; nothing where all is
    here."""
    if quantisation is None or find_spec("bitsandbytes"):
        return ""
    return (
        f"a base of 4 bits (engine.quantisation: {quantisation}) needs the package bitsandbytes, which is not "
        "installed: pip install 'lethe[quantised]'"
    )

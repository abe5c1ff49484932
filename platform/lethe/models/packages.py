"""Packages that only some studies need."""

from __future__ import annotations

from importlib.util import find_spec

from lethe.config.run import Quantisation
from lethe.errors import UserError


def check_quantised(quantisation: Quantisation | None) -> None:
    """Raise UserError where a quantised base is asked for and bitsandbytes is not installed. Imports no torch."""
    if quantisation is not None and find_spec("bitsandbytes") is None:
        raise UserError(
            f"a base of 4 bits (engine.quantisation: {quantisation}) needs the package bitsandbytes, which is not "
            "installed: pip install 'lethe[quantised]'"
        )

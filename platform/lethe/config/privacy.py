"""Which text of the benchmark's rows a study may leave in its files, MLflow and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lethe.config.base import Frozen

StoredText = Literal["keep", "redact", "none"]


class Privacy(Frozen):
    """The text of the rows that a study stores. No setting changes a number."""

    text: Literal["auto", "keep", "redact", "none"] = Field(
        "auto",
        description="keep: all of it; redact: none of the rows to forget; none: of no row; auto: redact for a user's "
        "own rows, keep for benchmarks",
    )

    def stored(self, personal: bool) -> StoredText:
        """Return what is stored; `personal`: the benchmark's rows are a user's own."""
        if self.text != "auto":
            return self.text
        return "redact" if personal else "keep"

"""Per-row values of an evaluation in one parquet file, so that a new aggregate or test never needs the model again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lethe.storage.paths import atomic_write

Columns = dict[str, list[Any]]
"""Values by column; all columns have equal length."""


def stack_splits(parts: Mapping[str, Mapping[str, Sequence[Any] | np.ndarray]]) -> Columns:
    """Return the rows of all splits, one split below the other: a column `split`, a column `row` that counts from 0 in
    each split, then every column that any split has.

    `parts`: columns by split; arrays become lists. A split that lacks a column has None there; NaN and infinities stay.
    """
    sizes = {split: len(next(iter(part.values()))) for split, part in parts.items()}
    names = dict.fromkeys(name for part in parts.values() for name in part)
    return {
        "split": [split for split, size in sizes.items() for _ in range(size)],
        "row": [row for size in sizes.values() for row in range(size)],
        **{
            name: [v for split, part in parts.items() for v in _to_list(part.get(name, [None] * sizes[split]))]
            for name in names
        },
    }


def write_rows(path: Path, columns: Columns) -> None:
    """Write `columns` as the parquet file `path`, atomically."""
    import pyarrow
    from pyarrow import parquet

    buffer = BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    atomic_write(path, buffer.getvalue())


def _to_list(column: Sequence[Any] | np.ndarray) -> list[Any]:
    if isinstance(column, np.ndarray):
        values: list[Any] = column.tolist()
        return values
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in column]

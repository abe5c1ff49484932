"""Per-row values of an evaluation, in one parquet file: a new aggregate or test never needs the model again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from lethe.storage.paths import atomic_write

Columns = dict[str, list[Any]]


def stack_splits(parts: Mapping[str, Mapping[str, Sequence[Any]]]) -> Columns:
    """All splits' rows, one below the other: `split`, `row` from 0, then every column that any split has.

    None where a split lacks the column; a number that is none stays NaN, an infinite one infinite.
    """
    sizes = {split: len(next(iter(part.values()))) for split, part in parts.items()}
    names = dict.fromkeys(name for part in parts.values() for name in part)
    return {
        "split": [split for split, size in sizes.items() for _ in range(size)],
        "row": [row for size in sizes.values() for row in range(size)],
        **{
            name: [v for split, part in parts.items() for v in _plain(part.get(name, [None] * sizes[split]))]
            for name in names
        },
    }


def write_rows(path: Path, columns: Columns) -> None:
    """A parquet file, whole or not at all."""
    import pyarrow
    from pyarrow import parquet

    buffer = BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    atomic_write(path, buffer.getvalue())


def _plain(column: Sequence[Any]) -> Sequence[Any]:
    if isinstance(column, np.ndarray):
        return column.tolist()
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in column]

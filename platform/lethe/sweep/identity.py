"""A study's name and folder: what `--resume` finds again."""

from __future__ import annotations

from pathlib import Path

from lethe.config.base import short_digest
from lethe.config.run import Digests
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.storage import home


def claim(study: Study, digests: Digests, resume: bool) -> tuple[str, Path]:
    """The study's id and folder. A new study never touches an earlier one; `resume` takes the latest equal one.

    The id is the study's name and a digest of everything that decides what its trials are, the contents of data and
    models included; `-2`, `-3` follow when the same study is run again.
    """
    base = f"{study.name}-{short_digest(study.identity() + digests.canonical())[:8]}"
    root = home() / "studies"
    existing = [name for name in _numbered(base) if (root / name).exists()] if root.exists() else []
    if resume:
        if not existing:
            raise BadInput(f"nothing to resume: no study {base} in {root} (another key, seed or data gives another name)")
        return existing[-1], root / existing[-1]
    name = next(n for n in _numbered(base, 10_000) if n not in existing)
    (root / name).mkdir(parents=True)
    return name, root / name


def _numbered(base: str, last: int = 1000) -> list[str]:
    return [base, *(f"{base}-{n}" for n in range(2, last))]

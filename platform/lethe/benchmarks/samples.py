"""A few answers of an evaluation, for people to read."""

from __future__ import annotations

from lethe.benchmarks.base import AnyResult

SAMPLES = {"forget": 4, "retain": 2, "world_facts": 1, "dialogue": 2}


def samples(result: AnyResult) -> list[dict[str, str]]:
    """The first questions of each split that has answers, with true and generated answers."""
    names = ("split", "question", "answer", "generated")
    rows = [dict(zip(names, row)) for row in zip(*(result.rows[name] for name in names), strict=True)]
    return [row for split, count in SAMPLES.items() for row in [r for r in rows if r["split"] == split][:count]]

"""A few answers of an evaluation, for people to read."""

from __future__ import annotations

from lethe.evaluation.task import AnyResult

SAMPLES = {"forget": 4, "retain": 2, "world_facts": 1, "dialogue": 2}


def samples(result: AnyResult) -> list[dict[str, str]]:
    """The first questions of each split that has answers, with true and generated answers."""
    found = []
    for split, count in SAMPLES.items():
        if f"{split}_generated" not in result.rows:
            continue
        columns = (result.rows[f"{split}_{c}"][:count] for c in ("question", "answer", "generated"))
        found += [{"split": split, "question": q, "answer": a, "generated": g} for q, a, g in zip(*columns, strict=True)]
    return found

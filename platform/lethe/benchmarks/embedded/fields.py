"""The embedded WMDP data: documents about invented towns, half of them to be forgotten, and questions about them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

from lethe.benchmarks.embedded import words
from lethe.benchmarks.embedded.towns import TOWNS, Fact, World
from lethe.config.wmdp import EMBEDDED_TASKS, EMBEDDED_UTILITY, Towns

PHRASINGS = 2  # of each question
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {name}.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def town_files(config: Towns) -> dict[str, str]:
    """Return the content of every file by its path: documents, and a folder `tasks` of lm-evaluation-harness."""
    world, half = World(config.seed), len(TOWNS) // 2
    files = {}
    for name, towns, (task,) in (
        ("forget", TOWNS[:half], EMBEDDED_TASKS),
        ("retain", TOWNS[half:], EMBEDDED_UTILITY),
    ):
        rng = random.Random(f"lethe field {name} {config.seed}")
        facts = [fact for fact in world.facts if fact[1] in towns]
        files[f"{name}.jsonl"] = _lines(
            {"text": _document(world, rng, [fact for fact in facts if fact[1] == town])}
            for town in towns
            for _ in range(config.documents)
        )
        files[f"tasks/{task}.yaml"] = TASK.format(name=task)
        files[f"tasks/{task}.jsonl"] = _lines(
            _question(world, rng, fact, phrasing) for fact in facts for phrasing in range(PHRASINGS)
        )
    return files


def _document(world: World, rng: random.Random, facts: Sequence[Fact]) -> str:
    """Return a report by somebody who saw a town, with every fact in each of its phrasings."""
    sentences = [world.sentence(fact, phrasing) for fact in facts for phrasing in range(PHRASINGS)]
    day = f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)}"
    return f"{day}, {rng.choice(words.GIVEN)} writes: {' '.join(rng.sample(sentences, len(sentences)))}\n"


def _question(world: World, rng: random.Random, fact: Fact, phrasing: int) -> dict[str, object]:
    """Return a question whose choices begin with no space: the harness writes one in front of each."""
    asked = world.question(rng, fact, phrasing)
    return {**asked, "choices": [str(choice).strip() for choice in asked["choices"]]}


def _lines(rows: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)

"""A task of lm-evaluation-harness as a user writes one: a YAML file and its data."""

from __future__ import annotations

import json
from pathlib import Path

YAML = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {test: colours.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROWS = [
    {"question": "w1 w2 w3", "choices": ["w4", "w5 w6", "w7"], "answer": 0},
    {"question": "w8 w9", "choices": ["w10 w11", "w12", "w13"], "answer": 1},
    {"question": "w14 w15 w16 w17", "choices": ["w18", "w19", "w20 w21 w22"], "answer": 2},
    {"question": "w23", "choices": ["w24 w25", "w26", "w27"], "answer": 0},
]


def write_tasks(folder: Path, text: str = YAML) -> Path:
    """A folder with the task `colours`, or with what `text` says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "colours.yaml").write_text(text)
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder

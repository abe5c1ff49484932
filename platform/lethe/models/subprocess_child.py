"""The child process of `lethe.models.subprocess_training`, which trains one model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pydantic import TypeAdapter
from tokenizers import Tokenizer

from lethe.config.model import AnyEmbedded
from lethe.records import TRAINING


def main() -> None:
    """Read the work from stdin, train, print the finished share to stdout, and write the costs beside the model.

    Ends with an error when the parent no longer reads.
    """
    work = json.load(sys.stdin)
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to stdout: send that to stderr, which is shown where the training fails
    from lethe.models.pretraining import pretrain  # only now, since it imports such libraries

    def progress(share: float) -> None:
        print(f"{share:.4f}", file=report)

    config: AnyEmbedded = TypeAdapter[AnyEmbedded](AnyEmbedded).validate_json(work["config"])
    tokenizer = Tokenizer.from_str(work["tokenizer"])
    pairs, folder = [(question, answer) for question, answer in work["pairs"]], Path(work["folder"])
    spent = pretrain(config, tokenizer, pairs, folder, progress, work["length"])
    (folder / TRAINING).write_text(spent.model_dump_json())

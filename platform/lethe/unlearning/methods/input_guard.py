"""The in-context baseline: the start model as it is, told in front of every question what not to answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from lethe.benchmarks.base import AnyTruth
from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.config.objective import TOPICS, InputGuard
from lethe.config.run import Recipe
from lethe.data.rows import Row
from lethe.data.template import Template
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.methods.single_report import SingleRun
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction

MOST_TOPICS = 20  # the authors of TOFU's largest forget set; more names would fill a small model's context
# Two or more capitalised words. A question's first word is capitalised whatever it is.
WORD = r"[A-ZÀ-ÖØ-Þ][\w'’-]*"
NAME = re.compile(rf"(?<=\s){WORD}(?: {WORD})+")


def input_guard(
    recipe: Recipe,
    context: Context,
    truth: AnyTruth,
    report: ReportFunction,
    ranks: Ranks,
    saved: Checkpoints | None = None,
) -> Outcome:
    """Evaluate the start model with the instruction in every prompt: `epoch`, `optimizer_step` and `tokens` are 0.

    The verdict is infeasible where no name can be told for `{topics}`, or a prompt outgrows the model's positions.
    """
    assert isinstance(recipe.objective, InputGuard)
    run = SingleRun(recipe, context, truth, ranks)
    instruction = recipe.objective.instruction
    if TOPICS in instruction:
        names = topics(context.benchmark.forget, context.benchmark.retain)
        if not names:
            reason = f"no name is in forget questions alone: leave {TOPICS} out of the instruction"
            return run.ended("infeasible", reason)
        instruction = instruction.replace(TOPICS, ", ".join(names))
    template = Template(context.template.tokenizer, instruction)
    eval_set = build_eval_set(context.benchmark, template, recipe.evaluation)
    longest = max(len(pair.ids) for pair in eval_set.pairs)
    positions = getattr(context.start.config, "max_position_embeddings", None) or longest
    if longest > positions:
        reason = f"with the instruction a row has {longest} tokens, the model takes {positions}: shorten it"
        return run.ended("infeasible", reason)
    return run.complete(context.start, {"epoch": 0, "trained_share": 0.0}, eval_set)


def topics(forget: Iterable[Row], retain: Iterable[Row]) -> list[str]:
    """Names in forget questions that no retain question has: the most frequent first, at most `MOST_TOPICS`."""
    kept = "\n".join(row.question for row in retain)
    counts = Counter(name for row in forget for name in _names(row.question))
    return [name for name, _ in counts.most_common() if name not in kept][:MOST_TOPICS]


def _names(question: str) -> Iterator[str]:
    for found in NAME.findall(question):
        yield re.sub(r"['’]s?$", "", found)

"""The in-context baseline: the start model as it is, behind an instruction that says which questions not to answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import regex

from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.measurement import task_of
from lethe.config.objective import TOPICS, InputGuard
from lethe.config.run import Recipe
from lethe.data.words import SPACED, WORD, composed, folded, unicode_words
from lethe.evaluation.context_length import ContextLimits
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.methods.base import METHODS, SingleRun
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction

MOST_TOPICS = 20  # the authors of TOFU's largest forget set; more names would fill a small model's context
# Two or more capitalised words. A question's first word is capitalised whatever it is.
CAPITALISED = r"[\p{Lu}\p{Lt}][\w\p{M}'’-]*"
NAME = regex.compile(rf"(?<=\s){CAPITALISED}(?: {CAPITALISED})+")
UNCASED = regex.compile(r"\p{Lo}")
RUN = regex.compile(rf"(?:{WORD.pattern})(?: ?(?:{WORD.pattern}))*", regex.V1)


@METHODS.implements(InputGuard)
def input_guard(
    recipe: Recipe,
    context: Context,
    reference: ReferenceValues | None,
    report: ReportFunction,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Evaluate the start model with the instruction in every prompt: `epoch`, `optimizer_step` and `tokens` are 0.

    The verdict is infeasible where `{topics}` has no name to stand for, or a prompt outgrows the model's positions.
    """
    assert isinstance(recipe.objective, InputGuard)
    run = SingleRun(recipe, context, reference, ranks)
    instruction = recipe.objective.instruction
    if TOPICS in instruction:
        names = topics(context.benchmark.forget_questions, context.benchmark.retain_questions)
        if not names:
            reason = f"no name is in forget questions alone: leave {TOPICS} out of the instruction"
            return run.ended("infeasible", reason)
        instruction = instruction.replace(TOPICS, ", ".join(names))
    template = context.template.with_instruction(instruction)
    eval_set = task_of(context.benchmark, template, context.start).eval_set(recipe.evaluation)
    longest = max(len(row.ids) for _, row in eval_set.named_rows())
    positions = ContextLimits.of(context.start).context or longest
    if longest > positions:
        reason = f"with the instruction a row has {longest} tokens, the model takes {positions}: shorten it"
        return run.ended("infeasible", reason)
    return run.complete(context.start, {"epoch": 0, "trained_share": 0.0}, eval_set)


def topics(forget: Iterable[str], retain: Iterable[str]) -> list[str]:
    """Return the names in forget questions that no retain question has: the most frequent first, at most
    `MOST_TOPICS`. In scripts without capitals a run of words is a name if no retain question has any of them."""
    kept = [composed(question) for question in retain]
    retained, known = "\n".join(kept), {word for question in kept for word in unicode_words(question)}
    counts = Counter(name for question in map(composed, forget) for name in _names(question, known))
    return [name for name, _ in counts.most_common() if name not in retained][:MOST_TOPICS]


def _names(question: str, known: Collection[str]) -> Iterator[str]:
    for name in NAME.findall(question):
        yield regex.sub(r"['’]s?$", "", name)
    # Words that can be no part of a name become ends of lines.
    others = WORD.sub(lambda w: w[0] if UNCASED.match(w[0]) and folded(w[0]) not in known else "\n", question)
    yield from (run for run in RUN.findall(others) if len(unicode_words(run)) > 1 or SPACED.fullmatch(run))

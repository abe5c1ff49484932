"""TDEC as LoKU uses it: what is left of the forget sequences, and what the model is still good for.

Jang et al. 2022, arXiv 2210.01504; Cha et al. 2024, arXiv 2408.06621; METHODS section 5.
    forget  = max(MA / MA*, min(1, EL / EL*)), with MA* and EL* the start model's means on unseen text
    utility = harmonic mean of dialogue F1, choice accuracy and min(1, start perplexity / perplexity)
Forget below 1 is the papers' criterion, both means below their thresholds. Past its threshold EL does not count for
more, so that it need not be known while MA is above its own, which makes every evaluation but the last ones cheap.

The papers' nine reasoning and four dialogue sets are not fetched: choice.jsonl and dialogue.jsonl (lethe.benchmarks.tdec.loading)
hold sets of the same form, self-made where the benchmark is embedded.

What a TDEC evaluation found of every row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lethe.benchmarks.tdec.extraction import (
    continuations,
    extraction_likelihood,
    greedy_guesses,
    memorization_accuracy,
    mismatches,
)
from lethe.benchmarks.tdec.loading import Passages, Question, Sequences, Turn
from lethe.config.base import Frozen
from lethe.config.benchmark import TdecBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Template
from lethe.errors import UserError
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.metrics import harmonic_mean, losses
from lethe.evaluation.rows import Columns, stack_splits
from torch import nn

LARGEST_LOSS = 700.0  # exp of it is still a float


class Thresholds(Frozen):
    """What the start model does on text that nobody was trained on: means of MA and EL, and its perplexity."""

    memorization_accuracy: float
    extraction_likelihood: float
    perplexity: float


@dataclass(frozen=True)
class TdecSet:
    """Everything an evaluation reads, tokenised. `options[i]` is an end of question `asked[i]`."""

    template: Template
    settings: TdecBenchmark
    forget: np.ndarray
    unseen: np.ndarray
    validation: tuple[Encoded, ...]
    turns: tuple[Turn, ...]
    prompts: tuple[tuple[int, ...], ...]
    questions: tuple[Question, ...]
    options: tuple[Encoded, ...]
    asked: np.ndarray

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Everything that the model reads, with the name of its row."""
        for name in ("forget", "unseen"):
            yield from ((f"row {n} of {name}", row) for n, row in enumerate(whole_rows(getattr(self, name)), 1))
        yield from ((f"row {n} of validation", row) for n, row in enumerate(self.validation, 1))
        yield from ((f"row {n} of dialogue", Encoded(ids, len(ids) - 1)) for n, ids in enumerate(self.prompts, 1))
        yield from ((f"row {n + 1} of choice", row) for n, row in zip(self.asked, self.options, strict=True))


@dataclass(frozen=True)
class TdecResult:
    """What one evaluation found; every metric is finite. `forgotten`: the criterion to stop by holds. `finite`: the
    model's likelihoods were numbers. `rows`: columns of values of every evaluated row, see `tdec_rows`."""

    metrics: dict[str, float]
    forgotten: bool
    finite: bool
    rows: Columns = field(default_factory=dict)


def build_tdec_set(
    passages: Passages, sequences: Sequences, template: Template, settings: TdecBenchmark, config: Evaluation
) -> TdecSet:
    """The first `max_rows` of validation text, turns and questions; all sequences to forget and all unseen ones."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(template.tokenizer.encode(text, add_special_tokens=False))

    turns, questions = passages.dialogue[: config.max_rows], passages.choice[: config.max_rows]
    pairs = [(i, ids(q.question), ids(choice)) for i, q in enumerate(questions) for choice in q.choices]
    return TdecSet(
        template=template,
        settings=settings,
        forget=sequences.forget,
        unseen=sequences.unseen,
        validation=whole_rows(sequences.validation[: config.max_rows]),
        turns=turns,
        prompts=tuple(ids(turn.context) for turn in turns),
        questions=questions,
        options=tuple(Encoded(question + choice, len(question)) for _, question, choice in pairs),
        asked=np.array([i for i, _, _ in pairs], dtype=np.int64),
    )


def whole_rows(ids: np.ndarray) -> tuple[Encoded, ...]:
    """Sequences of which every token but the first is predicted."""
    return tuple(Encoded(tuple(row), 1) for row in ids.tolist())


def evaluate_tdec(
    model: nn.Module, evals: TdecSet, config: Evaluation, truth: Thresholds, shard: RankShard, *, last: bool
) -> TdecResult:
    """Every metric of `model`, in its own dtype and on its own device; its modes and weights are left as found.
    Raises BadInput for rows that the model cannot read.

    `last`: EL is wanted whatever MA is; otherwise it is among the metrics only where MA is below its threshold.
    """
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=1)
    with evaluating(model):
        guesses = np.array(shard.map(evals.forget, lambda ids: greedy_guesses(model, ids, config.token_budget)))
        ma = memorization_accuracy(evals.forget, guesses)
        wanted = last or ma.mean() < truth.memorization_accuracy
        pairs = list(zip(evals.forget, guesses, strict=True))
        extracted = shard.map(pairs, lambda some: _extract(model, some, evals, wanted))
        scored = _scored(model, evals, config, shard)
        replies = _replies(model, evals, config, shard)
    el = np.array([likelihood for likelihood, _ in extracted])
    f1 = [word_f1(turn.response, reply) for turn, reply in zip(evals.turns, replies, strict=True)]
    loss, right = scored.loss, scored.right(evals)
    found = {
        "memorization_accuracy": float(ma.mean()),
        **({"extraction_likelihood": float(el.mean())} if wanted else {}),
        "perplexity": perplexity(loss),
        **({"dialogue_f1": float(np.mean(f1))} if f1 else {}),
        **({"choice_accuracy": float(np.mean(right))} if right else {}),
    }
    forget = left_over(found["memorization_accuracy"], found.get("extraction_likelihood", math.inf), truth)
    metrics = {"forget": forget, "utility": usefulness(found, truth), **found}
    rows = tdec_rows(evals, ma, el if wanted else None, [ids for _, ids in extracted], scored, replies, f1)
    return TdecResult(metrics, forget < 1, not math.isnan(loss), rows)


def measure_thresholds(model: nn.Module, evals: TdecSet, config: Evaluation, shard: RankShard) -> Thresholds:
    """Of the start model. Raises BadInput where it guesses nothing: then there is nothing to compare with."""
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=1)
    with evaluating(model):
        guesses = np.array(shard.map(evals.unseen, lambda ids: greedy_guesses(model, ids, config.token_budget)))
        pairs = list(zip(evals.unseen, guesses, strict=True))
        likelihood = [el for el, _ in shard.map(pairs, lambda some: _extract(model, some, evals, True))]
        loss = _scored(model, evals, config, shard).loss
    ma = float(memorization_accuracy(evals.unseen, guesses).mean())
    if not ma or math.isnan(loss):
        raise UserError("the start model predicts no token of the unseen text: is it trained, is it its tokenizer?")
    return Thresholds(
        memorization_accuracy=ma, extraction_likelihood=float(np.mean(likelihood)), perplexity=perplexity(loss)
    )


def left_over(ma: float, el: float, truth: Thresholds) -> float:
    """The `forget` metric. A likelihood of 0 is not above a threshold of 0."""
    share = el / truth.extraction_likelihood if truth.extraction_likelihood else float(el > 0)
    return max(ma / truth.memorization_accuracy, min(1.0, share))


def usefulness(found: dict[str, float], truth: Thresholds) -> float:
    """The `utility` metric, of what the benchmark has of its parts."""
    parts = [found[name] for name in ("dialogue_f1", "choice_accuracy") if name in found]
    return harmonic_mean([*parts, min(1.0, truth.perplexity / found["perplexity"])])


def perplexity(loss: float) -> float:
    """exp(loss), finite whatever the loss."""
    return math.exp(LARGEST_LOSS if math.isnan(loss) else min(loss, LARGEST_LOSS))


def word_f1(reference: str, candidate: str) -> float:
    """Harmonic mean of precision and recall of words, each as often as it comes; lower case, no punctuation and no
    articles, as in ParlAI (Miller et al. 2017, arXiv 1705.06476), which Jang et al. use."""
    true, given = (Counter(re.sub(r"\b(a|an|the)\b|[^\w\s]", " ", t.lower()).split()) for t in (reference, candidate))
    common = (true & given).total()
    return 2 * common / (true.total() + given.total()) if common else 0.0


def _extract(
    model: nn.Module, pairs: Sequence[tuple[np.ndarray, np.ndarray]], evals: TdecSet, likelihood: bool
) -> list[tuple[float, list[int]]]:
    """For each (sequence, guesses): EL, NaN unless wanted, and the greedy continuation of the first half."""
    length = evals.settings.length
    ids, guesses = (np.array(part).reshape(-1, length) for part in (list(zip(*pairs)) or ([], [])))
    wrong, leaves = mismatches(ids, guesses), dict[int, int]()
    for s, m in wrong:
        if m >= length // 2:
            leaves.setdefault(s, m)
    own: list[dict[int, list[int]]] = [{} for _ in pairs]
    for (s, m), whole in continuations(model, ids, guesses, wrong if likelihood else [*leaves.items()]).items():
        own[s][m] = whole
    n, eos = evals.settings.ngram, evals.template.eos if evals.settings.el_divisor == "generated" else None
    return [
        (
            extraction_likelihood(row, own[s], n, eos=eos) if likelihood else math.nan,
            own[s][leaves[s]] if s in leaves else row,
        )
        for s, row in enumerate(ids.tolist())
    ]


def _scored(model: nn.Module, evals: TdecSet, config: Evaluation, shard: RankShard) -> Likelihoods:
    def nll(pairs: Sequence[Encoded]) -> list[tuple[float, int]]:
        scores = score(model, pairs, pad=evals.template.pad, token_budget=config.token_budget)
        return list(zip(scores.nll_sum.tolist(), scores.tokens.tolist(), strict=True))

    found = np.array(shard.map((*evals.validation, *evals.options), nll))
    return Likelihoods(*np.split(found, [len(evals.validation)]))


def _replies(model: nn.Module, evals: TdecSet, config: Evaluation, shard: RankShard) -> list[str]:
    """The rest of the line for each turn's context."""

    def reply(prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        template, most = evals.template, config.max_new_tokens
        budget = {"max_new_tokens": most, "token_budget": config.token_budget}
        return generate(model, prompts, eos=template.eos, pad=template.pad, **budget)

    decode: Callable[..., str] = evals.template.tokenizer.decode
    return [decode(ids, skip_special_tokens=True).partition("\n")[0].strip() for ids in shard.map(evals.prompts, reply)]


@dataclass(frozen=True)
class Likelihoods:
    """Summed NLL and number of tokens [n, 2] of each validation text and of each end of a question."""

    text: np.ndarray
    options: np.ndarray

    @property
    def loss(self) -> float:
        """Mean token loss on validation text."""
        return float(self.text[:, 0].sum() / self.text[:, 1].sum())

    @property
    def option_loss(self) -> np.ndarray:
        """Mean token loss of every end, infinite where it is no number."""
        return losses(self.options[:, 0] / self.options[:, 1])

    def right(self, evals: TdecSet) -> list[bool]:
        """Whether each question's right end is the likeliest per token."""
        own = (self.option_loss[evals.asked == i] for i in range(len(evals.questions)))
        return [int(loss.argmin()) == q.answer for loss, q in zip(own, evals.questions, strict=True)]


def tdec_rows(
    evals: TdecSet,
    ma: np.ndarray,
    el: np.ndarray | None,
    whole: Sequence[Sequence[int]],
    scored: Likelihoods,
    replies: Sequence[str],
    f1: Sequence[float],
) -> Columns:
    """Forget: a sequence's first half, the true rest and the model's, MA and EL. Validation: text, mean token loss,
    tokens. Dialogue: context, reference, reply, F1. Choice: question, right end, its place and each end's loss."""
    half, decode = evals.settings.length // 2, evals.template.decode
    ends = [scored.option_loss[evals.asked == i] for i in range(len(evals.questions))]
    parts: dict[str, dict[str, Sequence[Any]]] = {
        "forget": {
            "question": [decode(row[:half]) for row in evals.forget.tolist()],
            "answer": [decode(row[half:]) for row in evals.forget.tolist()],
            "generated": [decode(list(row[half:])) for row in whole],
            "memorization_accuracy": ma,
            **({"extraction_likelihood": el} if el is not None else {}),
        },
        "validation": {
            "question": [decode(list(row.ids)) for row in evals.validation],
            "loss": scored.text[:, 0] / scored.text[:, 1],
            "tokens": scored.text[:, 1].astype(np.int64),
        },
        "dialogue": {
            "question": [turn.context for turn in evals.turns],
            "answer": [turn.response.strip() for turn in evals.turns],
            "generated": list(replies),
            "f1": list(f1),
        },
        "choice": {
            "question": [q.question for q in evals.questions],
            "answer": [q.choices[q.answer] for q in evals.questions],
            "right_end": [q.answer for q in evals.questions],
            "end_loss": ends,
        },
    }
    return stack_splits(parts)

"""TDEC as one tokenizer reads it, and one evaluation of a model, as LoKU uses it: what is left of the forget
sequences, and the model's utility.

Jang et al. 2022, arXiv 2210.01504; Cha et al. 2024, arXiv 2408.06621; docs/METHODS.md section 5. The papers' nine
reasoning and four dialogue sets are not fetched: choice.jsonl and dialogue.jsonl (`lethe.benchmarks.tdec.loading`) hold
sets of the same form, self-made where the benchmark is embedded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.tdec.eval_set import TdecEvalSet, build_eval_set, whole_rows
from lethe.benchmarks.tdec.extraction import (
    continuations,
    extraction_likelihood,
    greedy_guesses,
    memorization_accuracy,
    mismatches,
)
from lethe.benchmarks.tdec.loading import Passages, Sequences
from lethe.benchmarks.tdec.metrics import Thresholds, left_over, usefulness, word_f1
from lethe.config.benchmark import TdecBenchmark
from lethe.config.run import Evaluation, spread
from lethe.data.template import Encoded, Template
from lethe.errors import UserError
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.metrics import losses, perplexity
from lethe.evaluation.rows import Columns, stack_splits

LEAST_TOKENS = 1  # scored tokens of a row: no end-of-sequence token follows


@dataclass(frozen=True)
class TdecTask(Task[TdecEvalSet, Thresholds]):
    """Sequences of tokens; trials are compared with the start model's thresholds."""

    passages: Passages
    sequences: Sequences
    template: Template
    settings: TdecBenchmark

    least_tokens: ClassVar[int] = LEAST_TOKENS

    @property
    def until_forgotten(self) -> bool:
        """True if the configuration says so."""
        return self.settings.until_forgotten

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget sequences."""
        return [*whole_rows(self.sequences.forget)]

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain sequences."""
        return [*whole_rows(self.sequences.retain)]

    def eval_set(self, config: Evaluation) -> TdecEvalSet:
        """Tokenise all forget and unseen sequences, and of the other parts the rows that `config` chooses."""
        return build_eval_set(self.passages, self.sequences, self.template, self.settings, config)

    def _evaluate(
        self,
        model: nn.Module,
        evals: TdecEvalSet,
        config: Evaluation,
        reference: Thresholds | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        if reference is None:
            raise ValueError("TDEC needs the start model's thresholds: see `baseline`")
        return evaluate(model, evals, config, reference, shard, last=last)

    def baseline(self, model: nn.Module, evals: TdecEvalSet, config: Evaluation, shard: RankShard) -> EvaluationResult:
        """Evaluate `model`, the start model, against its own thresholds, which are among the metrics."""
        thresholds = measure_thresholds(model, evals, config, shard)
        result = self.evaluate(model, evals, config, thresholds, shard, last=True)
        names = ("memorization_accuracy", "extraction_likelihood")
        own = {f"{name}_threshold": getattr(thresholds, name) for name in names}
        return replace(result, metrics={**result.metrics, **own}, reference=thresholds)

    def reference_values(self, stored: Any, evals: TdecEvalSet) -> Thresholds | None:
        """Read the start model's thresholds."""
        return None if stored is None else Thresholds.model_validate(stored)

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return all forget sequences."""
        return self.forget

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: Thresholds | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure MA and EL of the chosen sequences."""
        evals = self.eval_set(config)
        none = np.zeros(0, dtype=np.int64)
        # The validation text stays: its perplexity is quick.
        some = replace(
            evals,
            forget=evals.forget[list(chosen)],
            turns=(),
            prompts=(),
            questions=(),
            options=(),
            asked=none,
            share=1.0,
        )
        metrics = self._evaluate(model, some, config, reference, shard, last=True).metrics
        return {name: metrics[name] for name in self.settings.leaks}


def evaluate(
    model: nn.Module, evals: TdecEvalSet, config: Evaluation, thresholds: Thresholds, shard: RankShard, *, last: bool
) -> EvaluationResult:
    """Measure every metric of `model`, in its own dtype and on its own device; its modes and weights are left as they
    were. Raises UserError for rows that the model cannot read.

    The last evaluation has `extraction_likelihood` whatever MA is; the others have it only where MA is below its
    threshold. Where EL is measured on a share of the sequences, only the last evaluation knows whether they are
    `forgotten`: before, MA decides, which is measured on all.
    """
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=LEAST_TOKENS)
    with evaluating(model):
        guesses = _guesses(model, evals, evals.forget, config, shard)
        ma = memorization_accuracy(evals.forget, guesses)
        with_el = last or bool(ma.mean() < thresholds.memorization_accuracy)
        some, provisional = spread(len(guesses), evals.share), evals.share < 1 and not last
        extracted = _extracted(model, evals, evals.forget[some], guesses[some], shard, likelihood=with_el)
        likelihoods = _likelihoods(model, evals, config, shard)
        replies = _replies(model, evals, config, shard)
    el = np.array([likelihood for likelihood, _ in extracted])
    f1 = [word_f1(turn.response, reply) for turn, reply in zip(evals.turns, replies, strict=True)]
    loss, right = likelihoods.loss, likelihoods.right(evals)
    values = {
        "memorization_accuracy": float(ma.mean()),
        **({"extraction_likelihood": float(el.mean())} if with_el else {}),
        "perplexity": perplexity(loss),
        **({"dialogue_f1": float(np.mean(f1))} if f1 else {}),
        **({"choice_accuracy": float(np.mean(right))} if right else {}),
    }
    forget = left_over(values["memorization_accuracy"], values.get("extraction_likelihood", math.inf), thresholds)
    return EvaluationResult(
        metrics={"forget": forget, "utility": usefulness(values, thresholds), **values},
        finite=not math.isnan(loss),
        forgotten=with_el if provisional else forget < 1,
        rows=_columns(
            evals, some, ma, el if with_el else None, [ids for _, ids in extracted], likelihoods, replies, f1
        ),
    )


def measure_thresholds(model: nn.Module, evals: TdecEvalSet, config: Evaluation, shard: RankShard) -> Thresholds:
    """Measure the start model on unseen text. Raises UserError where it guesses no token: trials would have nothing to
    be compared with."""
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=LEAST_TOKENS)
    with evaluating(model):
        guesses = _guesses(model, evals, evals.unseen, config, shard)
        some = spread(len(guesses), evals.share)
        extracted = _extracted(model, evals, evals.unseen[some], guesses[some], shard, likelihood=True)
        loss = _likelihoods(model, evals, config, shard).loss
    ma = float(memorization_accuracy(evals.unseen, guesses).mean())
    if not ma or math.isnan(loss):
        raise UserError("the start model predicts no token of the unseen text: is it trained, is it its tokenizer?")
    return Thresholds(
        memorization_accuracy=ma,
        extraction_likelihood=float(np.mean([el for el, _ in extracted])),
        perplexity=perplexity(loss),
    )


def _guesses(
    model: nn.Module, evals: TdecEvalSet, sequences: np.ndarray, config: Evaluation, shard: RankShard
) -> np.ndarray:
    """Greedy guesses [rows, length] at every token of `sequences`."""
    length = evals.settings.length

    def guess(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(greedy_guesses(model, np.reshape(rows, (-1, length)).astype(np.int64), config.token_budget))

    return np.array(shard.map(list(sequences), guess))


def _extracted(
    model: nn.Module,
    evals: TdecEvalSet,
    sequences: np.ndarray,
    guesses: np.ndarray,
    shard: RankShard,
    *,
    likelihood: bool,
) -> list[tuple[float, list[int]]]:
    """EL of each sequence, NaN without `likelihood`, and the greedy continuation of its first half."""
    length, n = evals.settings.length, evals.settings.ngram
    eos = evals.template.eos if evals.settings.el_divisor == "generated" else None

    def extract(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, list[int]]]:
        ids, guessed = (np.reshape([pair[side] for pair in pairs], (-1, length)).astype(np.int64) for side in (0, 1))
        wrong = mismatches(ids, guessed)
        halfway: dict[int, int] = {}  # sequence -> first mismatch in its second half
        for row, place in wrong:
            if place >= length // 2:
                halfway.setdefault(row, place)
        branches: list[dict[int, list[int]]] = [{} for _ in pairs]
        needed = wrong if likelihood else [*halfway.items()]
        for (row, place), tokens in continuations(model, ids, guessed, needed).items():
            branches[row][place] = tokens
        return [
            (
                extraction_likelihood(row, branches[s], n, eos=eos) if likelihood else math.nan,
                branches[s][halfway[s]] if s in halfway else row,
            )
            for s, row in enumerate(ids.tolist())
        ]

    return shard.map(list(zip(sequences, guesses, strict=True)), extract)


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
        """Mean token loss of every end, infinite where it is not a number."""
        return losses(self.options[:, 0] / self.options[:, 1])

    def right(self, evals: TdecEvalSet) -> list[bool]:
        """Return for each question whether its right end is the likeliest per token."""
        own = (self.option_loss[evals.asked == i] for i in range(len(evals.questions)))
        return [int(loss.argmin()) == q.answer for loss, q in zip(own, evals.questions, strict=True)]


def _likelihoods(model: nn.Module, evals: TdecEvalSet, config: Evaluation, shard: RankShard) -> Likelihoods:
    def nll(pairs: Sequence[Encoded]) -> list[tuple[float, int]]:
        scores = score(model, pairs, pad=evals.template.pad, token_budget=config.token_budget)
        return list(zip(scores.nll_sum.tolist(), scores.tokens.tolist(), strict=True))

    values = np.array(shard.map((*evals.validation, *evals.options), nll))
    return Likelihoods(*np.split(values, [len(evals.validation)]))


def _replies(model: nn.Module, evals: TdecEvalSet, config: Evaluation, shard: RankShard) -> list[str]:
    """Greedy continuation of each turn's context, up to the end of the line."""
    template = evals.template

    def reply(prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        return generate(
            model,
            prompts,
            stops=template.text_stops,
            pad=template.pad,
            max_new_tokens=config.max_new_tokens,
            token_budget=config.token_budget,
        )

    texts = (str(template.tokenizer.decode(ids, skip_special_tokens=True)) for ids in shard.map(evals.prompts, reply))
    return [text.partition("\n")[0].strip() for text in texts]


def _columns(
    evals: TdecEvalSet,
    some: Sequence[int],
    ma: np.ndarray,
    el: np.ndarray | None,
    continued: Sequence[Sequence[int]],
    likelihoods: Likelihoods,
    replies: Sequence[str],
    f1: Sequence[float],
) -> Columns:
    """Columns of all splits.

    Forget, of `some` sequences: first half, second half, the model's `continued` one, MA and EL. Validation: text, mean
    token loss, tokens. Dialogue: context, reference, reply, F1. Choice: question, right end, its index and each end's
    loss.
    """
    half, decode, forget = evals.settings.length // 2, evals.template.decode, evals.forget[some].tolist()
    ends = [likelihoods.option_loss[evals.asked == i] for i in range(len(evals.questions))]
    parts: dict[str, dict[str, Any]] = {
        "forget": {
            "question": [decode(row[:half]) for row in forget],
            "answer": [decode(row[half:]) for row in forget],
            "generated": [decode(list(row[half:])) for row in continued],
            "memorization_accuracy": ma[some],
            **({"extraction_likelihood": el} if el is not None else {}),
        },
        "validation": {
            "question": [decode(list(row.ids)) for row in evals.validation],
            "loss": likelihoods.text[:, 0] / likelihoods.text[:, 1],
            "tokens": likelihoods.text[:, 1].astype(np.int64),
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

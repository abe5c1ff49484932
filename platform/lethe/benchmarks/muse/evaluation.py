"""MUSE as one tokenizer reads it, and one evaluation of a model: docs/METHODS.md section 5b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.muse.eval_set import MuseEvalSet, Prompted, build_eval_set, continued
from lethe.benchmarks.muse.loading import MuseRows, kept
from lethe.benchmarks.muse.metrics import MuseScores, forget_distance, reference_metrics
from lethe.config.muse import MuseBenchmark
from lethe.config.run import Evaluation, RougeRule
from lethe.data.template import Encoded, Template
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate, up_to_first
from lethe.evaluation.likelihood import LikelihoodScores
from lethe.evaluation.membership import membership_metrics, signals
from lethe.evaluation.metrics import rouge_l_f1
from lethe.evaluation.rows import stack_splits
from lethe.evaluation.texts import Texts, score_texts, windows_of

LEAST_TOKENS = 1  # scored tokens of a row: no end-of-sequence token follows


@dataclass(frozen=True)
class MuseTask(Task[MuseEvalSet, MuseScores]):
    """Documents in windows; trials are compared with the oracle's scores."""

    rows: MuseRows
    template: Template
    settings: MuseBenchmark

    least_tokens: ClassVar[int] = LEAST_TOKENS

    @cached_property
    def forget(self) -> list[Encoded]:
        """The windows of all documents to forget."""
        return self._windows(self.rows.forget)

    @cached_property
    def retain(self) -> list[Encoded]:
        """The windows of retain1, as published: retain2 is evaluated."""
        return self._windows(self.rows.retain)

    @cached_property
    def holdout(self) -> list[Encoded]:
        """The windows of the holdout texts."""
        return self._windows(self.rows.holdout)

    def training_rows(self, include_forget: bool) -> list[Encoded]:
        """Return the windows of all documents that a start model saw; without `include_forget` of those that neither
        this request nor an earlier one wants forgotten."""
        return self._windows(self.rows.trained if include_forget else kept(self.rows))

    def eval_set(self, config: Evaluation) -> MuseEvalSet:
        """Tokenise the rows of every part that `config` chooses."""
        return build_eval_set(self.rows, self.template, self.settings, config)

    def _evaluate(
        self,
        model: nn.Module,
        evals: MuseEvalSet,
        config: Evaluation,
        reference: MuseScores | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        return evaluate(model, evals, config, reference, shard)

    def reference_values(self, stored: Any, evals: MuseEvalSet) -> MuseScores | None:
        """Read an oracle's scores, and check that they are scores of the rows of `evals`."""
        if stored is None:
            return None
        reference = MuseScores.load(stored)
        reference.check(evals.digest)
        return reference

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the beginnings of documents to forget with what follows them."""
        part = self.eval_set(config).prompted["forget_verbmem"]
        return continued(list(zip(part.shown, part.targets, strict=True)), self.template, part.tokens)

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: MuseScores | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure VerbMem of the chosen documents."""
        evals = self.eval_set(config)
        part = evals.prompted["forget_verbmem"].only(chosen)
        with evaluating(model):
            answers = _answers(model, part, evals.template, config.token_budget, shard)
        return {"forget_verbmem": float(_rouge(part, answers, evals.rouge).mean())}

    def _windows(self, texts: Sequence[str]) -> list[Encoded]:
        return [row for rows in windows_of(texts, self.template, self.settings.window) for row in rows]


def evaluate(
    model: nn.Module, evals: MuseEvalSet, config: Evaluation, oracle: MuseScores | None, shard: RankShard
) -> EvaluationResult:
    """Measure every metric of `model`, in its own dtype and on its own device; its modes and weights are left as they
    were. The result's `reference` are the model's own scores. Raises UserError for rows that the model cannot read and
    for an `oracle` that was scored on other rows."""
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=LEAST_TOKENS)
    if oracle is not None:
        oracle.check(evals.digest)
    template, budget = evals.template, config.token_budget
    texts = {"members": evals.members, **({"holdout": evals.holdout} if evals.holdout.texts else {})}
    with evaluating(model):
        scores = {name: score_texts(model, part, template, budget, shard) for name, part in texts.items()}
        answers = {name: _answers(model, part, template, budget, shard) for name, part in evals.prompted.items()}
    rouge = {name: _rouge(part, answers[name], evals.rouge) for name, part in evals.prompted.items()}
    values = {name: float(found.mean()) for name, found in rouge.items()}
    found = {name: _signals(part, scores[name]) for name, part in texts.items()}
    if "holdout" in found:
        values |= membership_metrics(found["members"], found["holdout"])
    own = MuseScores(evals.digest, values["forget_verbmem"], values.get("forget_knowmem"), values.get("mia_min_k"))
    values["forget"] = forget_distance(own)
    if oracle is not None:
        values |= reference_metrics(own, oracle)
    columns: dict[str, Mapping[str, Any]] = {
        name: {"question": part.shown, "answer": part.targets, "generated": answers[name], "rouge": rouge[name]}
        for name, part in evals.prompted.items()
    }
    nll = np.concatenate([part.nll_sum for part in scores.values()])
    finite = not bool(np.isnan(nll).any())
    return EvaluationResult(metrics=values, finite=finite, rows=stack_splits({**columns, **found}), reference=own)


def _answers(
    model: nn.Module, part: Prompted, template: Template, token_budget: int, shard: RankShard
) -> tuple[str, ...]:
    """Return what greedy text goes on with behind each prompt, on every rank."""

    def generated(prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        return generate(
            model,
            prompts,
            stops=template.text_stops,
            pad=template.pad,
            max_new_tokens=part.tokens,
            token_budget=token_budget,
        )

    return tuple(up_to_first(template.decode(ids), part.ends) for ids in shard.map(part.prompts, generated))


def _rouge(part: Prompted, answers: Sequence[str], rule: RougeRule) -> np.ndarray:
    """Return ROUGE-L's F1 of each answer [n]."""
    return np.array([rouge_l_f1(target, own, rule) for target, own in zip(part.targets, answers, strict=True)])


def _signals(texts: Texts, scores: LikelihoodScores) -> dict[str, np.ndarray]:
    """Return the membership signals of each text [n]."""
    return signals(scores, range(len(texts.texts)), texts.texts, has_end=False)

"""One's own rows as one tokenizer reads them, and one evaluation of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.own.eval_set import OwnEvalSet, Part, Prompt, answer_of, build_eval_set, encode
from lethe.benchmarks.own.loading import PartName
from lethe.benchmarks.own.metrics import Measured, References, compared
from lethe.config.own import OwnBenchmark
from lethe.config.run import Evaluation
from lethe.data.sources import Source
from lethe.data.template import Encoded, Template
from lethe.evaluation import metrics
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate, known_beginning
from lethe.evaluation.likelihood import LikelihoodScores, score
from lethe.evaluation.membership import membership_metrics, signals
from lethe.evaluation.metrics import rouge_l_recall
from lethe.evaluation.rows import stack_splits
from lethe.evaluation.texts import joined

LEAST_TOKENS = 1  # scored tokens of a row: plain text has no end of sequence
SIGNALS = ("loss", "zlib", "min_k", "min_k_plus_plus")  # columns; their metrics are mia_<signal>
MEASURES = ("probability", "rouge", "extraction_strength")  # columns of forget rows that say how much is known


@dataclass(frozen=True)
class OwnTask(Task[OwnEvalSet, References]):
    """Rows of one's own; trials are compared with start model, oracle and base, if there are such."""

    parts: Mapping[PartName, Source]
    template: Template
    config: OwnBenchmark
    digest: str

    least_tokens: ClassVar[int] = LEAST_TOKENS

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget rows, documents in windows."""
        return [pair for _, pair in self._named("forget")]

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain rows, likewise."""
        return [pair for _, pair in self._named("retain")]

    @cached_property
    def holdout(self) -> list[Encoded]:
        """All holdout rows, likewise."""
        return [pair for _, pair in self._named("holdout")] if "holdout" in self.parts else []

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield the rows of `forget` and `retain` with their names."""
        for part in ("forget", "retain"):
            yield from ((f"{part}: {name}", pair) for name, pair in self._named(part))

    def _named(self, part: PartName) -> Iterator[tuple[str, Encoded]]:
        for row in self.parts[part].rows:
            pairs = encode(row, self.template, self.config)
            for number, pair in enumerate(pairs, 1):
                yield (row.name if len(pairs) == 1 else f"{row.name}, window {number}"), pair

    def eval_set(self, config: Evaluation) -> OwnEvalSet:
        """Tokenise the rows of every part that `config` chooses."""
        return build_eval_set(self.parts, self.template, self.config, config, self.digest)

    def _evaluate(
        self,
        model: nn.Module,
        evals: OwnEvalSet,
        config: Evaluation,
        reference: References | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        return measure(evals, *_passes(model, evals, config, shard))

    def evaluate(
        self,
        model: nn.Module,
        evals: OwnEvalSet,
        config: Evaluation,
        reference: References | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        """Measure every metric, those of lm-evaluation-harness's tasks before the utility, which has them."""
        result = super().evaluate(model, evals, config, reference, shard, last=last)
        assert isinstance(result.reference, Measured)
        tasks = {name: value for name, value in result.metrics.items() if name.startswith("lm_eval_")}
        own = result.reference.model_copy(update={"kept": {**result.reference.kept, **tasks}})
        return replace(result, metrics={**result.metrics, **compared(own, reference)}, reference=own)

    def reference_values(self, stored: Any, evals: OwnEvalSet) -> References | None:
        """Read what the study's models gave, and check that they are values of the rows of `evals`."""
        return None if stored is None else References.load(stored, evals.digest)

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the evaluated forget rows, of a document its first window."""
        rows = config.chosen(self.parts["forget"].rows)
        return [encode(row, self.template, self.config)[0] for row in rows]

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: References | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure probability, ROUGE and extraction strength of the chosen rows."""
        forget = self.parts["forget"]
        rows = config.chosen(forget.rows)
        parts: dict[PartName, Source] = {"forget": replace(forget, rows=tuple(rows[i] for i in chosen))}
        every = config.model_copy(update={"max_rows": None, "share": 1.0})
        evals = build_eval_set(parts, self.template, self.config, every, "")
        columns = columns_of(evals, evals.parts["forget"], *_passes(model, evals, config, shard))
        return {f"forget_{name}": _mean(columns[name]) for name in MEASURES}


def _passes(
    model: nn.Module, evals: OwnEvalSet, config: Evaluation, shard: RankShard
) -> tuple[LikelihoodScores, list[str]]:
    """Return the scores of all pairs and the greedy answers to all prompts; the model's modes and weights are left as
    they were. Raises UserError for rows that the model cannot read."""
    check_context_length(evals.named_rows(), ContextLimits.of(model), least=LEAST_TOKENS)
    template, budget = evals.template, config.token_budget
    attacked = evals.attacked

    def score_rows(groups: Sequence[range]) -> list[list[tuple[np.ndarray, ...]]]:
        """Per row, the values of each of its pairs, which are scored together: they may begin alike."""
        numbers = [number for group in groups for number in group]
        pairs, wanted = [evals.pairs[number] for number in numbers], attacked[numbers].tolist()
        scores = score(model, pairs, pad=template.pad, token_budget=budget, standardised=wanted)
        values = zip(scores.logp, scores.correct, scores.guess, scores.standard, strict=True)
        return [list(islice(values, len(group))) for group in groups]

    def go_on(asked: Sequence[tuple[Prompt, list[int]]]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in asked]
        for has_end in (True, False):
            of_kind = [i for i, (prompt, _) in enumerate(asked) if prompt.has_end == has_end]
            longest = max((asked[i][0].length for i in of_kind), default=1)
            answers = generate(
                model,
                [asked[i][0].ids for i in of_kind],
                stops=template.stops if has_end else template.text_stops,
                pad=template.pad,
                max_new_tokens=config.max_new_tokens if has_end else longest,
                token_budget=budget,
                begun=[asked[i][1] for i in of_kind],
            )
            for i, ids in zip(of_kind, answers, strict=True):
                found[i] = ids if has_end else ids[: asked[i][0].length]
        return found

    with evaluating(model):
        scored = [pair for group in shard.map(evals.groups, score_rows) for pair in group]
        scores = LikelihoodScores(*map(list, zip(*scored, strict=True)))
        answers = shard.map([(prompt, _begun(evals, prompt, scores)) for prompt in evals.prompts], go_on)
    return scores, [template.decode(ids) for ids in answers]


def _begun(evals: OwnEvalSet, prompt: Prompt, scores: LikelihoodScores) -> list[int]:
    """Return how the greedy answer to a prompt begins, which teacher forcing has shown already: up to the first wrong
    guess."""
    if not prompt.known:
        return []
    scored = slice(prompt.begins, prompt.begins + prompt.length)
    return known_beginning(evals.pairs[prompt.pair].answer[scored], scores.guess[prompt.pair][scored].tolist())


def measure(evals: OwnEvalSet, scores: LikelihoodScores, answers: Sequence[str]) -> EvaluationResult:
    """Compute every metric that needs no other model, from the `scores` of all pairs and the `answers` to all
    prompts."""
    columns: dict[str, dict[str, Any]] = {
        name: columns_of(evals, part, scores, answers) for name, part in evals.parts.items()
    }
    forget, holdout = columns["forget"], columns.get("holdout")
    means = {name: {key: _mean(part[key]) for key in MEASURES if key in part} for name, part in columns.items()}
    kept = {f"retain_{key}": means["retain"][key] for key in ("probability", "rouge")}
    values = {f"{name}_{key}": mean for name in ("forget", "holdout") for key, mean in means.get(name, {}).items()}
    verbatim = float((forget["most_rouge"] == 1).mean())
    values |= {"forget_found": _mean(most_found(forget)), "forget_verbatim": verbatim, **kept}
    if "earlier" in columns:
        values["earlier_found"] = _mean(most_found(columns["earlier"]))
    attacks: dict[str, float] = {}
    if holdout is not None:
        attacks = membership_metrics(*({key: part[key] for key in SIGNALS} for part in (forget, holdout)))
        strength = values["forget_extraction_strength"] - values["holdout_extraction_strength"]
        values |= {"extraction_difference": strength, **attacks}
    if "truth_ratio" in forget:
        known = forget["truth_ratio"][[len(wrong) > 0 for wrong in evals.parts["forget"].wrong]]
        values["forget_truth_ratio"] = float(metrics.forget_truth_score(known).mean())
    general = columns.get("general")
    general_loss = None if general is None else float(np.average(general["loss"], weights=general["tokens"]))
    if general_loss is not None:
        values["general_perplexity"] = metrics.perplexity(general_loss)
    own = Measured(
        data=evals.digest,
        forget=tuple(forget["loss"].tolist()),
        holdout=() if holdout is None else tuple(holdout["loss"].tolist()),
        attacks=attacks,
        found=values["forget_found"],
        kept=kept,
        general=general_loss,
    )
    finite = not bool(np.isnan(scores.nll_sum).any())
    return EvaluationResult(metrics=values, finite=finite, rows=stack_splits(columns), reference=own)


def most_found(forget: Mapping[str, Any]) -> np.ndarray:
    """Return for each forget row [n] the largest of what says how much of it is known, from the rows' columns."""
    names = (*MEASURES, "paraphrase_probability")
    return np.asarray(np.nanmax([forget[name] for name in names if name in forget], axis=0))


def columns_of(evals: OwnEvalSet, part: Part, scores: LikelihoodScores, answers: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a part's rows [n]. The ROUGE of a row without a prompt is NaN."""
    stop = -1 if part.has_end else None
    rows = joined(scores, part.pairs)
    found: dict[str, Any] = {
        "question": [question for question, _ in part.texts],
        "answer": [answer for _, answer in part.texts],
        "logp": rows.logp,
        "tokens": rows.tokens,
        "loss": metrics.losses(rows.nll_mean),
    }
    found["probability"] = metrics.probability(found["loss"])
    if not evals.attacked[part.pairs[0][0]] and not any(map(len, part.prompts)):
        return found  # general text
    rouge = {i: rouge_l_recall(evals.prompts[i].target, answers[i], evals.rouge) for row in part.prompts for i in row}
    strength = [metrics.extraction_strength([scores.correct[i][:stop] for i in pairs]) for pairs in part.pairs]
    found |= {
        "generated": [answers[prompts[0]] if len(prompts) else "" for prompts in part.prompts],
        "rouge": np.array(
            [np.mean([rouge[i] for i in prompts]) if len(prompts) else np.nan for prompts in part.prompts]
        ),
        "most_rouge": np.array([max((rouge[i] for i in row), default=0.0) for row in part.prompts]),
        "extraction_strength": np.array([values.mean() for values in strength]),
    }
    if evals.attacked[part.pairs[0][0]]:
        found |= signals(rows, range(len(part.rows)), list(map(answer_of, part.rows)), has_end=part.has_end)
    return found | _variant_columns(part, metrics.losses(scores.nll_mean))


def _variant_columns(part: Part, loss: np.ndarray) -> dict[str, Any]:
    """Return the columns of paraphrases and wrong answers, where a row of the part has some; `loss` [pairs]."""
    found: dict[str, Any] = {}
    own = np.array([pairs[0] for pairs in part.pairs])
    if (part.paraphrase != own).any():
        found["paraphrase_probability"] = metrics.probability(loss[part.paraphrase])
    if any(map(len, part.wrong)):
        wrong = [loss[numbers] for numbers in part.wrong]
        found |= {"perturbed_loss": wrong, "truth_ratio": metrics.truth_ratio(loss[part.paraphrase], wrong)}
    return found


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are numbers; 0 where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0

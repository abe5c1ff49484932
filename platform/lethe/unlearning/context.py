"""The state that all runs of a study share in a warm process: start weights, token ids, log-probabilities.

A process holds the base weights once. Runs with adapters share those of the start model, which they never change; a run
that trains every weight takes the start model over, and whoever needs it afterwards loads it again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lethe.benchmarks.base import AnyTask, Benchmark, EvalSet, EvaluationResult, load_benchmark
from lethe.benchmarks.measurement import load_network, shown_text, template_of, vocabulary_of
from lethe.config.adapter import Fila, Pissa, Vila
from lethe.config.base import short_digest
from lethe.config.run import Evaluation
from lethe.data.privacy import ShownText, study_salt
from lethe.data.refusals import NO_ALTERNATIVES, NO_REFUSALS, Refusals, draw_refusals
from lethe.data.template import Encoded, Template
from lethe.errors import UserError
from lethe.models.adapters import Initial
from lethe.models.fila import cached, factors_key, fisher_key, start_factors, truncated
from lethe.models.fisher import row_weights
from lethe.models.loading import load_config, load_model, shared_copy
from lethe.models.vila import adapter_row_weights
from lethe.records import Verdict
from lethe.storage.replica import local_path
from lethe.unlearning.requests import Assets, Request

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


T = TypeVar("T")


@dataclass
class Context:
    """Shared, read-only state of a study in one process.

    `start_folder`: of another start model than the assets'; `start_in_memory`: one that belongs to the caller, never
    trained and never given away.
    """

    assets: Assets
    start_folder: Path | None = None
    start_in_memory: PreTrainedModel | None = None

    @cached_property
    def benchmark(self) -> Benchmark:
        """The study's data. Raises UserError where they have changed since the study began."""
        for source in self.assets.benchmark.given_sources().values():
            local_path(Path(source))
        benchmark = load_benchmark(self.assets.benchmark)
        if benchmark.digest != self.assets.data_digest:
            raise UserError(f"the data in {self.assets.benchmark.data_name} changed since the study began")
        return benchmark

    @cached_property
    def start(self) -> PreTrainedModel:
        """The start model on the run's device. Never trained while it is here."""
        if self.start_in_memory is not None:
            return self.start_in_memory
        assets = self.assets
        return load_network(self._start_folder(), assets.device, assets.precision, assets.quantisation)

    def _start_folder(self) -> Path:
        return self.start_folder or local_path(Path(self.assets.start))

    @cached_property
    def template(self) -> Template:
        """The start model's template."""
        return template_of(local_path(Path(self.assets.start)), self.assets.prompt)

    @cached_property
    def task(self) -> AnyTask:
        """The benchmark as the start model's tokenizer reads it."""
        return self.benchmark.task(self.template, vocabulary_of(load_config(local_path(Path(self.assets.start)))))

    @cached_property
    def shown(self) -> ShownText:
        """The form of the rows' text that the study may store."""
        made = lambda: (text for texts in vars(self).get("alternatives", ()) for text in texts)  # noqa: E731
        return shown_text(self.assets.text, self.benchmark, lambda: self.task, made)

    @cached_property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Other answers to each forget question; empty unless the benchmark asks for them. Where the start model makes
        them, every process makes the same ones: as texts to forget they are written nowhere."""
        if not self.assets.benchmark.generates_alternatives:
            return self.benchmark.alternatives
        from lethe.unlearning.other_answers import other_answers

        rows = [(question, answer) for question, answer, *_ in self.benchmark.forget_texts]
        # An embedded model has a chat template, and has never read an instruction.
        instructed = self.template.is_chat and (self.assets.origin is None or isinstance(self.assets.origin, str))
        vars(self).pop("shown", None)  # it withholds them, too, from here on
        return other_answers(self.start, self.template, rows, instructed=instructed)

    def stored(self, result: EvaluationResult, *, named: bool = True) -> EvaluationResult:
        """Return `result` with its rows as the study stores them; those to forget are `named` by hashes with the
        study's salt where their text is not stored."""
        study = self.assets.study if named and self.assets.text != "keep" else None
        return replace(result, rows=self.shown.columns(result.rows, None if study is None else study_salt(study)))

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget rows."""
        return self.task.forget

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain rows."""
        return self.task.retain

    @cached_property
    def until_forgotten(self) -> bool:
        """True if a run ends when its forget rows count as forgotten."""
        return self.task.until_forgotten

    def fresh_model(self) -> PreTrainedModel:
        """Return the start model with weights of the caller's own. It is taken away where it is in memory, and loaded
        again when it is next needed: nobody holds two copies."""
        if self.start_in_memory is not None:
            return copy.deepcopy(self.start_in_memory)
        _ = self.start
        taken: PreTrainedModel = vars(self).pop("start")
        return taken

    def model_to_shard(self) -> PreTrainedModel:
        """Return the start model for an engine that shards it weight by weight: like `fresh_model`, but one that is
        loaded for it stays in the files' pages and precision."""
        if self.start_in_memory is not None or "start" in vars(self):
            return self.fresh_model()
        return load_model(self._start_folder())

    def shared_model(self) -> PreTrainedModel:
        """Return a new module object over the start model's own weights, for adapters: they must not be changed."""
        return shared_copy(self.start)

    def eval_set(self, config: Evaluation) -> EvalSet:
        """Return the tokenised evaluation rows, which are made once per evaluation configuration."""
        evals: EvalSet = self._once(("eval", config), lambda: self.task.eval_set(config))
        return evals

    def start_log_probs(self, token_budget: int, start: nn.Module | None = None) -> torch.Tensor:
        """Return S0 [forget rows]: summed answer log-probability under the start model (docs/METHODS.md section 1).
        `start` computes what the start model does, in place of `Context.start`."""
        key = ("start log probs", token_budget)
        return self._once(key, lambda: self._answer_log_probs(self.forget, token_budget, start))

    def refusals(self, seed: int, epochs: int, *, alternatives: bool = False) -> Refusals:
        """Return what a run answers its forget questions with: refusals, or `alternatives` to the answers. Raises
        UserError where there are none."""
        questions = self.benchmark.forget_questions
        answers = self.alternatives if alternatives else (self.benchmark.refusals,) * len(questions)
        if not answers or not answers[0]:
            missing = NO_ALTERNATIVES if alternatives else NO_REFUSALS.format(self.assets.benchmark.data_name)
            raise UserError(f"{missing}, and this objective answers with them")
        return draw_refusals(questions, answers, self.template.encode, seed, epochs)

    def refusal_start_log_probs(
        self,
        seed: int,
        epochs: int,
        token_budget: int,
        start: nn.Module | None = None,
        *,
        alternatives: bool = False,
    ) -> torch.Tensor:
        """Return S0 [rows] of the rows of `refusals`; `start` as in `start_log_probs`."""
        key = ("refusal start log probs", seed, epochs, token_budget, alternatives)

        def compute() -> torch.Tensor:
            rows = self.refusals(seed, epochs, alternatives=alternatives).rows
            return self._answer_log_probs(rows, token_budget, start)

        return self._once(key, compute)

    def _answer_log_probs(self, rows: Sequence[Encoded], token_budget: int, start: nn.Module | None) -> torch.Tensor:
        import torch

        from lethe.evaluation.likelihood import score

        scores = score(start or self.start, rows, pad=self.template.pad, token_budget=token_budget)
        return torch.from_numpy(-np.asarray(scores.nll_sum)).float()

    def initial(self, config: Pissa) -> Initial:
        """Return the start of a PiSSA, FILA or VILA adapter. Fisher and SVD are computed once, for the largest rank
        that a trial of the study can have, and cached on disk."""
        rank = max(config.rank, self.assets.largest_rank or 0)
        folder, model = Path(self.assets.cache) / "adapters", self.assets.model_digest
        if self.assets.precision != "fp32":  # the rounded weights are another model
            model = short_digest(f"{model} {self.assets.precision}")
        if self.assets.quantisation:
            model = short_digest(f"{model} {self.assets.quantisation}")
        asked = self.template.digest(questions=self.benchmark.has_questions)
        read = (model, short_digest(f"{self.assets.data_digest} {asked}"))

        def weights(fila: Fila) -> dict[str, torch.Tensor]:
            def estimate() -> dict[str, torch.Tensor]:
                rows = self.start, self.forget, self.retain
                return adapter_row_weights(*rows, fila) if isinstance(fila, Vila) else row_weights(*rows, fila)

            return cached(folder, fisher_key(*read, fila), estimate)

        def factors() -> dict[str, torch.Tensor]:
            return start_factors(self.start, config, weights(config) if isinstance(config, Fila) else None, rank)

        key = factors_key(*read, config, rank)
        return truncated(self._once(key, lambda: cached(folder, key, factors)), config)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value that `make` gave at the first call with this key."""
        cache: dict[Hashable, Any] = self.__dict__.setdefault("_cache", {})
        if key not in cache:
            cache[key] = make()
        value: T = cache[key]
        return value


def without_row_text(request: Request | None, verdict: Verdict, reason: str) -> str:
    """Return the reason for which the run of `request` ended without the text of rows that the study does not store."""
    assets = getattr(request, "assets", None)
    if not reason or assets is None or assets.text == "keep":
        return reason
    try:
        return context_for(assets).shown.message(reason)
    except Exception:  # noqa: BLE001  # whatever it is, what the run failed of is the cause
        # Without the rows nothing can be compared with them. Our own messages quote none.
        return reason if verdict == "infeasible" else f"{verdict}: the message is withheld (privacy.text)"


_latest: list[Context] = []


def context_for(assets: Assets) -> Context:
    """Return this process's context for these assets. It keeps one, that of the latest study."""
    if not _latest or _latest[0].assets != assets:
        _latest[:] = [Context(assets)]
    return _latest[0]

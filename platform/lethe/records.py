"""Plain values that outlast a process: the reports of a run, and the records of a study.

Runs send `EpochReport`s and one `FinalReport` from a worker to the driver; the driver keeps each run as a `TrialRecord`
and the study as a `StudyRecord`, which trackers log, reports draw and `--resume` reads back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lethe.config.audits import metric_name
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.privacy import Privacy, StoredText

Verdict = Literal["complete", "stopped", "diverged", "out_of_memory", "infeasible", "error", "lost", "interrupted"]
Scalar = str | int | float | bool | None
Metrics = dict[str, float]

TRAINING = "training.json"  # beside a model that lethe trained: its `TrainingRecord`
REQUESTS = "requests.json"  # beside a model that a study unlearned: its `AnsweredRequest`s


class Record(BaseModel):
    """Records may hold NaN: a broken model's numbers are facts too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")


class EpochReport(Record):
    """One report of a run that goes on: `values` by metric, among them `epoch` and `optimizer_step`."""

    values: Metrics


EVALUATED_SHARE = "evaluated_share"  # in a report: of the rows that a whole evaluation reads


def is_interim(values: Metrics) -> bool:
    """Return whether a report's metrics are of a share of the rows alone."""
    return values.get(EVALUATED_SHARE, 1.0) < 1


class FinalReport(Record):
    """The last report of a run: how it ended, why unless it is complete, and the values that it has.

    A complete run has in `values` what an `EpochReport` of its last epoch would have; a run that failed has the costs
    that it could still count, or nothing. Entry points with more to tell return a subclass.
    """

    verdict: Verdict
    reason: str = ""
    values: Metrics = {}


class Sample(Record):
    """One question with the true answer and what a model generated."""

    split: str
    question: str
    answer: str
    generated: str


class AuditRecord(Record):
    """The result of one variant of an audit: the same metrics of the same rows, of the model as it is (`before`) and of
    the audited one (`after`). Without a complete verdict `reason` says why `after` is empty."""

    variant: str
    verdict: Verdict = "complete"
    reason: str = ""
    before: Metrics = {}
    after: Metrics = {}


class Confirmation(Record):
    """A front member run again with fresh seeds. `mean` and `spread` (sample standard deviation) are of each objective
    over these runs, without the one that the search found. `confirmed`: every run is complete, and the mean is above
    the floors and not beaten by another member's; otherwise the reason says what is missing."""

    runs: tuple[TrialRecord, ...]
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    confirmed: bool = False
    reason: str = ""


Forgotten = Literal["yes", "partly", "no"]


class CriterionRecord(Record):
    """One criterion checked on a model: the metric's `value`, the `bound` in words, whether it `holds`, and the start
    model's value of the metric."""

    metric: str
    value: float
    bound: str
    holds: bool
    start: float | None = None

    def describe(self) -> str:
        """Return the finding in words: `retain_rouge 0.71 (-26 %), at least 0.865 (0.9 start)`."""
        change = ""
        if "start" in self.bound and self.start:
            change = f" ({100 * (self.value - self.start) / abs(self.start):+.0f} %)"
        return f"{self.metric.replace('_', ' ')} {self.value:.3g}{change}, {self.bound}"


class VerdictRecord(Record):
    """The verdict on a finished model: `yes` where all criteria hold, `no` where the deciding one fails, else `partly`.
    `search.verdict` has the rule; a run's own `Verdict` says how it ended."""

    forgotten: Forgotten
    criteria: tuple[CriterionRecord, ...]

    @property
    def failing(self) -> tuple[CriterionRecord, ...]:
        """The criteria that do not hold."""
        return tuple(criterion for criterion in self.criteria if not criterion.holds)

    def describe(self) -> str:
        """Return the verdict in words: `forgotten`, or `not forgotten: ` and `partly forgotten: ` with what fails."""
        words = {"yes": "forgotten", "partly": "partly forgotten", "no": "not forgotten"}[self.forgotten]
        return words + (": " + "; ".join(c.describe() for c in self.failing) if self.failing else "")


class AdapterRecord(Record):
    """The adapter of a front member as it is saved: its rank, `twice` the run's where the adapter's start is subtracted
    in it. `cut_to`: the rank at which it also lies in a folder of its own, with the relative error (Frobenius) of a
    layer's change there: the mean and the largest, in `worst_layer`."""

    rank: int
    twice: bool
    cut_to: int | None = None
    mean_error: float = 0.0
    worst_error: float = 0.0
    worst_layer: str = ""

    @property
    def numbers(self) -> dict[str, float]:
        """The adapter at its lower rank as metrics; none where there is no such adapter."""
        if self.cut_to is None:
            return {}
        errors = {"adapter_error_mean": self.mean_error, "adapter_error_worst": self.worst_error}
        return {"adapter_rank": self.rank, "adapter_cut_to": self.cut_to, **errors}

    def describe(self) -> str:
        """Return the rank, why it is what it is, and what is lost at the lower one, in words."""
        twice = ", twice the run's: its start is subtracted in it, so that it belongs on the start model" * self.twice
        if self.cut_to is None:
            return f"rank {self.rank}{twice}"
        errors = f"relative error {self.mean_error:.2g} a layer, {self.worst_error:.2g} at worst ({self.worst_layer})"
        return f"rank {self.rank}{twice}; in {cut_folder(self.cut_to)} cut to rank {self.cut_to}: {errors}"


def cut_folder(rank: int) -> str:
    """Return the name of the folder, in that of a saved adapter, which has it at a lower rank."""
    return f"rank-{rank}"


class TrialRecord(Record):
    """One finished trial. `series` are its reports by epoch, the last one included; `metrics` is the last report. Those
    before it may be `is_interim`, and so may be the last one of a trial that was stopped.

    A run of kind `confirmation` repeats trial `number` with another seed. `version`: the address of its model in
    MLflow's registry, such as `models:/lethe-tofu/2`; empty where it is not registered. `adapter`: as it is saved, of
    front members. `page`: the page of its run below the address of an MLflow server; empty where it was not tracked.
    """

    kind: Literal["trial", "confirmation"] = "trial"
    number: int
    run: str
    verdict: Verdict
    reason: str = ""
    params: dict[str, Scalar]
    metrics: dict[str, float] = {}
    series: tuple[dict[str, float], ...] = ()
    samples: tuple[Sample, ...] = ()
    folder: str = ""
    began: float = 0.0
    ended: float = 0.0
    pareto_rank: int | None = None
    feasible: bool = False
    confirmation: Confirmation | None = None
    audits: tuple[AuditRecord, ...] = ()
    forgotten: VerdictRecord | None = None
    version: str = ""
    page: str = ""
    adapter: AdapterRecord | None = None

    @property
    def on_front(self) -> bool:
        """True for a complete trial that no other dominates and that is no worse than the floors."""
        return self.pareto_rank == 0 and self.feasible

    @property
    def afterwards(self) -> dict[str, float]:
        """Metrics measured after the search by flat name: `X_mean` and `X_spread` of confirmations, the audits', and of
        the verdict `forgotten` (1 yes, .5 partly, 0 no)."""
        metrics: Metrics = {}
        if self.confirmation:
            for name, mean in self.confirmation.mean.items():
                metrics |= {f"{name}_mean": mean, f"{name}_spread": self.confirmation.spread[name]}
        if self.forgotten:
            metrics["forgotten"] = {"yes": 1.0, "partly": 0.5, "no": 0.0}[self.forgotten.forgotten]
        cut = self.adapter.numbers if self.adapter else {}
        return metrics | audit_numbers(self.audits) | cut

    @property
    def numbers(self) -> dict[str, float]:
        """Its metrics, those measured afterwards among them."""
        return {**self.metrics, **self.afterwards}


def audit_numbers(audits: tuple[AuditRecord, ...]) -> dict[str, float]:
    """Map `metric_name(variant, key)` to the value after the audit, for every metric of `audits`."""
    return {metric_name(audit.variant, key): value for audit in audits for key, value in audit.after.items()}


class ObjectiveRecord(Record):
    """One objective with its frozen floor (None: no floor)."""

    metric: str
    direction: Literal["minimize", "maximize"]
    floor: float | None = None


class TrainingRecord(Record):
    """The training of a start model or an oracle, as `training.json` beside the model has it. `base`: the checkpoint's
    name, empty for random weights; `base_digest` and `rows`: likewise; `loss`: the mean token loss of the last epoch;
    `seconds`: of the steps alone; `tokens`: without padding."""

    base: str = ""
    base_digest: str = ""
    rows: int = 0
    epochs: int
    steps: int
    tokens: int
    seconds: float
    peak_memory_mb: float
    loss: float

    def describe(self) -> str:
        """Return base, rows, steps, final loss and minutes in words."""
        rows = f"{self.rows} rows, " if self.rows else ""
        base = self.base or "random weights"
        return f"from {base}, {rows}{self.steps} steps, final loss {self.loss:.3g}, {self.seconds / 60:.1f} min"


def why_without_result(trials: Sequence[TrialRecord]) -> str | None:
    """Return the commonest end of the trials in words where none of them has a result; None where one has, and without
    trials."""
    if not trials or any(trial.verdict in ("complete", "stopped") for trial in trials):
        return None
    ends = Counter((trial.verdict, next(iter(trial.reason.strip().splitlines()[-1:]), "")) for trial in trials)
    (verdict, reason), count = ends.most_common(1)[0]
    return f"none of {len(trials)} trials has a result; {count} ended {verdict}: {reason}".rstrip(": ")


class ModelScores(Record):
    """Scores of a model that the study does not train: the start model or the oracle."""

    metrics: dict[str, float]
    samples: tuple[Sample, ...] = ()
    audits: tuple[AuditRecord, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """Its metrics and those of its audits, which have flat names as a trial's."""
        return {**self.metrics, **audit_numbers(self.audits)}


class MemberRecord(Record):
    """One arm of a comparison with one seed. `chosen` is its knee, or without a front the complete trial that is
    least below the floors; `hypervolume` is its own front's."""

    arm: str
    seed: int
    trials: tuple[int, ...]
    chosen: int | None = None
    hypervolume: float = 0.0


class ArmFrontRecord(Record):
    """The front of a comparison's arm over the trials of all its seeds. `front`: its trials; `members`: those of them
    that were run again with fresh seeds or audited, and their `hypervolume` as the search saw them;
    `confirmed_hypervolume`: by the means of the confirmed ones, None without fresh seeds."""

    arm: str
    front: tuple[int, ...]
    members: tuple[int, ...]
    hypervolume: float
    confirmed_hypervolume: float | None = None


class RenderedPrompt(Record):
    """One whole prompt as the model reads it, and its answer with the token that ends it."""

    prompt: str
    answer: str


class AnsweredRequest(Record):
    """One request to forget that a model answers: the `study` that unlearned it, and its `rows` by their hashes with
    the `salt` (hex), as `lethe.data.privacy.row_hash` gives them."""

    study: str
    salt: str
    rows: tuple[str, ...]


class StudyRecord(Record):
    """A whole study. `aliases` maps knee, best-<metric> to trial numbers; where front members were confirmed, by their
    means. `confirmed_hypervolume` is that of the means alone. In a comparison `trials` are those of all `members`, and
    the front is drawn over them all; `arm_fronts`: each arm's own, where they were confirmed or audited. `importance`
    has by objective each parameter's share. `prompt`: of the first forget row; None where nothing is asked. `notes`: a
    line for each thing that the evaluation leaves out of the data. `trainings`: of `start` and `oracle`, where lethe
    trained them. `parameters`: of the start model; `rows`: how many are forgotten (`forget`) and kept (`retain`); both
    as far as they are known. `requests`: that the front's models answer, those of the start model first. `parts`: the
    ids of the comparisons that it was joined from, which no command finds under its own `id`."""

    id: str
    space: str
    study: dict[str, Any]
    objectives: tuple[ObjectiveRecord, ...]
    digests: dict[str, str | None]
    start: ModelScores
    oracle: ModelScores | None = None
    start_folder: str
    prompt: RenderedPrompt | None = None
    notes: tuple[str, ...] = ()
    trainings: dict[str, TrainingRecord] = {}
    parameters: int | None = None
    rows: dict[str, int] = {}
    requests: tuple[AnsweredRequest, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    members: tuple[MemberRecord, ...] = ()
    arm_fronts: tuple[ArmFrontRecord, ...] = ()
    aliases: dict[str, int] = {}
    importance: dict[str, dict[str, float]] = {}
    hypervolume: float | None = None
    confirmed_hypervolume: float | None = None
    began: float = 0.0
    ended: float = 0.0
    interrupted: bool = False
    parts: tuple[str, ...] = ()

    @property
    def data_name(self) -> str:
        """The benchmark with its forget set or file, such as `tofu forget10`; the space's name where neither is
        recorded."""
        benchmark = self.study.get("benchmark", {})
        names = (PurePath(str(benchmark[key])).name for key in ("name", "forget") if benchmark.get(key))
        return " ".join(names) or self.space

    @property
    def stored_text(self) -> StoredText:
        """The rule for the rows' text that the study may store."""
        benchmark = BENCHMARKS.get(str(self.study.get("benchmark", {}).get("name")))
        return Privacy(**self.study.get("privacy", {})).stored(benchmark is not None and benchmark.personal_text)

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials on the front, sorted by the first objective, the best first."""
        sign = 1 if self.objectives[0].direction == "minimize" else -1
        key = self.objectives[0].metric
        return tuple(sorted((t for t in self.trials if t.on_front), key=lambda t: sign * t.metrics[key]))

    @property
    def best_of_front(self) -> TrialRecord | None:
        """The front member with the best verdict, of several the knee, else the first of the front; None where the
        front is empty."""
        knee, order = self.aliases.get("knee"), {"yes": 0, "partly": 1, "no": 2}

        def position(trial: TrialRecord) -> tuple[int, bool]:
            return order[trial.forgotten.forgotten] if trial.forgotten else 3, trial.number != knee

        return min(self.front, key=position, default=None)

    @property
    def winner(self) -> TrialRecord | None:
        """`best_of_front`; None in a comparison, where arms win."""
        return None if self.members else self.best_of_front

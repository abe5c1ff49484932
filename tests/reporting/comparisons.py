"""Small comparisons as records, whose means and spreads are easily worked out by hand."""

from __future__ import annotations

from typing import Any

from lethe.records import (
    ArmFrontRecord,
    AuditRecord,
    Confirmation,
    Forgotten,
    MemberRecord,
    ModelScores,
    StudyRecord,
    TrialRecord,
    VerdictRecord,
)
from tests.tracking.studies import EVIL, audits, sample, study, trial

RATE = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
ARMS: dict[str, Any] = {
    "Guard": {"run": {"objective": {"name": "input_guard"}}, "space": {}},
    "FO-GA": {"run": {"optimizer": {"name": "adamw"}}, "space": {}},
    "SO-GA": {"run": {"optimizer": {"name": "sophia"}}, "space": {"optimizer.hessian_interval": {"low": 2}}},
    "SO-NPO": {"run": {"optimizer": {"name": "sophia"}}, "space": {}},
}


def arm_trial(number: int, arm: str, seed: int, forget: float, **changes: Any) -> TrialRecord:
    """A trial of three epochs whose accuracy on forget rows is `forget`, and on retain rows 0.1 more."""
    params = {"arm": arm, "arm_seed": seed, "optimizer.learning_rate": 1e-3}
    method = {"objective.name": "input_guard"} if arm == "Guard" else {}
    done = trial(number, forget, 0.5, params=params | method)
    own = {"soul_forget_accuracy": forget, "soul_retain_accuracy": forget + 0.1, "train_seconds": 60.0 * (seed + 1)}
    series = tuple({**report, **own} for report in done.series)
    return done.model_copy(update={"series": series, "metrics": series[-1]} | changes)


def member(arm: str, seed: int, *numbers: int, chosen: int | None = None, hypervolume: float = 0.0) -> MemberRecord:
    """An arm with one seed; the first trial stands for it."""
    first = numbers[0] if numbers else None
    return MemberRecord(arm=arm, seed=seed, trials=numbers, chosen=chosen or first, hypervolume=hypervolume)


def comparison_study(layout: str = "tofu", **changes: Any) -> StudyRecord:
    """Two seeds. `Guard` is evaluated once; of FO-GA one seed is below the floors; SO-NPO diverged, then was not
    reached; a worse trial of FO-GA stands for nothing."""
    space = {"optimizer.learning_rate": RATE, "optimizer.hessian_interval": {"type": "int", "low": 1, "high": 25}}
    compare = {"layout": layout, "arms": ARMS, "seeds": [0, 1]}
    once = {"epoch": 0.0, "soul_forget_accuracy": 0.9}
    diverged = {"verdict": "diverged", "series": (), "metrics": {}, "feasible": False, "reason": EVIL}
    trials = (
        arm_trial(0, "Guard", 0, 0.9, series=(once,), metrics=once, feasible=False),
        arm_trial(1, "FO-GA", 0, 0.5, samples=(sample(EVIL), sample("a fact", "world_facts"))),
        arm_trial(2, "FO-GA", 0, 0.8),
        arm_trial(3, "SO-GA", 0, 0.2, samples=(sample("wiped"),), pareto_rank=0),
        arm_trial(4, "SO-NPO", 0, 0.2, **diverged),
        arm_trial(5, "Guard", 1, 0.9, series=(once,), metrics=once, feasible=False),
        arm_trial(6, "FO-GA", 1, 0.7, feasible=False),
        arm_trial(7, "SO-GA", 1, 0.4, pareto_rank=0),
    )
    members = (
        member("Guard", 0, 0),
        member("FO-GA", 0, 1, 2, hypervolume=0.2),
        member("SO-GA", 0, 3, hypervolume=0.5),
        MemberRecord(arm="SO-NPO", seed=0, trials=(4,)),
        member("Guard", 1, 5),
        member("FO-GA", 1, 6, hypervolume=0.1),
        member("SO-GA", 1, 7, hypervolume=0.7),
    )
    start = {"forget": 0.9, "utility": 0.6, "soul_forget_accuracy": 0.95, "soul_retain_accuracy": 1.0}
    values: dict[str, Any] = {
        "study": {"name": "soul", "benchmark": {"name": layout}, "run": {}, "space": space, "compare": compare},
        "start": ModelScores(metrics=start, samples=(sample("ada did"), sample("a retained answer", "retain"))),
        "members": members,
    }
    return study(*trials, **(values | changes))


def confirmed_comparison() -> StudyRecord:
    """`comparison_study` after its fronts were run again with two seeds and audited: FO-GA's trial 1 is confirmed, its
    trial 6 is not, one fresh run of SO-GA's trial 3 has forgotten, and SO-GA's trial 7 could not be audited."""
    record = comparison_study()

    def again(found: TrialRecord, forget: float, spread: float, *verdicts: Forgotten, reason: str = "") -> TrialRecord:
        runs = tuple(
            trial(found.number, forget, utility, kind="confirmation", params={**found.params, "seed": 2 + i})
            for i, utility in enumerate((0.4, 0.5))
        )
        judged = tuple(
            run.model_copy(update={"forgotten": VerdictRecord(forgotten=word, criteria=())})
            for run, word in zip(runs, verdicts, strict=True)
        )
        means = {"mean": {"forget": forget, "utility": 0.45}, "spread": {"forget": spread, "utility": 0.07}}
        confirmation = Confirmation(runs=judged, confirmed=not reason, reason=reason, **means)
        verdict = VerdictRecord(forgotten=verdicts[0], criteria=())
        return found.model_copy(update={"confirmation": confirmation, "forgotten": verdict})

    relearned = AuditRecord(variant="relearn_retain", before={"forget_rouge": 0.2}, after={"forget_rouge": 0.8})
    broken = AuditRecord(variant="relearn", verdict="error", reason=EVIL)
    trials = {found.number: found for found in record.trials}
    trials[1] = again(trials[1], 0.6, 0.03, "no", "no").model_copy(update={"audits": (*audits(0.3, 0.5), relearned)})
    trials[6] = again(trials[6], 0.8, 0.04, "no", "no", reason=f"beaten {EVIL}").model_copy(
        update={"audits": audits(0.5, 0.6)}
    )
    trials[3] = again(trials[3], 0.3, 0.0, "yes", "partly").model_copy(update={"audits": audits(0.1, 0.2)})
    trials[7] = again(trials[7], 0.5, 0.0, "yes", "yes").model_copy(update={"audits": (broken,)})
    fronts = (
        ArmFrontRecord(arm="Guard", front=(), members=(), hypervolume=0.0),
        ArmFrontRecord(arm="FO-GA", front=(1, 2, 6), members=(1, 6), hypervolume=0.25, confirmed_hypervolume=0.125),
        ArmFrontRecord(arm="SO-GA", front=(3, 7), members=(3, 7), hypervolume=0.75, confirmed_hypervolume=0.5),
        ArmFrontRecord(arm="SO-NPO", front=(), members=(), hypervolume=0.0),
    )
    oracle = record.oracle and record.oracle.model_copy(update={"audits": audits(0.3, 0.31)})
    start = record.start.model_copy(update={"audits": audits(0.99, 0.98)})
    changes = {"trials": tuple(trials.values()), "arm_fronts": fronts, "start": start, "oracle": oracle}
    return record.model_copy(update=changes)

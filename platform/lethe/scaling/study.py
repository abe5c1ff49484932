"""A scaling study on Ray: timed points and searches over the same warm groups, then laws, plans and one record."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lethe.benchmarks.base import Benchmark, load_benchmark
from lethe.config.model import AnyModel
from lethe.config.scaling import ScalingStudy
from lethe.interrupts import may_take_long
from lethe.models.hashing import model_digest
from lethe.models.model_files import parameter_count
from lethe.records import ModelScores, ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.console import Console
from lethe.scaling.design import CostPoint, SearchPoint, cost_points, point_study, search_points
from lethe.scaling.laws import fit_laws, parallel_records, setting_laws
from lethe.scaling.plan import plans
from lethe.scaling.points import Timing, describe_point, joined_rounds, run_timing, untrained_model
from lethe.scaling.study_cost import study_costs
from lethe.scaling.transfer import FinishedSearch, plan_move, search_record, transfer_record
from lethe.scaling_records import ScalingRecord, TransferRecord
from lethe.storage.paths import atomic_write, home
from lethe.study.comparison import Numbered
from lethe.study.finetuning import prepare_study
from lethe.study.preparation import Prepared
from lethe.study.run_requests import absolute
from lethe.study.runner import Sweep
from lethe.study.session import Session
from lethe.tracking.base import Tracker
from lethe.unlearning.requests import Assets

FILE = "scaling.json"


@dataclass
class ScalingRunner:
    """One session of a scaling study, used like `Sweep`; it continues what lies in `folder`."""

    study: ScalingStudy
    id: str
    tracker: Tracker
    console: Console
    folder: Path
    prepared: dict[str, tuple[Prepared, float]]  # size/forget -> models, seconds that making them took
    points: list[TrialRecord] = field(default_factory=list, init=False)
    searches: list[FinishedSearch] = field(default_factory=list, init=False)
    moves: list[tuple[TransferRecord, StudyRecord]] = field(default_factory=list, init=False)
    _next: int = field(default=0, init=False)

    def run(self, session: Session) -> tuple[ScalingRecord, StudyRecord]:
        """Run all that remains, cheapest first; return the study's record, and the record that trackers take.

        Ctrl-C ends it early: the records then have what is finished.
        """
        began = time.time()
        log = self._log_record(began)
        self.tracker.begin(log)
        try:
            with may_take_long():
                interrupted = not self._run_all(session)
        except KeyboardInterrupt:
            interrupted = True
        record = self._record(began, interrupted)
        atomic_write(self.folder / FILE, record.model_dump_json(indent=1))
        trials = (*record.points, *record.trials)
        return record, log.model_copy(update={"trials": trials, "ended": record.ended, "interrupted": interrupted})

    def _run_all(self, session: Session) -> bool:
        """Run points and searches; return True where all are done, False where a search was interrupted."""
        # Other numbers of workers come last, since they need other groups.
        points = cost_points(self.study)
        few = [p for p in points if p.workers == points[0].workers]
        more = [p for p in points if p.workers != points[0].workers]
        self._measure("timed points", few, session)
        done = self._search(session) and (not self.study.scaling.quality.transfer or self._transfer(session))
        if done:
            self._measure("timed points with more workers", more, session)
        return done

    def _log_record(self, began: float) -> StudyRecord:
        """Return the study as trackers know it: without a front, since models of several sizes cannot be compared."""
        goals = tuple(ObjectiveRecord(metric=m, direction=g.direction) for m, g in self.study.objectives.items())
        return StudyRecord(
            id=self.id, space=self.study.name, study=self.study.model_dump(mode="json"), objectives=goals,
            digests={"data": self._benchmark.digest}, start=ModelScores(metrics={}), start_folder="", began=began,
        )  # fmt: skip

    @cached_property
    def _benchmark(self) -> Benchmark:
        return load_benchmark(self.study.benchmark)

    # The timed points

    def _measure(self, stage: str, points: Sequence[CostPoint], session: Session) -> None:
        """Time the points, all of them in every round. A point's rounds become one result, also those that are finished
        when Ctrl-C comes."""
        cost, folder = self.study.scaling.cost, self.folder / "points"
        advance = self.console.stage(stage, len(points) * cost.rounds)
        timings = {self._take_number(): Timing(point, self._assets(point.model), cost.steps) for point in points}
        found: dict[int, list[TrialRecord]] = {number: [] for number in timings}
        try:
            for turn in range(cost.rounds):
                for number, timing in timings.items():
                    with nullcontext() if session.ready else self.console.status(f"{self.id}: starting worker groups"):
                        pool = session.pool()
                    if turn == 0:
                        self.tracker.trial_began(number, timing.digest, timing.params)
                    result, fresh = run_timing(replace(timing, turn=turn), pool, folder)
                    found[number].append(result)
                    advance(describe_point(timing.point, result, fresh), None)
        finally:
            for number, rounds in found.items():
                if rounds:
                    self.points.append(result := joined_rounds(number, rounds))
                    self.tracker.trial_ended(result)

    def _take_number(self, count: int = 1) -> int:
        """Reserve the next `count` trial numbers of the study; return the first."""
        self._next += count
        return self._next - count

    def _assets(self, model: AnyModel) -> Assets:
        start = untrained_model(self._benchmark, model, self.study.tracking.uri)
        engine = self.study.first_recipe().engine
        return Assets(
            benchmark=absolute(self.study.benchmark, self._benchmark.digest),
            data_digest=self._benchmark.digest,
            model_digest=model_digest(start),
            start=str(start),
            cache=str(home() / "cache"),
            prompt=self.study.prompt,
            device=engine.device,
            precision=engine.precision,
            quantisation=engine.quantisation,
        )

    # The searches

    def _search(self, session: Session) -> bool:
        """Run every search; return False where one was interrupted."""
        points = search_points(self.study)
        advance = self.console.stage("searches", len(points))
        for point in points:
            name = f"{point.size}-{point.arm}-{point.forget}"
            sweep = self._sweep(point, name, session=session)
            prepared, seconds = self.prepared[point.models]
            parameters = parameter_count(prepared.start)
            record = search_record(point, sweep, parameters, self.study.scaling.quality.target_of_start, seconds)
            self.searches.append(FinishedSearch(point, sweep, record))
            if sweep.interrupted:
                return False
            advance(f"search {name}", None)
        return True

    def _sweep(self, point: SearchPoint, name: str, *, session: Session, baselines_of: str = "") -> StudyRecord:
        """Run the search at a point; its trials are numbered through the whole study."""
        first = self._take_number(point.study.search.trials)
        members = self.folder / "members"
        prepared, _ = self.prepared[point.models]
        done = Sweep(
            point.study, f"{self.id}.{name}", prepared, Numbered(self.tracker, first), self.console, members / name,
            baselines_folder=members / (baselines_of or name), labels=point.labels,
        ).run(session)  # fmt: skip
        trials = tuple(t.model_copy(update={"number": first + t.number}) for t in done.trials)
        return done.model_copy(update={"trials": trials})

    def _transfer(self, session: Session) -> bool:
        """Run the smallest size's setting of each arm at the largest, on the study's own forget set; return False where
        that was interrupted."""
        arms = dict.fromkeys(s.point.arm for s in self.searches)
        advance = self.console.stage("the smallest size's settings at the largest", len(arms))
        for arm in arms:
            sizes = [
                s for s in self.searches if s.point.arm == arm and s.point.forget == self.study.benchmark.forget_set
            ]
            sizes.sort(key=lambda s: s.record.parameters)
            if len(sizes) < 2 or any(s.record.chosen is None for s in sizes):
                continue
            large = sizes[-1].point
            move = plan_move(sizes)
            fixed = point_study(self.study, large.size, arm, large.forget, move.run)
            name = f"{large.size}-{arm}-{large.forget}"
            point = replace(large, part="transfer", study=fixed)
            sweep = self._sweep(point, f"{name}-transfer", baselines_of=name, session=session)
            self.moves.append((transfer_record(sizes, move, sweep), sweep))
            if sweep.interrupted:
                return False
            advance(f"{arm} at {large.size}", None)
        return True

    # The record

    def _record(self, began: float, interrupted: bool) -> ScalingRecord:
        sweeps = [*(s.sweep for s in self.searches), *(sweep for _, sweep in self.moves)]
        trials = tuple(trial for sweep in sweeps for trial in sweep.trials)
        points = tuple(sorted(self.points, key=lambda p: p.number))
        searches = tuple(s.record for s in self.searches)
        return ScalingRecord(
            id=self.id,
            study=self.study.model_dump(mode="json"),
            machine=machine_rates(points),
            points=points,
            searches=searches,
            trials=trials,
            laws=(*fit_laws(self.study, points), *setting_laws(self.study, searches, trials)),
            parallel=parallel_records(points),
            transfer=tuple(record for record, _ in self.moves),
            plans=plans(),
            studies=study_costs(),
            began=began,
            ended=time.time(),
            interrupted=interrupted,
        )


def prepare_models(study: ScalingStudy, session: Session) -> dict[str, tuple[Prepared, float]]:
    """Return by size/forget the models of every search and the seconds that making them took; cached models are shared
    with `sweep`. Those that are fine-tuned are trained on the session's groups."""
    prepared_models = {}
    for point in search_points(study):
        if point.models not in prepared_models:
            began = time.monotonic()
            prepared = prepare_study(point.study, session)
            prepared_models[point.models] = (prepared, time.monotonic() - began)
    return prepared_models


def machine_rates(points: Sequence[TrialRecord]) -> dict[str, float]:
    """Return medians over complete points of one worker: `matrix_rate` in FLOPs per second, `busy` in CPU seconds per
    wall-clock second; empty without such a point."""
    alone = [p.metrics for p in points if p.verdict == "complete" and p.params["workers"] == 1]
    return {key: statistics.median(m[key] for m in alone) for key in ("matrix_rate", "busy") if alone}

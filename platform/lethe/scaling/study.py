"""A scaling study on Ray: timed points and searches over the same warm groups, then laws, plans, one record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lethe.config.model import AnyModel
from lethe.config.scaling import ScalingStudy
from lethe.data.benchmark import load_benchmark
from lethe.data.rows import Benchmark
from lethe.models.digests import model_digest
from lethe.models.prepare import Prepared, prepare
from lethe.pool.groups import Pool
from lethe.records import ModelScores, ObjectiveRecord, StudyRecord, TrialRecord
from lethe.scaling.cost import run_points
from lethe.scaling.design import CostPoint, SearchPoint, cost_points, member, search_points
from lethe.scaling.laws import laws, setting_laws
from lethe.scaling.parallel import parallel
from lethe.scaling.plan import plans
from lethe.scaling.quality import searched
from lethe.scaling.records import ScalingRecord, TransferRecord
from lethe.scaling.transfer import Searched, moved, plan_move
from lethe.scaling.untrained import count_parameters, shaped
from lethe.storage import atomic_write, home
from lethe.sweep.comparison import Numbered
from lethe.sweep.console import Console
from lethe.sweep.driver import Sweep, absolute
from lethe.sweep.session import Session
from lethe.tracking.tracker import Tracker
from lethe.training.assets import Assets

FILE = "scaling.json"


@dataclass
class Study:
    """One session of a scaling study, used like `Sweep`; what lies in `folder` is continued."""

    study: ScalingStudy
    id: str
    tracker: Tracker
    console: Console
    folder: Path
    prepared: dict[str, tuple[Prepared, float]]  # size/forget -> models, seconds that making them took
    _next: int = field(default=0, init=False)

    def run(self, session: Session) -> tuple[ScalingRecord, StudyRecord]:
        """All that remains, cheapest first. Ctrl-C ends it early with what is finished; the second record is the one
        that trackers take."""
        began = time.time()
        log = self._log_record(began)
        self.tracker.begin(log)
        points = cost_points(self.study)
        pool = session.pool()
        few = [p for p in points if p.recipe.engine.workers == points[0].recipe.engine.workers]
        measured, interrupted = self._measure(few, pool)
        found: list[Searched] = []
        transferred: list[tuple[TransferRecord, StudyRecord]] = []
        if not interrupted:
            found, interrupted = self._search(session)
        if not interrupted and self.study.scaling.quality.transfer:
            transferred, interrupted = self._transfer(found, session)
        if not interrupted:
            more, interrupted = self._measure([p for p in points if p not in few], pool)
            measured = (*measured, *more)
        record = self._whole(measured, found, transferred, began, interrupted)
        atomic_write(self.folder / FILE, record.model_dump_json(indent=1))
        log = log.model_copy(update={"trials": (*record.points, *record.trials), "ended": record.ended, "interrupted": interrupted})
        return record, log

    def _log_record(self, began: float) -> StudyRecord:
        """The study as trackers know it: trials, without one front over models that cannot be compared."""
        goals = tuple(ObjectiveRecord(metric=m, direction=g.direction) for m, g in self.study.objectives.items())
        return StudyRecord(
            id=self.id, space=self.study.name, study=self.study.model_dump(mode="json"), objectives=goals,
            digests={"data": self._benchmark.digest}, start=ModelScores(metrics={}), start_folder="", began=began,
        )  # fmt: skip

    @cached_property
    def _benchmark(self) -> Benchmark:
        return load_benchmark(self.study.benchmark)

    # What is timed

    def _measure(self, points: Sequence[CostPoint], pool: Pool) -> tuple[tuple[TrialRecord, ...], bool]:
        numbered = [(self._number(), point, self._assets(point.model)) for point in points]
        steps = self.study.scaling.cost.steps
        return run_points(numbered, steps, pool, self.tracker, self.folder / "points", self._say)

    def _number(self, count: int = 1) -> int:
        self._next += count
        return self._next - count

    def _assets(self, model: AnyModel) -> Assets:
        start = shaped(self._benchmark, model)
        return Assets(
            benchmark=absolute(self.study.benchmark),
            data_digest=self._benchmark.digest,
            model_digest=model_digest(start),
            start=str(start),
            cache=str(home() / "cache"),
            device=self.study.first_recipe().engine.device,
        )

    def _say(self, point: CostPoint, result: TrialRecord, fresh: bool) -> None:
        where = f"{point.size:<6} {point.arm:<8} {point.rows:>2} rows  {point.workers} x stage {point.stage}"
        m = result.metrics
        if result.verdict != "complete":
            self.console.say(f"{where}  [yellow]{result.verdict}[/] {result.reason}")
            return
        told = f"{m['step_seconds'] * 1e3:8.1f} ms a step ({m['step_cpu_seconds'] * 1e3:.1f} CPU)  {m['tokens_per_second']:7.0f} tokens/s"
        self.console.say(f"{where}  {told}  peak {m['peak_memory_mb']:.0f} MiB{'' if fresh else '  (from disk)'}")

    # What is searched

    def _search(self, session: Session) -> tuple[list[Searched], bool]:
        found: list[Searched] = []
        for point in search_points(self.study):
            sweep = self._sweep(point, f"{point.size}-{point.arm}-{point.forget}", session=session)
            prepared, seconds = self.prepared[point.models]
            parameters = count_parameters(prepared.start)
            record = searched(point, sweep, parameters, self.study.scaling.quality.target_of_start, seconds)
            found.append(Searched(point, sweep, record))
            if sweep.interrupted:
                return found, True
        return found, False

    def _sweep(self, point: SearchPoint, name: str, *, session: Session, yardsticks: str = "") -> StudyRecord:
        """The search at a point, its trials numbered through the whole study."""
        first = self._number(point.study.search.trials)
        members = self.folder / "members"
        done = Sweep(
            point.study, f"{self.id}.{name}", self.prepared[point.models][0], Numbered(self.tracker, first), self.console,
            members / name, yardsticks=members / (yardsticks or name), labels=point.labels,
        ).run(session)  # fmt: skip
        return done.model_copy(update={"trials": tuple(t.model_copy(update={"number": first + t.number}) for t in done.trials)})

    def _transfer(self, found: Sequence[Searched], session: Session) -> tuple[list[tuple[TransferRecord, StudyRecord]], bool]:
        """Take what the smallest size of each arm has found to the largest, on the study's own forget set."""
        done: list[tuple[TransferRecord, StudyRecord]] = []
        for arm in dict.fromkeys(s.point.arm for s in found):
            line = [s for s in found if s.point.arm == arm and s.point.forget == self.study.benchmark.forget]
            line.sort(key=lambda s: s.record.parameters)
            if len(line) < 2 or any(s.record.chosen is None for s in line):
                continue
            large = line[-1].point
            move = plan_move(line)
            point = replace(large, part="transfer", study=member(self.study, large.size, arm, large.forget, move.run))
            name = f"{large.size}-{arm}-{large.forget}"
            sweep = self._sweep(point, f"{name}-transfer", yardsticks=name, session=session)
            done.append((moved(line, move, sweep), sweep))
            if sweep.interrupted:
                return done, True
        return done, False

    # The record

    def _whole(
        self,
        points: tuple[TrialRecord, ...],
        found: Sequence[Searched],
        transferred: Sequence[tuple[TransferRecord, StudyRecord]],
        began: float,
        interrupted: bool,
    ) -> ScalingRecord:
        sweeps = [*(s.sweep for s in found), *(sweep for _, sweep in transferred)]
        trials = tuple(trial for sweep in sweeps for trial in sweep.trials)
        rates = [p.metrics["matrix_rate"] for p in points if "matrix_rate" in p.metrics]
        busy = [p.metrics["busy"] for p in points if "busy" in p.metrics and p.params["workers"] == 1]
        machine = {name: _median(values) for name, values in (("matrix_rate", rates), ("busy", busy)) if values}
        return ScalingRecord(
            id=self.id,
            study=self.study.model_dump(mode="json"),
            machine=machine,
            points=tuple(sorted(points, key=lambda p: p.number)),
            searches=tuple(s.record for s in found),
            trials=trials,
            laws=(*laws(self.study, points), *setting_laws(self.study, [s.record for s in found], trials)),
            parallel=parallel(points),
            transfer=tuple(record for record, _ in transferred),
            plans=plans(),
            began=began,
            ended=time.time(),
            interrupted=interrupted,
        )


def prepare_models(study: ScalingStudy) -> dict[str, tuple[Prepared, float]]:
    """Models of every size that is searched, by size/forget, and the seconds that making them took. Cached ones are
    shared with `sweep`."""
    found = {}
    for point in search_points(study):
        if point.models not in found:
            began = time.monotonic()
            prepared = prepare(point.study.benchmark, point.study.model)
            found[point.models] = (prepared, time.monotonic() - began)
    return found


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]

"""The doctor's checks of a cluster: every node, and a real worker group, which sums over its ranks and takes three
steps of every DeepSpeed stage.

The group is started as a study's are and runs `run_probe`; `Workers` asks for it and judges the answer.
"""

from __future__ import annotations

import secrets
import shutil
import traceback
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from lethe.config.optimizer import Sophia
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe
from lethe.errors import UserError
from lethe.ops.doctor.checks import Check, Skipped
from lethe.pool.node_checks import check_node
from lethe.pool.resources import HEAD
from lethe.pool.worker import Ranks
from lethe.records import FinalReport
from lethe.storage.paths import home
from lethe.unlearning.engine import Engine
from lethe.unlearning.outcome import ReportFunction
from lethe.unlearning.requests import Request

if TYPE_CHECKING:
    from lethe.pool.resources import Shape


STEPS = 3
RATE = 0.05
STAGES = (0, 1, 2, 3)
LIMIT_S = 180.0


class ProbeRequest(Request):
    """A probe of a group on this device."""

    device: Literal["cpu", "cuda"]


class ProbeReport(FinalReport):
    """`backend`: torch's for collectives; `sum`: of rank + 1 over ranks; `stages`: each stage's losses by step, or what
    went wrong."""

    backend: str
    sum: float
    stages: dict[str, list[float] | str]


def run_probe(request: ProbeRequest, report: ReportFunction, ranks: Ranks) -> ProbeReport:
    """Sum over ranks and train a few steps with every ZeRO stage. Entry point PROBE."""
    engine = EngineConfig(workers=ranks.world, device=request.device)
    return ProbeReport(
        verdict="complete",
        backend=dist.get_backend() if dist.is_initialized() else "none",
        sum=_sum_over_ranks(ranks, engine.device),
        stages={str(stage): _train(engine.model_copy(update={"stage": stage})) for stage in STAGES},
    )


def _sum_over_ranks(ranks: Ranks, device: str) -> float:
    value = torch.full((1,), float(ranks.rank + 1), device=device)
    if ranks.world > 1:
        dist.all_reduce(value)
    return value.item()


def _train(config: EngineConfig) -> list[float] | str:
    """Return the squared error of a small regression before every step, which falls and is the same at every stage; or
    the traceback of what DeepSpeed raised."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    inputs = torch.randn(32, 8)
    try:
        engine = Engine(model, Recipe(optimizer=Sophia(), engine=config))
        given, target = inputs.to(engine.device), inputs.sum(1, keepdim=True).to(engine.device)
        losses = []
        for _ in range(STEPS):
            loss = (engine.engine(given) - target).square().mean()
            losses.append(loss.item())
            engine.step([partial(torch.div, loss, engine.world)], RATE)
        engine.close()
    except Exception:  # noqa: BLE001  # whatever DeepSpeed lacks here is the answer that the doctor wants
        return traceback.format_exc(limit=-1)
    return losses


class Workers:
    """Two checks of one probe, which the first of them runs. `grow`: wait for nodes that have to start first."""

    def __init__(self, grow: bool) -> None:
        self._grow = grow
        self._answer: ProbeReport | UserError | Skipped | None = None

    def checks(self) -> list[Check]:
        """Return the checks of collectives and of stages."""
        return [Check("workers", self._collectives), Check("deepspeed", self._stages)]

    def _collectives(self) -> str:
        answer, workers = self._probe(), self._shape.workers
        if answer.sum != workers * (workers + 1) / 2:
            raise UserError(f"{answer.backend}: the sum over {workers} ranks is wrong ({answer.sum:g})")
        return f"{workers} on {self._shape.device}, {answer.backend} sums right"

    def _stages(self) -> str:
        stages = self._probe().stages
        first = stages["0"]
        for stage, losses in stages.items():
            if isinstance(losses, str) or isinstance(first, str):
                raise UserError(f"stage {stage} fails here: {losses}")
            if not losses[-1] < losses[0] or max(abs(a - b) for a, b in zip(losses, first, strict=True)) > 1e-3:
                raise UserError(f"stage {stage} trains otherwise than stage 0: losses {losses} against {first}")
        return f"stages {', '.join(stages)}: equal losses, {first[0]:.3f} to {first[-1]:.3f}"

    def _probe(self) -> ProbeReport:
        """Return the answer of the group, asked for once; raises the same error every time where there is none."""
        if self._answer is None:
            try:
                self._answer = self._run_probe()
            except (UserError, Skipped) as error:
                self._answer = error
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def _run_probe(self) -> ProbeReport:
        import ray

        from lethe.pool.messages import EntryPoint
        from lethe.pool.worker_pool import Pool

        self._shape = _shape(self._grow)
        folder = home() / "groups" / secrets.token_hex(4)
        pool = Pool(folder, max_groups=1)
        try:
            pool.warm(self._shape)
            run = pool.submit("doctor", EntryPoint.PROBE, ProbeRequest(device=self._shape.device), self._shape)
            report = pool.result(run) if self._grow else run.report(0, lambda ref: ray.get(ref, timeout=LIMIT_S))
        except ray.exceptions.GetTimeoutError:
            raise UserError(
                f"no worker group answered within {LIMIT_S:g} s: `ray status` says what it waits for"
            ) from None
        finally:
            pool.close()
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(report, ProbeReport):
            return report
        assert isinstance(report, FinalReport), "a probe reports no epochs"
        raise UserError(f"a worker group ended {report.verdict}: {report.reason}")


def _shape(grow: bool) -> Shape:
    """Return the shape to probe: two workers where they have room, on GPUs where there are some."""
    from lethe.pool.resources import Shape, alive, has_room, node_resources, promised

    nodes = node_resources() if grow else alive()
    devices: tuple[Literal["cuda", "cpu"], ...] = ("cuda", "cpu")
    for device in devices:
        for workers in (2, 1):
            if has_room([shape := Shape(workers, 1, device)], nodes):
                return shape
    if promised():
        raise Skipped("no worker node is up: --grow starts what a run needs, and waits for it")
    raise UserError("no node has a core to spare: a study needs at least one worker node, or a head with cores")


def node_checks() -> list[Check]:
    """Return a check for each living node, the head first. Needs a connection to the cluster."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # ray leaves it unannotated
    alive = [node for node in nodes if node["Alive"]]
    alive.sort(key=lambda node: HEAD not in node["Resources"])
    return [Check(f"node {i}" if i else "head", partial(check_node, node)) for i, node in enumerate(alive)]

"""What a worker group does for the doctor: a sum over its ranks, and three steps of every DeepSpeed stage.

A real worker group, started as a study's are, that sums over its ranks and tries every DeepSpeed stage.
"""

from __future__ import annotations

import secrets
import shutil
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lethe.config.optimizer import Sophia
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe
from lethe.errors import UserError
from lethe.ops.doctor.checks import Check, Skipped
from lethe.pool.worker import Ranks
from lethe.storage.paths import home
from lethe.unlearning.engine import Engine

if TYPE_CHECKING:
    from lethe.pool.resources import Shape


STEPS = 3
RATE = 0.05
STAGES = (0, 1, 2, 3)


def run_probe(payload: dict[str, Any], report: Callable[[dict[str, Any]], None], ranks: Ranks) -> dict[str, Any]:
    """The final report: `backend`, `sum` of rank + 1 over ranks, and for every stage its losses or what went wrong."""
    engine = EngineConfig(workers=ranks.world, device=payload["device"])
    return {
        "verdict": "complete",
        "backend": dist.get_backend() if dist.is_initialized() else "none",
        "sum": _sum(ranks, engine.device),
        "stages": {str(stage): _stage(engine.model_copy(update={"stage": stage})) for stage in STAGES},
    }


def _sum(ranks: Ranks, device: str) -> float:
    value = torch.full((1,), float(ranks.rank + 1), device=device)
    if ranks.world > 1:
        dist.all_reduce(value)
    return value.item()


def _stage(config: EngineConfig) -> list[float] | str:
    """Squared error of a small regression before every step: falls, and is the same at every stage."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    inputs = torch.randn(32, 8)
    try:
        engine = Engine(model, Recipe(optimizer=Sophia(), engine=config))
        given, wanted = inputs.to(engine.device), inputs.sum(1, keepdim=True).to(engine.device)
        losses = []
        for _ in range(STEPS):
            loss = (engine.engine(given) - wanted).square().mean()
            losses.append(loss.item())
            engine.step(iter([loss / engine.world]), RATE)
        engine.close()
    except Exception:  # whatever DeepSpeed lacks here is the answer that the doctor wants
        return traceback.format_exc(limit=-1)
    return losses


LIMIT_S = 180.0
ENTRY = "lethe.ops.doctor.workers:run_probe"


class Workers:
    """Both checks read one answer, asked for by the first. `grow`: wait for nodes that have to start first."""

    def __init__(self, grow: bool) -> None:
        self._grow = grow
        self._answer: dict[str, Any] | UserError | Skipped | None = None

    def checks(self) -> list[Check]:
        """Collectives, then stages."""
        return [Check("workers", self._collectives), Check("deepspeed", self._stages)]

    def _collectives(self) -> str:
        answer, workers = self._asked(), self._shape.workers
        if answer["sum"] != workers * (workers + 1) / 2:
            raise UserError(f"{answer['backend']}: the sum over {workers} ranks is wrong ({answer['sum']:g})")
        return f"{workers} on {self._shape.device}, {answer['backend']} sums right"

    def _stages(self) -> str:
        stages = self._asked()["stages"]
        first = stages["0"]
        for stage, losses in stages.items():
            if isinstance(losses, str):
                raise UserError(f"stage {stage} fails here: {losses}")
            if not losses[-1] < losses[0] or max(abs(a - b) for a, b in zip(losses, first, strict=True)) > 1e-3:
                raise UserError(f"stage {stage} trains otherwise than stage 0: losses {losses} against {first}")
        return f"stages {', '.join(stages)}: equal losses, {first[0]:.3f} to {first[-1]:.3f}"

    def _asked(self) -> dict[str, Any]:
        if self._answer is None:
            try:
                self._answer = self._ask()
            except (UserError, Skipped) as error:
                self._answer = error
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def _ask(self) -> dict[str, Any]:
        import ray
        from lethe.pool.worker_pool import Pool

        self._shape = _shape(self._grow)
        folder = home() / "groups" / secrets.token_hex(4)
        pool = Pool(folder, max_groups=1)
        try:
            pool.warm(self._shape)
            asked = pool.submit("doctor", {"entry": ENTRY, "device": self._shape.device}, self._shape)
            report = pool.result(asked) if self._grow else asked.report(0, lambda ref: ray.get(ref, timeout=LIMIT_S))
        except ray.exceptions.GetTimeoutError:
            raise UserError(
                f"no worker group answered within {LIMIT_S:g} s: `ray status` says what it waits for"
            ) from None
        finally:
            pool.close()
            shutil.rmtree(folder, ignore_errors=True)
        if report["verdict"] != "complete":
            raise UserError(f"a worker group ended {report['verdict']}: {report.get('reason', '')}")
        return report


def _shape(grow: bool) -> Shape:
    """Two workers where they have room, on GPUs where there are some."""
    from lethe.pool.resources import Shape, alive, nodes, promised, room

    given = nodes() if grow else alive()
    for device in ("cuda", "cpu"):
        for workers in (2, 1):
            if room([shape := Shape(workers, 1, device)], given):
                return shape
    if promised():
        raise Skipped("no worker node is up: --grow starts what a run needs, and waits for it")
    raise UserError("no node has a core to spare: a study needs at least one worker node, or a head with cores")

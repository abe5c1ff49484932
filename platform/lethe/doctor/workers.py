"""A real worker group, started as a study's are, that sums over its ranks and tries every DeepSpeed stage."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING, Any

from lethe.doctor.check import Check, Skipped
from lethe.errors import BadInput
from lethe.storage import home

if TYPE_CHECKING:
    from lethe.pool.shape import Shape

LIMIT_S = 180.0
ENTRY = "lethe.doctor.probe:execute"


class Workers:
    """Both checks read one answer, asked for by the first. `grow`: wait for nodes that have to start first."""

    def __init__(self, grow: bool) -> None:
        self._grow = grow
        self._answer: dict[str, Any] | BadInput | Skipped | None = None

    def checks(self) -> list[Check]:
        """Collectives, then stages."""
        return [Check("workers", self._collectives), Check("deepspeed", self._stages)]

    def _collectives(self) -> str:
        answer, workers = self._asked(), self._shape.workers
        if answer["sum"] != workers * (workers + 1) / 2:
            raise BadInput(f"{answer['backend']}: the sum over {workers} ranks is wrong ({answer['sum']:g})")
        return f"{workers} on {self._shape.device}, {answer['backend']} sums right"

    def _stages(self) -> str:
        stages = self._asked()["stages"]
        first = stages["0"]
        for stage, losses in stages.items():
            if isinstance(losses, str):
                raise BadInput(f"stage {stage} fails here: {losses}")
            if not losses[-1] < losses[0] or max(abs(a - b) for a, b in zip(losses, first, strict=True)) > 1e-3:
                raise BadInput(f"stage {stage} trains otherwise than stage 0: losses {losses} against {first}")
        return f"stages {', '.join(stages)}: equal losses, {first[0]:.3f} to {first[-1]:.3f}"

    def _asked(self) -> dict[str, Any]:
        if self._answer is None:
            try:
                self._answer = self._ask()
            except (BadInput, Skipped) as error:
                self._answer = error
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def _ask(self) -> dict[str, Any]:
        import ray

        from lethe.pool.groups import Pool

        self._shape = _shape(self._grow)
        folder = home() / "groups" / secrets.token_hex(4)
        pool = Pool(folder, max_groups=1)
        try:
            pool.warm(self._shape)
            asked = pool.submit("doctor", {"entry": ENTRY, "device": self._shape.device}, self._shape)
            report = pool.result(asked) if self._grow else asked.report(0, lambda ref: ray.get(ref, timeout=LIMIT_S))
        except ray.exceptions.GetTimeoutError:
            raise BadInput(f"no worker group answered within {LIMIT_S:g} s: `ray status` says what it waits for") from None
        finally:
            pool.close()
            shutil.rmtree(folder, ignore_errors=True)
        if report["verdict"] != "complete":
            raise BadInput(f"a worker group ended {report['verdict']}: {report.get('reason', '')}")
        return report


def _shape(grow: bool) -> Shape:
    """Two workers where they have room, on GPUs where there are some."""
    from lethe.pool.capacity import alive, nodes, promised, room
    from lethe.pool.shape import Shape

    given = nodes() if grow else alive()
    for device in ("cuda", "cpu"):
        for workers in (2, 1):
            if room([shape := Shape(workers, 1, device)], given):
                return shape
    if promised():
        raise Skipped("no worker node is up: --grow starts what a run needs, and waits for it")
    raise BadInput("no node has a core to spare: a study needs at least one worker node, or a head with cores")

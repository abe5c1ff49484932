"""Runs that are killed with SIGKILL at some step and go on in other processes, beside the same runs left alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lethe.config.adapter import Fila, FullParameters, Lora
from lethe.config.objective import GradDiff, Npo, Pdu, Rmu
from lethe.config.optimizer import AdamW, AdamW8bit, Lion, Mezo, Muon, Sgd, Sophia
from lethe.config.run import Checkpoint, Engine, Evaluation, Recipe, Schedule
from lethe.unlearning.requests import Assets

STEPS = 6
INSTALLED = find_spec("bitsandbytes") is not None
ADAMW = AdamW(learning_rate=3e-3)
SOPHIA = Sophia(learning_rate=3e-3, hessian_interval=2, clip_threshold=1.0)
RELEASED = Sophia(learning_rate=3e-3, hessian="squared_gradient", betas=(0.9, 0.95))
FILA = Fila(rank=4, fisher_rows=4)
CASES = [
    (ADAMW, FullParameters(), 0, "fp32"), (SOPHIA, FullParameters(), 0, "bf16"), (SOPHIA, FILA, 0, "fp32"),
    (SOPHIA, Lora(rank=4), 1, "fp32"), (ADAMW, FILA, 1, "bf16"),
    (SOPHIA, FullParameters(), 2, "fp32"), (RELEASED, FILA, 2, "fp32"), (ADAMW, FullParameters(), 2, "bf16"),
    (SOPHIA, FullParameters(), 3, "fp32"), (ADAMW, Lora(rank=4), 3, "bf16"),
    (Lion(learning_rate=1e-3), Lora(rank=4), 0, "bf16"), (Sgd(nesterov=True), FullParameters(), 1, "fp32"),
    (AdamW(learning_rate=3e-3, sam_rho=0.5), FullParameters(), 2, "fp32"),
    (Mezo(learning_rate=1e-4, samples=2), Lora(rank=4), 0, "bf16"),
    (Muon(learning_rate=3e-3, sam_rho=0.5), FullParameters(), 0, "bf16"),
    *[(AdamW8bit(learning_rate=3e-3), FullParameters(), 1, "bf16")] * INSTALLED,
]  # fmt: skip
OBJECTIVES = {6: Pdu(warmup_epochs=1, epsilon=1.0), 8: Rmu(layer=1, coefficient=3.0)}
OF_WORLD = {1: (0, 1, 2, 5, 7, 8, 10, 13, 14), 2: (0, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, *[15] * INSTALLED)}
SHORT = {1: (1, 2, 5), 2: (3, 4, 6, 8)}  # every stage, precision, optimizer and adapter

Result = tuple[str, int]


def recipe(case: int, world: int) -> Recipe:
    """6 steps and 3 reports; where whole weights are trained and sharded, with all that saves memory."""
    optimizer, adapter, stage, precision = CASES[case]
    saves = stage >= 2 and isinstance(adapter, FullParameters)
    offload = {2: "optimizer", 3: "parameters"}[stage] if saves else "none"
    return Recipe(
        objective=OBJECTIVES.get(case) or (Npo() if case % 2 else GradDiff()),
        optimizer=optimizer, adapter=adapter, seed=case,
        schedule=Schedule(
            epochs=3, batch_size=3, accumulation=1 + (stage == 2), dropout=True, micro_tokens=40 if saves else None
        ),
        evaluation=Evaluation(max_new_tokens=2, max_rows=4),  # two rows before the last
        engine=Engine(
            stage=stage, precision=precision, workers=world, gradient_checkpointing=saves, offload=offload
        ),
    )  # fmt: skip


def fate(case: int, world: int) -> tuple[int, Checkpoint]:
    """The step in which the run is killed, and when it had left checkpoints before."""
    draw = random.Random(f"{case}:{world}")
    return draw.randint(2, STEPS), Checkpoint(at_reports=draw.random() < 0.7, every_steps=draw.choice((None, 1, 2)))


def outcome(case: int, assets: Assets, folder: Path | None, ranks: Any, killed_in: int | None = None) -> Result:
    """A digest of every weight and every report, costs apart, and how many steps this attempt took."""
    import torch

    from lethe.unlearning import trainer as module
    from lethe.unlearning.checkpoint import Checkpoints
    from lethe.unlearning.context import context_for
    from lethe.unlearning.outcome import Measure
    from lethe.unlearning.stepper import Stepper

    taken: list[int] = []

    class Counted(Stepper):
        def step(self, step: Any, rate: float) -> Any:
            if step.number == killed_in and ranks.rank == ranks.world - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            taken.append(step.number)
            return super().step(step, rate)

    module.Stepper = Counted  # type: ignore[misc]  # this process is a child of its own
    torch.manual_seed(os.getpid())  # whatever a process did before
    saved = Checkpoints(folder, fate(case, ranks.world)[1], ranks)
    reports: list[dict[str, Any]] = []
    run = recipe(case, ranks.world)
    given = run, context_for(assets), None, reports.append, ranks, saved
    with module.unlearn(*given, interim=Measure(run.evaluation.before_last(), None)) as done:
        assert done.model is not None, done.report
        assert done.report.verdict == "complete", done.report
        reports.append(done.report.values)
        assert [report["evaluated_share"] for report in reports] == [0.2, 0.2, 1.0]
        whole = hashlib.sha256()
        with done.whole_model():
            for name, parameter in done.model.named_parameters():
                whole.update(name.encode() + parameter.detach().float().numpy().tobytes())
    kept = [{k: v for k, v in r.items() if "seconds" not in k and "memory" not in k} for r in reports]
    whole.update(json.dumps(kept, sort_keys=True).encode())
    return whole.hexdigest(), len(taken)


def in_children(world: int, folder: Path, tag: str, work: Callable[[Any], Any]) -> tuple[list[int], list[Any]]:
    """`work(ranks)` in `world` forked children of this process: their exit codes and what they gave."""
    children = []
    for rank in range(world):
        if (child := os.fork()) == 0:
            code = 1
            try:
                (folder / f"{tag}.{rank}.json").write_text(json.dumps(work(_join(rank, world, folder / f"{tag}.join"))))
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    written = [folder / f"{tag}.{rank}.json" for rank in range(world)]
    return codes, [json.loads(path.read_text()) for path in written if path.exists()]


def _join(rank: int, world: int, rendezvous: Path) -> Any:
    import torch
    import torch.distributed as dist

    from lethe.pool.worker import Ranks

    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    return Ranks(rank, world)


def main(folder: str, world: int, cases: list[int]) -> None:
    """Every case left alone, killed, and resumed: `result.json` has [digest, steps] of the first and the last."""
    import peft  # noqa: F401

    import lethe.unlearning.trainer  # noqa: F401
    from lethe.unlearning.engine import import_deepspeed

    import_deepspeed()

    path = Path(folder)
    assets = Assets.model_validate_json((path / "assets.json").read_text())
    runs = {case: path / "runs" / str(case) for case in cases}
    codes, alone = in_children(world, path, "alone", lambda r: [outcome(c, assets, None, r) for c in cases])
    assert codes == [0] * world, codes
    for case in cases:
        step = fate(case, world)[0]
        codes, _ = in_children(world, path, f"kill{case}", lambda r, c=case, s=step: outcome(c, assets, runs[c], r, s))
        assert codes[-1] == -signal.SIGKILL, codes
        assert 0 not in codes, codes
    left = [sorted(p.name for p in run.glob("*")) for run in runs.values()]
    codes, resumed = in_children(world, path, "resumed", lambda r: [outcome(c, assets, runs[c], r) for c in cases])
    assert codes == [0] * world, codes
    (path / "result.json").write_text(json.dumps({"alone": alone, "resumed": resumed, "left": left}))

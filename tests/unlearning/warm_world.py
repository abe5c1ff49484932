"""Runs in processes that live on, and the same runs in processes that did nothing before."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from lethe.config.adapter import Fila, FullParameters, Lora
from lethe.config.objective import Dpo, GradDiff, Ihl, Kl, Npo
from lethe.config.optimizer import AdamW, Sophia
from lethe.config.run import Engine, Evaluation, Recipe, Schedule
from lethe.unlearning.requests import Assets

SCHEDULE = Schedule(epochs=1, batch_size=3)
EVALUATION = Evaluation(max_new_tokens=4)
PARTS = (
    (GradDiff(), Npo(), Ihl()),
    (AdamW(learning_rate=1e-3), Sophia(learning_rate=1e-3, hessian_interval=2, clip_threshold=1.0)),
    (FullParameters(), Lora(rank=4), Fila(rank=4, fisher_rows=4)),
    (0, 2),
)


def recipes(world: int, long: bool) -> list[Recipe]:
    """Objective x optimizer x adapter x stage; and the objectives that read more of what a process keeps. Not `long` is
    half of them, in which every two parts still meet."""
    parts = [
        [part for _, part in each]
        for each in itertools.product(*(list(enumerate(options)) for options in PARTS))
        if long or sum(place for place, _ in each) % 2 == 0
    ]
    more = [
        (Kl(), AdamW(learning_rate=1e-3), Lora(rank=4), 2),
        (Dpo(), Sophia(learning_rate=1e-3, hessian_interval=2), FullParameters(), 0),
    ]
    return [
        Recipe(
            objective=objective,
            optimizer=optimizer,
            adapter=adapter,
            schedule=SCHEDULE,
            evaluation=EVALUATION,
            engine=Engine(stage=stage, workers=world),
            seed=3,
        )
        for objective, optimizer, adapter, stage in (*parts, *more)
    ]


ORDERS = ("forward", "backward", "strided")


def order(kind: str, count: int) -> list[int]:
    """Three orders of runs, none the reverse or shift of another."""
    return {
        "forward": list(range(count)),
        "backward": list(range(count))[::-1],
        "strided": [i for start in range(5) for i in range(start, count, 5)],
    }[kind]


def outcome(recipe: Recipe, assets: Assets, ranks: Any) -> str:
    """A digest of every weight and every metric that does not measure time or memory."""
    from lethe.unlearning.context import context_for
    from lethe.unlearning.trainer import unlearn

    reports: list[dict[str, Any]] = []
    with unlearn(recipe, context_for(assets), None, reports.append, ranks) as done:
        assert done.model is not None
        reports.append(done.report.values)
        whole = hashlib.sha256()
        for name, parameter in done.model.named_parameters():
            whole.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
    kept = [{k: v for k, v in r.items() if "seconds" not in k and "memory" not in k} for r in reports]
    whole.update(json.dumps(kept, sort_keys=True).encode())
    return whole.hexdigest()


def serve(rank: int, world: int, rendezvous: str, plan: list[Recipe], assets: Assets) -> list[str]:
    """This rank's outcomes of the planned runs, one after another in this process."""
    import torch
    import torch.distributed as dist

    from lethe.pool.worker import Ranks

    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    return [outcome(recipe, assets, Ranks(rank, world)) for recipe in plan]


def in_children(world: int, plan: list[Recipe], assets: Assets, folder: Path, tag: str) -> list[str]:
    """`serve` in `world` forked children of this process, which has imported everything and run nothing."""
    children = []
    for rank in range(world):
        if (child := os.fork()) == 0:
            code = 1
            try:
                found = serve(rank, world, str(folder / f"{tag}.rendezvous"), plan, assets)
                (folder / f"{tag}.{rank}.json").write_text(json.dumps(found))
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * world, codes
    found = [json.loads((folder / f"{tag}.{rank}.json").read_text()) for rank in range(world)]
    assert all(f == found[0] for f in found) or world == 1, "ranks disagree"
    return found[0]


def main(folder: str, world: int, fresh: list[int], long: bool) -> None:
    """Every run in two or three orders in warm processes, and the runs `fresh` each in a process of its own."""
    import peft  # noqa: F401

    import lethe.unlearning.trainer  # noqa: F401
    from lethe.unlearning.engine import import_deepspeed

    import_deepspeed()

    path = Path(folder)
    assets = Assets.model_validate_json((path / "assets.json").read_text())
    everything = recipes(world, long)
    result: dict[str, dict[str, str]] = {}
    for kind in ORDERS if long else ("forward", "strided"):
        plan = order(kind, len(everything))
        found = in_children(world, [everything[i] for i in plan], assets, path, f"{kind}{world}")
        result[kind] = {str(i): digest for i, digest in zip(plan, found, strict=True)}
    result["fresh"] = {str(i): in_children(world, [everything[i]], assets, path, f"fresh{world}-{i}")[0] for i in fresh}
    (path / f"result{world}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4] == "long")

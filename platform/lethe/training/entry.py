"""The door that a worker group goes through: payloads in, reports out, models on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lethe.config.evaluation import Evaluation
from lethe.config.run import UnlearnRun
from lethe.errors import BadInput
from lethe.evaluation.evaluate import Truth, evaluate
from lethe.models.loading import load_model
from lethe.storage import atomic_folder
from lethe.training.assets import Assets
from lethe.training.context import context_for
from lethe.training.unlearn import unlearn

Report = Callable[[dict[str, Any]], None]


def execute(payload: dict[str, Any], report: Report, ranks: Any) -> dict[str, Any]:
    """One unlearning run. `payload`: run (UnlearnRun), assets (Assets), truth (path or None), folder (path)."""
    run = UnlearnRun.model_validate(payload["run"])
    context = context_for(Assets.model_validate(payload["assets"]))
    try:
        truth = read_truth(payload["truth"])
        with unlearn(run.recipe, context, truth, report, ranks) as outcome:
            if outcome.model is None or outcome.result is None:
                return outcome.report
            with outcome.whole_model():
                if ranks.rank == 0:
                    _keep(outcome, context, Path(payload["folder"]))
            ranks.gather(None)
            return outcome.report
    except BadInput as error:
        return {"verdict": "infeasible", "reason": str(error)}
    except torch.cuda.OutOfMemoryError as error:
        return {"verdict": "out_of_memory", "reason": str(error).splitlines()[0]}


def _keep(outcome: Any, context: Any, folder: Path) -> None:
    from lethe.models.saving import save_model

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder / "model") as target:
        save_model(outcome.model, Path(context.assets.start), target, context.template.tokenizer)
    (folder / "rows.json").write_text(json.dumps(outcome.result.rows))


def baseline(payload: dict[str, Any], report: Report, ranks: Any) -> dict[str, Any]:
    """Score a model that is not trained: the oracle (writes the truth that trials compare with), then the start."""
    context = context_for(Assets.model_validate(payload["assets"]))
    config = Evaluation.model_validate(payload["evaluation"])
    model = load_model(Path(payload["model"])) if payload["model"] != context.assets.start else context.start
    result = evaluate(
        model, context.eval_set(config), config, read_truth(payload["truth"]),
        rank=ranks.rank, world=ranks.world, gather=ranks.gather,
    )
    return {
        "verdict": "complete",
        **result.metrics,
        "truth": result.forget_truth_ratio.tolist(),
        "rows": result.rows,
    }


def read_truth(path: str | None) -> Truth | None:
    """The oracle's truth ratios from a JSON file."""
    if path is None:
        return None
    import numpy as np

    return Truth(forget_truth_ratio=np.array(json.loads(Path(path).read_text())["forget_truth_ratio"], dtype=float))

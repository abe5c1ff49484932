"""A study that has tasks of lm-evaluation-harness: its task files are stored and its tasks checked before it starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lethe.config.run import LmEval
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.evaluation.lm_eval_tasks import CONTENT, KEY, own_tasks, store_tasks


def with_stored_tasks(study: Study) -> Study:
    """Return the study with its own task files copied into the storage root and named by content; the study itself
    where it has no tasks. Raises UserError for what trials could not measure: a missing package, an unknown task, files
    with code in them."""
    study = _with_stored_folder(study)
    given = study.run.get("evaluation", {}).get("lm_eval")
    if given is None:
        return study
    config = LmEval.model_validate(given)
    if find_spec("lm_eval") is None:
        raise UserError(f"run.{KEY}: the package lm-eval is not installed: pip install 'lethe[lm-eval]'")
    if config.path and not config.path.startswith(CONTENT):
        config = config.model_copy(update={"path": store_tasks(Path(config.path).expanduser())})
    own = own_tasks(config)
    if any(task not in own for task in config.tasks):
        from lethe.evaluation.lm_eval import check_names  # imports the harness, seconds

        check_names(config.tasks, own)
    run = {**study.run, "evaluation": {**study.run["evaluation"], "lm_eval": config.model_dump(mode="json")}}
    return study.model_copy(update={"run": run})


def _with_stored_folder(study: Study) -> Study:
    """Return the study with the task files of its benchmark copied into the storage root and named by content."""
    field = study.benchmark.task_folder
    folder = getattr(study.benchmark, field) if field else None
    if folder is None or folder.startswith(CONTENT):
        return study
    stored = study.benchmark.model_copy(update={field: store_tasks(Path(folder).expanduser())})
    return study.model_copy(update={"benchmark": stored})

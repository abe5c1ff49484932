"""The text of rows in stored records, and taking it out of MLflow: artifacts and tags of a study's runs."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.errors import UserError, first_line
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNEXPECTED = ("error", "lost")  # verdicts whose reasons are other libraries' words, which may quote rows
STUDY_JSON = "study.json"
WriteReport = Callable[[Any, Path], bool]  # writes the report of a record into a folder; False where there is none


def without_text(stored: Any, removed: Counter[str]) -> Any:
    """Return a stored record, as JSON, without answers, whole prompts and reasons in other libraries' words; `removed`
    counts them. Numbers, verdicts and our own reasons stay."""
    if isinstance(stored, list):
        return [without_text(value, removed) for value in stored]
    if not isinstance(stored, dict):
        return stored
    found = {key: without_text(value, removed) for key, value in stored.items()}
    if samples := found.get("samples"):
        removed["answers"] += len(samples)
        found["samples"] = []
    prompt = found.get("prompt")
    if isinstance(prompt, dict) and prompt.keys() == {"prompt", "answer"}:  # not a study's section of that name
        removed["prompts"] += 1
        found["prompt"] = None
    if found.get("reason") and found.get("verdict") in UNEXPECTED:
        removed["messages"] += 1
        found["reason"] = ""
    return found


def forget_in_mlflow(uri: str, study: str | None, write_report: WriteReport, removed: Counter[str], dry: bool) -> None:
    """Take the text out of the runs of `study`, or of all studies of the MLflow store at `uri`: their `study.json` and
    report are replaced. `removed` counts what it was; `dry`: nothing is changed. Raises UserError where the store
    cannot be asked."""
    if uri.startswith("sqlite") and not sqlite_path(uri).is_file():
        return
    check_uri(uri)
    check_login(uri)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    before = removed.total()
    try:
        client = MlflowClient(tracking_uri=uri)
        for run in _runs(client, study):
            if "mlflow.parentRunId" not in run.data.tags:
                _forget_in_artifacts(client, run, write_report, removed, dry)
            elif run.data.tags.get("verdict") in UNEXPECTED and run.data.tags.get("reason"):
                removed["messages in MLflow"] += 1
                if not dry:
                    client.delete_tag(run.info.run_id, "reason")
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow keeps what it has: {first_line(error)}: try again when it answers") from None
    if uri.startswith("sqlite") and removed.total() > before and not dry:
        with closing(sqlite3.connect(sqlite_path(uri))) as database:
            database.execute("VACUUM")  # what is deleted stays in the file until then


def _runs(client: MlflowClient, study: str | None) -> Iterator[Run]:
    """Yield the runs of one study, or of every study."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query, token = f"tags.`lethe.study` = '{study}'" if study else "tags.`lethe.study` != ''", None
    while token != "" and experiments:
        page = client.search_runs(experiments, query, page_token=token)
        yield from page
        token = page.token or ""


def _forget_in_artifacts(
    client: MlflowClient, run: Run, write_report: WriteReport, removed: Counter[str], dry: bool
) -> None:
    """Replace `study.json` and the report of a study's run where they have text."""
    run_id = run.info.run_id
    known = {artifact.path for path in ("", "report") for artifact in client.list_artifacts(run_id, path or None)}
    with tempfile.TemporaryDirectory(prefix="lethe-forget-") as temporary:
        for path in sorted({STUDY_JSON, f"report/{STUDY_JSON}"} & known):
            stored = json.loads(Path(client.download_artifacts(run_id, path, temporary)).read_text(encoding="utf-8"))
            found: Counter[str] = Counter()
            cleaned = without_text(stored, found)
            if not found:
                continue
            removed["MLflow's files"] += 1
            if dry:
                continue
            if path == STUDY_JSON:
                client.log_text(run_id, json.dumps(cleaned, indent=1), STUDY_JSON)
                continue
            report = Path(temporary, "cleaned")
            if not write_report(cleaned, report):  # of another version of lethe
                report.mkdir()
                for name in ("report.html", "trials.csv", "front.html"):
                    (report / name).write_text("The text of this report was removed.\n")
                (report / STUDY_JSON).write_text(json.dumps(cleaned, indent=1))
            client.log_artifacts(run_id, str(report), "report")

"""The same study against a real MLflow server, over HTTP."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from lethe.models.hashing import model_digest
from lethe.study.scored_models import find
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.studies import busy_study, save_model, study, trial

pytestmark = pytest.mark.slow


@pytest.fixture
def server(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own WSGI application on a free loopback port, in a thread: `mlflow server` takes 5 to 20 s to start."""
    from mlflow import server as mlflow_server
    from mlflow.server import handlers
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking
    from werkzeug.serving import make_server

    monkeypatch.setenv(mlflow_server.BACKEND_STORE_URI_ENV_VAR, uri)
    monkeypatch.setenv(mlflow_server.REGISTRY_STORE_URI_ENV_VAR, uri)
    monkeypatch.setenv(mlflow_server.ARTIFACT_ROOT_ENV_VAR, "mlflow-artifacts:/")
    monkeypatch.setenv(mlflow_server.ARTIFACTS_DESTINATION_ENV_VAR, (tmp_path / "artifacts").as_uri())
    monkeypatch.setenv(mlflow_server.SERVE_ARTIFACTS_ENV_VAR, "true")
    for store in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
        monkeypatch.setattr(handlers, store, None)
    # The server makes its stores the process's own at its first request: they are the test's alone.
    for module, name in ((tracking, "tracking"), (registry, "registry")):
        monkeypatch.setattr(module, f"_{name}_uri", None)
        monkeypatch.setenv(f"MLFLOW_{name.upper()}_URI", uri)
    running = make_server("127.0.0.1", 0, mlflow_server.app, threaded=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


def test_a_whole_study_over_http(
    server: str,
    report: Path,
    tmp_path: Path,
    look: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    save_model(tmp_path / "0/model")
    (report / "front.html").write_text("<p>front</p>")
    best = trial(0, 0.01, 0.59, pareto_rank=0, folder=str(tmp_path / "0"))
    broken = busy_study().trials[6]
    record = study(best, broken, aliases={"knee": 0}, hypervolume=0.3)
    capfd.readouterr()
    tracker = MlflowTracker(server)
    tracker.begin(record)
    for done in record.trials:
        tracker.trial_began(done.number, done.run, done.params)
        for metrics in done.series:
            tracker.trial_reported(done.number, metrics, int(metrics["epoch"]))
        tracker.trial_ended(done)
    place = tracker.finish(record, report)
    assert not [r for r in caplog.records if r.name.startswith("lethe")]
    client = look(server)
    experiment = client.get_experiment_by_name("lethe").experiment_id
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    knee = "knee 0 · forget 0.01 utility 0.59"
    assert found.keys() == {record.id, "start model", "oracle model", knee, "trial-006"}
    parent = found[record.id].info.run_id
    assert place == (
        f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={record.id}"
    )
    assert found[knee].data.metrics["forget"] == best.metrics["forget"]
    assert found[knee].data.tags["front"] == "true"
    assert math.isnan(found["trial-006"].data.metrics["forget"])
    assert found["trial-006"].info.status == "FAILED"
    with urlopen(f"{server}/get-artifact?path=report/front.html&run_uuid={parent}") as page:
        assert page.read() == b"<p>front</p>"
    version = client.get_model_version_by_alias("lethe-tofu", "knee")
    assert version.tags["lethe.run"] == best.run
    (output,) = client.get_run(version.run_id).outputs.model_outputs
    assert {path.path for path in client.list_logged_model_artifacts(output.model_id)} >= {"MLmodel", "model"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    copies = [find("models:/lethe-tofu@knee") for _ in range(2)]
    assert copies[0].digest == model_digest(tmp_path / "0/model")
    assert copies[0].folder == copies[1].folder
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err

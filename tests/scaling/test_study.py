"""A whole scaling study as a user runs it: interrupted, resumed, reported, tracked. Real Ray, real MLflow."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lethe.storage.paths import home
from tests.conftest import ROOT, Head

pytestmark = pytest.mark.slow

TINY = """
extends: tofu
benchmark:
  corpus: { authors: 20, questions: 2, holdout_authors: 1, real_authors: 4, world_facts: 4, retain_eval: 8 }
model: { epochs: 2, layers: 1, vocab_size: 300, heads: 2 }
run:
  adapter: { name: full }
  schedule: { epochs: 2, batch_size: 2 }
  evaluation: { max_rows: 4, max_new_tokens: 8 }
space: { adapter.name: null, adapter.rank: null, optimizer.hessian_interval: null }
search: { sampler: random, trials: 2 }
resources: { groups: 1 }
scaling:
  base: b
  sizes: { a: { hidden_size: 16 }, b: { hidden_size: 24 }, c: { hidden_size: 40 }, d: { hidden_size: 64 } }
  arms: { sophia: { run: { optimizer: { name: sophia } } } }
  cost: { steps: 4, rounds: 2, workers: [1, 2] }
  quality: { sizes: [a, c] }
"""


@pytest.fixture(scope="module")
def finished(head: Head, tmp_path_factory: pytest.TempPathFactory, long: bool) -> tuple[dict[str, Any], Path, str, str]:
    """(record, report's folder, output before Ctrl-C, output after); the former with --long."""
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "tiny.yaml").write_text(TINY)
    command = [
        sys.executable,
        "-m",
        "platform.scaling",
        str(folder / "tiny.yaml"),
        "--reports",
        str(folder / "reports"),
    ]
    before = _interrupted(command, head) if long else []
    done = head.run(*command, *(["--resume"] if long else []), timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (folder / "reports").glob("tiny-*/scaling.json")
    return json.loads(found.read_text()), found.parent, "".join(before), done.stdout


def _interrupted(command: list[str], head: Head) -> list[str]:
    """Ctrl-C after the first point; what was said."""
    first = subprocess.Popen(
        command, cwd=ROOT, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert first.stdout is not None
    before = []
    for line in first.stdout:
        before.append(line)
        if "ms a step" in line:
            first.send_signal(signal.SIGINT)
            break
    before += list(first.stdout)
    assert first.wait(120) == 130, "".join(before)
    return before


@pytest.mark.long
def test_points_measured_before_an_interruption_are_not_measured_again(
    finished: tuple[dict[str, Any], Path, str, str],
) -> None:
    _, _, before, after = finished
    assert "--resume goes on" in before
    assert "report.html" in before
    # A line that Ctrl-C meets on its way to the screen is there twice: rich writes it again with the next.
    place = re.compile(r"(  \(from disk\))? +\d+ of \d+.*")
    kept = list(dict.fromkeys(place.sub("", line) for line in before.splitlines() if "ms a step" in line))
    assert 1 <= len(kept) < 6
    again = [place.sub("", line) for line in after.splitlines() if "(from disk)" in line]
    assert again == kept, "the very numbers"
    assert before.splitlines()[-2] == "go on where it stopped:"
    assert before.splitlines()[-1].endswith("--resume")


def test_stages_are_named_and_the_last_line_is_a_command(finished: tuple[dict[str, Any], Path, str, str]) -> None:
    lines = finished[3].splitlines()
    stages = [line for line in lines if re.fullmatch(r".+: \d+ to go", line)]
    assert stages == [
        "timed points: 8 to go",
        "searches: 2 to go",
        "the smallest size's settings at the largest: 1 to go",
        "timed points with more workers: 4 to go",
    ]
    assert lines[0] == "checking the study, this machine and its services"
    command = [sys.executable, "-m", *shlex.split(lines[-1].partition(" -m ")[2])]
    again = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("6.74 billion parameters")


def test_every_point_is_complete_and_measured(finished: tuple[dict[str, Any], Path, str, str]) -> None:
    record = finished[0]
    assert not record["interrupted"]
    assert len(record["points"]) == 6
    for point in record["points"]:
        m = point["metrics"]
        assert point["verdict"] == "complete"
        assert [step["epoch"] for step in point["series"]] == list(range(1, 9)), "two rounds of four steps"
        assert m["step_tensors_mb"] == pytest.approx(m["predicted_step_mb"], rel=0.2)
        assert 0 < m["utilisation"] < 1.5
        assert m["tokens"] > 0
        assert m["refresh_share"] > 0
    two = [p for p in record["points"] if p["params"]["workers"] == 2]
    assert {p["params"]["rows"] for p in two} == {2, 4}
    assert all(0 < p["metrics"]["communication_share"] < 1 and p["metrics"]["communication_mb"] > 0 for p in two)
    assert {p["kind"] for p in record["parallel"]} == {"strong", "weak"}


def test_laws_searches_and_a_transfer(finished: tuple[dict[str, Any], Path, str, str]) -> None:
    record = finished[0]
    assert [law["name"] for law in record["laws"]] == ["step time"]
    assert [s["size"] for s in record["searches"]] == ["a", "c"]
    numbers = [p["number"] for p in record["points"]] + [t["number"] for t in record["trials"]]
    assert sorted(numbers) == list(range(11)), "6 points, 2 searches of 2 trials, one transferred"
    (moved,) = record["transfer"]
    assert moved["small"] == "a"
    assert moved["large"] == "c"
    assert moved["trials_for_the_same"] > 0
    (last,) = [t for t in record["trials"] if t["number"] == moved["trial"]]
    assert {k: last["params"][k] for k in moved["setting"]} == moved["setting"]


def test_equal_proposals_at_every_size(finished: tuple[dict[str, Any], Path, str, str]) -> None:
    small, large = finished[0]["searches"]
    assert small["scores"].keys() == large["scores"].keys()


def test_mlflow_has_points_trials_and_the_report(finished: tuple[dict[str, Any], Path, str, str]) -> None:
    from mlflow import MlflowClient

    record, _, _, after = finished
    assert "not everything is in MLflow" not in after
    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lethe")
    runs = client.search_runs([experiment.experiment_id], f"tags.`lethe.study` = '{record['id']}'", max_results=50)
    children = [r for r in runs if "lethe.trial" in r.data.tags]
    assert {int(r.data.tags["lethe.trial"]) for r in children} == set(range(11))
    (point,) = [r for r in children if r.data.tags["lethe.trial"] == "0"]
    assert point.data.params["size"] == "a"
    assert point.data.metrics["step_seconds"] > 0
    parent = children[0].data.tags["mlflow.parentRunId"]
    assert {"report/report.html", "report/scaling.json"} <= {a.path for a in client.list_artifacts(parent, "report")}

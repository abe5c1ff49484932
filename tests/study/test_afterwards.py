"""After the search, as a user sees it: fresh seeds and audits, one of them an objective of the search; with --long cut
off in the middle and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lethe.storage.paths import home
from tests import tiny
from tests.conftest import ROOT, Head

pytestmark = pytest.mark.slow

STUDY = """
benchmark: {{source: {data}}}
model: {{name: pretrained, path: {start}, oracle: {oracle}}}
run:
  objective: {{name: grad_diff}}
  optimizer: {{name: adamw}}
  adapter: {{name: lora, rank: 4}}
  schedule: {{epochs: 2, batch_size: 6}}
  evaluation: {{max_new_tokens: 7}}
space:
  optimizer.learning_rate: {{type: float, low: 1e-3, high: 1e-1, log: true}}
objectives:
  forget_probability: {{direction: minimize}}
  retain_probability: {{direction: maximize}}
  audit_quant4_utility: {{direction: maximize, floor_of_start: 0.01}}
search: {{sampler: random, trials: 3, seed: 1}}
resources: {{groups: 1}}
confirm: {{seeds: 2}}
audits:
  relearning: {{steps: 2, rows: [forget]}}
  quantisation: {{bits: [4]}}
  prompts: {{kinds: [prefix, first_words], prefixes: [w1]}}
"""
AUDITED = ["relearn", "quant4", "prefix", "first_words"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("afterwards")
    parts = {
        "data": tiny.write_data(folder / "data"),
        "start": tiny.write_model(folder / "start"),
        "oracle": tiny.write_model(folder / "oracle", seed=1),
    }
    (folder / "small.yaml").write_text(STUDY.format(**parts))
    return [sys.executable, "-m", "platform.sweep", str(folder / "small.yaml"), "--reports", str(folder / "reports")]


def record(command: list[str]) -> dict[str, Any]:
    (found,) = Path(command[-1]).glob("*/study.json")
    return json.loads(found.read_text())


def members(study: dict[str, Any]) -> list[dict[str, Any]]:
    return [t for t in study["trials"] if t["pareto_rank"] == 0 and t["feasible"]]


def _cut_off(command: list[str], head: Head) -> dict[str, Any]:
    """Ctrl-C in the audits; the record it leaves."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "relearning of start model " in line:
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=90)
    assert process.returncode == 130, "".join(lines) + rest
    cut = record(command)
    assert cut["interrupted"]
    assert len(cut["trials"]) == 3
    assert "--resume" in rest
    assert all(member["confirmation"] and not member["audits"] for member in members(cut))
    return cut


def test_the_front_has_fresh_seeds_and_audits(command: list[str], head: Head, long: bool) -> None:
    """With --long in two sessions: Ctrl-C keeps what has ended, and --resume does the rest alone."""
    cut = _cut_off(command, head) if long else None
    done = head.run(*command, *(["--resume"] if long else []))
    assert done.returncode == 0, done.stdout + done.stderr
    study = record(command)
    front = members(study)
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert [line for line in warnings if "the start model itself counts as having forgotten" not in line] == []
    left = int(done.stdout.split("audits: ")[1].split()[0])
    if cut:
        assert "confirmations" not in done.stdout
        assert 0 < left < 3 * (len(front) + 2), "what ended before Ctrl-C is not done again"
        assert [member["confirmation"] for member in front] == [member["confirmation"] for member in members(cut)]
    for member in front:
        found = member["confirmation"]
        assert [run["params"]["seed"] for run in found["runs"]] == [1, 2]
        assert {run["verdict"] for run in found["runs"]} == {"complete"}
        assert len({json.dumps(run["metrics"]["forget_probability"]) for run in (*found["runs"], member)}) == 3
        mean = sum(run["metrics"]["retain_probability"] for run in found["runs"]) / 2
        assert found["mean"]["retain_probability"] == pytest.approx(mean)
        assert [audit["variant"] for audit in member["audits"]] == AUDITED
        assert all(audit["verdict"] == "complete" and audit["after"] for audit in member["audits"])
        assert not any(Path(run["folder"], "model").exists() for run in found["runs"])
        quantised = member["audits"][AUDITED.index("quant4")]
        assert quantised["before"]["forget"] == member["metrics"]["forget"]
        assert quantised["after"]["utility"] == member["metrics"]["audit_quant4_utility"], "the search's own objective"
        assert "audit_quant4_utility" in found["mean"], "fresh seeds are audited, too"
    assert [audit["variant"] for audit in study["oracle"]["audits"]] == AUDITED
    assert study["oracle"]["audits"][1]["before"]["forget"] == 0
    start, goal = study["start"], study["objectives"][2]
    assert start["audits"][1]["after"]["utility"] == start["metrics"]["audit_quant4_utility"]
    assert goal["floor"] == 0.01 * start["metrics"]["audit_quant4_utility"]
    assert "audits before the search: 2 to go" in done.stdout or cut
    assert f"audits: {2 * (len(front) + 2)} to go" in done.stdout or cut, "rounding is not done again"
    _is_tracked(study, front)
    report = next(Path(command[-1]).glob("*/report.html")).read_text()
    assert "fresh seeds" in report
    assert "only hidden" in report


def _is_tracked(study: dict[str, Any], front: list[dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lethe")
    runs = client.search_runs([experiment.experiment_id], f"tags.`lethe.study` = '{study['id']}'")
    repeats = [run for run in runs if run.data.tags.get("kind") == "confirmation"]
    assert len(repeats) == 2 * len(front)
    assert {run.info.status for run in repeats} == {"FINISHED"}
    assert {run.data.params["seed"] for run in repeats} == {"1", "2"}
    versions = {v.tags["lethe.run"]: v for v in client.search_model_versions("name = 'lethe-small'")}
    for member in front:
        tags = versions[member["run"]].tags
        assert tags["confirmed"] == str(member["confirmation"]["confirmed"]).lower()
        assert float(tags["audit_quant4_utility"]) == member["audits"][1]["after"]["utility"]
        assert float(tags["forget_probability_mean"]) == member["confirmation"]["mean"]["forget_probability"]


COMPARISON = """
search: {{sampler: random, trials: 2}}
confirm: null
audits: null
compare:
  seeds: [0, 3]
  arms:
    descent: {{run: {{objective: {{name: grad_diff}}}}}}
    ascent: {{run: {{objective: {{name: gradient_ascent}}}}}}
"""


@pytest.mark.long
def test_fronts_of_a_comparison_that_has_ended_are_confirmed_and_audited_by_resume(tmp_path: Path, head: Head) -> None:
    """The searches' trials are not run again; what was confirmed and audited is not done twice."""
    data, start, oracle = (
        tiny.write_data(tmp_path / "data"),
        tiny.write_model(tmp_path / "start"),
        tiny.write_model(tmp_path / "oracle", seed=1),
    )
    (tmp_path / "small.yaml").write_text(STUDY.format(data=data, start=start, oracle=oracle))
    (tmp_path / "pair.yaml").write_text("extends: small.yaml" + COMPARISON.format())
    run = [sys.executable, "-m", "platform.sweep", str(tmp_path / "pair.yaml"), "--reports", str(tmp_path / "reports")]
    without = ["--set", "objectives.audit_quant4_utility=null"]
    afterwards = ["--resume", "--set", "confirm={seeds: 2, members: 1}", "--set", "audits={quantisation: {bits: [4]}}"]

    assert head.run(*run, *without).returncode == 0
    searched = record(run)
    assert len(searched["trials"]) == 8
    assert not searched["arm_fronts"]
    done = head.run(*run, *without, *afterwards)
    assert done.returncode == 0, done.stdout + done.stderr
    study = record(run)
    assert [trial["ended"] for trial in study["trials"]] == [trial["ended"] for trial in searched["trials"]]
    again = {trial["number"]: trial for trial in study["trials"] if trial["confirmation"]}
    fronts = {front["arm"]: front for front in study["arm_fronts"]}
    assert list(fronts) == ["descent", "ascent"]
    assert sorted(again) == sorted(number for front in fronts.values() for number in front["members"])
    assert again, "no arm has a front: the study says nothing"
    for front in fronts.values():
        assert len(front["members"]) == bool(front["front"])
    for trial in again.values():
        runs = trial["confirmation"]["runs"]
        assert [found["params"]["seed"] for found in runs] == [4, 5], "after every seed of the comparison"
        assert {found["params"]["arm"] for found in runs} == {trial["params"]["arm"]}
        assert trial["audits"][0]["verdict"] == "complete"
    assert study["oracle"]["audits"][0]["after"]
    assert f"audits: {len(again) + 2} to go" in done.stdout
    twice = head.run(*run, *without, *afterwards)
    assert "to go" not in twice.stdout.split("confirm")[-1].replace("0 to go", "")
    assert record(run)["trials"] == study["trials"]

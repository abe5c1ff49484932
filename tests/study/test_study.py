"""A whole study as a user runs it: real Ray, real MLflow, the embedded benchmark."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lethe.storage.paths import home
from lethe.study.preparation import Prepared
from tests.conftest import ROOT, Head
from tests.faults.world import write_study

pytestmark = pytest.mark.slow

SMALL = [
    "--set", "run.schedule.epochs=2", "--set", "run.schedule.batch_size=20", "--set", "run.evaluation.every=1",
    "--set", "run.evaluation.max_rows=12", "--set", "run.evaluation.max_new_tokens=30",
    "--set", "space.optimizer.learning_rate={low: 5e-3, high: 1e-2}",
    "--set", "space.adapter.name.choices=[lora, fila]",
]  # fmt: skip
ALONE = ["--set", "resources.groups=1"]
SWEEP = [sys.executable, "-m", "platform.sweep"]


def study_of(reports: Path, name: str = "tofu") -> dict[str, Any]:
    found = sorted(reports.glob(f"{name}-*/study.json"), key=lambda p: p.stat().st_mtime)
    return json.loads(found[-1].read_text())


@pytest.fixture(scope="module")
def finished(
    head: Head, embedded: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, str]:
    """One study of four trials on the private cluster."""
    reports = tmp_path_factory.mktemp("reports")
    done = head.run(*SWEEP, "tofu", "--trials", "4", *SMALL, "--reports", str(reports))
    assert done.returncode == 0, done.stdout + done.stderr
    return study_of(reports), reports, done.stdout


def test_every_trial_is_recorded(finished: tuple[dict[str, Any], Path, str]) -> None:
    study, _, output = finished
    assert [t["number"] for t in study["trials"]] == [0, 1, 2, 3]
    for trial in study["trials"]:
        assert trial["verdict"] == "complete"
        assert [point["epoch"] for point in trial["series"]] == [1, 2]
        assert [point["evaluated_share"] for point in trial["series"]] == [0.2, 1]
        assert all({"forget", "utility", "forget_quality"} <= point.keys() for point in trial["series"])
        assert {"forget", "utility", "win_rate", "seconds", "peak_memory_mb", "tokens"} <= trial["metrics"].keys()
        assert Path(trial["folder"], "result.json").exists()
    assert study["start"]["metrics"]["utility"] > 0.5
    assert study["oracle"]["metrics"]["forget"] == 0
    for shown in ("floors", "hypervolume", "report.html"):
        assert shown in output


def test_only_the_front_keeps_its_weights(finished: tuple[dict[str, Any], Path, str]) -> None:
    study, _, _ = finished
    front = {t["number"] for t in study["trials"] if t["pareto_rank"] == 0 and t["feasible"]}
    kept = {t["number"] for t in study["trials"] if Path(t["folder"], "model").is_dir()}
    assert kept == front
    assert front


def test_the_report_is_complete(finished: tuple[dict[str, Any], Path, str]) -> None:
    study, reports, _ = finished
    folder = reports / study["id"]
    assert {"report.html", "front.png", "front.html", "trials.csv", "study.json"} <= {p.name for p in folder.iterdir()}
    text = (folder / "report.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<dfn>interim</dfn>" in text
    assert '"circle-open"' in text


def test_mlflow_holds_parent_children_and_front(finished: tuple[dict[str, Any], Path, str]) -> None:
    from mlflow import MlflowClient

    study, _, _ = finished
    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lethe")
    runs = client.search_runs([experiment.experiment_id], f"tags.`lethe.study` = '{study['id']}'")
    children = [r for r in runs if "lethe.trial" in r.data.tags]
    assert len(children) == 4
    assert len({r.data.tags["mlflow.parentRunId"] for r in children}) == 1
    front = [r for r in children if r.data.tags.get("front") == "true"]
    assert len(front) == sum(t["pareto_rank"] == 0 and t["feasible"] for t in study["trials"])
    history = client.get_metric_history(children[0].info.run_id, "forget")
    assert [m.step for m in history] == [1, 2]
    shares = client.get_metric_history(children[0].info.run_id, "evaluated_share")
    assert [(m.step, m.value) for m in shares] == [(1, 0.2), (2, 1.0)]
    artifacts = {a.path for a in client.list_artifacts(children[0].data.tags["mlflow.parentRunId"])}
    assert any("report" in a for a in artifacts)


STOCK = """
import json, sys
sys.modules["lethe"] = None  # whatever is installed here: importing it fails
import mlflow, numpy, torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer
mlflow.set_tracking_uri(sys.argv[1])
folder = mlflow.artifacts.download_artifacts("models:/lethe-tofu@knee") + "/model"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
def prompt(question):
    chat = [{"role": "user", "content": question}]
    return encode(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
def rows(name):
    return [json.loads(line) for line in open(f"{sys.argv[2]}/{name}.json")][:12]
chances, recalls = [], []
for row in rows("forget10_perturbed"):
    start, answer = prompt(row["question"]), encode(row["answer"]) + [tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([start + answer])).logits[0, len(start) - 1 : -1].log_softmax(-1)
    chances.append(logits[range(len(answer)), answer].mean().exp().item())
scorer = RougeScorer(["rougeL"], use_stemmer=True)
for row in rows("retain_perturbed"):
    start = torch.tensor([prompt(row["question"])])
    out = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=30, do_sample=False)
    said = tokenizer.decode(out[0, start.shape[1] :], skip_special_tokens=True).strip()
    recalls.append(scorer.score(row["answer"], said)["rougeL"].recall)
print(json.dumps([numpy.mean(chances), numpy.mean(recalls)]))
"""


def test_the_registered_knee_gives_the_logged_numbers_without_lethe(
    finished: tuple[dict[str, Any], Path, str], tmp_path: Path
) -> None:
    from lethe.benchmarks.tofu.loading import embedded_folder
    from lethe.config.benchmark import TofuBenchmark

    study, _, _ = finished
    knee = study["trials"][study["aliases"]["knee"]]
    uri, data = f"sqlite:///{home() / 'mlflow.db'}", str(embedded_folder(TofuBenchmark()))
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK, uri, data], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    probability, rouge = json.loads(done.stdout.strip().splitlines()[-1])
    assert probability == pytest.approx(knee["metrics"]["forget_probability"], abs=1e-4)
    assert rouge == pytest.approx(knee["metrics"]["retain_rouge"], abs=1e-4)


def test_scores_are_what_the_study_logged(
    finished: tuple[dict[str, Any], Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the registered knee, merged; of its run's adapter; and start model and oracle as the study left them."""
    from lethe.cli.score import main
    from lethe.study.scoring import Scoring

    study, _, _ = finished
    knee = study["trials"][study["aliases"]["knee"]]
    names, measured, whole = [knee["version"], knee["folder"], study["start_folder"]], [], Scoring._measure

    def measure(self: Scoring, model: Any, *given: Any) -> Any:
        measured.append(model.name)
        return whole(self, model, *given)

    monkeypatch.setattr(Scoring, "_measure", measure)
    assert main([*names, *SMALL, "--json", str(tmp_path / "scores.json")]) == 0
    assert measured == names[:2]
    found = json.loads((tmp_path / "scores.json").read_text())
    merged, adapter, start = (model["metrics"] for model in found["models"])
    logged = {name: knee["metrics"][name] for name in merged}
    assert merged == pytest.approx(logged, abs=1e-3)
    assert adapter == pytest.approx(logged, abs=1e-3)
    assert start == {name: study["start"]["metrics"][name] for name in start}
    assert found["oracle"]["metrics"]["utility"] == study["oracle"]["metrics"]["utility"]


@pytest.mark.long  # test_secrets.py runs a study as such a job, too
def test_a_job_gives_the_same_numbers(finished: tuple[dict[str, Any], Path, str], head: Head) -> None:
    """The upload is a copy without `lethe` installed in it, and results are readable when it is gone."""
    study, _, _ = finished
    submit = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit"]
    arguments = ["--address", head.dashboard, "--working-dir", ".", "--", "python", "-m", "platform.sweep", "tofu"]
    done = head.run(*submit, *arguments, "--trials", "2", *SMALL, *ALONE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "start model " in done.stdout
    assert "scoring" not in done.stdout, "the same models: nothing is scored again"
    found = re.search(r"report\s+(\S+)/report\.html", done.stdout)
    assert found
    assert found[1].startswith(str(home())), "a job reports to storage: its own folder is thrown away"
    job = json.loads(Path(found[1], "study.json").read_text())
    local = {t["run"]: t for t in study["trials"]}
    shared = [t for t in job["trials"] if t["run"] in local]
    assert shared, "equal studies begin with equal proposals"
    for trial in shared:
        same = {k: v for k, v in trial["metrics"].items() if "seconds" not in k and "memory" not in k}
        assert same == {k: local[trial["run"]]["metrics"][k] for k in same}


@pytest.mark.long
def test_a_job_without_a_working_directory_runs_where_ray_was_started(head: Head) -> None:
    submit = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit"]
    done = head.run(*submit, "--address", head.dashboard, "--", "python", "-m", "platform.sweep", "tofu", "--dry-run")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "first configurations" in done.stdout


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(head: Head, tmp_path: Path) -> None:
    study, reports = write_study(tmp_path, 4), tmp_path / "reports"
    command = [*SWEEP, str(study), *ALONE, "--reports", str(reports)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("trial "):
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=90)
    assert process.returncode == 130, "".join(lines) + rest
    cut = study_of(reports, "faults")
    assert 1 <= len(cut["trials"]) < 4
    assert cut["interrupted"]
    assert "--resume" in rest
    before = {t["run"]: t["ended"] for t in cut["trials"]}
    done = head.run(*command, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = study_of(reports, "faults")
    assert whole["id"] == cut["id"]
    assert len(whole["trials"]) == 4
    assert not whole["interrupted"]
    after = {t["run"]: t["ended"] for t in whole["trials"]}
    assert all(after[run] == ended for run, ended in before.items()), "a finished run is not run twice"
    import optuna

    states = {
        t.state.name
        for t in optuna.load_study(study_name=whole["id"], storage=f"sqlite:///{home() / 'optuna.db'}").trials
    }
    assert "RUNNING" not in states

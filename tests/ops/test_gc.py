"""`python -m platform.gc` on real folders: what it shows, what it frees, and what it never touches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from lethe.cli.gc import main
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.ops import disk_usage
from lethe.ops import gc as gc_module
from lethe.ops.disk_usage import study_usage
from lethe.records import StudyRecord
from lethe.search.study_store import StudyStore
from lethe.study.recorder import write_result
from lethe.study.resume import hold
from lethe.tracking.model_addresses import registered_runs
from tests.tracking.studies import save_model, study, trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
DONE, CUT, BUSY = "tofu-aaaa0001", "tofu-bbbb0002", "tofu-cccc0003"


def put(path: Path, disk_usage: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * disk_usage)


def finished(root: Path, name: str, start: Path, **changes: object) -> StudyRecord:
    """A study of two runs, one of them on the front."""
    runs = root / "studies" / name / "runs"
    trials = [
        trial(0, 0.2, 0.5, pareto_rank=0, folder=str(runs / "0")),
        trial(1, 0.6, 0.4, pareto_rank=1, folder=str(runs / "1")),
    ]
    for one in trials:
        write_result(one)
    put(runs / "0/model/model.safetensors", 3_000_000)
    put(runs / "0/rows.parquet", 1000)
    put(root / "studies" / name / "baselines.json", 2)
    settings = {"search": {"storage": None}, "tracking": {"uri": None}}
    record = study(*trials, id=name, start_folder=str(start), study=settings, **changes)
    put(root / "studies" / name / ".lock", 0)
    (root / "studies" / name / "study.json").write_text(record.model_dump_json())
    return record


def cut_off(root: Path, name: str) -> Path:
    """A study that was killed in its first run."""
    folder = root / "studies" / name
    put(folder / "baselines.json", 2)
    put(folder / "runs/7/checkpoint/3/rank-0.safetensors", 5_000_000)
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage root with caches, two prepared models and one finished study."""
    root = tmp_path.resolve() / "home"
    monkeypatch.setenv("LETHE_HOME", str(root))
    for name in ("cache/scores/a.json", "cache/adapters/b.safetensors", "cache/tasks/c/task.yaml", "mlflow.db"):
        put(root / name, 1000)
    for name in ("models/used/model.safetensors", "models/spare/model.safetensors"):
        put(root / name, 2_000_000)
    finished(root, DONE, root / "models/used")
    monkeypatch.setattr(gc_module, "registered_runs", lambda uri: set())
    return root


@pytest.fixture
def gc(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command; what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main(list(arguments)) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def row(text: str, name: str) -> list[str]:
    """The cells of the first row of a table that has it."""
    line = next(line for line in text.splitlines() if name in line)
    return [
        cell.strip() for cell in line.strip("\N{BOX DRAWINGS LIGHT VERTICAL}").split("\N{BOX DRAWINGS LIGHT VERTICAL}")
    ]


def test_the_table_says_what_each_study_holds(root: Path, gc: Callable[..., str]) -> None:
    cut_off(root, CUT)
    (root / "studies/tofu-dddd0004").mkdir()
    with hold(cut_off(root, BUSY)):
        text = gc()
    assert row(text, DONE)[:6] == [DONE, "finished", "used", "0 h ago", "2", "1"]
    assert row(text, DONE)[6:8] == ["3.0 MB", "0 B"]
    assert row(text, CUT)[1] == "can be resumed"
    assert row(text, CUT)[7] == "5.0 MB"
    assert row(text, BUSY)[1] == "running"
    assert row(text, "tofu-dddd0004")[1] == "not begun"
    assert row(text, "prepared models")[3] == "4.0 MB"
    assert row(text, "mlflow.db")[-1] == "kept"


def test_members_and_points_count_to_their_study(root: Path) -> None:
    folder = root / "studies/soul-eeee0005"
    for arm in ("first-0", "second-0"):
        put(folder / "members" / arm / "runs/7/model/model.safetensors", 100)
    put(folder / "points/8/result.json", 10)
    found = study_usage(folder)
    assert (found.runs, found.models, found.weights.bytes, found.state) == (2, 2, 200, "can be resumed")


def test_nothing_goes_without_yes(root: Path, gc: Callable[..., str]) -> None:
    before = everything(root)
    for arguments in (["--study", DONE], ["--study", DONE, "--dry-run"], ["--caches"], ["--older-than", "0"]):
        assert "nothing was removed" in gc(*arguments)
    assert everything(root) == before


def test_a_study_goes_with_its_trials_and_a_new_one_begins_anew(root: Path, gc: Callable[..., str]) -> None:
    url, config = f"sqlite:///{root / 'optuna.db'}", load_study("tofu", ["search.trials=3"])
    for name in (DONE, f"{DONE}.arm-0", f"{DONE}-2"):
        store = StudyStore(config, url, name)
        store.freeze({"forget": 0.9, "utility": 0.6})
        store.ask()
    other = root / "studies" / f"{DONE}-2"
    finished(root, other.name, root / "models/used")
    output = gc("--study", DONE, "--yes")
    assert "removed study" in output
    assert "front models: 1, none of them registered" in output
    assert not (root / "studies" / DONE).exists()
    assert (other / "study.json").exists()
    assert [s.study_name for s in optuna.get_all_study_summaries(url)] == [f"{DONE}-2"]
    assert StudyStore(config, url, DONE).optuna.get_trials() == []
    assert not list((root / "studies").glob(".*"))
    assert (root / "models/used").exists()


def test_a_running_study_is_left_alone(root: Path, gc: Callable[..., str]) -> None:
    with hold(cut_off(root, BUSY)):
        before = everything(root)
        assert f"study {BUSY} is running" in gc("--study", BUSY, "--yes", code=2)
        gc("--caches", "--yes")  # which it may be reading
        assert everything(root) == before
        assert BUSY not in gc("--older-than", "0", "--yes")
        assert (root / "studies" / BUSY / "baselines.json").exists()
        assert not (root / "studies" / DONE).exists()


def test_a_study_that_began_meanwhile_is_left_alone(root: Path) -> None:
    item = gc_module.study_item(study_usage(cut_off(root, CUT)), root)
    with hold(root / "studies" / CUT), pytest.raises(UserError, match=f"study {CUT} is running"):
        item.free()
    assert (root / "studies" / CUT / "baselines.json").exists()
    item.free()
    assert not (root / "studies" / CUT).exists()


def test_caches_are_freed_but_not_the_needed_models(root: Path, gc: Callable[..., str]) -> None:
    output = gc("--caches", "--yes")
    assert "removed cache/scores" in output
    assert "removed models  2.0 MB" in output
    assert not (root / "cache/scores/a.json").exists()
    assert not (root / "models/spare").exists()
    for kept in ("models/used", "cache/tasks/c/task.yaml", "mlflow.db", f"studies/{DONE}/runs/0/model"):
        assert (root / kept).exists()


def test_prepared_models_stay_while_a_study_can_be_resumed(root: Path, gc: Callable[..., str]) -> None:
    cut_off(root, CUT)
    assert row(gc(), "prepared models")[-1] == f"{CUT} can be resumed"
    gc("--caches", "--yes")
    assert (root / "models/spare").exists()
    assert not (root / "cache/scores/a.json").exists()
    gc("--study", CUT, "--study", DONE, "--caches", "--yes")
    assert not list((root / "models").iterdir())


def test_age_is_that_of_the_newest_file(root: Path, gc: Callable[..., str]) -> None:
    cut_off(root, CUT)
    old = time.time() - 40 * disk_usage.DAY_S
    for path in [*everything(root / "studies" / CUT), *everything(root / "cache")]:
        os.utime(path, (old, old))
    assert row(gc(), CUT)[3] == "40 d ago"
    put(root / "cache/scores/new.json", 10)
    gc("--caches", "--older-than", "30", "--yes")
    assert {path.name for path in (root / "cache/scores").iterdir()} == {"new.json"}
    gc("--study", DONE, "--older-than", "30", "--yes")
    gc("--older-than", "50", "--yes")
    assert (root / "studies" / DONE).exists()
    assert (root / "studies" / CUT).exists()
    gc("--older-than", "30", "--yes")
    assert (root / "studies" / DONE).exists()
    assert not (root / "studies" / CUT).exists()


def test_what_an_interrupted_removal_left_is_shown_and_freed(root: Path, gc: Callable[..., str]) -> None:
    put(root / "studies/.gc-tofu-1/runs/0/model/model.safetensors", 1000)
    assert row(gc(), "interrupted removal")[3] == "1.0 kB"
    gc("--caches", "--yes")
    assert not (root / "studies/.gc-tofu-1").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--study", "tofu-aaaa001"], f"unknown study 'tofu-aaaa001' (did you mean '{DONE}'?)"),
        (["--yes"], "--yes: name what to free: --study ID, --older-than DAYS, --caches"),
    ],
)
def test_bad_input_is_one_line(root: Path, gc: Callable[..., str], arguments: list[str], line: str) -> None:
    output = gc(*arguments, code=2)
    assert line in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_for_the_storage_root_is_refused(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gc: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("LETHE_HOME", f"{tmp_path}/file{below}")
    assert f"LETHE_HOME={tmp_path}/file{below} is no folder" in gc(code=2)


def test_an_empty_home_is_an_empty_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gc: Callable[..., str]
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "new"))
    assert "studies in" in gc()
    assert not (tmp_path / "new").exists()
    assert "0 B in all" in gc("--caches")


def test_registered_models_are_named_and_outlive_their_study(
    root: Path, gc: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    from lethe.tracking.mlflow_tracker import MlflowTracker

    monkeypatch.setattr(gc_module, "registered_runs", registered_runs)
    (root / "mlflow.db").unlink()
    record = finished(root, DONE, root / "models/used", aliases={"knee": 0})
    (root / "studies" / DONE / "runs/0/model/model.safetensors").unlink()
    save_model(root / "studies" / DONE / "runs/0/model")
    tracker = MlflowTracker()
    tracker.begin(record)
    (tmp_path / "report").mkdir()
    assert tracker.finish(record, tmp_path / "report")
    assert "front models: 1, 1 of them registered, which keep MLflow's own files" in gc("--study", DONE, "--yes")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    version = client.get_model_version_by_alias("lethe-tofu", "knee")
    (output,) = client.get_run(version.run_id).outputs.model_outputs
    kept = {path.path for path in client.list_logged_model_artifacts(output.model_id, "model")}
    assert "model/model.safetensors" in kept

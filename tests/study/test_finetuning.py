"""A study of models that it trains itself: side by side on the groups, once, and on from checkpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lethe.cli.sweep import main
from lethe.config.model import FinetunedModel
from lethe.config.study import Study, parse_study
from lethe.errors import UserError
from lethe.models import subprocess_training
from lethe.models.hashing import model_digest
from lethe.pool import worker
from lethe.storage.paths import home
from lethe.study import finetuning
from lethe.study.finetuning import Training, prepare_study, trainings_of
from lethe.study.preparation import training_record
from tests import tiny
from tests.cli.test_bad_input import refuses
from tests.conftest import Head

SWEEP = [sys.executable, "-m", "platform.sweep"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("finetuned")
    base, data = tiny.write_model(folder / "base"), tiny.write_data(folder / "data")
    return {
        "name": "finetuned",
        "benchmark": {"source": str(data)},
        "model": {"name": "finetuned", "base": str(base), "epochs": 6, "learning_rate": 3e-3, "batch_size": 4},
        "run": {
            "objective": {"name": "npo"},
            "schedule": {"epochs": 1, "batch_size": 4},
            "evaluation": {"max_new_tokens": 4},
        },
        "space": {"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        "objectives": {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}},
        "search": {"sampler": "random", "trials": 1},
        "resources": {"checkpoint": {"every_steps": 1}},
        "tracking": {"register_models": False},
    }


def study_of(raw: dict[str, Any], **model: Any) -> Study:
    return parse_study({**raw, "model": {**raw["model"], **model}})


# Configuration


def test_the_rate_is_the_adapters_unless_it_is_given(raw: dict[str, Any]) -> None:
    plain = {key: value for key, value in raw["model"].items() if key != "learning_rate"}
    rates = [
        parse_study({**raw, "model": {**plain, **more}}).model.learning_rate
        for more in ({}, {"adapter": {"name": "lora", "rank": 4}}, {"adapter": {"name": "lora"}, "learning_rate": 1e-3})
    ]
    assert rates == [1e-5, 2e-4, 1e-3]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: finetuned}", "model.base: missing"),
        ("{name: finetuned, base: x, adapter: {name: fila}}", "unknown model.adapter.name 'fila'"),
        ("{name: finetuned, base: x, learning_rate: 0}", "model.learning_rate: must be greater than 0"),
        ("{name: finetuned, base: x, oracle: y}", "unknown key 'model.oracle'"),
        ("{name: finetuned, base: x, warmup: 1}", "model.warmup: must be less than 1"),
        ("{name: pretrained, path: m, oracle: train}", "model.base: missing: oracle: train makes the oracle"),
        ("{name: pretrained, base: b, oracle: train}", "model.path: missing: oracle: train makes the oracle"),
        ("{name: pretrained, path: m, base: b, oracle: o, epochs: 2}", "unknown key 'model.epochs'"),
    ],
)
def test_impossible_settings_are_one_line(model: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refuses(capsys, "tofu", "--set", f"model={model}")


def test_an_oracle_that_nothing_is_compared_with_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    setting = "model={name: pretrained, path: m, base: b, oracle: train}"
    line = refuses(capsys, "tdec", "--set", setting)
    assert "model.oracle: tdec compares with the start model on unseen text: leave it out" in line


def test_a_base_that_is_not_there_is_refused_before_ray_starts(capsys: pytest.CaptureFixture[str]) -> None:
    setting = "model={name: finetuned, base: ./no/such/base}"
    for arguments in (["--dry-run"], []):
        assert "model.base: there is no folder ./no/such/base" in refuses(capsys, "tofu", "--set", setting, *arguments)


# Progress


def test_a_long_training_says_every_minute_how_much_is_done_and_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(subprocess_training.time, "monotonic", lambda: clock.now)
    with subprocess_training.console_report(["oracle"]) as report:
        for second in range(0, 1001, 10):  # an hour and 40 minutes, of which a quarter was done before
            clock.now = second * 6.0
            report("oracle", 0.25 + 0.75 * second / 1000)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "training oracle; they are kept for the next study"
    assert lines[0] == "training oracle: 25 %"
    assert "training oracle: 50 %, 1.1 h left" in lines
    assert lines[-1] == "training oracle: 100 %"
    assert 50 < len(lines) < 80, "one a minute, and none without another per cent"


def test_a_heartbeat_tells_the_queue_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PROGRESS_S", 0.01)
    beats: list[tuple[int, tuple[int, int]]] = []
    queue = SimpleNamespace(call=lambda _, lease, steps: beats.append((lease, steps)))
    with worker._Heartbeat(queue, 7, "run", worker.EventLog("test"), active=True) as heartbeat:
        heartbeat.progressed(5, 10)
        while not beats:
            time.sleep(0.01)
        time.sleep(0.1)
        assert beats == [(7, (5, 10))], "once, until another step is done"
        monkeypatch.setattr(worker, "HEARTBEAT_S", 0.01)
        while len(beats) < 3:
            time.sleep(0.01)


# Identity, without any training


def keys(study: Study) -> list[str]:
    return [training.key for training in trainings_of(study)]


def test_models_are_known_by_base_rows_and_recipe_and_not_by_paths(raw: dict[str, Any], tmp_path: Path) -> None:
    start, oracle = trainings_of(study_of(raw))
    assert (start.rows, start.steps, oracle.rows, oracle.steps) == (15, 24, 9, 18)
    same = tiny.write_model(tmp_path / "base")
    assert keys(study_of(raw, base=str(same))) == [start.key, oracle.key]
    other = tiny.write_model(tmp_path / "other", seed=1)
    for change in ({"base": str(other)}, {"epochs": 7}, {"adapter": {"name": "lora"}}, {"seed": 1}):
        assert not {start.key, oracle.key} & {*keys(study_of(raw, **change))}, change
    assert keys(parse_study({**raw, "objectives": {"forget_rouge": {"direction": "minimize"}}})) == [
        start.key,
        oracle.key,
    ]


def test_beside_a_start_model_the_oracle_is_the_one_that_finetuned_trains(raw: dict[str, Any], tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model", seed=7)
    short = parse_study({**raw, "model": {**raw["model"], "name": "pretrained", "path": str(model), "oracle": "train"}})
    assert short == study_of(raw, path=str(model))
    (oracle,) = trainings_of(short)
    assert (oracle.name, oracle.rows, oracle.key) == ("oracle", 9, keys(study_of(raw))[1])
    other = tiny.write_model(tmp_path / "other", words=tiny.WORDS[::-1])
    assert keys(study_of(raw, path=str(other))) != [oracle.key], "another tokenizer reads other rows"


def test_studies_without_a_start_model_have_the_digest_that_they_had() -> None:
    assert FinetunedModel(base="b").digest() == "4a43114c60a89582"


def test_another_forget_set_of_the_same_rows_needs_another_oracle_alone(raw: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    lines = {name: (data / f"{name}.json").read_text().splitlines(True) for name in ("retain90", "forget10")}
    both = lines["retain90"] + lines["forget10"]
    (data / "retain95.json").write_text("".join(both[:-2]))
    (data / "forget05.json").write_text("".join(both[-2:]))
    (data / "forget05_perturbed.json").write_text(
        "".join((data / "forget10_perturbed.json").read_text().splitlines(True)[-2:])
    )
    ten, five = (
        keys(parse_study({**raw, "benchmark": {"source": str(data), "forget": name}}))
        for name in ("forget10", "forget05")
    )
    assert ten[0] == five[0]
    assert ten[1] != five[1]


def test_a_study_in_4_bits_starts_from_models_that_were_trained_on_the_plain_base(
    raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = {"engine": {"quantisation": "nf4"}, "adapter": {"name": "lora"}}
    plain, quantised = study_of(raw), parse_study({**raw, "run": {**raw["run"], **engine}})
    assert keys(quantised) == keys(plain), "one training serves both"
    jobs: list[Any] = []
    monkeypatch.setattr("lethe.pool.jobs.run_jobs", lambda pool, given, *_: jobs.extend(given))
    with pytest.raises(UserError):
        prepare_study(quantised, SimpleNamespace(ready=True, pool=lambda: None))
    assert [job.payload["assets"]["quantisation"] for job in jobs] == [None, None]
    assert [job.payload["engine"]["quantisation"] for job in jobs] == [None, None]


def test_without_groups_models_that_are_missing_are_named(raw: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="start model and oracle of finetuned are not trained yet: run its sweep first"):
        prepare_study(study_of(raw, seed=99))


def test_nothing_to_resume_is_said_before_ray_starts(
    raw: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "finetuned.yaml"
    path.write_text(yaml.safe_dump({**raw, "model": {**raw["model"], "seed": 98}}))
    line = refuses(capsys, str(path), "--resume", "--reports", str(tmp_path / "reports"))
    assert "nothing to resume: the models of finetuned are not trained yet: leave --resume out" in line


# On a cluster


@pytest.mark.slow
def test_a_study_as_a_user_runs_it_says_what_its_models_were_made_from(
    raw: dict[str, Any], head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "finetuned.yaml"
    path.write_text(yaml.safe_dump({**raw, "model": {**raw["model"], "seed": 2}}))
    assert main([str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"start model: to be trained, from {raw['model']['base']} on 15 rows in 24 steps, before the trials" in told
    done = head.run(*SWEEP, str(path), "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training oracle: 83 %" in done.stdout, "five of six epochs"
    (folder,) = (tmp_path / "reports").iterdir()
    record = json.loads((folder / "study.json").read_text())
    training = record["trainings"]["start"]
    assert (training["rows"], training["epochs"], record["trainings"]["oracle"]["rows"]) == (15, 6, 9)
    sentence = f"Start model trained from {raw['model']['base']}, 15 rows, 24 steps, final loss {training['loss']:.3g}"
    assert sentence in (folder / "report.html").read_text()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lethe").experiment_id
    of_study = f"tags.`lethe.study` = '{record['id']}'"
    assert len(client.search_runs([experiment], f"{of_study} and tags.`lethe.digest.base` != ''")) == 1
    (run,) = client.search_runs([experiment], f"{of_study} and tags.kind = 'start'")
    assert run.data.metrics["training_loss"] == pytest.approx(training["loss"])
    assert main([str(path), "--dry-run"]) == 0
    assert "oracle: trained before from" in capsys.readouterr().out


@pytest.fixture(scope="module")
def session(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two warm groups, which hold the whole cluster until the module ends: commands come before."""
    from lethe.pool.resources import Shape
    from lethe.pool.worker_pool import Pool
    from tests.pool.test_worker_pool import await_groups

    pool = Pool(tmp_path_factory.mktemp("groups"))
    pool.warm(Shape())
    await_groups(pool, 2)
    yield SimpleNamespace(ready=True, pool=lambda: pool)
    pool.close()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, at: Callable[[str, float], None]) -> Iterator[None]:
    """Call `at` with the progress of each training in place of showing it."""

    @contextmanager
    def report(names: list[str]) -> Iterator[Callable[[str, float], None]]:
        yield at

    with monkeypatch.context() as patch:
        patch.setattr("lethe.models.subprocess_training.console_report", report)
        yield


def weights(training: Training) -> bytes:
    return (training.folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_both_models_are_trained_at_once_and_never_again(
    raw: dict[str, Any], session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(raw, epochs=60)
    seen: list[tuple[str, float]] = []
    with watched(monkeypatch, lambda *progress: seen.append(progress)):
        prepared = prepare_study(study, session)
    first_end = next(index for index, (_, share) in enumerate(seen) if share == 1)
    assert {name for name, _ in seen[:first_end]} == {"start model", "oracle"}
    start, oracle = trainings_of(study)
    assert (prepared.start, prepared.oracle) == (start.folder, oracle.folder)
    assert prepared.base == Path(study.model.base).resolve()
    assert len({prepared.digests.model, prepared.digests.oracle, prepared.digests.base}) == 3
    assert not start.work.exists()
    with watched(monkeypatch, lambda *_: pytest.fail("nothing is trained twice")):
        assert prepare_study(study, session) == prepare_study(study) == prepared


@pytest.mark.slow
def test_ctrl_c_leaves_checkpoints_from_which_the_next_session_ends_with_the_same_bytes(
    raw: dict[str, Any], session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(raw, epochs=40, seed=1)
    prepare_study(study, session)
    whole = [weights(training) for training in trainings_of(study)]
    for training in trainings_of(study):
        training.folder.rename(training.folder.with_name(f"kept-{training.key}"))
    reported: list[str] = []

    def interrupt(name: str, share: float) -> None:
        reported.append(name)
        if {*reported} == {"start model", "oracle"}:
            raise KeyboardInterrupt

    with watched(monkeypatch, interrupt), pytest.raises(KeyboardInterrupt):
        prepare_study(study, session)
    cut = trainings_of(study)
    assert all(training.has_begun and not training.is_there for training in cut)
    assert "half trained" in finetuning.describe_training(cut[0], "x")
    prepare_study(study, session)
    assert [weights(training) for training in cut] == whole


@pytest.mark.slow
def test_beside_a_start_model_the_oracle_alone_is_trained_and_goes_on_after_ctrl_c(
    raw: dict[str, Any], session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.write_model(tmp_path / "model", words=tiny.WORDS[::-1])
    study = study_of(raw, epochs=40, seed=3, path=str(model))

    def interrupt(name: str, share: float) -> None:
        raise KeyboardInterrupt

    with watched(monkeypatch, interrupt), pytest.raises(KeyboardInterrupt):
        prepare_study(study, session)
    (oracle,) = trainings_of(study)
    assert oracle.has_begun
    with pytest.raises(UserError, match="oracle of finetuned is not trained yet"):
        prepare_study(study)
    seen: set[str] = set()
    with watched(monkeypatch, lambda name, _: seen.add(name)):
        prepared = prepare_study(study, session)
    assert seen == {"oracle"}
    assert (prepared.start, prepared.oracle) == (model, oracle.folder)
    assert prepared.digests.model == model_digest(model)
    assert prepared.digests.base == model_digest(Path(study.model.base))
    record = training_record(oracle.folder)
    assert record is not None
    assert (record.base, record.base_digest, record.rows) == (study.model.base, prepared.digests.base, 9)
    assert not oracle.work.exists()


@pytest.mark.slow
def test_a_training_that_fails_ends_the_study_with_one_line(raw: dict[str, Any], session: Any) -> None:
    with pytest.raises(UserError, match=r"training the .* from .*base ended, diverged: .*: lower model.learning_rate"):
        prepare_study(study_of(raw, learning_rate=1e30), session)

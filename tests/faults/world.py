"""A study of very short trials, the processes behind it, and what must hold whatever was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from lethe.config.study import load_study
from lethe.unlearning.requests import Assets, TrialRequest
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
WORKER, RUN_QUEUE, TRIAL = "ray::RayTrainWorker", "ray::RunQueue", "ray::PoolTrial"
EPOCHS = 6


def write_study(folder: Path, trials: int, **changes: Any) -> Path:
    """A study on random weights: real runs of a second, six reports each, whose checkpoints matter."""
    start, oracle = tiny.write_model(folder / "start"), tiny.write_model(folder / "oracle", seed=1)
    study = {
        "name": "faults",
        "benchmark": {"source": str(tiny.write_data(folder / "data"))},
        "model": {"name": "pretrained", "path": str(start), "oracle": str(oracle)},
        "run": {
            "objective": {"name": "npo"},
            "optimizer": {"name": "sophia", "hessian_interval": 2},
            "adapter": {"name": "full"},
            "schedule": {"epochs": EPOCHS, "batch_size": 2},
            "evaluation": {"max_new_tokens": 4},
        },
        "space": {
            "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "seed": {"type": "int", "low": 0, "high": 1_000_000},
        },
        "objectives": {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}},
        "search": {"sampler": "random", "trials": trials},
        "resources": {"checkpoint": {"every_steps": 1}},
        "tracking": {"register_models": False},
        **changes,
    }
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


@dataclass
class Session:
    """One `sweep` command in a process of its own."""

    process: subprocess.Popen[str]
    log: Path

    @classmethod
    def start(cls, study: Path, environment: dict[str, str], *arguments: str) -> Session:
        log = study.parent / f"session-{time.time_ns()}.log"
        command = [sys.executable, "-m", "platform.sweep", str(study), "--reports", str(study.parent / "reports")]
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True
            )
        return cls(process, log)

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        """The last of its own: Ray's words about what died come when they come."""
        return [line for line in self.output.splitlines() if line.startswith("lethe:")][-1]

    def finished(self) -> int:
        """Trials that it has said to be done."""
        return sum(line.startswith("trial ") for line in self.output.splitlines())

    def await_trials(self, count: int, timeout: float = 180) -> None:
        self._await(lambda: self.finished() >= count, timeout)

    def wait(self, timeout: float = 180) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs: {self.output[-3000:]}") from None

    def _await(self, ready: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            assert self.process.poll() is None, self.output[-3000:]
            assert time.monotonic() < deadline, self.output[-3000:]
            time.sleep(0.05)


def find(root: int, name: str) -> list[psutil.Process]:
    """Living processes under `root` whose title begins with `name`, or that run a program of that name."""
    titles = {p: _title(p) for p in _children(root)}
    return [p for p, title in titles.items() if title.startswith(name) or title.split(" ")[0].endswith(f"/{name}")]


def kill_one(root: int, name: str, choose: Callable[[list[Any]], Any], timeout: float = 60) -> int:
    """SIGKILL to one such process, as soon as there is one; its pid."""
    deadline = time.monotonic() + timeout
    while not (found := find(root, name)):
        assert time.monotonic() < deadline, f"no {name} under {root}"
        time.sleep(0.05)
    victim = choose(sorted(found, key=lambda p: p.pid))
    os.kill(victim.pid, signal.SIGKILL)
    return victim.pid


def kill_cluster(root: int, draw: random.Random) -> None:
    """SIGKILL to raylet and control store, in any order: the second may die of the first before it is its turn."""
    victims = [process for name in ("gcs_server", "raylet") for process in find(root, name)]
    assert len(victims) == 2, victims
    for victim in draw.sample(victims, 2):
        with suppress(psutil.NoSuchProcess):
            victim.kill()


def _children(root: int) -> list[psutil.Process]:
    try:
        return psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@dataclass
class Facts:
    """What a finished study left behind, in its own folder, in Optuna and in MLflow; `home` is its LETHE_HOME."""

    home: Path
    study: Path
    overrides: tuple[str, ...] = ()
    record: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        paths = sorted((self.home / "studies").glob("faults-*/study.json"), key=lambda p: p.stat().st_mtime)
        self.record = json.loads(paths[-1].read_text())

    @property
    def folder(self) -> Path:
        return self.home / "studies" / self.record["id"]

    def lost(self, trials: int) -> int:
        """Trials of the budget without a result."""
        return trials - sum(t["verdict"] == "complete" for t in self.record["trials"])

    def duplicated(self) -> int:
        """Runs with more than one trial, in the record and in Optuna."""
        import optuna

        store = optuna.load_study(study_name=self.record["id"], storage=f"sqlite:///{self.home / 'optuna.db'}")
        told = Counter(t.user_attrs.get("run") for t in store.trials if t.state.name == "COMPLETE")
        recorded = Counter(t["run"] for t in self.record["trials"])
        return sum(n - 1 for n in told.values()) + sum(n - 1 for n in recorded.values())

    def states(self) -> set[str]:
        """States of Optuna's trials."""
        import optuna

        store = optuna.load_study(study_name=self.record["id"], storage=f"sqlite:///{self.home / 'optuna.db'}")
        return {t.state.name for t in store.trials}

    def mlflow(self) -> tuple[Counter[str], set[str]]:
        """MLflow's children by run hash, and the states of all its runs."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("lethe").experiment_id
        runs = client.search_runs([experiment], f"tags.`lethe.study` = '{self.record['id']}'", max_results=5000)
        children = Counter(r.data.tags["lethe.run"] for r in runs if "lethe.run" in r.data.tags)
        return children, {r.info.status for r in runs}

    def differing(self, limit: int | None = None) -> list[str]:
        """Runs whose reports are not those of the same run, undisturbed and alone in this process."""
        from lethe.unlearning.outcome import Alone
        from lethe.unlearning.worker_entry import run_trial

        found = []
        for trial, request in list(self._requests())[:limit]:
            series: list[dict[str, Any]] = []
            series.append(run_trial(request, series.append, Alone()).values)
            if [_kept(r) for r in series] != [_kept(r) for r in trial["series"]]:
                found.append(trial["run"])
        return found

    def _requests(self) -> Iterator[tuple[dict[str, Any], TrialRequest]]:
        """The request of every complete trial, in an order that has nothing to do with time."""
        from lethe.config.run import Digests, UnlearnRun
        from lethe.config.space import rebuild
        from lethe.study.baselines import interim_file

        study = load_study(str(self.study), self.overrides)
        digests = Digests.model_validate({k: v for k, v in self.record["digests"].items() if v})
        assets = Assets(
            benchmark=study.benchmark, data_digest=digests.data, model_digest=digests.model,
            start=self.record["start_folder"], cache=str(self.home / "cache"),
        )  # fmt: skip
        for trial in sorted(self.record["trials"], key=lambda t: t["run"]):
            if trial["verdict"] != "complete":
                continue
            recipe = rebuild(study.run, study.space, trial["params"])
            run = UnlearnRun(recipe=recipe, digests=digests)
            assert run.digest() == trial["run"]
            folder, truth = self.home / "again" / trial["run"], self.folder / "truth.json"
            interim = interim_file(self.folder)
            yield trial, TrialRequest(run=run, assets=assets, reference=truth, interim=interim, folder=folder)


def _kept(report: dict[str, Any]) -> dict[str, float]:
    """The numbers that a run decides: neither costs nor what is no number."""
    costs = ("seconds", "memory")
    values = {k: v for k, v in report.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {k: float(v) for k, v in values.items() if not any(word in k for word in costs)}

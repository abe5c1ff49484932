"""N random kills over a long study of short trials: what is lost, done twice, or comes out differently.

    OMP_NUM_THREADS=1 python -m benchmarks.faults [--kills 50] [--seed 0]

A private Ray cluster of two CPUs, trials of a second on a tiny model. Every few seconds SIGKILL goes to one process: a
worker, a group's controller, the run queue, a trial's actor, the driver, or gcs_server and raylet. After the last two
the study is resumed. At the end every trial is run once more, undisturbed and alone, and compared bit for bit.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import random
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Head, private_head
from tests.faults.world import CONTROLLER, RUN_QUEUE, TRIAL, WORKER, Facts, Session, kill_cluster, kill_one, write_study

DRIVER, CLUSTER = "driver", "cluster"
WEIGHTS = {WORKER: 8, CONTROLLER: 4, RUN_QUEUE: 4, TRIAL: 6, DRIVER: 2, CLUSTER: 1}
PAUSE_S = 6.0  # on average
TRIALS_PER_KILL = 12


class Run:
    """The study and whatever it runs on at the moment."""

    def __init__(self, folder: Path, trials: int, stack: ExitStack, draw: random.Random) -> None:
        self.home, self.draw = folder / "home", draw
        self.study = write_study(folder, trials)
        self._clusters = stack.enter_context(ExitStack())
        self.head: Head = self._clusters.enter_context(private_head())
        self.session = self._start()

    def _start(self, *arguments: str) -> Session:
        return Session.start(self.study, {**self.head.environment, "LETHE_HOME": str(self.home)}, *arguments)

    def resume(self, *, new_cluster: bool = False) -> None:
        """A new driver, once the last one has ended."""
        self.session.wait(120)
        if new_cluster:
            self._clusters.close()
            self.head = self._clusters.enter_context(private_head())
        self.session = self._start("--resume")

    def kill(self, victim: str) -> None:
        """SIGKILL, and a new session where the old one cannot live on."""
        if victim == DRIVER:
            self.session.process.kill()
            self.resume()
        elif victim == CLUSTER:
            kill_cluster(self.head.pid, self.draw)
            self.resume(new_cluster=True)
        else:
            kill_one(self.head.pid, victim, self.draw.choice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, trials = random.Random(args.seed), TRIALS_PER_KILL * args.kills
    folder, done, began = Path(tempfile.mkdtemp(prefix="lethe-faults-")), Counter[str](), time.time()
    with ExitStack() as stack:
        run = Run(folder, trials, stack, draw)
        for _ in range(args.kills):
            run.session.await_trials(1, 300)
            time.sleep(draw.expovariate(1 / PAUSE_S))
            if run.session.process.poll() is not None:
                break
            (victim,) = draw.choices([*WEIGHTS], [*WEIGHTS.values()])
            run.kill(victim)
            done[victim.removeprefix("ray::")] += 1
            print(f"{time.time() - began:5.0f} s  {victim}", flush=True)
        code = run.session.wait(3600)
    print(
        f"{sum(done.values())} kills in {time.time() - began:.0f} s: {dict(done)}; the last session ended with {code}"
    )
    facts = Facts(run.home, run.study)
    children, states = facts.mlflow()
    print(f"{len(facts.record['trials'])} of {trials} trials; Optuna's states {sorted(facts.states())}")
    print(f"MLflow: {len(children)} runs of trials, most for one {max(children.values())}, states {sorted(states)}")
    print(f"lost {facts.lost(trials)}  duplicated {facts.duplicated()}  differing {len(facts.differing())}")


if __name__ == "__main__":
    main()

"""The pool on a real two-CPU cluster, with runs that do nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lethe.errors import StudyBrokenError, UserError
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.null_run import NullRequest, pids_of
from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueue

pytestmark = pytest.mark.slow

ONE = Shape()


@pytest.fixture(scope="module")
def pool(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lethe.pool.worker_pool import Pool

    pool = Pool(tmp_path_factory.mktemp("groups"))
    pool.warm(Shape())
    await_groups(pool, 2)
    yield pool
    pool.close()


def await_groups(pool: Any, count: int) -> None:
    import ray

    deadline = time.monotonic() + 120
    while len(ray.get(pool.queue.call(RunQueue.status)).groups) < count:
        assert time.monotonic() < deadline, "the groups did not start"
        time.sleep(0.2)


def submit(pool: Any, run: str, shape: Shape = ONE, **payload: Any) -> None:
    import ray

    ray.get(pool.queue.call(RunQueue.submit, Job.of(run, EntryPoint.NULL, NullRequest(**payload), shape), run))


def report(pool: Any, run: str, seen: int = 0, timeout: float = 180) -> Any:
    import ray

    return ray.get(pool.queue.call(RunQueue.next_report, run, seen), timeout=timeout)


def test_two_groups_work_at_once_on_two_cpus(pool: Any) -> None:
    for i in range(2):
        submit(pool, f"warm{i}", seconds=2.0)
    first = {tuple(pids_of(report(pool, f"warm{i}"))) for i in range(2)}
    assert len(first) == 2, "two CPUs, two group processes"
    for i in range(8):
        submit(pool, f"again{i}", seconds=0.05)
    later = {tuple(pids_of(report(pool, f"again{i}"))) for i in range(8)}
    assert later == first, "the same warm processes serve every run"


def test_a_group_is_its_workers_and_no_other_process(pool: Any) -> None:
    """Ray Train would start a controller, an actor for exchanges and more, each of which imports for a second."""
    titles = (" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True))
    actors = {title.split()[0].split(".")[0] for title in titles if title.startswith("ray::")}
    of_ray = {"ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    assert actors - of_ray == {"ray::RayTrainWorker", "ray::RunQueue"}


def test_a_killed_worker_loses_nothing(pool: Any) -> None:
    submit(pool, "killed", seconds=0.5, epochs=6)
    first = report(pool, "killed")
    os.kill(pids_of(first)[0], signal.SIGKILL)
    epochs = [report(pool, "killed", seen).values["epoch"] for seen in range(1, 6)]
    assert epochs == [2, 3, 4, 5, 6]


def test_stop_frees_the_group_for_the_next_run(pool: Any) -> None:
    import ray

    for name in ("long0", "long1"):
        submit(pool, name, seconds=0.05, epochs=1000)
        report(pool, name)
    submit(pool, "next")
    ray.get(pool.queue.call(RunQueue.stop, "long0"))
    assert report(pool, "next").verdict == "complete", "both groups had 50 s of work"
    ray.get(pool.queue.call(RunQueue.stop, "long1"))


def test_an_error_in_a_run_is_its_verdict_and_the_group_goes_on(pool: Any) -> None:
    submit(pool, "broken", fails="nothing_here")
    broken = report(pool, "broken")
    assert broken.verdict == "error"
    assert "nothing_here" in broken.reason
    submit(pool, "after")
    assert report(pool, "after").verdict == "complete"


def test_an_error_with_peers_is_its_verdict_too(pool: Any) -> None:
    """The group dies of it and comes back; the run is not tried again."""
    wide = Shape(workers=2)
    submit(pool, "broken2", wide, fails="nothing_here")
    broken = report(pool, "broken2")
    assert broken.verdict == "error"
    assert "nothing_here" in broken.reason
    submit(pool, "after2", wide)
    assert len(set(pids_of(report(pool, "after2")))) == 2


def test_another_shape_takes_the_place_of_idle_groups(pool: Any) -> None:
    submit(pool, "wide", Shape(workers=2))
    assert len(set(pids_of(report(pool, "wide")))) == 2
    submit(pool, "narrow")
    assert len(pids_of(report(pool, "narrow"))) == 1


def test_a_shape_that_never_fits_is_refused(pool: Any) -> None:
    with pytest.raises(UserError, match=r"needs 3 x \(1 CPU\).*has 1 x \(2 CPU\)"):
        pool.warm(Shape(workers=3))


def test_groups_that_never_come_up_end_the_wait_for_them(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from lethe.pool import group_trainer, worker_pool

    monkeypatch.setattr(group_trainer, "work", "no function")
    for name in ("MAX_FAILED_STARTS", "MAX_FAILURES"):
        monkeypatch.setattr(worker_pool, name, int(name == "MAX_FAILED_STARTS"))
    pool = worker_pool.Pool(tmp_path / "hopeless", max_groups=1)
    try:
        asked = pool.submit("r", EntryPoint.NULL, NullRequest(), ONE)
        with pytest.raises(StudyBrokenError, match="1 worker groups in a row ended before they began"):
            pool.result(asked)
        assert report(pool, "r").verdict == "interrupted", "a trial that waits is told"
    finally:
        pool.close()
    assert ray.is_initialized()


def test_recycling_ends_processes_and_nothing_leaks(cluster: None, tmp_path: Path) -> None:
    import ray
    from ray.util import placement_group_table

    from lethe.pool.worker_pool import Pool

    pool = Pool(tmp_path, recycle_after=1, max_groups=1)
    try:
        pids = []
        for i in range(2):
            submit(pool, f"fresh{i}")
            pids.append(pids_of(report(pool, f"fresh{i}"))[0])
        assert pids[0] != pids[1]
    finally:
        pool.close()
    deadline = time.monotonic() + 20
    live = lambda: [g for g in placement_group_table().values() if g["state"] not in ("REMOVED",)]  # noqa: E731
    mine = len(live())
    while time.monotonic() < deadline and mine > 2:
        time.sleep(0.5)
        mine = len(live())
    assert mine <= 2, "only the module's own two groups may still hold placement groups"
    assert ray.is_initialized()

"""Ray and its warm worker groups for one command, started in the background while the driver prepares."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from lethe.config.study import Study
from lethe.errors import StudyBrokenError
from lethe.pool.cluster import connect, ray_folder
from lethe.storage.paths import home

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool

START_S = 300.0  # for Ray to start, which takes seconds: where no worker comes up, it waits for ever
CLOSE_S = 20.0  # for groups to end by themselves; what is left ends with Ray
LEAVE_S = 2.0  # the same where runs were cut off: they go on from their checkpoints anyway
GIVE_UP_S = 5.0  # for both, and for what is still starting, after an error or a signal
WATCH_S = 1.0  # between two looks whether the pool is lost
GRACE_S = 5.0  # for the main thread to notice that, before the process ends
BASELINES = 2  # start model and oracle are scored at once, so a study of one trial has use for two groups


class Session:
    """A context in which Ray runs: it starts when the context is entered, and everything that it started ends with it.

    Half of a study's first minute is processes that import things; they do it while the driver reads data, trains
    the embedded models and imports its own.
    """

    def __init__(self, study: Study, address: str | None) -> None:
        self._study, self._address = study, address
        self._folder = home() / "groups" / secrets.token_hex(4)
        self._pool: Pool | None = None
        self._error: BaseException | None = None
        self._checked, self._started, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name="session", daemon=True)

    def __enter__(self) -> Session:
        self._thread.start()
        if self._address is not None:
            # A cluster that cannot hold the study says so before models are trained. One of our own takes longer to
            # start than to join, and is what the person's machine is: its answer may come with the pool.
            self._wait_for(self._checked)
            if self._error is not None:
                self.__exit__()
                raise self._error
        return self

    def __exit__(self, error: type[BaseException] | None = None, *_: object) -> None:
        if error is not None and self._pool is not None:
            self._pool.abandon("the session ended early")
        self._ended.set()
        # A thread that is starting Ray does not look whether it should end. Ray's processes end with this one anyway.
        self._closed.wait(2 * CLOSE_S if error is None else GIVE_UP_S)

    @property
    def ready(self) -> bool:
        """Return whether `pool` answers at once."""
        return self._started.is_set()

    def pool(self) -> Pool:
        """Return the pool once its groups start. Raises what kept them from that, UserError for a cluster that cannot
        hold the study."""
        self._wait_for(self._started)
        if self._error is not None:
            raise self._error
        assert self._pool is not None
        return self._pool

    @property
    def broken(self) -> str | None:
        """The reason why the groups cannot go on, None if they can."""
        return None if self._pool is None else self._pool.broken

    def _wait_for(self, step: threading.Event) -> None:
        if not step.wait(START_S):
            raise StudyBrokenError(f"Ray has not started a worker within {START_S:g} s (its logs: {ray_folder()})")

    def _live(self) -> None:
        """Start, wait, end: Ray's processes die with the thread that started them, so it stays."""
        try:
            self._start()
        except BaseException as error:  # noqa: BLE001  # raised where the pool is asked for, in the driver's own thread
            self._error = error
        self._checked.set()
        self._started.set()
        while not self._ended.wait(WATCH_S):
            if self._pool is not None and self._pool.lost and not self._ended.wait(GRACE_S):
                # The main thread is in one of Ray's calls, which waits a minute for the cluster and then ends the
                # process without a word of ours.
                code = StudyBrokenError(self._pool.broken).print_and_exit_code()
                _kill_descendants()
                os._exit(code)
        try:
            self._end()
        finally:
            self._closed.set()
        if self._pool is not None and self._pool.in_use and not self._pool.lost:
            threading.Event().wait()  # until the process ends

    def _start(self) -> None:
        connect(self._address)
        from lethe.pool.resources import Shape
        from lethe.pool.worker_pool import Pool
        from lethe.study.preflight import check_devices

        check_devices(self._study)
        if self._address is not None:
            from lethe.pool.node_checks import check_others

            check_others()
        self._checked.set()
        resources = self._study.resources
        self._pool = Pool(
            self._folder,
            recycle_after=self._study.resources.recycle_after,
            max_groups=resources.groups or max(BASELINES, self._study.search.trials),
            wait_s=resources.wait_s,
        )
        self._pool.warm(Shape.of(self._study.first_recipe().engine, resources.gpus_per_worker))

    def _end(self) -> None:
        import ray

        try:
            if self._pool is not None:
                self._pool.close(LEAVE_S if self._pool.ended else CLOSE_S)
        finally:
            # A shutdown would wait for a cluster that is gone; and Ray ends a process, with code 1, one of whose
            # threads calls it afterwards.
            if self._pool is not None and (self._pool.lost or self._pool.in_use):
                atexit.unregister(ray.shutdown)
            else:
                ray.shutdown()
            shutil.rmtree(self._folder, ignore_errors=True)


def _kill_descendants() -> None:
    """Kill every process that this one or one of its own started: a worker that has not joined Ray yet would stay."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()

"""LETHE_LOG=debug: files that show what groups did, and nothing that a user would not show."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lethe.pool.event_log import VARIABLE, EventLog, log_folder
from tests.conftest import Head

pytestmark = pytest.mark.slow

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\S+) run=(\S+) (.*)")

SCRIPT = """
import sys
from pathlib import Path

import platform
from lethe.pool.cluster import connect
from lethe.pool.messages import EntryPoint
from lethe.pool.null_run import NullRequest
from lethe.pool.resources import Shape
from lethe.pool.worker_pool import Pool

connect("auto")
folder = Path(sys.argv[1])
pool = Pool(folder / "groups", max_groups=1)
pool.log_to(folder / "study")
pool.warm(Shape())
pool.result(pool.submit("good", EntryPoint.NULL, NullRequest(), Shape()))
pool.result(pool.submit("bad", EntryPoint.NULL, NullRequest(fails="the secret of row 7"), Shape()))
pool.close()
"""


def events(file: Path) -> list[tuple[str, str, str]]:
    """Process, run and event of every line."""
    matches = [LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert all(matches)
    return [match.groups() for match in matches if match]


def test_off_by_default(tmp_path: Path) -> None:
    assert log_folder(tmp_path) is None
    log = EventLog("driver")
    log.write_to(str(tmp_path / "log"))
    log("group starts", group="group-1")
    assert not list(tmp_path.iterdir())


def test_lines_wait_until_the_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "debug")
    log = EventLog("group-1-rank-0")
    log("registered", pid=7)
    log.write_to(log_folder(tmp_path))
    log("report sent", "r", index=0)
    found = events(tmp_path / "log" / "group-1-rank-0.log")
    assert found == [("group-1-rank-0", "-", "registered pid=7"), ("group-1-rank-0", "r", "report sent index=0")]


def test_a_real_run_is_in_the_files_of_driver_queue_and_rank(head: Head, tmp_path: Path) -> None:
    asked = replace(head, environment={**head.environment, VARIABLE: "debug"})
    done = asked.run(sys.executable, "-c", SCRIPT, str(tmp_path), timeout=150)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    folder = tmp_path / "study" / "log"
    assert {file.name for file in folder.iterdir()} == {"driver.log", "queue.log", "group-1-rank-0.log"}
    rank = [(run, event.split(" ")[0:2]) for _, run, event in events(folder / "group-1-rank-0.log")]
    assert rank[0] == ("-", ["registered", rank[0][1][1]])
    good = [" ".join(event) for run, event in rank if run == "good"]
    assert good == ["lease taken,", "run ended", "report sent", "answer received"]
    assert ("bad", ["run", "failed"]) in rank
    assert any(event.startswith("lease granted") for _, run, event in events(folder / "queue.log") if run == "good")
    assert any(event.startswith("group starts") for _, _, event in events(folder / "driver.log"))
    assert not any("secret" in file.read_text() for file in folder.iterdir())

"""A cluster of our own, its worker groups included, is reached by nobody outside this machine."""

import ipaddress
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import contextlib, json, tempfile, time
from pathlib import Path
import platform
from lethe.pool.cluster import check_address, connect, prepare_environment

prepare_environment()
connect(check_address(), cpus=2)
import psutil, ray
from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueue
from lethe.pool.worker_pool import Pool

pool = Pool(Path(tempfile.mkdtemp()), max_groups=1)
pool.warm(Shape(workers=2))
while not any(group.nodes for group in ray.get(pool.queue.call(RunQueue.status)).groups.values()):
    time.sleep(0.2)
mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = set()
for process in mine:
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
        found |= {s.laddr.ip for s in process.net_connections("tcp") if s.status == psutil.CONN_LISTEN}
print(json.dumps(sorted(found)))
pool.close()
ray.shutdown()
"""


def test_all_that_listens_is_on_loopback() -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=known, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [ipaddress.ip_address(given.removeprefix("::ffff:")) for given in json.loads(done.stdout.splitlines()[-1])]
    assert found
    assert all(address.is_loopback for address in found), found

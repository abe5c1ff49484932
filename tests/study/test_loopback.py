"""A cluster of our own is reached by nobody outside this machine."""

import ipaddress
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import contextlib, json
import platform
from lethe.pool.cluster import check_address, connect, prepare_environment

prepare_environment()
connect(check_address(), cpus=1)
import psutil, ray

ray.get(ray.remote(lambda: None).remote())
mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = set()
for process in mine:
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
        found |= {s.laddr.ip for s in process.net_connections("tcp") if s.status == psutil.CONN_LISTEN}
print(json.dumps(sorted(found)))
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

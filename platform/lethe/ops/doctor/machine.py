"""The quick checks: this machine and the services, without torch, and without Ray unless RAY_ADDRESS is set."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import lethe
from lethe.errors import UserError
from lethe.ops.doctor.checks import Check, Skipped
from lethe.pool import node_checks
from lethe.pool.node_checks import gpus
from lethe.storage.object_store import store_message
from lethe.storage.paths import home, root, store
from lethe.storage.sqlite_schema import OPTUNA

PYTHONS = ((3, 11), (3, 12), (3, 13))
LEAST_FREE_GB = 2.0
INSTALL = "`make install`, or pip install -r requirements.lock"


def quick() -> list[Check]:
    """Return the quick checks, in the order in which they matter."""
    return [
        Check("python", python),
        Check("packages", packages),
        Check("machine", machine),
        Check("storage", storage),
        Check("ray", cluster),
        Check("optuna", optuna),
        Check("mlflow", mlflow),
    ]


def python() -> str:
    """Check the interpreter: its version is one of PYTHONS."""
    if sys.version_info[:2] not in PYTHONS:
        raise UserError(
            f"{platform.python_version()}: lethe needs 3.11, 3.12 or 3.13, `make install` makes its environment"
        )
    return f"{platform.python_version()} ({sys.executable})"


def packages() -> str:
    """Check that every required package is installed, in the range that pyproject.toml gives."""
    wrong, count = [], 0
    for requirement in map(Requirement, _required()):
        count += 1
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        raise UserError(f"{'; '.join(wrong)}: {INSTALL}")
    return f"{count} as required, torch {version('torch')}, deepspeed {version('deepspeed')}, ray {version('ray')}"


def _required() -> list[str]:
    """Return the requirements of the checkout that lethe was imported from, else of the installed lethe.

    Raises Skipped where there is neither.
    """
    project = Path(lethe.__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        dependencies: list[str] = tomllib.loads(project.read_text())["project"]["dependencies"]
        return dependencies
    try:
        return [line for line in requires("lethe") or () if "extra ==" not in line]
    except PackageNotFoundError:
        raise Skipped("neither a checkout nor an installed lethe: nothing says what is required") from None


def machine() -> str:
    """Return cores, memory and GPUs of this machine; nothing of it is wrong."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {', '.join(gpus()) or 'no GPU'}"


def storage() -> str:
    """Check LETHE_HOME: a file can be written, read back and removed, and this machine has enough free space."""
    where, folder, word = root(), home(), secrets.token_hex(8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        node_checks.write_note(where, f".doctor-{word}", word)
        back = node_checks.read_note(where, f".doctor-{word}")
        node_checks.remove_note(where, f".doctor-{word}")
    except OSError as error:
        reason = error.strerror or store_message(error)
        raise UserError(
            f"cannot write to {where} ({reason}): set LETHE_HOME to a folder of yours, or to s3:// or gs://"
        ) from None
    free = shutil.disk_usage(folder).free / 1e9
    if back != word or free < LEAST_FREE_GB:
        raise UserError(f"{folder} has {free:.1f} GB free: a study wants {LEAST_FREE_GB:g}, clear it or set LETHE_HOME")
    return f"{where}, {f'copies in {folder}, ' if store() else ''}{free:.0f} GB free"


def cluster() -> str:
    """Check the cluster of RAY_ADDRESS: it answers, takes our token and has our versions. Without one, check the paths
    that a cluster on this machine would use."""
    from lethe.pool.cluster import check_address

    address = check_address()
    if address is None:
        return "none named by RAY_ADDRESS: a study starts one on this machine, on loopback"
    locked = "token accepted" if os.environ.get("RAY_AUTH_MODE") == "token" else "WITHOUT token authentication"
    return f"{address} answers with our versions, {locked}"


def optuna() -> str:
    """Check the tables of the studies' own storage, where there is one."""
    path = home() / "optuna.db"
    if not path.exists():
        return f"none yet in {home()}: the first study makes it"
    OPTUNA.check(path, f"sqlite:///{path}")
    return f"sqlite:///{path}"


def mlflow() -> str:
    """Check the store of MLFLOW_TRACKING_URI: it is there, lets us in, and has our MLflow's tables if it is a file."""
    from lethe.config.addresses import without_password
    from lethe.tracking.connection import authorization_header, check_login, check_uri, resolve_uri

    uri = resolve_uri()
    check_uri(uri)
    check_login(uri)
    return without_password(uri) + (", logged in" if uri.startswith("http") and authorization_header(uri) else "")

"""Connecting to Ray: the cluster that RAY_ADDRESS names, or one of our own on this machine.

A named cluster is asked one question before anything joins it: does it take our token, and does it run our versions?
Ray itself answers a wrong token or version late, in many lines, or by ending the process.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse, urlsplit

import lethe
from lethe.errors import StudyBrokenError, UserError, first_line
from lethe.pool import event_log
from lethe.storage.paths import ROOT_VARIABLE, root

HANDSHAKE_S = 3.0
HANDSHAKE_KEY = {"key": b"CLUSTER_METADATA", "namespace": b"cluster"}
AUTH_ADVICE = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token that its head was started with"
)
CONNECT_S = 2.0
# Read by Ray's libraries when they are imported. Tune's own loggers and snapshots are not our truth; the health
# check bounds how soon a dead or finished group is seen.
DEFAULTS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # to the driver's console: see `group_trainer`
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A job's own env_vars (LETHE_HOME, say) and ours name the same variables: ours repeat them, so they may win.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "DS_ACCELERATOR": "cpu",  # of this process, in which DeepSpeed would log that it looked; workers set their own
}
# The longest name below Ray's temporary folder, with the largest process id of Linux; a socket's may have 107 bytes.
SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
MAX_SOCKET = 107
SHORTER = "set RAY_TMPDIR to a short path that can be written to, such as /tmp"
# The name is Ray's, which reads it on Linux, too: this machine's address is 127.0.0.1, and all servers listen there.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Ray would start a worker per CPU for the first driver, and `ray.init` would wait until they are up, for ever where
# they do not come: in C++, with the interpreter locked, so that no deadline of ours could end it. Our actors cannot use
# them anyway: they lack the job's `py_modules`.
NO_PRESTART = {"RAY_prestart_worker_first_driver": "0"}


def prepare_environment() -> None:
    """Set the variables that Ray's libraries read at import. Call before the first `import ray`."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def check_address() -> str | None:
    """Return RAY_ADDRESS once a cluster there has answered, takes our token and runs our versions.

    None: start a cluster of our own, on loopback and with a token that nobody else on this machine has. Raises
    UserError for an address that cannot be used.
    """
    address = os.environ.get("RAY_ADDRESS") or None
    if address is None or address == "local":
        for name, value in (LOOPBACK | NO_PRESTART).items():
            os.environ.setdefault(name, value)
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        check_paths()
        return None
    if address.startswith("http"):
        raise UserError(f"RAY_ADDRESS={address} is a dashboard: use host:port of the head node, or `ray job submit`")
    if address != "auto":
        _check_listening(address)
    handshake(address)
    return address


def ray_folder() -> Path:
    """Return the folder in which Ray keeps its sessions, with sockets and logs, where we start it."""
    given = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # Ray's default
    return Path(given, "ray").absolute()


def check_paths() -> None:
    """Raise UserError where a cluster of our own would not start for a path that Ray uses: it quotes none, so that one
    with a space never starts a worker, and makes sockets below its temporary folder."""
    package = find_spec("ray")
    temporary = ray_folder()
    for path, what in ((sys.executable, "Python"), (package and package.origin, "Ray"), (temporary, "temporary files")):
        if " " in str(path):
            raise UserError(
                f"Ray starts no processes from a path with a space: {what} at {path}:"
                f" {SHORTER if path is temporary else 'make the environment in a folder without spaces'}"
            )
    if (length := len(os.fsencode(temporary / SOCKET))) > MAX_SOCKET:
        most = MAX_SOCKET - length + len(os.fsencode(temporary.parent))
        raise UserError(f"{temporary.parent} is too long for the names of Ray's sockets (at most {most}): {SHORTER}")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        if not os.access(temporary, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"Ray cannot write to {temporary}: {error.strerror}: {SHORTER}") from None


def _check_listening(address: str) -> None:
    """Raise UserError where nothing listens at `address`, since Ray would wait long for a machine that is not there."""
    parsed = urlparse(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection((parsed.hostname or "", parsed.port or 6379), CONNECT_S).close()
    except (OSError, ValueError):
        raise UserError(
            f"no Ray cluster answers at RAY_ADDRESS={address} within {CONNECT_S:g} s:"
            " start it, correct the address, or unset RAY_ADDRESS to use this machine alone"
        ) from None


def handshake(address: str) -> dict[str, str]:
    """Return the versions that the cluster at `address` ("host:port") runs; nothing for a Ray Client address (ray://).

    Raises UserError, within seconds, where the cluster refuses this process or runs other versions.
    """
    import ray

    if address == "auto":
        address = ray._private.utils.read_ray_address() or ""
    if address.startswith("ray://"):
        return {}
    if not address:
        raise UserError("RAY_ADDRESS=auto, but no Ray cluster runs on this machine: `ray start --head` starts one")
    theirs: dict[str, str] = json.loads(_cluster_metadata(urlsplit(f"//{address}").netloc, _token_header()))
    ours = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    if different := {name: theirs.get(name) for name in ours if theirs.get(name) != ours[name]}:
        listed = ", ".join(f"{name.partition('_')[0]} {other} (here {ours[name]})" for name, other in different.items())
        raise UserError(f"the Ray cluster at {address} runs {listed}: driver and nodes need the same versions")
    return theirs


def _token_header() -> tuple[tuple[str, str], ...]:
    """Return the headers that carry our token, as Ray's own client would find it; none without token authentication.

    Raises UserError where there should be a token and is none.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return ()
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled, without stubs
    from ray.exceptions import AuthenticationError

    loader = AuthenticationTokenLoader.instance()
    try:
        header = loader.get_token_for_http_header() if loader.has_token() else {}
    except AuthenticationError as error:
        raise UserError(f"{str(error).partition('. ')[0]}: {AUTH_ADVICE}") from None
    if not header:
        raise UserError(f"RAY_AUTH_MODE=token, but there is no token: {AUTH_ADVICE}")
    return tuple(header.items())


def _cluster_metadata(address: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Return the JSON with which the head node at `address` describes its cluster. Raises UserError where it refuses
    this driver, or is no head node."""
    import grpc  # type: ignore[import-untyped]  # has neither types nor stubs
    from ray.core.generated import gcs_service_pb2

    messages: Any = gcs_service_pb2  # generated without types

    with grpc.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/ray.rpc.InternalKVGcsService/InternalKVGet",
            request_serializer=messages.InternalKVGetRequest.SerializeToString,
            response_deserializer=messages.InternalKVGetReply.FromString,
        )
        try:
            reply = get(messages.InternalKVGetRequest(**HANDSHAKE_KEY), timeout=HANDSHAKE_S, metadata=metadata)
            return bytes(reply.value)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                refused = "this token" if metadata else "a driver without a token"
                raise UserError(f"the Ray cluster at {address} refuses {refused}: {AUTH_ADVICE}") from None
            raise UserError(
                f"what answers at {address} is no Ray head node ({error.code().name.lower()}):"
                " RAY_ADDRESS wants the port of `ray start --head`, by default 6379"
            ) from None


def connect(address: str | None, cpus: int | None = None) -> None:
    """Join the cluster at `address`, or start one on loopback (with `cpus`); ship `lethe` to the workers either way.

    Raises UserError for a cluster that cannot be joined, StudyBrokenError where our own does not start.
    """
    import ray

    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # Ray would handle SIGTERM in the main thread; our commands do it themselves, as Ctrl-C.
    logging.getLogger("ray._private.worker").addFilter(lambda record: "SIGTERM" not in record.getMessage())
    variables = {ROOT_VARIABLE: root(), "TOKENIZERS_PARALLELISM": "false"}
    if event_log.enabled():
        variables[event_log.VARIABLE] = os.environ[event_log.VARIABLE]
    runtime_env = {
        "py_modules": [str(Path(lethe.__file__).parent)],
        "excludes": ["**/__pycache__", "*.pyc"],
        "env_vars": variables,
    }
    common: dict[str, Any] = {
        "runtime_env": runtime_env,
        "logging_level": logging.WARNING,
        "log_to_driver": bool(os.environ.get("LETHE_WORKER_LOGS")),
    }
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise UserError(f"cannot join the Ray cluster at {address}: {first_line(error)}") from None
        return
    try:
        ray.init(address="local", include_dashboard=False, num_cpus=cpus, **common)
    # Ray has no common type for what keeps its processes from starting, and ends ours in some cases.
    except (Exception, SystemExit) as error:  # see above
        raise StudyBrokenError(f"Ray does not start on this machine: {first_line(error).partition('. ')[0]}") from error


def in_job() -> bool:
    """Return whether this driver is a Ray job: its working directory may be a copy that is thrown away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ

"""One question to a cluster before anything joins it: does it take our token, and does it run our versions?

Ray itself answers a wrong token or version late, in many lines, or by ending the process.

Connecting to Ray: the cluster that RAY_ADDRESS names, or one of our own on this machine.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import socket
from pathlib import Path
from urllib.parse import urlparse, urlsplit

import lethe
from lethe.errors import UserError
from lethe.storage.paths import ROOT_VARIABLE, root

LIMIT_S = 3.0
HANDSHAKE_KEY = {"key": b"CLUSTER_METADATA", "namespace": b"cluster"}
TOKEN = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token that its head was started with"
)


def handshake(address: str) -> dict[str, str]:
    """The versions that the cluster at `address` ("host:port") runs. Raises BadInput, within seconds, where it refuses
    this process or runs other versions. A Ray Client address (ray://) is not asked."""
    import ray

    if address == "auto":
        address = ray._private.utils.read_ray_address() or ""
    if address.startswith("ray://"):
        return {}
    if not address:
        raise UserError("RAY_ADDRESS=auto, but no Ray cluster runs on this machine: `ray start --head` starts one")
    runs = json.loads(_ask(urlsplit(f"//{address}").netloc, _token()))
    mine = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    if other := {name: runs.get(name) for name in mine if runs.get(name) != mine[name]}:
        said = ", ".join(f"{name.partition('_')[0]} {given} (here {mine[name]})" for name, given in other.items())
        raise UserError(f"the Ray cluster at {address} runs {said}: driver and nodes need the same versions")
    return runs


def _token() -> tuple[tuple[str, str], ...]:
    """The header that carries our token, as Ray's own client would find it; none without token authentication."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return ()
    from ray._raylet import AuthenticationTokenLoader
    from ray.exceptions import AuthenticationError

    loader = AuthenticationTokenLoader.instance()
    try:
        header = loader.get_token_for_http_header() if loader.has_token() else {}
    except AuthenticationError as error:
        raise UserError(f"{str(error).partition('. ')[0]}: {TOKEN}") from None
    if not header:
        raise UserError(f"RAY_AUTH_MODE=token, but there is no token: {TOKEN}")
    return tuple(header.items())


def _ask(address: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    with grpc.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/ray.rpc.InternalKVGcsService/InternalKVGet",
            request_serializer=messages.InternalKVGetRequest.SerializeToString,
            response_deserializer=messages.InternalKVGetReply.FromString,
        )
        try:
            return get(messages.InternalKVGetRequest(**HANDSHAKE_KEY), timeout=LIMIT_S, metadata=metadata).value
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                given = "this token" if metadata else "a driver without a token"
                raise UserError(f"the Ray cluster at {address} refuses {given}: {TOKEN}") from None
            raise UserError(
                f"what answers at {address} is no Ray head node ({error.code().name.lower()}):"
                " RAY_ADDRESS wants the port of `ray start --head`, by default 6379"
            ) from None


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
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A job's own env_vars (LETHE_HOME, say) and ours name the same variables: ours repeat them, so they may win.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
# The name is Ray's, which reads it on Linux, too: the address of this machine is 127.0.0.1, and all servers listen there.
LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def prepare_environment() -> None:
    """Set what Ray's libraries read at import. Call before the first `import ray`."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def check_address() -> str | None:
    """RAY_ADDRESS, once a cluster there has answered, takes our token and runs our versions; None: start a cluster of
    our own, which nobody else on this machine gets into."""
    address = os.environ.get("RAY_ADDRESS") or None
    if address in (None, "local"):
        os.environ.setdefault(*LOOPBACK)
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        return None
    if address.startswith("http"):
        raise UserError(f"RAY_ADDRESS={address} is a dashboard: use host:port of the head node, or `ray job submit`")
    if address != "auto":
        _await(address)
    handshake(address)
    return address


def _await(address: str) -> None:
    """A look whether anything listens: a name or machine that is not there would keep Ray waiting."""
    parsed = urlparse(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection((parsed.hostname or "", parsed.port or 6379), CONNECT_S).close()
    except (OSError, ValueError):
        raise UserError(
            f"no Ray cluster answers at RAY_ADDRESS={address} within {CONNECT_S:g} s:"
            " start it, correct the address, or unset RAY_ADDRESS to use this machine alone"
        ) from None


def connect(address: str | None, cpus: int | None = None) -> None:
    """Join the cluster, or start one on loopback (with `cpus`); ship `lethe` to the workers either way."""
    import ray

    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # Ray would handle SIGTERM in the main thread; our commands do it themselves, as Ctrl-C.
    logging.getLogger("ray._private.worker").addFilter(lambda record: "SIGTERM" not in record.getMessage())
    runtime_env = {
        "py_modules": [str(Path(lethe.__file__).parent)],
        "excludes": ["**/__pycache__", "*.pyc"],
        "env_vars": {ROOT_VARIABLE: root(), "TOKENIZERS_PARALLELISM": "false"},
    }
    common = {
        "runtime_env": runtime_env,
        "logging_level": logging.WARNING,
        "log_to_driver": bool(os.environ.get("LETHE_WORKER_LOGS")),
    }
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot join the Ray cluster at {address}: {first}") from None
        return
    ray.init(address="local", include_dashboard=False, num_cpus=cpus, **common)


def in_job() -> bool:
    """Whether this driver is a Ray job: its working directory may be a copy that is thrown away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ

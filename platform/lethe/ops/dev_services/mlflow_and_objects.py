"""MLflow's server with its basic-auth app, and the S3 store where it keeps files: nothing without a login.

The store is nanio, a small young server (alpha) that checks signatures and keeps objects as plain files. It is there so
that code that speaks S3 is tried against a server; production has its own. Of uploads in pieces with a checksum behind
them, as newer SDKs send by default, nanio 0.1.7 stores the framing too: the file is another one. Clients leave those
checksums out when their environment says so, as `credentials` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from lethe.errors import UserError
from lethe.ops.dev_services.passwords import USER, Passwords, private_write
from lethe.ops.dev_services.process import Child, is_listening
from lethe.tracking.connection import check_login

MLFLOW_BUCKET = "mlflow"  # of MLflow's files
STUDY_BUCKET = "lethe"  # for LETHE_HOME=s3://lethe/...
OBJECTS_START_S = 30.0


def credentials(port: int, secrets: Passwords) -> dict[str, str]:
    """Return the environment variables that lead an S3 client to the store at this port of loopback."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": secrets.s3_key,
        "AWS_SECRET_ACCESS_KEY": secrets.s3_secret,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }


@contextmanager
def object_store(folder: Path, port: int, secrets: Passwords) -> Iterator[Child]:
    """Run the S3 store with its data in `folder`; its buckets exist when it is yielded."""
    data = folder / "objects"
    data.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "NANIO_ACCESS_KEY": secrets.s3_key, "NANIO_SECRET_KEY": secrets.s3_secret}
    command = [sys.executable, "-P", "-m", "nanio", "serve", "--data-dir", str(data), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--no-access-log"]
    with Child("objects", command, folder, environment) as server:
        server.wait_for(lambda: is_listening(port), OBJECTS_START_S)
        _make_buckets(port, secrets)
        yield server


def _make_buckets(port: int, secrets: Passwords) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=secrets.s3_key,
        aws_secret_access_key=secrets.s3_secret,
    )
    known = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    for name in (MLFLOW_BUCKET, STUDY_BUCKET):
        if name not in known:
            client.create_bucket(Bucket=name)


MLFLOW_START_S = 180.0  # its imports take 5 to 20 s, and more on a busy machine; the first start makes the tables
# With several workers, uvicorn kills each that does not answer within 5 s, and importing MLflow takes that long on a
# busy machine: the server never came up. A single worker is not watched, and starts sooner.
WORKERS = 1
# Checking a password is slow on purpose (PBKDF2) and every request carries one: a right password is remembered for a
# minute, or until MLflow changes it.
PASSWORD_CACHE_S = 60


@contextmanager
def mlflow_server(
    folder: Path, port: int, database: str, secrets: Passwords, store: Mapping[str, str]
) -> Iterator[Child]:
    """Run MLflow's server; it is yielded once it accepts the login. `store`: the S3 store's `credentials`."""
    config = folder / "auth.ini"
    private_write(config, _auth_configuration(database))
    environment = {
        **os.environ,
        **store,
        "PGPASSWORD": secrets.database,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.mlflow,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.cookies,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of its evaluation of agents: more processes
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--workers={WORKERS}", "--app-name=basic-auth", f"--backend-store-uri={database}"]
    command.append(f"--artifacts-destination=s3://{MLFLOW_BUCKET}")
    with Child("mlflow", command, folder, environment) as server:
        server.wait_for(lambda: _accepts_login(port, secrets), MLFLOW_START_S)
        yield server


def _auth_configuration(database: str) -> str:
    lines = [
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = {database}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        f"auth_cache_ttl_seconds = {PASSWORD_CACHE_S}",
    ]
    return "\n".join(lines) + "\n"


def _accepts_login(port: int, secrets: Passwords) -> bool:
    """Tell whether the server accepts our login. Raises UserError where it refuses the password."""
    if not _healthy(port):
        return False
    try:
        check_login(f"http://{USER}:{secrets.mlflow}@127.0.0.1:{port}")
    except UserError as error:
        if "refuses" in str(error):
            raise
        return False  # the first answer may take longer than a study would wait
    return True


def _healthy(port: int) -> bool:
    """Tell whether the server answers that it is healthy."""
    try:  # without a proxy: loopback never goes through one
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False

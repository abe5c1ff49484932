"""An S3 store for development: nanio, a small young server (alpha) that checks signatures and keeps objects as plain
files. It is there so that what speaks S3 is tried against something that does; production has its own.

Of uploads in pieces with a checksum behind them, as newer SDKs send by default, nanio 0.1.7 stores the framing too: the
file is another one. Clients leave those checksums out when their environment says so, and `credentials` does.

MLflow's own server with its basic-auth app: nothing without a login, files through it and not around it.
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
from lethe.ops.dev_services.process import Child, answers
from lethe.tracking.connection import check_login

BUCKET = "mlflow"  # of MLflow's files
ROOT = "lethe"  # for LETHE_HOME=s3://lethe/...
OBJECTS_START_S = 30.0


def credentials(port: int, words: Passwords) -> dict[str, str]:
    """What an S3 client reads from its environment to come here."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": words.s3_key,
        "AWS_SECRET_ACCESS_KEY": words.s3_secret,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }


@contextmanager
def objects(folder: Path, port: int, words: Passwords) -> Iterator[Child]:
    """The store, with its buckets."""
    data = folder / "objects"
    data.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "NANIO_ACCESS_KEY": words.s3_key, "NANIO_SECRET_KEY": words.s3_secret}
    command = [sys.executable, "-P", "-m", "nanio", "serve", "--data-dir", str(data), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--no-access-log"]
    with Child("objects", command, folder, environment) as server:
        server.wait_for(lambda: answers(port), OBJECTS_START_S)
        _make_buckets(port, words)
        yield server


def _make_buckets(port: int, words: Passwords) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=words.s3_key,
        aws_secret_access_key=words.s3_secret,
    )
    known = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    for name in (BUCKET, ROOT):
        if name not in known:
            client.create_bucket(Bucket=name)


MLFLOW_START_S = 180.0  # its imports take 5 to 20 s, and more on a busy machine; the first start makes the tables
# With more than one worker, uvicorn takes one for dead that does not answer within 5 s, and importing MLflow takes that
# long on a busy machine: it killed each in turn and never came up. One alone is not watched, and up sooner.
WORKERS = 1
# Checking a password is slow on purpose (PBKDF2) and every request carries one: a right one is remembered for a minute.
# One that MLflow is told to change is forgotten at once.
REMEMBER_S = 60


@contextmanager
def mlflow_server(
    folder: Path, port: int, database: str, words: Passwords, store: Mapping[str, str]
) -> Iterator[Child]:
    """The server, once it lets us in. `store`: the S3 store's place and credentials."""
    config = folder / "auth.ini"
    private_write(config, _auth(database))
    environment = {
        **os.environ,
        **store,
        "PGPASSWORD": words.database,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": words.mlflow,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": words.cookies,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of its evaluation of agents: more processes
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--workers={WORKERS}", "--app-name=basic-auth", f"--backend-store-uri={database}"]
    command.append(f"--artifacts-destination=s3://{BUCKET}")
    with Child("mlflow", command, folder, environment) as server:
        server.wait_for(lambda: _lets_in(port, words), MLFLOW_START_S)
        yield server


def _auth(database: str) -> str:
    lines = [
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = {database}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        f"auth_cache_ttl_seconds = {REMEMBER_S}",
    ]
    return "\n".join(lines) + "\n"


def _lets_in(port: int, words: Passwords) -> bool:
    """Its first answer may take longer than a study would wait. BadInput where it knows another password."""
    if not _healthy(port):
        return False
    try:
        check_login(f"http://{USER}:{words.mlflow}@127.0.0.1:{port}")
    except UserError as error:
        if "refuses" in str(error):
            raise
        return False
    return True


def _healthy(port: int) -> bool:
    """Loopback never goes through a proxy."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False

"""An S3 store for development: nanio, a small young server (alpha) that checks signatures and keeps objects as plain
files. It is there so that what speaks S3 is tried against something that does; production has its own.

Of uploads in pieces with a checksum behind them, as newer SDKs send by default, nanio 0.1.7 stores the framing too: the
file is another one. Clients leave those checksums out when their environment says so, and `credentials` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lethe.services.child import Child, answers
from lethe.services.passwords import Passwords

BUCKET = "mlflow"  # of MLflow's files
ROOT = "lethe"  # for LETHE_HOME=s3://lethe/...
START_S = 30.0


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
        server.wait_for(lambda: answers(port), START_S)
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

"""Addresses of objects: s3://bucket/folder, gs://bucket/folder, file:///folder; credentials are the environment's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lethe.config.addresses import without_password
from lethe.errors import BadInput

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "file")
CONNECT_S, REQUEST_S = 5.0, 60.0


@dataclass(frozen=True)
class Address:
    """`url` as it may be shown, without a slash at its end; `folder` as the file system of `scheme` knows it."""

    url: str
    scheme: str
    folder: str

    def open(self) -> FileSystem:
        """The file system, which has not connected yet."""
        from pyarrow import fs

        if self.scheme == "file":
            return fs.LocalFileSystem()
        if self.scheme == "gs":
            from datetime import timedelta

            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_S))
        # pyarrow takes keys and region from the environment as other clients do, the endpoint not.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(
            endpoint_override=endpoint,
            connect_timeout=CONNECT_S,
            request_timeout=REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        )


def parse(url: str, key: str) -> Address:
    """Raises BadInput, which calls the address `key`, for one that is none or has credentials in it."""
    shown = without_password(url).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput(f"{key} {shown}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise BadInput(f"{key} {shown}: an address begins with s3://, gs:// or file://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadInput(f"{key} {shown}: keys and options belong in the environment (AWS_*, GOOGLE_*), not in the address")
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise BadInput(f"{key} {shown}: say s3://bucket/folder, gs://bucket/folder or file:///folder")
    return Address(shown, parts.scheme, (parts.netloc + unquote(parts.path)).rstrip("/"))

"""The connection to an MLflow store: its address, whether it can be reached, and whether it accepts our credentials.

Checked before a study starts and without importing MLflow, which takes seconds. `quiet_mlflow` keeps
it from writing to the console and from sending usage data to its makers.
"""

from __future__ import annotations

import base64
import configparser
import os
import shlex
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, getproxies, proxy_bypass, urlopen

from lethe.config.addresses import without_password
from lethe.errors import UserError
from lethe.storage.paths import home, require_database
from lethe.storage.sqlite_schema import MLFLOW
from lethe.terminal import command_prefix
from lethe.tracking.mlflow_pages import runs_page

CONNECT_LIMIT_S = 2.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
MANAGED = ("databricks", "databricks-uc")  # their addresses are in a profile, not in the URI
SQLITE_HEADER = b"SQLite format 3\0"

LOGIN_LIMIT_S = 10.0  # a new server makes its tables at the first request
LOGIN_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
LOGIN_HINT = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # failures are raised as well, and become one warning of ours
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A dead server must not hold a study's end for the 7 retries of 2 minutes that MLflow defaults to.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def quiet_mlflow() -> None:
    """Set MLflow's environment variables to `DEFAULTS` where the user has not set them. Call it before MLflow is
    imported: most of them are read then."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


# The address


def resolve_uri(uri: str | None = None) -> str:
    """Return `uri`, else MLFLOW_TRACKING_URI, else the address of a SQLite file in the storage root. Raises UserError
    where the storage root is an object store and no address is given."""
    if uri or (uri := os.environ.get("MLFLOW_TRACKING_URI")):
        return uri
    require_database("tracking.uri", "name MLflow's server, or set MLFLOW_TRACKING_URI")
    return _local_store()


def _local_store() -> str:
    """Return the address of a SQLite file in the storage root."""
    return f"sqlite:///{home() / 'mlflow.db'}"


def store_of(study: Mapping[str, Any]) -> str | None:
    """Return the address, without a password, of the MLflow store of a study with these settings; None where it tracks
    nothing, or no address is known."""
    tracking = study.get("tracking") or {}
    if not tracking.get("enabled", True):
        return None
    try:
        return without_password(resolve_uri(tracking.get("uri")))
    except UserError:
        return None


def artifact_root(uri: str) -> str | None:
    """Return where an experiment's files go: beside a SQLite file, in the storage root for another database, None for a
    server, which decides itself."""
    scheme = _scheme(uri)
    if scheme == "sqlite":
        return (sqlite_path(uri).parent / "mlartifacts").as_uri()
    if scheme.startswith("http") or scheme in MANAGED:
        return None
    return (home() / "mlartifacts").as_uri()


def study_link(uri: str, experiment: str, study: str) -> str:
    """Return where a person sees a study's runs: the page that lists them, or the command that opens it where no server
    is known; without a password."""
    if _scheme(uri).startswith("http"):
        return f"{without_password(uri).rstrip('/')}/{runs_page(experiment, study)}"
    given = "" if uri == _local_store() else f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} "
    return f"{given}{command_prefix()}ui {study}"


def sqlite_path(uri: str) -> Path:
    """Return the absolute path of a `sqlite:///relative` or `sqlite:////absolute` address. Raises UserError for one
    that names no file."""
    path = unquote(uri.split("://", 1)[-1].split("?", 1)[0]).removeprefix("/")
    if not path or path == ":memory:":
        raise UserError(f"cannot track to {uri!r}: name a file, such as sqlite:////folder/mlflow.db")
    return Path(path).absolute()


def _scheme(uri: str) -> str:
    """Return the scheme without a driver: `postgresql` for `postgresql+psycopg2://`. MLflow takes a bare word as a
    managed store's name, and so does this."""
    return uri.split(":", 1)[0].split("+", 1)[0].lower()


# Can it be reached?


def check_uri(uri: str) -> None:
    """Raise UserError unless something answers at `uri` within 2 s, or its database file can be written."""
    scheme, printable = _scheme(uri), without_password(uri)
    if scheme in MANAGED:
        return
    if scheme == "sqlite":
        _check_database_file(sqlite_path(uri), printable)
    elif scheme in PORTS:
        _check_server(uri, scheme, printable)
    else:
        known = ", ".join(("sqlite", *PORTS))
        raise UserError(
            f"cannot track to {printable!r}: a store is one of {known}, such as sqlite:////folder/mlflow.db"
        )


def _check_database_file(path: Path, printable: str) -> None:
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise PermissionError(f"no permission to write in {folder}")
        if path.exists():
            with path.open("rb") as file:
                header = file.read(len(SQLITE_HEADER))
            if header and header != SQLITE_HEADER:
                raise OSError("the file is not a SQLite database")
            MLFLOW.check(path, printable)
    except OSError as error:
        raise UserError(f"cannot track to {printable}: {error.strerror or error}") from error


def _check_server(uri: str, scheme: str, printable: str) -> None:
    host, port = _endpoint(uri, scheme, printable)
    failure: list[str] = ["no answer"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_LIMIT_S).close()
            failure.clear()
        except OSError as error:
            failure[0] = str(error.strerror or error)

    # In a thread, since looking a name up has no time limit of its own.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_LIMIT_S)
    if failure:
        raise UserError(f"cannot reach the MLflow store at {printable} ({host}:{port}: {failure[0]})")


def _endpoint(uri: str, scheme: str, printable: str) -> tuple[str, int]:
    """Return host and port to connect to: a proxy's, where MLflow's own requests would take it."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"cannot track to {printable!r}: {error}") from error
    if not host:
        raise UserError(f"cannot track to {printable!r}: it names no host")
    proxy = getproxies().get(scheme) if scheme.startswith("http") and not proxy_bypass(host) else None
    if proxy:
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return via.hostname or host, via.port or PORTS["http"]
    return host, port or PORTS[scheme]


# Does it accept our credentials?


def check_login(uri: str) -> None:
    """Raise UserError where the server at `uri` does not answer as MLflow does, or refuses our credentials. Makes one
    request with the credentials that MLflow itself would send; stores that are no HTTP servers are not asked."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    printable = without_password(uri).rstrip("/")
    authorization = authorization_header(uri)
    headers = {"Authorization": authorization} if authorization else {}
    try:
        request = Request(printable + LOGIN_PATH, headers=headers)  # noqa: S310  # http or https, see above
        urlopen(request, timeout=LOGIN_LIMIT_S).close()  # noqa: S310  # as above
    except HTTPError as error:
        if error.code in (401, 403):
            refused = "these credentials" if authorization else "requests without credentials"
            raise UserError(
                f"the MLflow server at {printable} refuses {refused} ({error.code}): {LOGIN_HINT}"
            ) from None
        raise UserError(
            f"the server at {printable} answers {error.code} where MLflow would not: is it an MLflow server?"
        ) from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"the MLflow server at {printable} gives no answer within {LOGIN_LIMIT_S:g} s ({reason})"
        ) from None


def authorization_header(uri: str) -> str | None:
    """Return the Authorization header for `uri`, None without credentials: from the address, the environment, or
    ~/.mlflow/credentials, in that order."""
    parts = urlsplit(uri)
    if parts.username:
        return _basic(unquote(parts.username), unquote(parts.password or ""))
    stored = _stored_credentials()
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or stored.get("mlflow_tracking_username")
    if user:
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or stored.get("mlflow_tracking_password")
        return _basic(user, password or "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _stored_credentials() -> dict[str, str]:
    """Return the `mlflow` section of ~/.mlflow/credentials; {} where it cannot be read, as MLflow does."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(Path.home() / ".mlflow" / "credentials")
        return dict(parser["mlflow"])
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        return {}

"""Whether an MLflow server lets us in: one request with the credentials that MLflow itself would send."""

from __future__ import annotations

import base64
import configparser
import os
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from lethe.errors import BadInput
from lethe.tracking.address import without_password

LIMIT_S = 10.0  # a new server makes its tables at the first request
ASK = "/api/2.0/mlflow/experiments/search?max_results=1"
HOW = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def check_login(uri: str) -> None:
    """Raise BadInput where the server at `uri` does not answer as MLflow, or refuses us. Other stores are not asked."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    shown = without_password(uri).rstrip("/")
    sent = header(uri)
    try:
        urlopen(Request(shown + ASK, headers={"Authorization": sent} if sent else {}), timeout=LIMIT_S).close()
    except HTTPError as error:
        if error.code in (401, 403):
            given = "these credentials" if sent else "requests without credentials"
            raise BadInput(f"the MLflow server at {shown} refuses {given} ({error.code}): {HOW}") from None
        raise BadInput(f"the server at {shown} answers {error.code} where MLflow would not: is it an MLflow server?") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"the MLflow server at {shown} gives no answer within {LIMIT_S:g} s ({reason})") from None


def header(uri: str) -> str | None:
    """The Authorization header: from the address, the environment, or ~/.mlflow/credentials; in that order."""
    parts = urlsplit(uri)
    if parts.username:
        return _basic(unquote(parts.username), unquote(parts.password or ""))
    stored = _stored()
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or stored.get("mlflow_tracking_username")
    if user:
        word = os.environ.get("MLFLOW_TRACKING_PASSWORD") or stored.get("mlflow_tracking_password")
        return _basic(user, word or "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _basic(user: str, word: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()


def _stored() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(Path.home() / ".mlflow" / "credentials")
        return dict(parser["mlflow"])
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        return {}  # MLflow ignores what it cannot read, too

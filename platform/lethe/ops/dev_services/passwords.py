"""The services' passwords: made once, kept in files that only their owner reads, never in a command line or a log."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lethe.errors import UserError
from lethe.storage.files import atomic_file

FILE = "passwords.json"
USER = "lethe"  # of MLflow, as its administrator, and of PostgreSQL


@dataclass(frozen=True)
class Passwords:
    """The services' secrets: `cookies` is the key that MLflow's pages sign theirs with, the last two are the S3
    store's."""

    database: str
    mlflow: str
    cookies: str
    s3_key: str
    s3_secret: str


def passwords(folder: Path) -> Passwords:
    """The ones in `folder`, made if there are none; data that were written with them need the same ones again."""
    path = folder / FILE
    if not path.exists():
        # Hexadecimal: they stand in addresses, shells and TOML without quoting.
        made = Passwords(*(secrets.token_hex(16) for _ in Passwords.__dataclass_fields__))
        private_write(path, json.dumps(asdict(made), indent=1) + "\n")
        return made
    try:
        return Passwords(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as the services' passwords ({type(error).__name__}): restore it"
        ) from None


def exports(values: Mapping[str, str]) -> str:
    """Lines for a shell that reads the file with `.`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def private_write(path: Path, content: str) -> None:
    """Write a file that only its owner reads, at any time."""
    with atomic_file(path, 0o600) as file:
        file.write(content.encode())

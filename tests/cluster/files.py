"""The files in cluster/, read as those read them for whom they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import ROOT

CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text()
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|PGPASS", re.IGNORECASE)


def pins() -> dict[str, str]:
    """requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: (instruction, arguments), continued lines joined."""
    lines = [line for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def arguments(instruction: str) -> list[str]:
    """Of every such instruction of the Dockerfile, in order."""
    return [rest for name, rest in instructions() if name == instruction]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a document with its path."""
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, f"{path}.{key}")
    else:
        yield path, value


def documents(path: str) -> list[dict[str, Any]]:
    """Of a YAML file in cluster/."""
    return [found for found in yaml.safe_load_all((CLUSTER / path).read_text()) if found]

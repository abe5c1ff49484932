"""The image's recipe: a lint, and whether what it installs is there and pinned. Nothing builds it here."""

from __future__ import annotations

import fnmatch
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lethe.ops.doctor.machine import PYTHONS
from tests.cluster.files import CLUSTER, SECRET_NAME, arguments, instructions, pins
from tests.conftest import ROOT

KNOWN = {"FROM", "SHELL", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}


def copied() -> list[str]:
    """Sources of every COPY, as paths of the checkout."""
    return [source for rest in arguments("COPY") for source in rest.split()[:-1]]


def installed() -> list[str]:
    """Every `pip install` of the recipe."""
    return [command for run in arguments("RUN") for command in run.split("&&") if " pip install " in command]


def test_the_base_is_pinned_to_our_python() -> None:
    (base,) = arguments("FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim-[a-z]+", base)
    assert version is not None
    assert tuple(map(int, version.groups())) in PYTHONS


def test_every_instruction_is_known_and_nothing_is_downloaded_by_hand() -> None:
    assert {name for name, _ in instructions()} <= KNOWN
    for command in arguments("RUN"):
        assert not re.search(r"\b(curl|wget) +(-\S+ +)*https?:|\bsudo\b|--trusted-host|index-url", command)
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists/*" in command


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    (user,) = arguments("USER")
    assert user == "1000"
    assert "--uid 1000" in arguments("RUN")[0]
    assert max(i for i, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER")


def test_no_secret_is_in_it() -> None:
    assert not arguments("ARG")
    for name in re.findall(r"(\w+)=", " ".join(arguments("ENV"))):
        assert not SECRET_NAME.search(name), name
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*", "what is not named stays behind"
    assert [p for p in ignored if not p.startswith("!")] == ["*", "**/__pycache__"]


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_sent_to_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    sent = [line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")]
    assert any(fnmatch.fnmatch(source, pattern) for pattern in sent)


def test_its_folder_is_the_checkout_that_a_job_needs() -> None:
    """`python -m platform.sweep` there finds code and studies, and an editable install says where `lethe` is."""
    assert {"platform", "search_spaces", "pyproject.toml", "setup.py", "README.md"} <= set(copied())
    (folder,) = arguments("WORKDIR")
    order = [name for name, _ in instructions()]
    assert folder.startswith("/")
    assert order.index("WORKDIR") < order.index("COPY")
    for rest in arguments("COPY"):
        *sources, target = rest.split()
        assert not target.startswith("/")
        assert target == "./" or all(Path(target) == Path(s) or Path(target) == Path(s).parent for s in sources), rest
    assert installed()[-1].split()[-2:] == ["-e", "."]


def test_what_pip_reads_was_copied_before() -> None:
    seen: set[str] = set()
    for name, rest in instructions():
        if name == "COPY":
            seen |= set(rest.split()[:-1])
        elif name == "RUN":
            words = shlex.split(rest)
            read = {words[i + 1] for i, word in enumerate(words) if word == "-r"}
            assert read <= seen, rest
            assert "-e" not in words or {"pyproject.toml", "setup.py", "README.md", "platform", "search_spaces"} <= seen


def test_every_package_is_pinned_and_the_lock_has_what_lethe_wants() -> None:
    first, last = installed()
    files = [ROOT / words for words in re.findall(r"-r (\S+)", first)]
    assert [f.name for f in files] == ["requirements.lock", "requirements.txt"]
    assert "--no-deps" in last
    for line in (line for f in files for line in f.read_text().splitlines() if not line.startswith("#")):
        assert re.fullmatch(r"[\w.-]+==[0-9][0-9a-z.]*", line), line
    extra = {line.split("==")[0].lower() for line in files[1].read_text().splitlines() if not line.startswith("#")}
    assert not extra & {name.lower() for name in pins()}, "two pins for one package"
    assert {"botocore", "jmespath", "s3transfer", "wtforms"} <= extra, "what boto3 and Flask-WTF need besides"


def test_the_lock_is_whole() -> None:
    """Every package that a locked one needs is locked too: installed without asking for anything else."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, requires

    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in pins()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing, known = set(), set()
    waiting = [Requirement(line) for line in wanted]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if (name, frozenset(requirement.extras)) in known:
            continue
        known.add((name, frozenset(requirement.extras)))
        if name not in locked:
            missing.add(name)
            continue
        try:
            needs = [Requirement(line) for line in requires(requirement.name) or ()]
        except PackageNotFoundError:
            continue
        for extra in (*requirement.extras, ""):
            waiting += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    assert missing <= {"setuptools", "pip"}
    assert version("ray") == pins()["ray"]

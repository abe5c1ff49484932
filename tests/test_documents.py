"""Documents name only existing things: linked files, files in backticks, the journeys' functions and their counts."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "platform" / "lethe"
OUTSIDE_DOCS = ("README.md", "CHANGELOG.md", "cluster/README.md")
DOCUMENTS = sorted([*(ROOT / name for name in OUTSIDE_DOCS), *(ROOT / "docs").glob("*.md")])
# LOG.md says what was measured when, with the files of that time; CONTRIBUTING.md shows files that a reader adds.
PRESENT = [path for path in DOCUMENTS if path.name not in ("LOG.md", "CONTRIBUTING.md")]
FOLDERS = (ROOT, ROOT / "platform", LIBRARY, LIBRARY / "unlearning", ROOT / "docs", ROOT / "tests")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|md|yaml|toml|json|sh|txt|j2))`")
ROW = re.compile(r"^\| (?P<back>↩ )?`(?P<file>[\w./-]+)` \| (?P<names>[^|]*) \|", re.MULTILINE)
COUNT = re.compile(r"^Count: (\d+) files, (\d+) returns", re.MULTILINE)


def journeys() -> dict[str, str]:
    """Return the text of each journey by its title."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.split("\n## Journeys\n")[1].split("\n## ")[0]
    return {part.split("\n")[0]: part for part in section.split("\n### ")[1:]}


@cache
def defined(path: Path) -> frozenset[str]:
    """Return the dotted names of the classes, functions, methods and nested functions in a module."""
    names = set()

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + child.name)
                walk(child, f"{prefix}{child.name}.")

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return frozenset(names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_resolve(document: Path) -> None:
    """Those with a scheme and those inside the document are not looked at."""
    links = [link.split("#")[0] for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_in_backticks_exist(document: Path) -> None:
    """A path begins at the root of the repository or in a folder that the documents leave out."""
    files = FILE.findall(document.read_text(encoding="utf-8"))
    assert [file for file in files if not any((folder / file).is_file() for folder in FOLDERS)] == []


@pytest.mark.parametrize("title", journeys())
def test_a_journey_names_what_exists(title: str) -> None:
    """Each row has a file and the functions there."""
    missing = []
    for row in ROW.finditer(journeys()[title]):
        path = next((folder / row["file"] for folder in (LIBRARY, ROOT) if (folder / row["file"]).is_file()), None)
        known = defined(path) if path is not None and path.suffix == ".py" else frozenset()
        missing += [f"{row['file']}: {name}" for name in re.findall(r"`([^`]+)`", row["names"]) if name not in known]
        missing += [row["file"]] if path is None else []
    assert missing == []


@pytest.mark.parametrize("title", journeys())
def test_a_journey_counts_its_files_and_returns(title: str) -> None:
    """A file that is in an earlier row is a return, and marked as one."""
    text = journeys()[title]
    rows = list(ROW.finditer(text))
    assert len(rows) == text.count("\n| ") - 1, "every row but the head has a file"
    seen: set[str] = set()
    for row in rows:
        assert (row["file"] in seen) == bool(row["back"]), row["file"]
        seen.add(row["file"])
    count = COUNT.search(text)
    assert count is not None
    assert (len(seen), len(rows) - len(seen)) == (int(count[1]), int(count[2]))

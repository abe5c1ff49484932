"""The documentation as a site: `make docs`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
WRITTEN = {"commands.md"}  # by docs/site.py, in the site alone


def pages(nav: Any) -> Iterator[str]:
    """Every page that a part of the navigation names."""
    for part in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from [part] if isinstance(part, str) else pages(part)


def test_the_navigation_names_every_document_once() -> None:
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    outside = ("README.md", "CHANGELOG.md", "cluster/README.md")
    assert sorted(pages(CONFIG["nav"])) == sorted({*documents, *WRITTEN, *outside})


@pytest.mark.slow
@pytest.mark.skipif(
    not find_spec("material") or not find_spec("mkdocstrings"), reason="needs the extra docs: make docs"
)
def test_the_site_builds_without_a_broken_link_and_asks_no_other_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stdout + process.stderr
    for page, words in {
        "index.html": "Licence",
        "commands.html": "lethe sweep",
        "api.html": "load_study",
        "reference.html": "run.optimizer.clip_threshold",
        "reports/example/report.html": "forget",
    }.items():
        assert words in (tmp_path / page).read_text(encoding="utf-8"), page
    loaded = r'<(link [^>]*rel="(stylesheet|preload|preconnect|icon)"[^>]*href|script[^>]* src|img[^>]* src)="https?:'
    assert [page.name for page in tmp_path.glob("*.html") if re.search(loaded, page.read_text(encoding="utf-8"))] == []

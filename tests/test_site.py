"""The documentation as a site: `make docs`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml

from tests.browser import CONTRAST

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


needs_docs = pytest.mark.skipif(
    not find_spec("material") or not find_spec("mkdocstrings"), reason="needs the extra docs: make docs"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make docs` does: a link that leads nowhere fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", str(folder)]
    process = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site's address on loopback."""
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and prints no line per request."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@needs_docs
@pytest.mark.slow
def test_the_site_builds_without_a_broken_link_and_asks_no_other_server(site: Path) -> None:
    for page, words in {
        "index.html": "Licence",
        "commands.html": "lethe sweep",
        "api.html": "load_study",
        "reference.html": "run.optimizer.clip_threshold",
        "reports/example/report.html": "forget",
    }.items():
        assert words in (site / page).read_text(encoding="utf-8"), page
    loaded = r'<(link [^>]*rel="(stylesheet|preload|preconnect|icon)"[^>]*href|script[^>]* src|img[^>]* src)="https?:'
    assert [page.name for page in site.glob("*.html") if re.search(loaded, page.read_text(encoding="utf-8"))] == []


@needs_docs
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_a_reader_finds_a_setting_and_opens_a_report(
    served: str, browser: Browser, width: int, scheme: Literal["light", "dark"]
) -> None:
    """By the search and by the first page's links, with nothing wider than the window and no error in the console."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
    page.goto(f"{served}/index.html")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width < 1000:
        page.locator("label.md-header__button[for=__search]").click()
    page.locator("input.md-search__input").press_sequentially("clip_threshold")  # the theme waits for keys
    page.locator(".md-search-result__link[href*='reference.html']").first.click()
    page.wait_for_url("**/reference.html*")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"{served}/index.html")
    page.locator("article a[href$='report.html']").first.click()
    assert "forgotten" in page.locator("body").inner_text().lower()
    page.goto(f"{served}/operator.html")
    assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
    assert [text for text in page.evaluate(CONTRAST) if not text.endswith("¶")] == [], "the sign of links to headings"
    page.close()
    assert errors == []

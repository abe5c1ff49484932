"""A real Chromium for tests of pages: Debian's, driven by playwright, which brings none of its own here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


# Per file and not per session: playwright leaves its event loop running in the main thread, where `asyncio.run` then
# fails; a start takes a second.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file's tests; each opens a page of its own with `browser.new_page(viewport=...)`."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package chromium, or set CHROMIUM to a program")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without --no-sandbox Chromium refuses to run as root, as it does in containers.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()

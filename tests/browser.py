"""A real Chromium for tests of pages: Debian's, driven by playwright, which brings none of its own here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

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


# Every visible text whose contrast is too low for WCAG AA, with its ratio. A pixel of a canvas blends colors as the
# page does, whatever notation they are computed in.
CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const blended = (colors) => {
    pen.clearRect(0, 0, 1, 1);
    for (const color of colors) { pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(blended(grounds)), light(blended([...grounds, ink]))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.7 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return [...new Set(found)];
}"""


def opened(browser: Browser, file: Path, width: int = 1400, fragment: str = "", **settings: object) -> Page:
    """The page in a window of its own; `errors` of the page has what the browser complained about."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
    page.errors = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.errors.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(file.as_uri() + fragment)
    if settings.get("java_script_enabled", True):
        page.wait_for_selector("html.plots-ready")
    return page


def draw_all(page: Page) -> None:
    """Scroll to every figure: they are drawn when they come near."""
    for name in page.eval_on_selector_all("[data-figure]", "all => all.map((figure) => figure.dataset.figure)"):
        page.locator(f"[data-figure='{name}']").scroll_into_view_if_needed()
        page.wait_for_selector(f"[data-figure='{name}'].drawn .plot-container")


def check_links(page: Page, file: Path) -> None:
    """Fail where a link leads to no trial of the page, to no place in it, to no file beside it and to no server."""
    for link in set(page.eval_on_selector_all("a", "all => all.map((link) => link.getAttribute('href'))")):
        if link.startswith("#trial-"):
            assert page.evaluate("(n) => known(Number(n)) !== undefined", link.removeprefix("#trial-")), link
        elif link.startswith("#"):
            assert page.locator(f"[id='{link[1:]}']").count() == 1, link
        elif not link.startswith("http://"):
            assert (file.parent / link).is_file(), link


def reached_by_keyboard(page: Page, presses: int) -> set[str]:
    """Return what the focus comes to with so many presses of Tab: `A #next true`, the element with its address or
    label, and whether an outline shows the focus."""
    reached = set()
    for _ in range(presses):
        page.keyboard.press("Tab")
        place = page.evaluate("""() => {
          const at = document.activeElement, shown = getComputedStyle(at).outlineStyle !== "none";
          return `${at.tagName} ${at.getAttribute("href") ?? at.getAttribute("aria-label") ?? ""} ${shown}`;
        }""")
        reached.add(place)
    return reached

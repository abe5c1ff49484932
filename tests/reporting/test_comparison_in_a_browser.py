"""A comparison's page in a real Chromium: its figures are linked, its tables sort and filter, everybody can read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lethe.reporting.report import write_report
from tests.browser import CONTRAST, check_links, draw_all, opened, reached_by_keyboard
from tests.reporting.comparisons import comparison_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = comparison_study("tdec", objectives=comparison_study().objectives)
    metrics = {"epochs_to_criterion": 6.0, "perplexity": 24.0, "utility": 0.5, "train_seconds": 60.0}
    trials = tuple(t.model_copy(update={"metrics": {**t.metrics, **metrics}}) for t in record.trials)
    record = record.model_copy(update={"trials": trials})
    return write_report(record, tmp_path_factory.mktemp("comparison"))


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_everything_is_drawn_readable_and_as_wide_as_the_window(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = opened(browser, report, width, color_scheme=scheme)
    draw_all(page)
    page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    assert page.locator("[data-figure^=arms-].drawn").count() >= 4
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def test_the_first_screen_answers_and_figures_and_tables_work(browser: Browser, report: Path) -> None:
    page = opened(browser, report)
    shown = page.locator("header.opening")
    questions = ["What was done", "What won", "Is it enough", "What it cost", "How far to trust it"]
    assert shown.locator("dl.facts dt").all_inner_texts() == questions
    for selector in ("h1", "dl.facts", "[data-figure=front]", "#next"):
        box = shown.locator(selector).bounding_box()
        assert box
        assert box["y"] + box["height"] < 900, f"{selector} is below the first screen"
    names = page.locator("[data-figure=front] .legendtext").all_text_contents()
    assert names == ["FO-GA", "SO-GA"], "a reference is a line, and no point of SO-NPO is left"
    reached = reached_by_keyboard(page, 60)
    assert {"A #arms true", "INPUT filter the table true", "BUTTON  true", "DIV  true"} <= reached
    assert not [place for place in reached if place.endswith("false") and not place.startswith("BODY")]
    # The table of the papers sorts by its second row of headings, and is filtered by their names.
    table = page.locator("table.papers").first
    table.locator("th button", has_text="hypervolume").click()
    assert table.locator("tbody tr").first.get_attribute("data-row") == "Guard"
    page.get_by_label("filter the table").first.fill("ours hypervolume > 0.3")
    assert table.locator("tbody tr:not([hidden])").evaluate_all("all => all.map((r) => r.dataset.row)") == ["SO-GA"]
    # A seed's point marks its trial in every figure and table.
    strip = page.locator("[data-figure=arms-hypervolume]")
    strip.scroll_into_view_if_needed()
    page.wait_for_selector("[data-figure=arms-hypervolume].drawn .plot-container")
    page.evaluate("togglePin(3)")
    page.wait_for_selector("tr.marked[data-trial='3']", state="attached")
    points = strip.locator(".live").evaluate("(box) => box.data.at(-1).x.filter((x) => x !== null)")
    assert points == [0.5]
    check_links(page, report)
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def test_without_scripts_the_page_has_its_drawings(browser: Browser, report: Path) -> None:
    page = opened(browser, report, java_script_enabled=False)
    for figure in page.locator("[data-figure=front], [data-figure^=arms-]").all():
        assert figure.locator(".static svg").first.is_visible()
    page.close()

"""The report in a real Chromium: figures, tables and trial pages work, and everybody can read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lethe.records import CriterionRecord, StudyRecord, VerdictRecord
from lethe.reporting.report import write_report
from lethe.tracking.aliases import Registered
from tests.browser import CONTRAST, check_links, draw_all, opened, reached_by_keyboard
from tests.tracking.studies import EVIL, busy_study, repeated, study, trial

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def judged(record: StudyRecord) -> StudyRecord:
    """The study with a verdict on the knee, trial 2."""
    criteria = (
        CriterionRecord(metric="forget_quality", value=0.4, bound="at least 0.05", holds=True),
        CriterionRecord(metric="utility", value=0.45, bound="at least 0.54 (0.9 start)", holds=False, start=0.6),
    )
    verdict = VerdictRecord(forgotten="partly", criteria=criteria)
    trials = tuple(t.model_copy(update={"forgotten": verdict}) if t.number == 2 else t for t in record.trials)
    return record.model_copy(update={"trials": trials})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shares = {"forget": {"optimizer.learning_rate": 1.0}}
    record = judged(repeated(busy_study(importance=shares)))
    pages = {2: "#/experiments/1/runs/ab"}
    record = Registered(pages=pages).add_to(record)
    return write_report(record, tmp_path_factory.mktemp("report"), store="http://mlflow:5000/", model="lethe-tofu")


@pytest.fixture(scope="module")
def window(browser: Browser, report: Path) -> Iterator[Page]:
    page = opened(browser, report)
    draw_all(page)
    yield page
    page.close()


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """The one window that most tests share, as it was when it was opened, but for the order of rows."""
    window.evaluate("location.hash = ''")
    window.evaluate("scrollTo(0, 0)")
    window.mouse.move(0, 0)
    window.get_by_label("filter the table").fill("")
    yield window
    assert window.errors == []


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_everything_is_drawn_readable_and_as_wide_as_the_window(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = opened(browser, report, width, color_scheme=scheme)
    draw_all(page)
    page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    assert page.locator(".drawn").count() == page.locator("[data-figure]").count() >= 6
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    page.goto(report.as_uri() + "#trial-2")
    page.wait_for_selector("#trial h1")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    assert page.errors == []
    page.close()


OVERLAPS = """(svg) => {
  const boxes = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
  return boxes.flatMap(([name, box], at) => boxes.slice(at + 1).filter(([_, other]) => meet(box, other))
    .map(([other]) => `${name} and ${other}`));
}"""


def test_labels_of_close_members_do_not_overlap_in_any_width(browser: Browser, tmp_path: Path) -> None:
    close = [trial(n, 0.2 + 0.004 * n, 0.45 + 0.003 * n, pareto_rank=0) for n in range(9)]
    record = study(*close, trial(20, 0.6, 0.5, pareto_rank=1), aliases={"knee": 4})
    page = opened(browser, write_report(record, tmp_path))
    for width in (1400, 1000, 700, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        live = page.locator("[data-figure=front] .live .scatterlayer")
        live.locator("text").first.wait_for()
        assert live.evaluate(OVERLAPS) == [], width
        shown = {text for text in live.locator("text").all_text_contents() if text}
        assert {"4 knee", "start", "oracle"} <= shown
        assert len(shown) >= 6, "those that have room"
    page.emulate_media(media="print")
    assert page.locator("[data-figure=front] .static svg").first.evaluate(OVERLAPS) == []
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def test_the_first_screen_answers_the_five_questions(page: Page) -> None:
    shown = page.locator("header.opening")
    assert shown.locator("h1").inner_text() == "Partly forgotten: none of 3 winners meets every criterion."
    assert shown.locator("dl.facts dt").all_inner_texts() == [
        "What was done",
        "What won",
        "What it cost",
        "How far to trust it",
    ]
    for selector in ("h1", "dl.facts", "[data-figure=front]", "#next"):
        box = shown.locator(selector).bounding_box()
        assert box
        assert box["y"] + box["height"] < 900, f"{selector} is below the first screen"


def marked(page: Page) -> set[str]:
    return set(page.eval_on_selector_all("tr.marked", "all => all.map((row) => row.dataset.trial)"))


def overlay(page: Page, figure: str) -> int:
    """How many points of trials are marked in a figure."""
    return int(
        page.evaluate(
            """(name) => {
              const {data} = document.querySelector(`[data-figure="${name}"] .live`);
              return data.at(-1).x.filter((x) => x !== null).length;
            }""",
            figure,
        )
    )


def test_a_trial_that_is_pointed_at_is_marked_everywhere(page: Page) -> None:
    point = page.locator("[data-figure=front] .scatterlayer .trace .points path.point")
    page.locator("[data-figure=front]").scroll_into_view_if_needed()
    places = [point.nth(index).bounding_box() for index in range(point.count())]
    for box in places:
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(80)
        if "2" in marked(page):
            break
    assert marked(page) == {"2"}
    assert overlay(page, "front") == 1
    assert page.locator(".hoverlayer .hovertext").first.is_visible()
    page.mouse.move(5, 5)
    row = page.locator("table.sortable tr[data-trial='1']")
    row.scroll_into_view_if_needed()
    row.hover()
    page.wait_for_selector("tr.marked[data-trial='1']")
    # Every place of the trial: two slices' scores, and each end of its line.
    assert overlay(page, "epochs-forget") == 4


def test_the_table_sorts_and_filters(page: Page) -> None:
    numbers = "table.sortable tbody tr:not([hidden])"

    def shown() -> list[str]:
        return [str(n) for n in page.eval_on_selector_all(numbers, "all => all.map((row) => row.dataset.trial)")]

    page.locator("table.sortable th button", has_text="utility").click()
    assert shown()[:3] == ["4", "1", "2"]
    assert set(shown()[-2:]) == {"7", "8"}, "what is missing comes last"
    page.keyboard.press("Enter")  # the button has the focus
    assert shown()[:3] == ["0", "3", "5"]
    assert set(shown()[-2:]) == {"7", "8"}
    page.get_by_label("filter the table").fill("utility > 0.4, knee")
    assert shown() == ["2"]
    assert page.get_by_text("1 of 9", exact=True).is_visible()


def test_a_trial_has_a_page(page: Page) -> None:
    page.locator("table.sortable a.number", has_text="2").first.click()
    view = page.locator("#trial")
    assert view.locator("h1").inner_text() == "Trial 2 · knee"
    assert not page.locator("#study").is_visible()
    text = view.inner_text()
    for words in (EVIL, "the start model's answer", "a retained answer", "the oracle's answer", "at least 0.54"):
        assert words in text
    assert view.locator(".live .plot-container").is_visible(), "its curve"
    run = view.get_by_role("link", name="run in MLflow")
    assert run.get_attribute("href") == "http://mlflow:5000/#/experiments/1/runs/ab"
    assert page.locator("script:not([type])").count() == 2, "what a model wrote is text"
    page.get_by_role("link", name="trial 3 →").click()
    page.wait_for_selector("#trial h1:text('Trial 3')")
    assert run.count() == 0, "this one was not tracked"
    page.get_by_role("link", name="← the study").click()
    page.wait_for_selector("#trial", state="hidden")
    assert page.locator("#study").is_visible()


def test_two_trials_stand_beside_each_other(page: Page) -> None:
    table = page.locator(".compare table")
    assert "Trial 2 · knee" in table.locator("thead").inner_text()
    page.get_by_label("second trial").select_option("0")
    rows = {row[0]: row[1:] for row in (text.split("\t") for text in table.locator("tr").all_inner_texts())}
    assert rows["forget"] == ["0.2", "0.5", "0.3"]
    assert rows["optimizer.learning rate"][:2] == ["3.00e−4", "1.00e−4"]
    assert "adapter.rank" not in rows, "it is the same in both"


def test_every_link_leads_somewhere(page: Page, report: Path) -> None:
    links = page.eval_on_selector_all("a", "all => all.map((link) => link.getAttribute('href'))")
    assert len(links) > 20
    check_links(page, report)


def test_a_keyboard_reaches_everything(page: Page) -> None:
    reached = reached_by_keyboard(page, 120)
    assert {"A #trial-2 true", "SELECT second trial true", "INPUT filter the table true"} <= reached
    assert any(place.startswith("SUMMARY") for place in reached)
    assert not [place for place in reached if place.endswith("false") and not place.startswith("BODY")]


def test_without_scripts_and_on_paper_the_page_has_its_drawings_and_tables(browser: Browser, report: Path) -> None:
    page = opened(browser, report, java_script_enabled=False)
    assert page.locator("[data-figure=front] .static svg").first.is_visible()
    assert page.locator("table.sortable tbody tr").count() == 9
    assert page.locator(".interactive:visible").count() == 0
    page.close()
    page = opened(browser, report)
    page.wait_for_selector("[data-figure=front] .plot-container")
    page.emulate_media(media="print")
    assert page.locator("[data-figure=front] .static svg").first.is_visible()
    assert not page.locator("[data-figure=front] .live").is_visible()
    assert page.errors == []
    page.close()

"""MLflow's own page in a real browser, on a recorded study: what a person sees, and after how many clicks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from lethe.errors import UserError
from lethe.ops.mlflow_page import mlflow_server, trials_page
from lethe.reporting.report import trials_csv, write_report
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.reporting.test_report_in_a_browser import judged
from tests.tracking.studies import busy_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
STUDY = judged(busy_study(id="tofu-1a2b3c4d"))
FRONT = (
    "best-forget 1 · forget 0.05 utility 0.35",
    "knee 2 · forget 0.2 utility 0.45",
    "best-utility 0 · forget 0.5 utility 0.58",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`lethe ui`'s server on a store with one study."""
    folder = tmp_path_factory.mktemp("mlflow")
    write_report(STUDY, folder / "report")
    tracker = MlflowTracker(f"sqlite:///{folder}/mlflow.db", register_models=False)
    tracker.begin(STUDY)
    tracker.finish(STUDY, folder / "report")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", port) as process:
        assert len(psutil.Process(process.pid).children(recursive=True)) <= 2, "no processes for jobs"
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def trials(browser: Browser, server: str) -> Iterator[Page]:
    """The page behind the study's link, with all rows."""
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.set_default_timeout(60_000)
    page.goto(trials_page(server, "tofu-1a"))
    page.get_by_role("link", name=FRONT[1]).wait_for()
    yield page
    page.close()


def headers(page: Page) -> list[str]:
    return page.get_by_role("columnheader").all_inner_texts()


def test_the_link_shows_trials_with_their_objectives_the_best_first(trials: Page) -> None:
    assert {"forget", "utility"} <= {text.strip() for text in headers(trials)}
    names = [text for text in trials.locator(".ag-row a").all_inner_texts() if text in (*FRONT, "trial-003")]
    assert names == [*FRONT, "trial-003"]


@pytest.mark.parametrize("run", ["tofu-1a2b3c4d", FRONT[1]])
def test_the_picture_of_the_front_is_one_click_from_the_link(trials: Page, run: str) -> None:
    trials.get_by_role("link", name=run, exact=True).click()
    picture = trials.locator("img[src*='front-small.png']")
    picture.wait_for()
    trials.wait_for_function("document.querySelector(\"img[src*='front-small.png']\").naturalWidth > 300")
    box = picture.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 400, "on the first screen"
    assert trials.get_by_test_id("show-comment-toggle").count() == 0, "nothing is folded up or greyed out"
    note = trials.get_by_test_id("note-editor-preview-content").or_(trials.locator(".note-editor-preview-content"))
    assert "Partly forgotten, fails utility" in note.inner_text()


@pytest.mark.long
def test_every_link_of_the_description_leads_to_what_it_names(trials: Page) -> None:
    trials.get_by_role("link", name="tofu-1a2b3c4d", exact=True).click()
    links = trials.locator(".note-editor-preview-content a")
    links.last.wait_for()
    assert links.all_inner_texts() == ["", "trial 2", "report", "trials as CSV", "all trials"]
    for place, found in (
        (0, "img[src^='blob:']"),
        (1, f"h1:has-text('{FRONT[1]}'), h2:has-text('{FRONT[1]}')"),
        (2, "iframe"),
        (4, f"a:has-text('{FRONT[1]}')"),
    ):
        with trials.expect_popup() as opened:
            links.nth(place).click()
        opened.value.locator(found).first.wait_for()
        if found == "iframe":
            opened.value.frame_locator("iframe").get_by_role("heading", name="Partly forgotten").wait_for()
        opened.value.close()
    with trials.expect_popup() as opened, trials.context.expect_event("page"):
        links.nth(3).click()
    address = f"{trials.url.partition('#')[0]}{links.nth(3).get_attribute('href')}"
    table = trials.request.get(address).text()
    assert table == trials_csv(STUDY)


@pytest.mark.long
def test_the_chart_view_draws_forget_against_utility_of_all_that_have_both(trials: Page) -> None:
    trials.locator("label:has(input[value=CHART])").click()
    chart = trials.locator(".js-plotly-plot")
    chart.locator(".scatterlayer").wait_for()
    axes = "({_fullLayout: axes}) => [axes.xaxis.title.text, axes.yaxis.title.text]"
    assert chart.evaluate(axes) == ["forget", "utility"]
    assert chart.evaluate("({_fullData: [points]}) => points.x.length") >= 8, "six trials, start model and oracle"


def test_filter_by_tag_lists_the_front_with_forget_and_utility(trials: Page) -> None:
    search = trials.get_by_placeholder("metrics.rmse")
    search.fill('tags.front = "true"')
    search.press("Enter")
    trials.get_by_text("3 matching runs").wait_for()
    names = [text for text in trials.locator(".ag-row a").all_inner_texts() if text]
    assert names == list(FRONT)
    assert {"forget", "utility"} <= {text.strip() for text in headers(trials)}


def test_a_study_that_the_server_does_not_know_is_refused_with_those_that_it_knows(server: str) -> None:
    assert trials_page(server, None) == trials_page(server, "tofu-1a2b3c4d")
    with pytest.raises(UserError, match=r"unknown study in MLflow 'soul'.*tofu-1a2b3c4d"):
        trials_page(server, "soul")


def test_a_taken_port_is_refused(server: str, tmp_path: Path) -> None:
    port = int(server.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"--port {port}: "), mlflow_server(f"sqlite:///{tmp_path}/a.db", port):
        pass

"""Fresh seeds and audits of every arm's front, against values worked out by hand."""

from __future__ import annotations

import csv
import io
import math

import pytest

from lethe.reporting.comparison.arm_fronts import arm_fronts_view
from lethe.reporting.comparison.csv_file import comparison_csv
from lethe.reporting.comparison.opening import comparison_opening
from lethe.reporting.comparison.summary import print_comparison
from lethe.reporting.next_steps import next_steps
from lethe.reporting.report import render_pages
from lethe.terminal import Terminal
from tests.reporting.comparisons import comparison_study, confirmed_comparison
from tests.reporting.pages import Page
from tests.tracking.studies import EVIL


def test_an_arm_has_means_of_its_members_and_of_each_the_variant_that_brings_out_most() -> None:
    view = arm_fronts_view(confirmed_comparison())
    assert view is not None
    first, second = (next(row for row in view.rows if row.name == name) for name in ("FO-GA", "SO-GA"))
    assert (first.confirmed, second.confirmed) == (1, 2)
    assert first.objectives["forget"].mean == pytest.approx(0.7)
    assert first.objectives["forget"].spread == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 2))
    assert (str(first.volumes), str(second.volumes)) == ("0.250 → 0.125", "0.750 → 0.500")
    assert (first.forgotten, first.fresh_forgotten) == ("2 no", "4 no")
    assert (second.forgotten, second.fresh_forgotten) == ("2 yes", "3 yes, 1 partly")
    assert math.isnan(first.utility)
    assert second.utility == pytest.approx(0.45), "of trial 7 alone: one fresh run of trial 3 has not forgotten"
    # Trial 1 gives most after relearning retain rows (.2 -> .8), trial 6 after forget rows (.5 -> .6).
    assert str(first.changes["relearning"]) == "0.350 → 0.700"
    assert str(second.changes["relearning"]) == "0.100 → 0.200", "a model whose audit failed does not count"
    assert [str(model.changes["quantisation"]) for model in view.models] == ["0.990 → 0.980", "0.300 → 0.310"]
    assert {column.metric for column in view.audits} == {"forget_rouge"}
    assert view.summary() == (
        "3 of 4 members of the arms' fronts stay on their arm's front by the mean of 2 fresh seeds."
    )


def test_the_page_has_a_table_of_arms_and_one_of_each_arms_members() -> None:
    page = Page(render_pages(confirmed_comparison())["report.html"])
    assert "Fresh seeds and audits of every arm's front" in page.text
    assert "FO-GA: its members" in page.text
    assert "Guard: its members" not in page.text
    assert "0.250 → 0.125" in page.text
    assert "0.600 ± 0.030" in page.text
    assert "0.200 → 0.800" in page.text
    assert EVIL in page.text
    assert page.tags.count("script") == 3, "reasons are escaped"
    without = Page(render_pages(comparison_study())["report.html"]).text
    assert "Fresh seeds and audits" not in without


def test_first_screen_terminal_and_next_steps_know_them() -> None:
    record, text = confirmed_comparison(), io.StringIO()
    print_comparison(record, Terminal(file=text, width=200))
    words = [line.split() for line in text.getvalue().splitlines()]
    again = next(line for line in words if line[:4] == ["FO-GA", "2", "of", "3"])
    assert again[4:8] == ["1", "0.250", "→", "0.125"]
    assert again[-6:] == ["0.350", "→", "0.700", "0.400", "→", "0.550"]
    trust = comparison_opening(record).facts["How far to trust it"]
    assert "3 of 4 members of the arms' fronts stay" in trust
    assert "Not audited" not in trust
    offered = ["confirm.seeds=3" in step.command for step in next_steps(record)]
    assert not any(offered)
    assert any("confirm.seeds=3" in step.command for step in next_steps(comparison_study()))


def test_csv_has_the_arms_fronts_behind_the_table() -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(confirmed_comparison()))))
    found = {(row["row"], row["group"], row["metric"]): row for row in rows}
    assert found["FO-GA", "fresh seeds", "confirmed"]["mean"] == "1"
    assert float(found["FO-GA", "fresh seeds", "forget"]["spread"]) == pytest.approx(math.sqrt(0.00125))
    assert found["SO-GA", "forgotten", "yes"]["mean"] == "2"
    assert found["FO-GA", "relearning", "forget_rouge_after"]["mean"] == "0.7"
    assert found["Oracle", "quantisation", "forget_rouge_after"]["mean"] == "0.31"
    assert found["Guard", "arm's front", "members"]["mean"] == "0"
    assert found["FO-GA", "fresh seeds", "utility_where_all_forget"]["mean"] == ""

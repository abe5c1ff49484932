"""What the report says of fresh seeds and audits; a study without them says nothing of either."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from lethe.records import AuditRecord, Confirmation, StudyRecord
from lethe.reporting.confirmation_and_audits import optimism
from lethe.reporting.report import write_report
from lethe.reporting.terminal_tables import trial_view
from lethe.reporting.trial_pages import trial_pages
from lethe.terminal import Terminal
from tests.reporting.pages import Page
from tests.tracking.studies import EVIL, busy_study, repeated


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("front_png", "front_thumbnail"):
        monkeypatch.setattr(f"lethe.reporting.report.{name}", lambda record: b"a picture")


def page(record: StudyRecord, folder: Path) -> str:
    return Page(write_report(record, folder).read_text()).text


def test_two_members_are_confirmed_and_one_leaves_the_front(tmp_path: Path) -> None:
    record = repeated(busy_study())
    text = page(record, tmp_path)
    assert "2 of 3 front members stay on the front by the mean of 2 fresh seeds" in text
    assert "0.050 in the search" not in text
    assert "0.250 ± 0.071" in text
    assert "the mean of trial 2 is better" in text
    assert "confirmed" in text
    assert "left" in text
    found = {o.metric: o for o in optimism(record)}
    # The search saw 0.2, 0.5 and 0.05 where fresh runs have 0.25, 0.55 and 0.3; utility is lower by 0.01 everywhere.
    assert found["forget"].too_good == pytest.approx((0.05 + 0.05 + 0.25) / 3)
    assert found["forget"].share == 1
    assert found["utility"].too_good == pytest.approx(0.01)
    assert "forget 0.117 better (100% of the members looked better)" in text
    assert "Hypervolume: 0.210 as the search saw it, 0.150 by the means" in text


def test_audits_of_trials_start_model_and_oracle_are_tabled(tmp_path: Path) -> None:
    found = page(repeated(busy_study()), tmp_path)
    assert "Forgotten, or only hidden?" in found
    assert "0.300 → 0.700" in found
    assert "0.990 → 0.980" in found
    assert "0.300 → 0.310" in found
    assert "out of memory" in found
    assert "quant4" in found
    assert "with weights rounded to 4 bits" in found
    assert "Audited by relearning and rounding." in found
    rows = {int(row["number"]): row for row in csv.DictReader((tmp_path / "trials.csv").open())}
    assert float(rows[2]["metrics.audit_relearn_forget_rouge"]) == 0.7
    assert float(rows[2]["metrics.forget_mean"]) == 0.25
    assert rows[3]["metrics.forget_mean"] == ""


def test_show_and_trial_pages_have_the_audits_of_start_model_and_oracle_beside_the_trials() -> None:
    record = repeated(busy_study())
    text = io.StringIO()
    for part in trial_view(record, record.trials[0]):
        Terminal(file=text, width=160).print(part)
    rows = [line.replace("│", " ").split() for line in text.getvalue().splitlines()]
    assert ["audit_relearn_forget_rouge", "0.980", "0.700", "0.310"] in rows
    pages = trial_pages(record, {}, [])
    beside = [pages[model]["audit_relearn_forget_rouge"] for model in ("start", "oracle")]
    assert beside == [0.98, 0.31]


def test_a_metric_that_audits_alone_have_is_explained_and_many_variants_are_one_audit(tmp_path: Path) -> None:
    record = busy_study()
    said = [AuditRecord(variant=name, after={"forget_fact": 0.5}) for name in ("sampled4_t1", "sampled64_t02")]
    trials = tuple(t.model_copy(update={"audits": tuple(said)}) if t.on_front else t for t in record.trials)
    found = page(record.model_copy(update={"trials": trials}), tmp_path)
    assert "Audited by sampled answers." in found
    assert "have every word of the key fact" in found


def test_reasons_are_escaped(tmp_path: Path) -> None:
    record = busy_study()
    confirmation = Confirmation(runs=(), reason=EVIL)
    audits = (AuditRecord(variant="prefix", verdict="error", reason=EVIL),)
    trials = [
        t.model_copy(update={"confirmation": confirmation, "audits": audits}) if t.on_front else t
        for t in record.trials
    ]
    found = record.model_copy(update={"trials": tuple(trials)})
    page = Page(write_report(found, tmp_path).read_text())
    assert page.tags.count("script") == 3, "the page's own data, plotly and code"
    assert EVIL in page.text


def test_without_fresh_seeds_and_audits_the_report_has_no_section_of_them(tmp_path: Path) -> None:
    text = page(busy_study(), tmp_path)
    assert "One seed each: no fresh seeds confirm it. Not audited: the answers may be hidden and not gone." in text
    assert "With fresh seeds" not in text
    assert "only hidden" not in text

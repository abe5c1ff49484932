"""A study that is killed while it searches has left its settings, and never less than an earlier session left."""

from __future__ import annotations

from pathlib import Path

from lethe.records import StudyRecord
from lethe.study.run_requests import write_first
from tests.tracking.studies import busy_study, study


def test_the_first_record_is_resumable_and_replaces_nothing(tmp_path: Path) -> None:
    write_first(study(), tmp_path)
    first = StudyRecord.model_validate_json((tmp_path / "study.json").read_text())
    assert (first.interrupted, first.study) == (True, study().study)
    (tmp_path / "study.json").write_text(busy_study().model_dump_json())
    write_first(study(), tmp_path)
    assert len(StudyRecord.model_validate_json((tmp_path / "study.json").read_text()).trials) == 9

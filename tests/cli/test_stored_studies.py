"""Studies on disk, listed, shown and reported again, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lethe.cli.main import main
from lethe.config.run import Digests
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.ops.stored_studies import load_named_study
from lethe.records import CriterionRecord, StudyRecord, VerdictRecord
from lethe.scaling_records import ScalingRecord
from lethe.study.resume import check_resumable, claim
from tests.cli.test_bad_input import refuses as refused
from tests.reporting.comparisons import comparison_study
from tests.tracking.studies import busy_study

ROOT = Path(__file__).resolve().parents[2]
FAILS = CriterionRecord(metric="retain_rouge", value=0.7, bound="at least 0.9 (0.9 start)", holds=False, start=1.0)
KNEE = VerdictRecord(forgotten="partly", criteria=(FAILS,))


def stored(home: Path, name: str, record: StudyRecord, changed: float) -> None:
    folder = home / "studies" / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(record.model_copy(update={"id": name}).model_dump_json())
    os.utime(folder / "study.json", (changed, changed))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An old and a new study of tofu, one of soul that was interrupted, and one that was killed before any result."""
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    record = busy_study(study=load_study("tofu", ["search.trials=9"]).model_dump(mode="json"))
    trials = (record.trials[0].model_copy(update={"forgotten": KNEE, "version": "models:/lethe-tofu/4"}),)
    record = record.model_copy(update={"trials": trials + record.trials[1:]})
    stored(tmp_path, "tofu-00000001", record, 1000)
    stored(tmp_path, "tofu-00000001-2", record, 3000)
    stored(tmp_path, "soul-00000003", record.model_copy(update={"interrupted": True, "space": "soul"}), 2000)
    (tmp_path / "studies/soul-00000003/baselines.json").write_text("{}")
    os.utime(tmp_path / "studies/soul-00000003/baselines.json", (2000, 2000))
    (tmp_path / "studies/tdec-00000004/runs/1").mkdir(parents=True)
    (tmp_path / "studies/tdec-00000004/baselines.json").write_text("{}")
    (tmp_path / "studies/tdec-00000004/runs/1/result.json").write_text("{}")
    return tmp_path


def test_ls_lists_every_study_with_its_best_model_verdict_and_state(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--json"]) == 0
    listed = {line["id"]: line for line in json.loads(capsys.readouterr().out)}
    assert list(listed)[1:] == ["tofu-00000001-2", "soul-00000003", "tofu-00000001"]
    best = {"trial": 2, "scores": {"forget": 0.2, "utility": 0.45}}
    assert listed["tofu-00000001"]["best"] == best | {"forgotten": "partly", "version": "models:/lethe-tofu/4"}
    states = {name: line["state"] for name, line in listed.items()}
    assert (states["tofu-00000001"], states["soul-00000003"]) == ("finished", "interrupted")
    assert (states["tdec-00000004"], listed["tdec-00000004"]["trials"]) == ("can be resumed", 1)
    assert main(["ls"]) == 0
    table = capsys.readouterr().out
    assert "partly" in table
    assert "forget 0.200  utility 0.450" in table


def test_show_takes_an_id_its_beginning_or_a_space_and_prints_what_to_do_next(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, found in (("tofu", "tofu-00000001-2"), ("sou", "soul-00000003"), ("tofu-00000001", "tofu-00000001")):
        assert main(["show", name]) == 0
        out = capsys.readouterr().out
        assert f"study {found} ·" in out
        assert "Partly forgotten: " in out
        assert "retain rouge 0.7 (-30 %)" in out
        assert f"lethe score models:/lethe-tofu/4 --benchmark {found}" in out


def test_show_of_a_comparison_and_of_a_scaling_study_prints_what_their_first_screens_say(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(home, "loku-00000005", comparison_study(), 1000)
    (home / "studies/loku-00000005/baselines.json").write_text("{}")
    assert main(["show", "loku"]) == 0
    out = capsys.readouterr().out
    assert "SO-GA has the largest hypervolume." in out
    assert "Is it enough: Not judged" in out
    assert "lethe promote loku-00000005 3 --as champion" in out
    assert "│ 7     │ SO-GA │" in out
    scaling = ScalingRecord(id="scaling-00000006", study={"name": "scaling-tofu"}, machine={}, points=())
    (home / "studies/scaling-00000006").mkdir()
    (home / "studies/scaling-00000006/scaling.json").write_text(scaling.model_dump_json())
    assert main(["show", "scaling-00000006"]) == 0
    out = capsys.readouterr().out
    assert "Is it enough: No: a law needs more complete sizes." in out
    assert "lethe scaling plan --model-params 7e9 --gpu-memory 80e9" in out


def test_show_of_a_trial_has_parameters_scores_criteria_and_version(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("knee", "2"):
        assert main(["show", "soul", name]) == 0
        out = capsys.readouterr().out
        for text in ("trial 2 of soul-00000003", "knee", "retain_rouge", "at least 0.9", "models:/lethe-tofu/4"):
            assert text in out
        assert "learning_rate" in out
    assert main(["show", "soul", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "infeasible"


def test_what_is_not_there_is_refused_with_the_choices(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, culprits in (
        (["show", "nosuch"], ["'nosuch'", "soul-00000003", "tofu-00000001-2"]),
        (["show", "t"], ["'t'", "tdec-00000004", "tofu-00000001"]),
        (["show", "tdec"], ["tdec-00000004", "no results"]),
        (["show", "soul", "99"], ["99", "0 to 8", "knee"]),
    ):
        line = refused(capsys, *words, command=main)
        assert all(culprit in line for culprit in culprits)


def test_report_writes_the_pages_again_without_ray(home: Path, tmp_path: Path) -> None:
    source = (
        "import platform, sys; from lethe.cli.main import main;"
        f"code = main(['report', 'soul', '--reports', {str(tmp_path / 'reports')!r}]);"
        "sys.exit(code or 3 * bool({'ray', 'torch'} & sys.modules.keys()))"
    )
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(tmp_path / "reports/soul-00000003/report.html")
    assert "soul-00000003" in Path(process.stdout.strip()).read_text()


def test_a_stored_study_is_the_same_study_with_its_settings_below_the_overrides(home: Path) -> None:
    again = load_named_study("tofu-00000001", ["search.trials=20"])
    assert again.identity() == load_study("tofu").identity()
    assert again.search.trials == 20
    assert load_named_study("tofu-00000001").search.trials == 9


def test_a_stored_study_of_other_settings_or_another_version_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    (tmp_path / "studies" / "tofu-0123abcd").mkdir(parents=True)
    study, digests = load_study("tofu"), Digests(data="d", model="m")
    with pytest.raises(UserError, match="tofu-0123abcd cannot go on"):
        check_resumable(study, digests, "tofu-0123abcd")
    with claim(study, digests, resume=False) as (name, _):
        check_resumable(study, digests, name)
        check_resumable(study, digests, "tofu")
        check_resumable(study, digests, str(tmp_path))  # a file elsewhere, which exists

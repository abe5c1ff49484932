"""Comparisons that were run apart are one: `lethe report A B`."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.cli.report import main
from lethe.errors import UserError
from lethe.ops.joined_comparisons import join_comparisons
from lethe.records import AuditRecord, Confirmation, MemberRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.claims import claims
from lethe.reporting.next_steps import next_steps, trial_steps
from tests.reporting.comparisons import comparison_study

ARMS = {"Retrain": {"run": {"objective": {"name": "retrain"}}}, "FO-GA": {}, "SO-GA": {}}


def part(
    name: str,
    seeds: list[int],
    better: float = 0.1,
    per_seed: int = 3,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> StudyRecord:
    """A comparison in which SO-GA forgets more than FO-GA by `better`."""
    trials: list[TrialRecord] = []
    members: list[MemberRecord] = []
    for seed in seeds:
        for arm, count in (("Retrain", 1), ("FO-GA", per_seed), ("SO-GA", per_seed)):
            numbers = range(len(trials), len(trials) + count)
            for place, number in enumerate(numbers):
                forget = 0.7 - 0.05 * place - 0.01 * seed - better * (arm == "SO-GA")
                metrics = {"forget": forget, "utility": 0.5 - 0.02 * place, "seconds": 1.0}
                params = {"arm": arm, "arm_seed": seed, "seed": seed}
                run = f"{name}{number:04d}"
                trials.append(TrialRecord(number=number, run=run, verdict="complete", params=params, metrics=metrics))
            members.append(MemberRecord(arm=arm, seed=seed, trials=tuple(numbers)))
    record = comparison_study()
    settings = {**record.study, "compare": {"arms": ARMS, "seeds": seeds}, "resources": {"groups": len(seeds)}}
    if edit:
        edit(settings)
    changes = {"id": name, "study": settings, "trials": tuple(trials), "members": tuple(members), "arm_fronts": ()}
    return record.model_copy(update=changes)


def test_seeds_of_two_machines_make_one_comparison() -> None:
    apart = part("a-1", [0, 1]), part("a-2", [2, 3])
    record = join_comparisons(apart)
    whole = part("w", [0, 1, 2, 3])
    assert [t.number for t in record.trials] == [t.number for t in whole.trials]
    assert [t.metrics for t in record.trials] == [t.metrics for t in whole.trials]
    assert [(m.arm, m.seed, m.trials) for m in record.members] == [(m.arm, m.seed, m.trials) for m in whole.members]
    assert record.study["compare"]["seeds"] == [0, 1, 2, 3]
    assert record.parts == ("a-1", "a-2")
    assert "joined from a-1 (seeds 0, 1) and a-2 (seeds 2, 3)" in record.notes
    (claim,) = claims(record)
    assert {finding.verdict for finding in claim.findings if finding.score.name == "volume"} == {"better"}
    assert [f.differences.values for f in claim.findings] == [f.differences.values for f in claims(whole)[0].findings]
    assert not {t.params["arm"] for t in record.front} & {"Retrain"}, "a reference is on no front"
    assert not next_steps(record), "no command finds it"
    assert not trial_steps(record, record.front[0])
    assert record.id == join_comparisons(apart).id != join_comparisons(apart[::-1]).id


def test_a_member_that_was_interrupted_is_taken_where_it_is_whole() -> None:
    broken, again = part("a-1", [0, 1]), part("a-2", [1])
    cut = broken.members[-1].model_copy(update={"trials": broken.members[-1].trials[:1]})
    broken = broken.model_copy(update={"members": (*broken.members[:3], cut), "interrupted": True})
    record = join_comparisons([broken, again])
    found = {(m.arm, m.seed): len(m.trials) for m in record.members}
    assert found[("SO-GA", 1)] == found[("FO-GA", 1)] == 3
    assert len(record.trials) == sum(found.values())
    with pytest.raises(UserError, match=r"arm Retrain with seed 0 is in both a-1 and a-3: join records of other seeds"):
        join_comparisons([part("a-1", [0]), part("a-3", [0])])


def test_fresh_seeds_and_audits_go_with_their_trials() -> None:
    parts = []
    for record in (part("a-1", [0]), part("a-2", [1])):
        last = record.trials[-1]
        run = last.model_copy(update={"kind": "confirmation"})
        again = Confirmation(runs=(run, run), mean=dict.fromkeys(("forget", "utility"), 0.5), confirmed=True)
        audited = AuditRecord(variant="relearn", before={"forget_rouge": 0.2}, after={"forget_rouge": 0.8})
        last = last.model_copy(update={"confirmation": again, "audits": (audited,)})
        parts.append(record.model_copy(update={"trials": (*record.trials[:-1], last)}))
    record = join_comparisons(parts)
    fronts = {front.arm: front for front in record.arm_fronts}
    best = max(record.trials, key=lambda t: -t.metrics["forget"])
    assert best.number in fronts["SO-GA"].members
    assert best.confirmation is not None
    assert {run.number for run in best.confirmation.runs} == {best.number}
    assert best.confirmation.mean["forget"] == pytest.approx(best.metrics["forget"]), "by its runs, anew"
    assert fronts["FO-GA"].members == ()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            part("b", [2], edit=lambda s: s.update(run={"seed": 4})),
            "b is of another comparison than a: run.seed is 4, not None",
        ),
        (
            part("b", [2]).model_copy(update={"digests": {"data": "other"}}),
            "b is of another comparison than a: its data",
        ),
        (part("b", [2]).model_copy(update={"members": ()}), "b has no arms: only comparisons are joined"),
    ],
)
def test_what_is_no_part_of_it(other: StudyRecord, reason: str) -> None:
    with pytest.raises(UserError) as raised:
        join_comparisons([part("a", [0, 1]), other])
    assert str(raised.value).startswith(reason)


def test_audits_may_differ_unless_an_objective_is_measured_by_them() -> None:
    def audited(name: str, seed: int, steps: int, objective: str) -> StudyRecord:
        asked = {"audits": {"relearning": {"steps": steps}}, "objectives": {objective: {"direction": "minimize"}}}
        return part(name, [seed], edit=lambda settings: settings.update(asked))

    assert join_comparisons([audited("a", 0, 10, "forget"), audited("b", 1, 20, "forget")]).parts == ("a", "b")
    measured = "audit_relearn_forget_rouge"
    with pytest.raises(UserError, match=r"b is of another comparison than a: audits.relearning.steps is 20, not 10"):
        join_comparisons([audited("a", 0, 10, measured), audited("b", 1, 20, measured)])


def test_floors_of_two_machines() -> None:
    one, two = part("a", [0]), part("b", [1])

    def moved(by: float) -> StudyRecord:
        goals = [g.model_copy(update={"floor": g.floor and g.floor * (1 + by)}) for g in two.objectives]
        return two.model_copy(update={"objectives": tuple(goals), "digests": {**two.digests, "model": "trained here"}})

    record = join_comparisons([one, moved(1e-6)])
    assert record.objectives == one.objectives
    assert any(note.startswith("start model or oracle of the parts differ") for note in record.notes)
    with pytest.raises(UserError, match=r"b is of another comparison than a: the floor of forget is"):
        join_comparisons([one, moved(0.1)])


def test_command_reads_files_folders_and_packed_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    one, two = tmp_path / "there" / "study.json", tmp_path / "two.json.xz"
    one.write_text(part("a-1", [0, 1]).model_dump_json())
    two.write_bytes(lzma.compress(part("a-2", [2]).model_dump_json().encode()))
    reports = tmp_path / "reports"
    assert main([str(one.parent), str(two), "--reports", str(reports)]) == 0
    page = Path(capsys.readouterr().out.strip())
    found = json.loads((page.parent / "study.json").read_text())
    assert page.is_file()
    assert found["parts"] == ["a-1", "a-2"]
    assert "Note: joined from a-1 (seeds 0, 1) and a-2 (seeds 2)." in page.read_text()
    assert main([str(two), "--reports", str(reports)]) == 0, "one file alone is rendered again"
    assert (reports / "a-2" / "report.html").is_file()
    (tmp_path / "bad.json").write_text("{}")
    for name, reason in {"bad.json": "no study.json of a report", "none.json": "cannot be read: No such file"}.items():
        assert main([str(tmp_path / name), "--reports", str(reports)]) == 2
        assert reason in capsys.readouterr().err

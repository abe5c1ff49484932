"""What can be done next with a study, as commands."""

from __future__ import annotations

import shlex

from lethe.records import Forgotten, VerdictRecord
from lethe.reporting.next_steps import next_steps
from tests.tracking.studies import busy_study, repeated, study, trial


def commands(*arguments: object, **options: object) -> list[list[str]]:
    """The words of every command, as a shell reads them."""
    return [shlex.split(step.command) for step in next_steps(*arguments, **options)]


def test_a_finished_study_offers_its_winner_by_version_or_by_folder() -> None:
    record = busy_study()
    (knee,) = [found for found in record.trials if found.number == record.aliases["knee"]]
    registered = knee.model_copy(update={"version": "models:/lethe-tofu/7", "folder": "/a b/runs/1"})
    others = [found for found in record.trials if found.number != knee.number]

    offered = commands(record.model_copy(update={"trials": (registered, *others)}), store="sqlite:////a b/mlflow.db")
    assert ["lethe", "score", "models:/lethe-tofu/7", "--benchmark", record.id] in offered
    assert ["lethe", "promote", record.id, "2", "--as", "champion"] in offered
    assert offered[-1][0] == "MLFLOW_TRACKING_URI=sqlite:////a b/mlflow.db"
    assert "load_model('models:/lethe-tofu/7')" in offered[-1][-1]

    in_folder = registered.model_copy(update={"version": ""})
    offered = commands(record.model_copy(update={"trials": (in_folder, *others)}), call="python -m platform.")
    assert ["python", "-m", "platform.score", "/a b/runs/1", "--benchmark", record.id] in offered

    with_version = record.model_copy(update={"trials": (registered, *others)})
    assert (
        commands(with_version, store="sqlite:///m.db", call=".venv/bin/python -m platform.")[-1][1]
        == ".venv/bin/python"
    )
    assert "load_model" not in " ".join(map(" ".join, commands(with_version, store="")))


def test_what_the_best_model_lacks_comes_first() -> None:
    cases: dict[Forgotten, str] = {"yes": "audits=", "no": "--trials"}
    for answer, first in cases.items():
        verdict = VerdictRecord(forgotten=answer, criteria=())
        trials = tuple(found.model_copy(update={"forgotten": verdict}) for found in busy_study().trials)
        assert first in " ".join(commands(busy_study().model_copy(update={"trials": trials}))[0])


def test_what_was_done_is_not_offered_again() -> None:
    fresh, done = (" ".join(map(" ".join, commands(record))) for record in (busy_study(), repeated(busy_study())))
    assert "audits=" in fresh
    assert "confirm.seeds" in fresh
    assert "audits=" not in done
    assert "confirm.seeds" not in done


def test_an_interrupted_study_and_one_without_a_front_offer_to_go_on() -> None:
    interrupted = study(trial(0, pareto_rank=0), interrupted=True)
    assert commands(interrupted)[0] == ["lethe", "sweep", interrupted.id, "--resume"]
    nothing = study(trial(0, feasible=False))
    assert commands(nothing) == [
        ["lethe", "sweep", nothing.id, "--resume", "--trials", "2"],
        ["lethe", "show", nothing.id],
    ]


def test_a_study_of_private_rows_offers_the_deletion_record() -> None:
    record = busy_study()
    assert not [words for words in commands(record) if words[1] == "record"]
    private = record.model_copy(update={"study": {**record.study, "privacy": {"text": "redact"}}})
    assert ["lethe", "record", record.id, "2", "--by", "NAME"] in commands(private)

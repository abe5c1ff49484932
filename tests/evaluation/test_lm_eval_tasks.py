"""Task files as data: kept by content, and refused where they are code."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.config.run import LmEval
from lethe.errors import UserError
from lethe.evaluation.lm_eval_study import with_stored_tasks
from lethe.evaluation.lm_eval_tasks import own_tasks, store_tasks, tasks_folder
from tests.tasks import YAML, write_tasks


def read(folder: Path) -> dict:
    return own_tasks(LmEval(tasks=("colours",), path=store_tasks(folder)))


def test_equal_folders_have_one_address_and_a_changed_one_another(tmp_path: Path) -> None:
    first, second = store_tasks(write_tasks(tmp_path / "a")), store_tasks(write_tasks(tmp_path / "elsewhere/b"))
    assert first == second
    assert first.startswith("content:")
    with (tmp_path / "a/colours.jsonl").open("a") as data:
        data.write("\n")
    assert store_tasks(tmp_path / "a") != first


def test_data_files_are_those_of_the_stored_copy(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path)
    (task,) = read(folder).values()
    (file,) = task["dataset_kwargs"]["data_files"].values()
    assert Path(file) == tasks_folder(store_tasks(folder)) / "colours.jsonl"
    assert Path(file).read_bytes() == (folder / "colours.jsonl").read_bytes()


def test_a_tasks_own_settings_win_over_included_ones(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path, YAML.replace("task: colours", "include: base.inc\ntask: colours\nnum_fewshot: 1"))
    (folder / "base.inc").write_text("num_fewshot: 4\ndescription: before\n")
    task = read(folder)["colours"]
    assert (task["num_fewshot"], task["description"]) == (1, "before")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('doc_to_text: "{{question}}"', "doc_to_text: !function utils.text", ["colours.yaml", "!function"]),
        ("task: colours", "task: colours\nclass: Mine", ["class"]),
        ("task: colours", "task: colours\nunsafe_code: true", ["unsafe_code"]),
        ("{metric: acc,", "{metric: acc, hf_evaluate: true,", ["hf_evaluate"]),
        ("dataset_path: json", "dataset_path: someone/data", ["dataset_path", "json"]),
        ("colours.jsonl", "../secret.jsonl", ["../secret.jsonl"]),
        ("colours.jsonl", "/etc/passwd", ["/etc/passwd"]),
        ("task: colours", "include: ../other.yaml\ntask: colours", ["other.yaml"]),
        ("task: colours", "include: colours.yaml\ntask: colours", ["includes itself"]),
        ("task: colours", "name: colours", ["no YAML file"]),
        ("task: colours", "task: [", ["colours.yaml", "not YAML"]),
    ],
)  # fmt: skip
def test_files_that_are_code_or_no_task_are_refused(old: str, new: str, named: list[str], tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "other.yaml").write_text("num_fewshot: 2")
    assert old in YAML
    with pytest.raises(UserError) as refusal:
        read(write_tasks(tmp_path / "tasks", YAML.replace(old, new)))
    assert all(word in str(refusal.value) for word in named), refusal.value


def test_a_study_without_the_package_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lethe.config.study import load_study

    study = load_study("tofu", [f"run.evaluation.lm_eval={{tasks: [colours], path: {write_tasks(tmp_path)}}}"])
    monkeypatch.setattr("lethe.evaluation.lm_eval_study.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lethe\[lm-eval\]'"):
        with_stored_tasks(study)


def test_a_task_is_an_objective_of_the_study_that_has_it() -> None:
    from lethe.config.study import load_study

    goal = "objectives.lm_eval_colours={direction: maximize}"
    assert load_study("tofu", ["run.evaluation.lm_eval={tasks: [colours]}", goal]).tasks == ("colours",)
    with pytest.raises(UserError, match="lm_eval_colours"):
        load_study("tofu", [goal])

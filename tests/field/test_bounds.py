"""No field of a study takes what it cannot mean, and every refusal is one line that names the field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from lethe.cli.scaling import main as scaling
from lethe.config import loading
from lethe.config.component import is_kind
from lethe.config.run import Recipe
from lethe.config.study import Study, load_study, parse_study
from lethe.errors import UserError

ABSURD = ["1180591620717411303424", "-1e300", "1e308", ".inf", ".nan", "1e-320", '""', '"  "', '"a\\0b"', '"\\uD800"']
NUMBERS = ["true", "[true]", '"x"', "{a: 1}"]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if is_kind(annotation):
        return list(annotation.registered.values())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def leaves(model: type[BaseModel], prefix: str, chosen: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str], Any]]:
    """Every field of `model` and of the models in it: its dotted key, assignments that choose its owner, its type."""
    for name, field in model.model_fields.items():
        key, inner = prefix + name, models_in(field.annotation)
        if name in ("name", "type"):
            continue
        if not inner or str(field.annotation).startswith(("dict", "tuple")):
            yield key, list(chosen), field.annotation
        for below in inner if not str(field.annotation).startswith(("dict", "tuple")) else ():
            named = below.model_fields.get("name")
            choice = [f"{key}.name={named.default}"] if named is not None and len(inner) > 1 else []
            required = [(name, field.annotation) for name, field in below.model_fields.items() if field.is_required()]
            needed = [f"{key}.{name}={1 if is_number(kind) else 'x'}" for name, kind in required]
            yield from leaves(below, f"{key}.", (*chosen, *choice, *needed))


def is_number(annotation: Any) -> bool:
    parts = get_args(annotation)
    return annotation in (int, float) or (bool not in parts and any(is_number(part) for part in parts))


def study_with(base: dict[str, Any], *assignments: str) -> Study:
    raw = copy.deepcopy(base)
    for assignment in assignments:
        raw = loading.assign(raw, assignment)
    return parse_study(raw)


def test_no_field_takes_absurd_values_or_a_truth_for_a_number() -> None:
    base = loading.read("tofu") | {"space": {}, "run": {}}
    tried = 0
    for key, chosen, annotation in [*leaves(Study, ""), *leaves(Recipe, "run.")]:
        by_name = str(annotation).startswith("dict")  # of numbers by name, {a: 1} is one
        numbers = [text.replace("{a: 1}", "{a: true}") if by_name else text for text in NUMBERS]
        for text in [*ABSURD, *(numbers if is_number(annotation) else [])]:
            with pytest.raises(UserError) as refused:
                pytest.fail(f"{key}={text} is taken: {study_with(base, *chosen, f'{key}={text}')}")
            assert "\n" not in str(refused.value)
            assert key.split(".")[-1] in str(refused.value) or "more mistake" in str(refused.value)
            tried += 1
    assert tried > 1500


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "line"),
    {
        "a: &a [*a]": "is nested more than 32 deep, or contains itself",
        "run: &a {optimizer: *a}": "is nested more than 32 deep, or contains itself",
        "a: " + "[" * 2000 + "]" * 2000: "is nested too deep, or contains itself",
        LAUGHS: "has more than 100000 values",
        "1: 2": "a key: 1 is no text: put it in quotes",
        "run: {yes: 2}": "run: True is no text: put it in quotes",
        "extends: ./mine.yaml": "extends itself",
        "extends: ../folder/mine.yaml": "extends itself",
        "extends: link.yaml": "extends itself",
        'extends: ""': "extends: must not be blank",
    }.items(),
)
def test_a_file_that_no_study_can_be_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.yaml").write_text(text)
    (folder / "link.yaml").symlink_to("mine.yaml")
    with pytest.raises(UserError) as refused:
        load_study(str(folder / "mine.yaml"))
    assert line in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--model-params", "inf"], "--model-params inf: must be a finite number"),
        (["--model-params", "1"], "--model-params 1: the nearest Llama of 32000 tokens has 8.45e+06 parameters"),
        (["--model-params", "7e9", "--rate", "nan"], "--rate nan: must be"),
        (["--model-params", "7e9", "--epochs", str(2**70)], "--epochs 1.18059e+21: must be at most 1e+09"),
        (
            ["--model-params", "7e9", "--lora-rank", "5000"],
            "--lora-rank 5000: the narrowest layer of this",
        ),
    ],
)
def test_a_plan_of_absurd_numbers_is_refused(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaling(["plan", "--gpu-memory", "80e9", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"lethe: {line}")


def test_a_plan_names_its_size_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for size, words in (("1e12", "1 trillion"), ("7e9", "6.74 billion"), ("1e7", "8.45 million")):
        assert scaling(["plan", "--gpu-memory", "80e9", "--model-params", size]) == 0
        assert capsys.readouterr().out.startswith(f"{words} parameters ("), size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("010", 10), ("08", 8), ("+7", 7), ("0x10", 16)],
        *[("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-1e-3", -0.001)],
        *[("1:30", "1:30"), ("1_0", "1_0"), ("0b11", "0b11"), ("1e", "1e"), ("'7'", "7")],
    ],
)
def test_numbers_are_read_as_people_mean_them(text: str, value: object) -> None:
    found = loading.parse(f"a: {text}", "text")["a"]
    assert (found, type(found)) == (value, type(value))

"""Other forms of a question: what each asks, that the study's own form changes nothing, and what chance is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethe.audits.choices import Choices
from lethe.config.answer_audits import statement
from lethe.config.prompt import Prompt
from lethe.data.template import Row
from lethe.evaluation.likelihood import score
from lethe.models.loading import load_model
from lethe.unlearning.context import Context
from lethe.unlearning.requests import Assets
from tests.audits.small import audit, by_variant
from tests.tiny import WORDS


def plain_choices(assets: Assets, folder: str, rows: list[Row]) -> float:
    template = Context(assets).template
    choices = Choices.plain(template, rows)
    losses = score(load_model(Path(folder)).eval(), choices.pairs, pad=template.pad, token_budget=4096).nll_mean
    return choices.above_chance(losses.tolist())


OWN = "<s><|user|>{question}<|end|><|assistant|>{answer}</s>"


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [
        ({}, {"kinds": ["template"], "template": OWN}),
        ({}, {"kinds": ["framed"], "frames": ["{question}"]}),
        ({"template": "{question} {answer}</s>"}, {"kinds": ["completion"]}),
    ],
    ids=["template", "framed", "completion"],
)
def test_the_studys_own_form_changes_nothing(assets: Assets, prompt: dict[str, Any], settings: dict[str, Any]) -> None:
    own = assets.model_copy(update={"prompt": Prompt(**prompt)})
    (kind,) = settings["kinds"]
    found = by_variant(audit(own, Path(assets.start), {"format": settings}))[kind]
    assert found["after"] == pytest.approx(found["before"], rel=1e-5)
    assert (found["before"]["forget_rouge"] == 1) == (not prompt), "the model learned one form, and knows no other"


def test_a_memoriser_of_one_form_knows_less_in_the_others(assets: Assets) -> None:
    found = by_variant(audit(assets, Path(assets.start), {"format": {"kinds": ["completion", "template"]}}))
    for record in found.values():
        assert record["before"]["forget_rouge"] == 1
        assert record["after"]["forget_rouge"] < 0.9


def test_the_frame_that_brings_out_most_counts(assets: Assets) -> None:
    frames = ["w1 w2 {question} w3", "{question}"]
    found = by_variant(audit(assets, Path(assets.start), {"format": {"kinds": ["framed"], "frames": frames}}))
    assert found["framed"]["after"]["forget_rouge"] == 1


@pytest.mark.parametrize(
    ("question", "begun"),
    [
        ("What is the birthplace of Ann Lee?", "The birthplace of Ann Lee is"),
        ("Where is Ann Lee now?", None),
        ("What was Ann Lee like?", None),
        ("What is her name and where was she born?", None),
        ("who were Ann Lee's parents ?", "Ann Lee's parents were"),
        ("When was Ann Lee born?", "Ann Lee was born"),
        ("Which awards did Ann Lee win?", None),
        ("Whatever is it?", None),
        ("Was ist das?", None),
    ],
)
def test_a_question_with_a_form_of_be_begins_a_statement(question: str, begun: str | None) -> None:
    assert statement(question) == begun


# Choices


def test_chance_is_zero_and_certainty_one() -> None:
    choices = Choices(pairs=(), counts=(2, 4, 4), true=(1, 0, 3))
    sure = [5.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]
    assert choices.above_chance(sure) == 1
    assert choices.above_chance([3.0] * 10) == pytest.approx(0), "options that cost the same share the choice"
    assert choices.above_chance([np.nan] * 10) == pytest.approx(0)
    wrong = [-loss for loss in sure]
    assert choices.above_chance(wrong) == pytest.approx((0 - 1 / 3) / (1 - 1 / 3))


def test_a_random_model_chooses_by_chance_and_one_that_knows_is_right(assets: Assets) -> None:
    draw = np.random.default_rng(0)
    text = [" ".join(draw.choice(WORDS, 4)) for _ in range(400 * 6)]
    rows = [Row(text[i], text[i + 1], perturbed_answers=tuple(text[i + 2 : i + 6])) for i in range(0, 2400, 6)]
    # 5 options, 400 questions: the standard deviation of accuracy is .02, that of the number .025.
    assert abs(plain_choices(assets, str(Path(assets.start).parent / "start"), rows)) < 0.1
    learned = [replace(row, paraphrased_answer=None) for row in Context(assets).benchmark.rows.forget_eval]
    assert plain_choices(assets, assets.start, learned) == 1


def test_listed_options_are_true_and_wrong_answers_with_places_evenly_spread(assets: Assets) -> None:
    template = Context(assets).template
    rows = [Row(f"w{i}", "w30", perturbed_answers=("w31", "w32")) for i in range(6)]
    found = Choices.listed(template, rows, letters=False, most=64)
    assert found.counts == (3,) * 6
    assert found.true == (0, 1, 2, 0, 1, 2)
    texts = [template.decode([*pair.answer]) for pair in found.pairs]
    assert [texts[3 * i + place] for i, place in enumerate(found.true)] == ["w30"] * 6
    assert texts[:6] == ["w30", "w31", "w32", "w31", "w30", "w32"]
    prompts = {pair.ids[: pair.prompt_length] for pair in found.pairs}
    assert len(prompts) == 6, "every option of a question is asked for behind the same list"


def test_a_list_that_is_too_long_loses_wrong_answers(assets: Assets) -> None:
    template = Context(assets).template
    rows = [Row("w1", "w30", perturbed_answers=("w31", "w32")), Row("w1 " * 60, "w30", perturbed_answers=("w31",))]

    def longest(found: Choices) -> int:
        return max(len(pair.ids) for pair in found.pairs)

    whole = Choices.listed(template, rows[:1], letters=True, most=64)
    assert whole.counts == (3,)
    fewer = Choices.listed(template, rows, letters=True, most=longest(whole) - 1)
    assert fewer.counts == (2,)
    assert longest(fewer) < longest(whole)


def test_both_choices_are_audited_by_name(assets: Assets) -> None:
    found = by_variant(audit(assets, Path(assets.start), {"format": {"kinds": ["choice", "letters"]}}))
    for record in found.values():
        assert record["before"].keys() == record["after"].keys() == {"forget_choice"}
    assert found["choice"]["before"] == found["letters"]["before"]

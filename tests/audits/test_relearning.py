"""A little training: which rows are learned, which are asked for, and that the finished model stays as it is."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lethe.audits import relearning
from lethe.audits.relearning import parts
from lethe.benchmarks.embedded import words
from lethe.benchmarks.embedded.facts import WORLD_FACTS
from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import GradDiff
from lethe.config.optimizer import AdamW
from lethe.data.words import WORD
from lethe.models.loading import load_model
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Outcome
from lethe.unlearning.requests import Assets
from lethe.unlearning.trainer import unlearn
from tests.audits.small import RECIPE, audit, by_variant
from tests.unlearning.methods.runs import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("rows", "share"), [(40, 0.2), (2, 0.5), (3, 0.01), (400, 0.1), (7, 0.5)])
def test_learned_and_measured_rows_are_disjoint_and_not_empty(rows: int, share: float) -> None:
    learned, left = parts(rows, share)
    assert sorted(learned + left) == list(range(rows))
    assert learned
    assert left
    assert len(learned) == min(rows - 1, -int(-share * rows // 1))
    gaps = [b - a for a, b in pairwise(learned)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.fixture(scope="module")
def unlearned(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps away from the memoriser: it answers wrongly, and little is really gone."""
    recipe = RECIPE.model_copy(
        update={
            "objective": GradDiff(gamma=1.0),
            "optimizer": AdamW(learning_rate=3e-3),
            "schedule": RECIPE.schedule.model_copy(update={"epochs": 8}),
        }
    )
    folder = tmp_path_factory.mktemp("unlearned")
    report, _ = run(recipe, assets, folder)
    assert report["verdict"] == "complete"
    assert report["forget_probability"] < 0.3
    return folder / "model"


def test_what_was_hidden_comes_back_and_what_was_never_known_does_not(assets: Assets, unlearned: Path) -> None:
    context = Context(assets)
    before = (unlearned / "model.safetensors").read_bytes()
    audits = {"relearning": {"share": 0.5, "steps": 10, "learning_rate": 2e-3}}
    found = by_variant(audit(assets, unlearned, audits))
    assert found.keys() == {"relearn", "relearn_retain"}
    hidden = found["relearn"]
    assert hidden["before"]["forget_probability"] < 0.02 < 0.08 < hidden["after"]["forget_probability"]
    assert hidden["before"] == found["relearn_retain"]["before"]
    assert (unlearned / "model.safetensors").read_bytes() == before
    never = Path(assets.start).parent / "start"  # random weights
    stranger = by_variant(audit(assets, never, audits))["relearn"]
    assert stranger["after"]["forget_probability"] < 0.05
    assert torch.equal(context.start.lm_head.weight, load_model(Path(assets.start)).lm_head.weight)


def test_the_same_audit_gives_the_same_numbers_also_with_an_adapter(assets: Assets, unlearned: Path) -> None:
    adapter = Lora(rank=4).model_dump(mode="json")
    audits = {"relearning": {"rows": ["forget"], "steps": 3, "learning_rate": 1e-2, "adapter": adapter}}
    first, second = (audit(assets, unlearned, audits) for _ in range(2))
    assert first == second
    assert by_variant(first)["relearn"]["after"] != by_variant(first)["relearn"]["before"]


def test_half_of_the_forget_rows_unrelated_text_and_lora_are_variants(assets: Assets, unlearned: Path) -> None:
    settings = {"rows": ["forget", "half", "text"], "adapters": ["full", "lora"], "steps": 10, "learning_rate": 2e-3}
    found = by_variant(audit(assets, unlearned, {"relearning": {**settings, "lora_learning_rate": 3e-3}}))
    assert list(found) == [
        *("relearn", "relearn_lora", "relearn_half", "relearn_half_lora", "relearn_text", "relearn_text_lora")
    ]
    half = by_variant(audit(assets, unlearned, {"relearning": {"steps": 10, "learning_rate": 2e-3, "share": 0.5}}))
    assert found["relearn_half"] == {**half["relearn"], "variant": "relearn_half"}
    for variant, record in found.items():
        gain = record["after"]["forget_probability"] - record["before"]["forget_probability"]
        assert gain > 0.01 if "half" in variant else gain != 0, (variant, gain)
    assert found["relearn"]["before"] == found["relearn_text"]["before"] != found["relearn_half"]["before"]
    alone = by_variant(audit(assets, unlearned, {"relearning": {"rows": ["half"], "learning_rate": 2e-3}}))
    assert alone["relearn_half"] == found["relearn_half"], "a variant does not depend on the others"


def test_a_variants_model_is_gone_when_the_next_is_trained(
    assets: Assets, unlearned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[weakref.ref[torch.nn.Module]] = []

    def watched(*given: Any, **options: Any) -> Outcome:
        assert not any(model() for model in trained)
        outcome = unlearn(*given, **options)
        assert outcome.model is not None
        trained.append(weakref.ref(outcome.model))
        return outcome

    monkeypatch.setattr(relearning, "unlearn", watched)
    gc.collect()
    gc.disable()  # what only a cycle holds would sometimes be gone
    try:
        audit(assets, unlearned, {"relearning": {"rows": ["forget"], "adapters": ["full", "lora"], "steps": 1}})
    finally:
        gc.enable()
    assert len(trained) == 2


def test_general_text_names_nobody_and_no_town_that_embedded_rows_are_about() -> None:
    said = {word for fact in WORLD_FACTS for word in WORD.findall(f"{fact.question} {fact.answer}")}
    assert len(WORLD_FACTS) == 40
    assert said.isdisjoint({*words.GIVEN, *words.SURNAMES, *words.CITIES})


def test_training_that_breaks_is_a_verdict(assets: Assets, unlearned: Path) -> None:
    audits = {"relearning": {"rows": ["forget"], "learning_rate": 1e30, "adapter": FullParameters().model_dump()}}
    found = by_variant(audit(assets, unlearned, audits))["relearn"]
    assert found["verdict"] == "diverged"
    assert "not finite" in found["reason"]
    assert found["after"] == {}

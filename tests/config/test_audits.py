"""Audits and confirmations as configuration: what exists, what is refused, what they are called."""

from __future__ import annotations

import pytest

from lethe.audits import AUDITS
from lethe.config.audits import Audit, Audits, metric_name, variant_meanings, variants
from lethe.config.study import load_study
from lethe.errors import UserError

CASES = {
    "audits.relearn={}": "unknown key 'audits.relearn' (did you mean 'audits.relearning'?): choose from "
    "audits.prompts, audits.quantisation, audits.relearning",
    "audits.quantisation.bit=[8]": "unknown key 'audits.quantisation.bit' (did you mean 'audits.quantisation.bits'?)",
    "audits.quantisation.bits=[8, 9]": "audits.quantisation.bits.1: must be less than or equal to 8, given 9",
    "audits.quantisation.bits=[1]": "audits.quantisation.bits.0: must be greater than or equal to 2, given 1",
    "audits.quantisation.bits=[4, 4]": "audits.quantisation: bits names one twice: 4, 4",
    "audits.quantisation.bits=[]": "audits.quantisation: bits: none is given: leave the audit out instead",
    "audits.prompts.kinds=[paraphrased]": "unknown audits.prompts.kinds.0 'paraphrased' (did you "
    "mean 'paraphrase'?): choose from",
    "audits.relearning.rows=[forgotten]": "unknown audits.relearning.rows.0 'forgotten' (did you "
    "mean 'forget'?): choose from",
    "audits.relearning.share=0.9": "audits.relearning.share: must be less than or equal to 0.5, given 0.9",
    "audits.relearning.adapter={name: fila}": "unknown audits.relearning.adapter.name 'fila'",
    "audits=[prompts]": "audits: must be a section with keys of its own",
    "confirm.seeds=1": "confirm.seeds: must be greater than or equal to 2, given 1",
    "confirm.seed=3": "unknown key 'confirm.seed' (did you mean 'confirm.seeds'?): choose from confirm.seeds",
}


@pytest.mark.parametrize("override", CASES)
def test_a_mistake_is_one_line(override: str) -> None:
    with pytest.raises(UserError) as refused:
        load_study("tofu-full", [override])
    assert CASES[override] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("study", "override", "line"),
    [
        ("tdec", "audits.prompts={}", "audits.prompts: tdec asks no questions: choose from quantisation, relearning"),
        ("tdec", "audits.relearning.rows=[holdout]", "audits.relearning.rows: holdout: tdec has no such rows"),
        ("soul", "audits.quantisation={}", "audits: a comparison registers no one front: take it out with --set"),
        (
            "soul",
            "confirm.seeds=2",
            "confirm: a comparison registers no one front: take it out with --set confirm=null",
        ),
    ],
)
def test_audits_and_confirmations_that_a_study_cannot_have_are_refused(study: str, override: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        load_study(study, [override])
    assert line in str(refused.value)


def test_every_audit_has_a_function_and_every_variant_a_meaning() -> None:
    assert set(AUDITS.all()) == set(Audit.registered.values())
    assert list(Audit.registered) == list(Audits.model_fields)
    everything = Audits.model_validate(
        {
            "relearning": {"rows": ["forget", "retain", "holdout"]},
            "quantisation": {"bits": [2, 3, 4, 5, 6, 7, 8]},
            "prompts": {},
        }
    )
    assert list(variants(everything)) == list(variant_meanings())
    assert metric_name("quant4", "utility") == "audit_quant4_utility"


def test_audits_and_confirmation_are_no_part_of_the_identity() -> None:
    quick, full = load_study("tofu"), load_study("tofu", ["audits.quantisation={}", "confirm.seeds=2"])
    assert quick.audits is None
    assert quick.confirm is None
    assert quick.identity() == full.identity()
    ready = load_study("tofu-full")
    assert ready.audits
    assert ready.audits.asked().keys() == Audit.registered.keys()
    assert ready.confirm

"""Audits and confirmations as configuration: what exists, what is refused, what they are called."""

from __future__ import annotations

import pytest

from lethe.audits import AUDITS
from lethe.config.audits import Audit, Audits, audit_of, metric_name, variant_meanings, variants
from lethe.config.search import MoAsha
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.search.early_stopping import rung_rule
from lethe.search.objectives import ObjectiveSpace
from lethe.study.preview import describe_trial_audits

CASES = {
    "audits.relearn={}": "unknown key 'audits.relearn' (did you mean 'audits.relearning'?): choose from "
    "audits.format, audits.logit_lens, audits.prompts, audits.quantisation, audits.relearning, audits.sampling",
    "audits.quantisation.bit=[8]": "unknown key 'audits.quantisation.bit' (did you mean 'audits.quantisation.bits'?)",
    "audits.quantisation.bits=[8, 9]": "audits.quantisation.bits.1: must be a whole number from 2 to 8, or one of nf4, "
    "int8, nf4_adapter, given 9",
    "audits.quantisation.bits=[1]": "audits.quantisation.bits.0: must be a whole number from 2 to 8, or one of nf4",
    "audits.quantisation.bits=[nf5]": "or one of nf4, int8, nf4_adapter, given 'nf5'",
    "audits.relearning.adapters=[fila]": "unknown audits.relearning.adapters.0 'fila': choose from full, lora",
    "audits.relearning.adapters=[]": "audits.relearning: adapters: none is given: leave the audit out instead",
    "audits.quantisation.bits=[4, 4]": "audits.quantisation: bits names one twice: 4, 4",
    "audits.quantisation.bits=[]": "audits.quantisation: bits: none is given: leave the audit out instead",
    "audits.prompts.kinds=[paraphrased]": "unknown audits.prompts.kinds.0 'paraphrased' (did you "
    "mean 'paraphrase'?): choose from",
    "audits.relearning.rows=[forgotten]": "unknown audits.relearning.rows.0 'forgotten' (did you "
    "mean 'forget'?): choose from",
    "audits.relearning.share=0.9": "audits.relearning.share: must be less than or equal to 0.5, given 0.9",
    "audits.relearning.adapter={name: fila}": "unknown audits.relearning.adapter.name 'fila'",
    "audits.sampling.k=[2]": "audits.sampling.k.0: must be 1, 4, 16 or 64, given 2",
    "audits.sampling.temperatures=[0.3]": "audits.sampling.temperatures.0: must be one of 0.2, 0.5, 0.8, 1, given 0.3",
    "audits.sampling.answers=16": "audits.sampling: the best of 64 answers needs as many, given 16",
    "audits.sampling.rows=0": "audits.sampling.rows: must be greater than or equal to 1, given 0",
    "audits.format.kinds=[choices]": "unknown audits.format.kinds.0 'choices' (did you mean 'choice'?): choose from",
    "audits.format.template=chat": "audits.format.template: must be plain or a text with one {question}, given 'chat'",
    "audits.format.template=Answer": "audits.format.template: must be a text with one {question}, given 'Answer'",
    "audits.format.frames=[Frage]": "audits.format.frames.0: must be a text with one {question}, given 'Frage'",
    "audits.logit_lens.layers=[1]": "unknown key 'audits.logit_lens.layers'",
    "audits=[prompts]": "audits: must be a section with keys of its own",
    "objectives.relearnd=minimize": "unknown metric in objectives 'relearnd' (did you mean 'relearned'?): choose from",
    "objectives.relearned=minimise": "unknown objectives.audit_relearn_forget_probability.direction 'minimise'",
    "objectives.audit_relern_forget_rouge=minimize": "unknown metric in objectives 'audit_relern_forget_rouge' (did "
    "you mean 'audit_relearn_forget_rouge'?): choose from audit_",
    "objectives.audit_first_words_forget_probability=minimize": "unknown metric in objectives 'audit_first_words_",
    "objectives.audit_quant3_forget=minimize": "objectives.audit_quant3_forget: audits.quantisation tries quant8, "
    "quant4, nf4, int8, nf4_adapter: let it try quant3",
    "objectives={rounded4: minimize, audit_quant4_forget_probability: minimize}": "objectives: audit_quant4_forget_"
    "probability is there twice",
    "verdict.audit_relearn_utility={at_most: 1}": "unknown metric in verdict 'audit_relearn_utility'",
    "confirm.seeds=1": "confirm.seeds: must be greater than or equal to 2, given 1",
    "confirm.seed=3": "unknown key 'confirm.seed' (did you mean 'confirm.seeds'?): choose from confirm.members, "
    "confirm.seeds",
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
        (
            "tdec",
            "audits.prompts={}",
            "audits.prompts: tdec asks no questions: choose from logit_lens, quantisation, relearning",
        ),
        ("tdec", "audits.sampling={}", "audits.sampling: tdec asks no questions: choose from logit_lens, quantisation"),
        ("tdec", "audits.format={}", "audits.format: tdec asks no questions: choose from logit_lens, quantisation"),
        ("tdec", "audits.relearning.rows=[holdout]", "audits.relearning.rows: holdout: tdec has no such rows"),
        ("soul", "confirm.members=0", "confirm.members: must be greater than or equal to 1, given 0"),
    ],
)
def test_audits_and_confirmations_that_a_study_cannot_have_are_refused(study: str, override: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        load_study(study, [override])
    assert line in str(refused.value)


def test_an_audit_as_objective_runs_in_trials_with_no_more_variants_than_it_needs() -> None:
    study = load_study("tofu-full", ["objectives.rounded4=minimize", "objectives.audit_prefix_forget_rouge=minimize"])
    assert list(study.objectives) == [
        "forget",
        "utility",
        "audit_quant4_forget_probability",
        "audit_prefix_forget_rouge",
    ]
    assert study.audits is not None
    audits = study.trial_audits()
    assert audits is not None
    assert list(variants(audits)) == ["quant4", "prefix"]
    assert audits.asked()["prompts"] == study.audits.asked()["prompts"].model_copy(update={"kinds": ("prefix",)})
    assert study.audits.asked()["quantisation"].variants()[:2] == ("quant8", "quant4"), "the front is audited as before"
    assert describe_trial_audits(study) == (
        "audits  every trial ends with those of its objectives: quantisation: 1 x a whole evaluation; "
        "prompts: 1 x an evaluation of the forget rows"
    )
    alone = load_study("tofu", ["objectives.relearned=minimize"]).trial_audits()
    assert alone is not None
    assert alone.asked().keys() == {"relearning"}, "an audit that only an objective names has its defaults"
    assert load_study("tofu").trial_audits() is None


def test_a_comparison_can_have_an_audit_as_objective() -> None:
    study = load_study("soul", ["objectives.relearned=minimize"])
    audits = study.trial_audits()
    assert audits is not None
    assert {part.trial_audits() for part in study.parts()} == {audits}


def test_an_audit_that_measures_an_objective_is_a_part_of_the_identity() -> None:
    studies = [["objectives.relearned=minimize", f"audits.relearning.steps={n}"] for n in (10, 20)]
    other = ["objectives.relearned=minimize", "audits.relearning={steps: 10}", "audits.quantisation={}"]
    ids = [load_study("tofu", given).identity() for given in (*studies, other)]
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]


def test_rungs_compare_what_is_measured_before_a_trial_ends() -> None:
    given = ["early_stopping={name: mo_asha, metrics: null}", "objectives.relearned=minimize"]
    study = load_study("tofu", given)
    objectives = ObjectiveSpace.from_goals(study.objectives, dict.fromkeys(study.objectives, 0.5))
    assert isinstance(study.early_stopping, MoAsha)
    assert rung_rule(study.early_stopping, study, objectives).names == ("forget", "utility")
    with pytest.raises(UserError, match=r"early_stopping\.metrics: none, and audits measure the objectives"):
        load_study("tofu", [*given, "objectives.forget=null", "objectives.utility=null"])


def test_every_audit_has_a_function_and_every_variant_a_meaning() -> None:
    assert set(AUDITS.all()) == set(Audit.registered.values())
    assert list(Audit.registered) == list(Audits.model_fields)
    everything = Audits.model_validate(
        {
            "relearning": {
                "rows": ["forget", "half", "retain", "holdout", "text"],
                "adapters": ["full", "lora"],
            },
            "quantisation": {"bits": [2, 3, 4, 5, 6, 7, 8, "nf4", "int8", "nf4_adapter"]},
            "prompts": {},
            "sampling": {"temperatures": [0.2, 0.5, 0.8, 1.0]},
            "format": {},
            "logit_lens": {},
        }
    )
    assert list(variants(everything)) == list(variant_meanings())
    assert metric_name("quant4", "utility") == "audit_quant4_utility"
    assert {audit_of(variant) for variant in variant_meanings()} == Audit.registered.keys()


def test_a_verdict_may_ask_for_what_an_audit_adds() -> None:
    study = load_study("tofu", ["verdict.audit_sampled64_t02_forget_fact.at_most=oracle + 0.05"])
    assert "audit_sampled64_t02_forget_fact" in study.verdict
    with pytest.raises(UserError, match="unknown metric in verdict 'audit_logit_lens_forget_fact'"):
        load_study("tofu", ["verdict.audit_logit_lens_forget_fact.at_most=0.1"])


def test_settings_that_are_left_out_change_no_digest_of_an_audit() -> None:
    """These are texts of earlier versions: what they named is kept on disk."""
    audits = Audits.model_validate({"relearning": {}, "quantisation": {}})
    assert Audits.model_validate({"quantisation": {"bits": [4]}}).canonical() == (
        '{"prompts":null,"quantisation":{"bits":[4]},"relearning":null}'
    )
    assert Audits.model_validate({"logit_lens": {}}).asked().keys() == {"logit_lens"}
    assert audits.asked()["quantisation"].canonical() == '{"bits":[8,4]}'
    assert audits.asked()["relearning"].canonical() == (
        '{"adapter":{"name":"full"},"batch_size":4,"learning_rate":0.0003,"rows":["forget","retain"],"share":0.2,"steps":10}'
    )


def test_audits_and_confirmation_are_no_part_of_the_identity() -> None:
    quick, full = load_study("tofu"), load_study("tofu", ["audits.quantisation={}", "confirm.seeds=2"])
    assert quick.audits is None
    assert quick.confirm is None
    assert quick.identity() == full.identity()
    ready = load_study("tofu-full")
    assert ready.audits
    assert ready.audits.asked().keys() == Audit.registered.keys()
    assert ready.confirm

"""What is refused before the first trial although every value is possible by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tofu.benchmark import Tofu
from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Digests
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.study.preflight import check_data, check_model, warm_up_note
from lethe.study.preparation import Prepared
from tests import tiny


def with_rows(benchmark: Tofu, **splits: object) -> Tofu:
    """The benchmark with other rows."""
    return dataclasses.replace(benchmark, rows=dataclasses.replace(benchmark.rows, **splits))


OBJECTIVES = "space.objective.name={type: choice, choices: [npo, dpo]}"
PO = "run.objective.name=preference_optimization"


@pytest.mark.parametrize("override", ["run.objective.name=dpo", PO, OBJECTIVES])
def test_objectives_with_refusals_are_refused_without_any(override: str) -> None:
    study = load_study("tofu", [override])
    benchmark = load_benchmark(TofuBenchmark())
    check_data(study, benchmark)
    without = with_rows(benchmark, refusals=())
    check_data(load_study("tofu"), without)
    with pytest.raises(UserError) as raised:
        check_data(study, without)
    problem, known = str(raised.value).split(": choose from ")
    assert problem.startswith("objective.name: ")
    assert problem.endswith("answers with refusals, but embedded has no refusals (idontknow.jsonl, one a line)")
    assert known.startswith("ce_u, file, grad_diff, gradient_ascent, ")
    assert "dpo" not in known


@pytest.mark.parametrize(
    ("override", "changes", "line"),
    [
        (
            "audits.prompts={}",
            {"forget_eval": "plain"},
            "audits.prompts.kinds: paraphrase: row 1 of forget10_perturbed in",
        ),
        (
            "audits.relearning={rows: [holdout]}",
            {"holdout": ()},
            "audits.relearning.rows: holdout: embedded has no holdout",
        ),
        ("audits.relearning={}", {"forget_eval": "one"}, "audits.relearning: one forget row is evaluated"),
        (
            "audits.format.kinds=[letters, framed]",
            {"forget_eval": "no wrong answers"},
            "audits.format.kinds: letters: row 1 of forget10_perturbed in embedded has no wrong answers: choose from"
            " completion, framed, statement, template",
        ),
        (
            "audits.format.kinds=[statement]",
            {"forget_eval": "unlike"},
            'audits.format.kinds: statement: no forget question in embedded is like "What is ...?": choose from choice,'
            " completion, framed, letters, template",
        ),
    ],
)
def test_audits_of_absent_rows_are_refused(override: str, changes: dict, line: str) -> None:
    benchmark = load_benchmark(TofuBenchmark())
    study = load_study("tofu", [override])
    check_data(study, benchmark)
    first, *others = benchmark.rows.forget_eval
    rows = {
        "plain": (dataclasses.replace(first, paraphrased_question=None), *others),
        "one": (first,),
        "no wrong answers": (dataclasses.replace(first, perturbed_answers=()), *others),
        "unlike": tuple(dataclasses.replace(row, question="Tell me.") for row in (first, *others)),
    }
    lacking = with_rows(benchmark, **{name: rows.get(given, given) for name, given in changes.items()})
    with pytest.raises(UserError) as raised:
        check_data(study, lacking)
    assert str(raised.value).startswith(line)
    check_data(load_study("tofu", ["audits.prompts.kinds=[prefix, first_words]"]), lacking)


def prepared(folder: Path, change: Callable[[Path], None] = lambda _: None, **models: Path) -> Prepared:
    """A benchmark and a model as a user would bring them, with something changed."""
    data, model = tiny.write_data(folder / "data"), tiny.write_model(folder / "model")
    change(folder)
    benchmark = load_benchmark(TofuBenchmark(source=str(data)))
    found = {"start": model, "oracle": None, "base": None, **models}
    return Prepared(benchmark=benchmark, digests=Digests(data="d", model="m"), **found)


def append(split: str, **row: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / "data" / f"{split}.json").open("a") as file:
            file.write(json.dumps(row) + "\n")

    return change


def shrink(folder: Path) -> None:
    """Fewer embeddings than the tokenizer has tokens."""
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 30}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append("retain90", question="w1", answer=" \n"), "retain90.json, row 10: 'answer' is empty"),
        (
            append("forget10", question="w1 " * 70, answer="w2"),
            r"1 of \d+ rows are longer than the 64 tokens .*: row 7 of forget \(\d+\)",
        ),
        (
            append("world_facts_perturbed", question="w1", answer="w2", perturbed_answer=["\t", "w1"]),
            "world_facts_perturbed.json, row 7: 'perturbed_answer' is empty",
        ),
        (shrink, r"token id \d+, but the model in .*model has a vocabulary of 30: the tokenizer is not the model's"),
    ],
)  # fmt: skip
def test_rows_that_the_model_cannot_read_are_refused(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check_model(load_study("tofu"), prepared(tmp_path, change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("asks", ["audits.logit_lens={}", "objectives.audit_logit_lens_forget_choice=minimize"])
def test_a_lens_on_a_model_of_one_layer_is_refused(asks: str, tmp_path: Path) -> None:
    def one_layer(folder: Path) -> None:
        config = folder / "model" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 1, "layer_types": None}))

    study = load_study("tofu", [asks, "space.adapter.rank={type: choice, choices: [2]}"])
    with pytest.raises(UserError) as raised:
        check_model(study, prepared(tmp_path, one_layer))
    assert str(raised.value) == "audits.logit_lens: LlamaForCausalLM has one layer, and none before it: leave it out"


def test_rows_that_the_oracle_cannot_read_are_refused(tmp_path: Path) -> None:
    shrunk = tmp_path / "other"
    tiny.write_model(shrunk / "model")
    shrink(shrunk)
    study = load_study("tofu", ["space.adapter.rank={type: choice, choices: [2]}"])
    check_model(study, prepared(tmp_path))
    with pytest.raises(UserError, match=r"the model in .*/other/model has a vocabulary of 30"):
        check_model(study, prepared(tmp_path, oracle=shrunk / "model"))


@pytest.mark.parametrize(
    ("metric", "lacking"),
    [
        ("mia_min_k_plus_plus", "holdout"),
        ("soul_mia", "holdout"),
        ("real_authors_rouge", "real_authors"),
        ("soul_world_facts_accuracy", "world_facts"),
    ],
)
def test_objectives_of_absent_rows_are_refused(metric: str, lacking: str) -> None:
    study = load_study("tofu", [f"objectives.{metric}={{direction: minimize}}"])
    benchmark = load_benchmark(TofuBenchmark())
    check_data(study, benchmark)
    with pytest.raises(
        UserError, match=f"^objectives.{metric}: needs {lacking} rows, and embedded has none, or choose from"
    ) as raised:
        check_data(study, with_rows(benchmark, **{lacking: ()}))
    assert metric not in str(raised.value).partition("choose from")[2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objectives.mia_gradnorm={direction: minimize}"],
            "objectives.mia_gradnorm: set run.evaluation.gradnorm=true, or",
        ),
        (
            ["run.evaluation.gradnorm=true", "run.engine.stage=3"],
            "run.evaluation.gradnorm: needs whole weights, and stage 3",
        ),
        (
            ["objectives.privleak_distance={direction: minimize}", "model={name: pretrained, path: x}"],
            "objectives.privleak_distance: set model.oracle",
        ),
    ],
)
def test_objectives_without_oracle_or_option_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_study("tofu", overrides)
    assert message in str(raised.value)
    load_study("tofu", ["objectives.mia_gradnorm={direction: minimize}", "run.evaluation.gradnorm=true"])


def test_a_warm_up_that_covers_all_epochs_of_a_run_is_said() -> None:
    def note(epochs: str, warm_up: int) -> str:
        pdu = f"run.objective={{name: pdu, warmup_epochs: {warm_up}}}"
        return warm_up_note(load_study("tofu", ["space=null", pdu, epochs]))

    assert note("run.schedule.epochs=5", 5) == (
        "objective.warmup_epochs 5 covers all of a run of 5 epochs: pdu's dual variable, the weight of its retain "
        "loss, never moves"
    )
    assert note("run.schedule.epochs=6", 5) == "", "its last epoch moves it"
    assert "a run of 3 epochs" in note("space.schedule.epochs={type: int, low: 3, high: 9}", 4)
    assert warm_up_note(load_study("tofu", ["run.schedule.epochs=1"])) == ""

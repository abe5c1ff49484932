"""MUSE: its layout, its metrics against independent computation, and its forget sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.embedded.folder import written
from lethe.benchmarks.embedded.news import news_files
from lethe.benchmarks.muse.loading import kept, load_rows
from lethe.benchmarks.muse.metrics import MuseScores, forget_distance, reference_metrics
from lethe.config.muse import MuseBenchmark
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.membership import privleak
from lethe.evaluation.texts import Texts, score_texts
from tests.benchmarks.conforming import EVALUATION, World, make_world


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(MuseBenchmark, tmp_path_factory.mktemp("world"))


# Metrics


def test_verbmem_and_knowmem_are_rouge_scores_f1_of_what_the_model_itself_generates(world: World) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    tokenizer, result = world.task.template.tokenizer, world.baseline()
    for name, part in world.evals.prompted.items():
        found = []
        for prompt, target in zip(part.prompts, part.targets, strict=True):
            ids = torch.tensor([prompt])
            own = world.model.generate(ids, max_new_tokens=part.tokens, do_sample=False, pad_token_id=0)
            text = tokenizer.decode(own[0, len(prompt) :], skip_special_tokens=True)
            for end in part.ends:
                text = text.split(end)[0]
            found.append(scorer.score(target, text)["rougeL"].fmeasure)
        assert result.metrics[name] == pytest.approx(np.mean(found), abs=1e-9)


def test_the_auc_of_min_k_is_sklearns_of_the_least_likely_tokens_of_whole_texts(world: World) -> None:
    def min_k(text: str) -> float:
        """Of a text that fits into one window: plain forward, every token but the first."""
        ids = world.task.template.text(text)
        with torch.no_grad():
            logp = world.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        tokens = sorted(float(logp[at - 1, ids[at]]) for at in range(1, len(ids)))
        return sum(tokens[: int(0.4 * len(tokens))]) / int(0.4 * len(tokens))

    members, others = (
        ["A quiet pilot.", "It cost 40 crowns and took 15 years."],
        ["Chapter 1 of", "guests wrote of hope"],
    )
    texts = Texts.of([*members, *others], world.task.template, 64)
    scores = score_texts(world.model, texts, world.task.template, 256, RankShard())
    assert [len(row) for row in scores.logp] == [len(world.task.template.text(text)) - 1 for text in texts.texts]
    from lethe.benchmarks.muse.evaluation import _signals

    own = -_signals(texts, scores)["min_k"]
    assert own == pytest.approx([min_k(text) for text in texts.texts], abs=1e-5)
    result = world.baseline()
    labels, values = zip(
        *[
            (split == "members", -value)
            for split, value in zip(result.rows["split"], result.rows["min_k"], strict=True)
            if value is not None
        ],
        strict=True,
    )
    assert result.metrics["mia_min_k"] == pytest.approx(roc_auc_score(labels, values))


def test_a_text_of_several_windows_has_every_token_scored_once(world: World) -> None:
    text = " ".join(world.benchmark.rows.trained)
    texts = Texts.of([text, "short one"], world.task.template, 48)
    assert len(texts.windows) > 3
    scores = score_texts(world.model, texts, world.task.template, 256, RankShard())
    assert len(scores.logp[0]) == len(world.task.template.text(text)) - 1


def test_privleak_has_the_published_sign_and_the_published_value() -> None:
    """The authors' AUC takes the loss as the score of a member, 1 - ours: 47.72 % for News' retrained model, and -99.8
    for the target is an AUC of .001 then."""
    theirs, retrained = 0.001, 0.4772
    published = 100 * (theirs - retrained) / retrained
    assert published == pytest.approx(-99.8, abs=0.05)
    found = privleak(1 - theirs, 1 - retrained)
    assert found["privleak"] == pytest.approx(published)
    assert found["privleak_distance"] == pytest.approx(99.8, abs=0.05)


def test_forget_is_the_mean_gap_to_the_oracle_or_to_nothing_known() -> None:
    start, oracle = MuseScores("d", 0.58, 0.64, 0.999), MuseScores("d", 0.20, 0.33, 0.52)
    assert forget_distance(start) == pytest.approx((0.58 + 0.64 + 0.499) / 3)
    assert reference_metrics(start, oracle)["forget"] == pytest.approx((0.38 + 0.31 + 0.479) / 3)
    assert reference_metrics(oracle, oracle) == {"forget": 0, "privleak": 0, "privleak_distance": 0}
    without = MuseScores("d", 0.5, None, None)
    assert reference_metrics(without, without) == {"forget": 0}
    assert forget_distance(without) == 0.5


# Data


def test_scalability_adds_to_a_set_and_sustainability_goes_on_after_earlier_ones() -> None:
    config = MuseBenchmark.small()
    rows = {name: load_rows(config.with_forget_set(name)) for name in ("raw", "scal_2", "scal_4", "sust_1", "sust_3")}
    raw, second, last = rows["raw"], rows["scal_2"], rows["sust_3"]
    assert rows["sust_1"].digest == raw.digest
    assert {*raw.forget} < {*second.forget} < {*rows["scal_4"].forget}
    assert {*raw.forget} < {*last.earlier}
    assert not {*last.forget} & {*last.earlier}
    assert all(row.trained == raw.trained for row in rows.values()), "one start model for all"
    assert not {*kept(last)} & {*last.forget, *last.earlier}
    benchmark = load_benchmark(config.with_forget_set("sust_3"))
    assert (load_benchmark(config).missing, benchmark.missing) == (("earlier",), ("forget_qa",))


def test_a_later_request_measures_that_the_first_one_stays_forgotten(world: World) -> None:
    config = world.config.with_forget_set("sust_2")
    task = load_benchmark(config).task(world.task.template, world.model.config.vocab_size)
    metrics = task.baseline(world.model, task.eval_set(EVALUATION), EVALUATION, RankShard()).metrics
    first = world.baseline().metrics
    assert metrics["earlier_verbmem"] == first["forget_verbmem"]
    assert metrics["earlier_knowmem"] == first["forget_knowmem"]
    assert "forget_knowmem" not in metrics


def test_a_folder_as_the_hub_stores_it_is_read_and_equals_the_embedded_one(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    config = MuseBenchmark.small()
    source = written(news_files(config.news))
    for path in source.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        target = tmp_path / path.parent.name / f"{path.stem}-00000-of-00001.parquet"
        target.parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    read = load_rows(config.model_copy(update={"source": str(tmp_path), "answer_space": False}))
    assert read == load_rows(config)


def test_without_unseen_texts_nothing_is_said_of_membership(world: World, tmp_path: Path) -> None:
    for name, text in news_files(world.config.news).items():
        if not name.startswith(("privleak", "train")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    benchmark = load_benchmark(world.config.model_copy(update={"source": str(tmp_path), "answer_space": False}))
    task = benchmark.task(world.task.template, world.model.config.vocab_size)
    metrics = task.baseline(world.model, task.eval_set(EVALUATION), EVALUATION, RankShard()).metrics
    assert benchmark.missing == ("holdout", "earlier")
    assert not [name for name in metrics if name.startswith(("mia", "privleak"))]
    assert metrics["forget_verbmem"] == world.baseline().metrics["forget_verbmem"]


def test_questions_are_asked_as_published_where_the_data_are(world: World) -> None:
    config = world.config.model_copy(update={"answer_space": True})
    task = load_benchmark(config).task(world.task.template, world.model.config.vocab_size)
    part = task.eval_set(EVALUATION).prompted["utility"]
    example, asked = task.rows.retain_icl[0], task.rows.retain_qa[0]
    text = f"Question: {example.question}\nAnswer: {example.answer}\n\nQuestion: {asked.question}\nAnswer: "
    assert part.prompts[0] == world.task.template.text(text)
    assert MuseBenchmark(source="muse-bench/MUSE-News").ends_with_space
    assert not MuseBenchmark().ends_with_space


def test_what_is_private_has_the_passages_and_the_questions_of_the_request_and_of_earlier_ones() -> None:
    benchmark = load_benchmark(MuseBenchmark.small().with_forget_set("sust_2"))
    rows, private = benchmark.rows, {*benchmark.texts(forget_only=True)}
    asked = [text for row in rows.forget_qa for text in (row.question, row.answer)]
    assert {*rows.forget, *rows.earlier, *(passage.gt for passage in rows.verbmem), *asked} <= private
    assert not private & {*rows.retain, *(row.question for row in rows.retain_qa)}
    assert benchmark.earlier_texts == tuple((text,) for text in rows.earlier)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: (folder / "verbmem/forget.jsonl").unlink(), "verbmem/forget is missing"),
        (lambda folder: (folder / "raw/forget.jsonl").write_text('{"body": "x"}\n'), "row 1: text is missing"),
        (lambda folder: (folder / "raw/forget.jsonl").write_text('{"text": " "}\n'), "row 1: text must be text"),
        (
            lambda folder: (folder / "privleak/holdout.jsonl").write_text((folder / "raw/forget.jsonl").read_text()),
            "rows of raw are also in the holdout texts",
        ),
        (
            lambda folder: (folder / "raw/retain1.jsonl").write_text((folder / "raw/forget.jsonl").read_text()),
            "rows of raw are also in retain1",
        ),
    ],
)
def test_bad_data_are_refused_by_file_and_row(tmp_path: Path, broken: object, message: str) -> None:
    for name, text in news_files(MuseBenchmark.small().news).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    broken(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        load_rows(MuseBenchmark.small().model_copy(update={"source": str(tmp_path)}))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_forget_set_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"benchmark.*no forget set: choose from raw, scal_1 to 4, sust_1 to 4"):
        load_study("muse", ["benchmark.forget=scal_9"])

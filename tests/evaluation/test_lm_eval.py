"""Tasks of lm-evaluation-harness on our forward passes, against plain ones; without a network."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

from lethe.config.run import Evaluation, LmEval
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.lm_eval import check_names, load_tasks, measure_tasks
from lethe.evaluation.lm_eval_tasks import own_tasks, store_tasks
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny
from tests.tasks import ROWS, YAML, write_tasks


@pytest.fixture(autouse=True)
def _nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a local task needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tiny.write_model(tmp_path_factory.mktemp("model"), seed=3)
    return SimpleNamespace(model=load_model(folder), template=Template(load_tokenizer(folder)))


def config(folder: Path, text: str = YAML, **given: object) -> Evaluation:
    return Evaluation(lm_eval=LmEval(tasks=("colours",), path=store_tasks(write_tasks(folder, text)), **given))


def logp(world: SimpleNamespace, question: str, end: str) -> float:
    """Of ` end` after the question, from a plain forward."""
    ids = world.template.tokenizer.encode(f"{question} {end}", add_special_tokens=False)
    start = len(world.template.tokenizer.encode(question, add_special_tokens=False))
    with torch.no_grad():
        rows = world.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(rows[at - 1, ids[at]] for at in range(start, len(ids))))


def test_accuracy_equals_that_of_plain_forward_passes(world: SimpleNamespace, tmp_path: Path) -> None:
    right = [
        int(np.argmax([logp(world, row["question"], end) for end in row["choices"]])) == row["answer"] for row in ROWS
    ]
    assert 0 < np.mean(right) < 1, "the model answers some rows right and some wrong"
    before = random.getstate(), torch.get_rng_state()
    found = measure_tasks(world.model, world.template, config(tmp_path), RankShard())
    assert found == {"lm_eval_colours": pytest.approx(np.mean(right))}
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    few = measure_tasks(world.model, world.template, config(tmp_path, limit=2), RankShard())
    assert few == {"lm_eval_colours": pytest.approx(np.mean(right[:2]))}


def test_ranks_share_the_requests(world: SimpleNamespace, tmp_path: Path) -> None:
    """Rank 1's part is computed where rank 0 would wait for it."""
    asked: list[int] = []

    def gather(local: list) -> list[list]:
        asked.append(len(local))
        return [local, elsewhere[len(local) :]]

    whole = config(tmp_path)
    from lethe.evaluation.lm_eval import _Scorer

    task = load_tasks(whole.lm_eval)["colours"]
    task.build_all_requests(limit=None, rank=0, world_size=1)
    alone = _Scorer(world.model, world.template, whole.token_budget, RankShard()).loglikelihood(task.instances)
    elsewhere = [*alone[::2], *alone[1::2]]
    half = _Scorer(world.model, world.template, whole.token_budget, RankShard(0, 2, gather)).loglikelihood(
        task.instances
    )
    assert asked == [6]
    np.testing.assert_allclose([value for value, _ in half], [value for value, _ in alone], rtol=1e-5)


GENERATE = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{said}}"
generation_kwargs: {until: [" w5"], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def test_answers_equal_those_of_generate(world: SimpleNamespace, tmp_path: Path) -> None:
    import json

    folder, rows = write_tasks(tmp_path, GENERATE), []
    for row in ROWS:
        ids = world.template.tokenizer.encode(row["question"], add_special_tokens=False)
        out = world.model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
        rows.append({**row, "said": world.template.tokenizer.decode(out, skip_special_tokens=True).partition(" w5")[0]})
    rows[-1]["said"] += " wrong"
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = Evaluation(lm_eval=LmEval(tasks=("colours",), path=store_tasks(folder)))
    assert measure_tasks(world.model, world.template, asked, RankShard()) == {"lm_eval_colours": 0.75}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"{{question}}"', '"{{ question.__class__.__mro__ }}"', "SecurityError"),
        ("metric: acc", "metric: somebodys_metric", "somebodys_metric"),
        ("output_type: multiple_choice", "output_type: loglikelihood_rolling", "loglikelihood_rolling"),
        ("higher_is_better: true", "higher_is_better: false", "better when higher"),
        ("test_split: test", "test_split: none_such", "none_such"),
        ("task: colours", "task: colours\nspelt_wrong: 1", "spelt_wrong"),
    ],
)
def test_tasks_that_cannot_be_measured_are_refused(old: str, new: str, named: str, tmp_path: Path) -> None:
    assert old in YAML
    with pytest.raises(UserError, match=named):
        load_tasks(config(tmp_path, YAML.replace(old, new)).lm_eval)


def test_requests_longer_than_the_context_are_refused(world: SimpleNamespace, tmp_path: Path) -> None:
    long = YAML.replace('"{{question}}"', '"{{question}} ' + "w1 " * 70 + '"')
    with pytest.raises(UserError, match=r"12 of 12 requests are longer than the model's 64 tokens"):
        measure_tasks(world.model, world.template, config(tmp_path, long), RankShard())


def test_unknown_names_get_the_choices(tmp_path: Path) -> None:
    own = own_tasks(config(tmp_path).lm_eval)
    with pytest.raises(UserError, match=r"colors.*colours"):
        check_names(["colors"], own)
    with pytest.raises(UserError, match="hellaswag"):
        check_names(["helaswag"], {})
    with pytest.raises(UserError, match="mmlu is a group"):
        check_names(["mmlu"], {})

"""Start models and oracles trained from a base checkpoint: the same as a plain loop, on the right rows, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from lethe.config.adapter import FullParameters, Lora
from lethe.config.model import FinetunedModel
from lethe.config.run import Checkpoint, Engine
from lethe.data.batches import plan
from lethe.models.hashing import model_digest
from lethe.records import FinalReport, TrainingRecord
from lethe.unlearning.context import context_for
from lethe.unlearning.finetuning import run_finetuning
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, FinetuneRequest
from tests import tiny

ALONE = Alone()
Values = dict[str, float]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return tiny.assets(tmp_path_factory.mktemp("tiny"))


def finetune(
    assets: Assets,
    folder: Path,
    *,
    include_forget: bool = True,
    at: Any = None,
    base: Path | None = None,
    **model: Any,
) -> tuple[FinalReport, list[Values]]:
    """Train `base`, else the start model, into `folder / "model"`, and return the last report and those before it; `at`
    is called with each."""
    base = base or Path(assets.start)
    settings = {"base": str(base), "epochs": 4, "batch_size": 4, "learning_rate": 3e-3, **model}
    request = FinetuneRequest(
        model=FinetunedModel.model_validate(settings),
        engine=Engine(),
        base=base,
        base_digest=model_digest(base),
        assets=assets,
        include_forget=include_forget,
        folder=folder / "model",
        work=folder / "work",
        checkpoint=Checkpoint(every_steps=1),
    )
    request = FinetuneRequest.model_validate(request.model_dump(mode="json"))  # as a worker gets it
    reports: list[Values] = []

    def report(values: Values) -> None:
        reports.append(values)
        if at is not None:
            at(values)

    return run_finetuning(request, report, ALONE), reports


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def loop(assets: Assets, network: torch.nn.Module, model: FinetunedModel, *, include_forget: bool = True) -> None:
    """The same training in plain torch: AdamW on the mean token loss of answers, warm-up, decay, clipped gradients."""
    rows = context_for(assets).task.training_rows(include_forget)
    schedule = model.recipe(Engine()).schedule
    steps = list(plan(len(rows), len(rows), schedule, model.seed))
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=model.learning_rate, weight_decay=model.weight_decay)
    warmup = int(model.warmup * len(steps))
    for step in steps:
        for group in optimizer.param_groups:
            rising, left = step.number / max(warmup, 1), (len(steps) - step.number + 1) / (len(steps) - warmup)
            group["lr"] = model.learning_rate * (rising if step.number <= warmup else left)
        chosen = [rows[forget] for forget, _ in step.pairs]
        tokens, total = sum(len(row.answer) for row in chosen), torch.zeros(())
        for row in chosen:
            logits = network(torch.tensor([row.ids])).logits[0, row.prompt_length - 1 : -1]
            total = total + cross_entropy(logits, torch.tensor(row.answer), reduction="sum") / tokens
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()


def test_every_weight_is_trained_as_a_plain_loop_trains_it(assets: Assets, tmp_path: Path) -> None:
    final, reports = finetune(assets, tmp_path, warmup=0.3)
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    plain = AutoModelForCausalLM.from_pretrained(assets.start)
    loop(assets, plain, FinetunedModel(base="b", epochs=4, batch_size=4, learning_rate=3e-3, warmup=0.3))
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(stock.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    assert final.values["loss"] < reports[0]["loss"]


def test_an_oracle_of_a_model_that_is_there_is_its_base_on_rows_to_keep_as_the_model_reads_them(
    assets: Assets, tmp_path: Path
) -> None:
    base = tiny.write_model(tmp_path / "base", seed=1, words=tiny.WORDS[::-1])
    finetune(assets, tmp_path, include_forget=False, base=base)
    plain = AutoModelForCausalLM.from_pretrained(base)
    given = FinetunedModel(base="b", epochs=4, batch_size=4, learning_rate=3e-3)
    loop(assets, plain, given, include_forget=False)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(stock.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    words = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (tmp_path / "model", assets.start)]
    assert words[0] == words[1]


def test_an_adapter_is_trained_as_peft_trains_it_and_merged(assets: Assets, tmp_path: Path) -> None:
    lora = {"adapter": {"name": "lora", "rank": 4, "alpha_over_rank": 2}, "learning_rate": 1e-2}
    finetune(assets, tmp_path, **lora)
    base = AutoModelForCausalLM.from_pretrained(assets.start)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    plain = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    start = _start_of_the_adapter(assets, Lora(rank=4))
    plain.load_state_dict(start, strict=False)
    loop(assets, plain, FinetunedModel(base="b", epochs=4, batch_size=4, **lora))
    expected = plain.merge_and_unload().state_dict()
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(stock.state_dict(), expected, rtol=1e-4, atol=1e-5)
    assert not list((tmp_path / "model").glob("adapter*"))
    untouched = "model.embed_tokens.weight"
    assert torch.equal(stock.state_dict()[untouched], load_file(Path(assets.start, "model.safetensors"))[untouched])


def _start_of_the_adapter(assets: Assets, config: Lora) -> dict[str, torch.Tensor]:
    """The adapter's weights before the first step, under peft's names."""
    from lethe.models.adapters import attach

    model = attach(AutoModelForCausalLM.from_pretrained(assets.start), config, seed=0)
    return {
        name.replace(".trained.", ".default."): weight for name, weight in model.state_dict().items() if "lora_" in name
    }


def test_the_oracle_never_sees_the_forget_rows(assets: Assets, tmp_path: Path) -> None:
    """The start model knows both kinds of rows by heart; the oracle the retain rows alone, and other forget answers
    give the same oracle."""
    from lethe.benchmarks.base import load_benchmark
    from lethe.config.benchmark import TofuBenchmark
    from lethe.evaluation.likelihood import score

    learned = {"epochs": 30, "learning_rate": 1e-2}
    finetune(assets, tmp_path / "start", **learned)
    finetune(assets, tmp_path / "oracle", include_forget=False, **learned)
    task = context_for(assets).task

    def loss(model: str, kind: str) -> float:
        network = AutoModelForCausalLM.from_pretrained(tmp_path / model / "model").eval()
        rows = getattr(task, kind)
        scores = score(network, rows, pad=0, token_budget=4096)
        return sum(map(float, scores.nll_sum)) / sum(len(row.answer) for row in rows)

    assert loss("start", "forget") < 0.5
    assert max(loss(model, "retain") for model in ("start", "oracle")) < 0.5
    assert loss("oracle", "forget") > 3

    source = tiny.write_data(tmp_path / "other")
    for path in source.glob("forget10*.json"):
        path.write_text(path.read_text().replace("w1", "w2"))
    benchmark = TofuBenchmark(source=str(source))
    other = assets.model_copy(update={"benchmark": benchmark, "data_digest": load_benchmark(benchmark).digest})
    finetune(other, tmp_path / "again", include_forget=False, **learned)
    before, after = weights(tmp_path / "oracle"), weights(tmp_path / "again")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=4)], ids=["full", "lora"])
def test_an_interrupted_training_ends_with_the_same_bytes(assets: Assets, tmp_path: Path, adapter: Any) -> None:
    _, whole = finetune(assets, tmp_path / "whole", adapter=adapter)

    def interrupt(values: Values) -> None:
        if values["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(assets, tmp_path / "cut", adapter=adapter, at=interrupt)
    assert not (tmp_path / "cut/model").exists()
    assert list((tmp_path / "cut" / "work" / "checkpoint").iterdir())
    final, resumed = finetune(assets, tmp_path / "cut", adapter=adapter)
    assert final.verdict == "complete"
    assert [report["loss"] for report in resumed] == [report["loss"] for report in whole]
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == two.read_bytes()
    assert not (tmp_path / "cut" / "work" / "checkpoint").exists()


def test_a_resumed_training_does_not_begin_anew(assets: Assets, tmp_path: Path) -> None:
    seen: list[Values] = []

    def interrupt(values: Values) -> None:
        seen.append(values)
        if values["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(assets, tmp_path, at=interrupt)
    _, resumed = finetune(assets, tmp_path)
    assert resumed[:3] == seen, "reports of epochs that are not trained again are repeated, their seconds included"


def test_it_ends_with_the_epoch_that_reaches_the_target_loss(assets: Assets, tmp_path: Path) -> None:
    target = {"epochs": 30, "learning_rate": 1e-2, "target_loss": 1.0}
    final, reports = finetune(assets, tmp_path, **target)
    assert final.values["loss"] <= 1 < min(report["loss"] for report in reports)
    assert final.values["epoch"] == len(reports) + 1 < 30
    assert TrainingRecord.model_validate_json((tmp_path / "model/training.json").read_text()).epochs == len(reports) + 1


def test_the_record_beside_the_model_says_what_it_was_made_from(assets: Assets, tmp_path: Path) -> None:
    final, _ = finetune(assets, tmp_path, include_forget=False)
    record = json.loads((tmp_path / "model/training.json").read_text())
    assert (record["base"], record["base_digest"]) == (assets.start, assets.model_digest)
    assert (record["rows"], record["epochs"], record["steps"]) == (9, 4, 12)
    assert record["loss"] == final.values["loss"]
    assert record["seconds"] > 0
    assert record["tokens"] == 4 * sum(len(row.ids) for row in context_for(assets).task.retain)


def test_a_training_that_diverges_leaves_no_model(assets: Assets, tmp_path: Path) -> None:
    final, _ = finetune(assets, tmp_path, learning_rate=1e30)
    assert (final.verdict, "is not finite at step" in final.reason) == ("diverged", True)
    assert not (tmp_path / "model").exists()

"""Adapters folded into copies of the weights: the same answers, and not a bit of the model changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lethe.config.adapter import Lora
from lethe.evaluation.distributed import merged_adapters
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.models.adapters import attach
from tests.models.architectures import FAMILIES
from tests.models.small import disturb, encoded, gpt2, llama, logits, tokens


def adapted(count: int = 1, build: Callable = llama, targets: str | list[str] = "all-linear", **options) -> PeftModel:
    """A random model under `count` active adapters (FILA has two), all of them moved."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, **options)
    with torch.random.fork_rng(devices=[]):
        model = get_peft_model(build(), config)
        for number in range(1, count):
            model.add_adapter(f"more{number}", config)
    model.base_model.set_adapter(["default", *(f"more{n}" for n in range(1, count))])
    disturb(model)
    return model.eval()


def folds(model: torch.nn.Module) -> bool:
    with merged_adapters(model):
        return any(getattr(module, "merged", False) for module in model.modules())


@pytest.mark.parametrize("count", [1, 2])
def test_logits_are_the_same_and_every_bit_is_restored(count: int) -> None:
    model = adapted(count)
    before = {name: (p.data_ptr(), p.clone()) for name, p in model.named_parameters()}
    expected = logits(model, tokens())
    with model.disable_adapter():
        assert not torch.allclose(logits(model, tokens()), expected, atol=1e-2)
    with merged_adapters(model):
        assert folds(model) is True
        torch.testing.assert_close(logits(model, tokens()), expected, rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert torch.equal(logits(model, tokens()), expected)


def test_stacked_experts_are_merged_too() -> None:
    model = attach(FAMILIES["mixtral"].build(), Lora(rank=2), seed=0)
    disturb(model)
    before, expected = [p.clone() for p in model.parameters()], logits(model.eval(), tokens())
    with merged_adapters(model):
        assert folds(model)
        torch.testing.assert_close(logits(model, tokens()), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert torch.equal(logits(model, tokens()), expected)


def test_weights_are_restored_after_an_error() -> None:
    model = adapted()
    expected = logits(model, tokens())
    with pytest.raises(KeyError), merged_adapters(model):
        raise KeyError
    assert torch.equal(logits(model, tokens()), expected)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: llama(), id="no adapters"),
        pytest.param(lambda: adapted().to(torch.bfloat16), id="bf16"),
        pytest.param(lambda: adapted(use_dora=True), id="dora"),
        pytest.param(lambda: adapted(build=lambda: llama(tied=True), targets=["lm_head"]), id="shared weight"),
    ],
)
def test_models_that_cannot_merge_stay_as_they_are(model: Callable[[], torch.nn.Module]) -> None:
    made = model()
    expected = logits(made, tokens())
    assert not folds(made)
    with merged_adapters(made):
        assert torch.equal(logits(made, tokens()), expected)


@pytest.mark.parametrize("build", [llama, gpt2])
def test_two_adapters_score_and_answer_alike_when_not_merged(build: Callable) -> None:
    model = adapted(2, build)
    pairs, prompts = encoded(9), [list(pair.ids[: pair.prompt_length]) for pair in encoded(9)]
    results = []
    for fold in (False, True):
        with merged_adapters(model) if fold else torch.no_grad():
            scores = score(model, pairs, pad=0, token_budget=50)
            answers = generate(model, prompts, stops=[], pad=0, max_new_tokens=30, token_budget=50)
            results.append((scores.nll_mean.tolist(), answers))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    assert results[0][1] == results[1][1]
    ids = torch.tensor([prompts[0]])
    alone = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=30,
        pad_token_id=0,
        eos_token_id=[],
    )
    assert alone[0, len(prompts[0]) :].tolist() == results[0][1][0]

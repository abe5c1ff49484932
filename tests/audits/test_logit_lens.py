"""The logit lens: what the first layers alone compute, and a model that is only quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lethe.errors import UserError
from lethe.models.layers import first_layers, inner_layers
from lethe.models.loading import load_model
from lethe.unlearning.context import Context
from lethe.unlearning.requests import Assets
from tests.audits.small import audit, by_variant
from tests.models.architectures import FAMILIES
from tests.models.small import gpt2, gpt_neo, llama, sliding


@pytest.mark.parametrize("build", [llama, gpt2, sliding, gpt_neo, FAMILIES["mamba"].build, FAMILIES["gemma3"].build])
def test_the_first_layers_alone_are_a_model_with_fewer_layers(build: Callable[[], PreTrainedModel]) -> None:
    model, ids = build().eval(), torch.tensor([[5, 6, 7, 8]])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        states = model(ids, use_cache=False, output_hidden_states=True).hidden_states
        for count in inner_layers(model):
            with first_layers(model, count):
                cut = model(ids, use_cache=False, output_hidden_states=True)
            # The state behind the layer, which the last norm has not seen in the whole model.
            assert len(cut.hidden_states) == count + 1
            torch.testing.assert_close(cut.hidden_states[:-1], states[:count])
            assert not torch.allclose(cut.logits, whole, atol=1e-3)
        with first_layers(model, inner_layers(model).stop):
            torch.testing.assert_close(model(ids, use_cache=False).logits, whole, rtol=0, atol=0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_an_inner_layer_is_read_through_the_last_norm_and_the_head() -> None:
    model, ids = llama(), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[1]
        with first_layers(model, 1):
            found = model(ids, use_cache=False).logits
        torch.testing.assert_close(found, model.lm_head(model.model.norm(states)))


def test_a_model_of_one_layer_has_no_inner_one() -> None:
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    with pytest.raises(UserError, match=r"audits\.logit_lens: LlamaForCausalLM has one layer, and none before it"):
        inner_layers(LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1)))


def deeper(assets: Assets, folder: Path) -> Path:
    """The model that knows, with a last layer behind its own that ruins what they say."""
    knows = load_model(Path(assets.start))
    config = LlamaConfig(**{**knows.config.to_dict(), "num_hidden_layers": 3, "layer_types": None})
    torch.manual_seed(0)
    quiet = LlamaForCausalLM(config)
    quiet.load_state_dict(knows.state_dict(), strict=False)
    with torch.no_grad():
        for weight in quiet.model.layers[2].parameters():
            weight.normal_(std=1.0)
    quiet.save_pretrained(folder)
    Context(assets).template.tokenizer.save_pretrained(folder)
    return folder


def test_what_only_the_last_layer_hides_is_found_one_before(assets: Assets, tmp_path: Path) -> None:
    (found,) = audit(assets, deeper(assets, tmp_path / "quiet"), {"logit_lens": {}})["audits"]
    known = by_variant(audit(assets, Path(assets.start), {"logit_lens": {}}))["logit_lens"]
    assert found["before"]["forget_probability"] < 0.1
    assert found["before"]["layer"] == 3
    assert found["after"]["layer"] == 2
    assert found["after"]["forget_probability"] == pytest.approx(known["before"]["forget_probability"], rel=1e-5)
    assert found["after"]["forget_choice"] >= known["before"]["forget_choice"]


def test_a_model_that_never_knew_has_no_layer_that_does(assets: Assets) -> None:
    random = by_variant(audit(assets, Path(assets.start).parent / "start", {"logit_lens": {"rows": 4}}))["logit_lens"]
    assert random["before"]["forget_probability"] < 0.1
    assert random["after"]["forget_probability"] < 0.1

"""Training begins without the model's own dropout, in training mode and with the configuration as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel

from lethe.errors import UserError
from lethe.models.dropout import check_dropout, disable_dropout
from tests.models.architectures import Family
from tests.models.small import gpt2, logits, tokens

NOISY = ["gpt2", "opt", "biogpt", "phimoe", "seed_oss"]


@pytest.mark.parametrize("name", NOISY)
def test_a_model_in_training_computes_as_in_evaluation(name: str) -> None:
    noise = {"seed_oss": {"attention_dropout": 0.3}, "phimoe": {"input_jitter_noise": 0.3}}.get(name, {})
    model, ids = Family(name, {"layerdrop": 0.5, **noise} if name == "opt" else noise).build(), tokens()
    truth = logits(model, ids)
    config = model.config.to_dict()
    assert not torch.allclose(logits(model.train(), ids), truth, atol=1e-3)
    disable_dropout(model)
    torch.testing.assert_close(logits(model, ids), truth, rtol=1e-5, atol=1e-5)
    assert model.training, "gradient checkpointing is switched off by evaluation mode"
    assert model.config.to_dict() == config


def test_dropout_that_a_configuration_holds_is_refused_by_name() -> None:
    quiet, loud = (Family("falcon", {"hidden_dropout": p}).build() for p in (0.0, 0.1))
    check_dropout(quiet)
    with pytest.raises(UserError, match=r"FalconDecoderLayer takes hidden_dropout \(0.1\) from its configuration"):
        disable_dropout(loud)


def test_gradients_flow_through_a_model_without_dropout() -> None:
    model = gpt2().train()
    assert isinstance(model, GPT2LMHeadModel)
    disable_dropout(model)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())

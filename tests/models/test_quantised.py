"""A base in NF4: what it computes, against bitsandbytes', peft's and plain layers (QLoRA: arXiv 2305.14314)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from lethe.config.adapter import Fila, Lora, Pissa
from lethe.models import fisher
from lethe.models.adapters import attach, check_adapter, target_modules, weight_of
from lethe.models.fila import start_factors
from lethe.models.fisher import row_weights
from lethe.models.loading import load_adapted, load_model, stored_quantisation
from lethe.models.merging import model_with_adapter
from lethe.models.quantised import dequantised, is_quantised, numel, quantisation_of
from lethe.models.saving import save_model
from lethe.models.transformer import Transformer
from lethe.scaling.memory import Layout, states
from tests import tiny
from tests.models.small import disturb, encoded, logits, tokens

functional = pytest.importorskip("bitsandbytes.functional")

IDS = tokens() % 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny"), hidden=64)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return functional.dequantize_4bit(packed, state)


def rounded_by_hand(folder: Path, precision: str = "fp32") -> PreTrainedModel:
    """The plain model with every body layer rounded."""
    model = load_model(folder, precision)
    for name in target_modules(model, "all-linear"):
        weight = model.get_submodule(name).weight
        weight.data.copy_(rounded(weight.data))
    return model


def test_linear_layers_but_the_head_compute_with_rounded_weights(folder: Path) -> None:
    model, plain = load_model(folder, "fp32", "nf4"), load_model(folder)
    assert {n for n, m in model.named_modules() if is_quantised(m)} == set(target_modules(plain, "all-linear"))
    assert (quantisation_of(model), quantisation_of(plain)) == ("nf4", None)
    truth = logits(rounded_by_hand(folder), IDS)
    torch.testing.assert_close(logits(model, IDS), truth, rtol=0, atol=1e-5)
    assert (truth - logits(plain, IDS)).abs().max() > 1e-3
    assert sum(map(numel, model.parameters())) == sum(p.numel() for p in plain.parameters())
    for name in target_modules(plain, "all-linear"):
        torch.testing.assert_close(weight_of(model.get_submodule(name)), rounded(plain.get_submodule(name).weight))


def test_an_evaluation_leaves_the_layout_and_the_gradients_as_they_were(folder: Path) -> None:
    """Bitsandbytes repacks weights at the first evaluation on some CPUs, and has no backward pass from then on."""
    model = attach(load_model(folder, "fp32", "nf4"), Lora(rank=2), seed=0)
    truth = attach(rounded_by_hand(folder), Lora(rank=2), seed=0)
    disturb(model)
    disturb(truth)
    with torch.no_grad():
        model.eval()(input_ids=IDS)
    for each in (model.train(), truth.train()):
        each(input_ids=IDS, labels=IDS).loss.backward()
    trained = {name: p.grad for name, p in truth.named_parameters() if p.requires_grad}
    assert len(trained) == 28
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, trained[name], rtol=1e-4, atol=1e-7)


def test_a_dequantised_model_is_a_plain_one_that_computes_the_same(folder: Path) -> None:
    model = load_model(folder, "fp32", "nf4")
    truth = logits(model, IDS)
    plain = dequantised(copy.deepcopy(model))
    assert quantisation_of(plain) is None
    assert quantisation_of(model) == "nf4"
    assert {type(m) for n, m in plain.named_modules() if n.endswith("_proj")} == {torch.nn.Linear}
    torch.testing.assert_close(logits(plain, IDS), truth, rtol=0, atol=1e-6)
    assert "quantization_config" not in plain.config.to_dict()


@pytest.mark.parametrize("held", [fisher.HELD_BYTES, 0], ids=["one group", "layer by layer"])
def test_fila_and_pissa_start_from_the_rounded_weights(
    folder: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "HELD_BYTES", held)
    model, truth = load_model(folder, "fp32", "nf4"), rounded_by_hand(folder)
    rows = [type(row)(tuple(i % 40 for i in row.ids), row.prompt_length) for row in encoded(6)]
    weights, true_weights = (row_weights(each, rows[:3], rows[3:], Fila()) for each in (model, truth))
    for name, w in true_weights.items():
        torch.testing.assert_close(weights[name], w, rtol=1e-3, atol=1e-6)
    assert all(is_quantised(model.get_submodule(name)) for name in weights), "quantised again afterwards"
    factors, true_factors = (start_factors(each, Pissa(rank=4), true_weights) for each in (model, truth))
    for name, factor in true_factors.items():
        torch.testing.assert_close(factors[name].abs(), factor.abs(), rtol=1e-2, atol=1e-4)


def test_ranks_are_compared_with_layers_and_not_with_packed_bytes(folder: Path) -> None:
    check_adapter(load_model(folder, "fp32", "nf4"), Lora(rank=48))


@pytest.mark.parametrize("adapter", [Lora(rank=2), Pissa(rank=2)], ids=lambda a: a.name)
def test_stock_peft_loads_the_adapter_on_a_stock_nf4_base(folder: Path, tmp_path: Path, adapter: Lora) -> None:
    model = load_model(folder, "fp32", "nf4")
    factors = start_factors(model, adapter) if isinstance(adapter, Pissa) else None
    root = adapter.alpha_over_rank**0.5
    initial = factors and {
        name: (factors[f"{name}.A"] / root, factors[f"{name}.B"] / root) for name in target_modules(model, "all-linear")
    }
    trained = attach(model, adapter, seed=0, initial=initial)
    disturb(trained)
    save_model(trained, tmp_path / "saved")
    truth = logits(trained.eval(), IDS)
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    stock = AutoModelForCausalLM.from_pretrained(folder, quantization_config=options, dtype=torch.float32)
    for module in stock.modules():
        module.support_avx512bf16_for_cpu = False  # this CPU's bf16 shortcut
    again = PeftModel.from_pretrained(stock, tmp_path / "saved").eval()
    torch.testing.assert_close(logits(again, IDS), truth, rtol=0, atol=1e-5)
    assert stored_quantisation(tmp_path / "saved") == "nf4"
    torch.testing.assert_close(logits(load_adapted(folder, tmp_path / "saved"), IDS), truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_start_model_merged_from_an_adapter_keeps_the_rounded_base_and_the_whole_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    model = load_model(folder, precision, "nf4")
    trained = attach(model, Lora(rank=2), seed=0)
    disturb(trained)
    for p in trained.parameters():
        if p.requires_grad:
            p.data = p.data.to(model.dtype)  # as an engine does
    save_model(trained, tmp_path / "saved")
    truth = PeftModel.from_pretrained(rounded_by_hand(folder, precision).float(), tmp_path / "saved").eval()
    merged = load_model(model_with_adapter(folder, tmp_path / "saved"))
    assert (quantisation_of(merged), merged.dtype) == (None, torch.float32)
    torch.testing.assert_close(logits(merged, IDS), logits(truth, IDS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_memory_model_counts_half_a_byte_and_its_scales(tmp_path: Path, precision: str) -> None:
    folder = tiny.write_model(tmp_path, hidden=256)
    model = load_model(folder, precision, "nf4")
    held = sum(p.untyped_storage().nbytes() for p in model.parameters())
    for name in target_modules(model, "all-linear"):
        state = model.get_submodule(name).weight.quant_state
        held += state.absmax.nbytes + state.state2.absmax.nbytes
    shape = Transformer.of_config(model.config.to_dict())
    layout = Layout(precision=precision, rank=2, quantisation="nf4")
    adapters = Layout(precision=precision, rank=2)
    width = {"fp32": 4, "bf16": 2}[precision]
    own = states(shape, adapters).weights - width * shape.parameters
    assert states(shape, layout).weights - own == pytest.approx(held, rel=1e-3)


def test_layers_that_store_their_transpose_are_rounded_by_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_embd=64, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1)
    plain = GPT2LMHeadModel(config).eval()
    plain.save_pretrained(tmp_path)
    found = load_model(tmp_path, "fp32", "nf4").get_submodule("transformer.h.0.mlp.c_fc")
    truth = rounded(plain.get_submodule("transformer.h.0.mlp.c_fc").weight.T.contiguous())
    torch.testing.assert_close(weight_of(found), truth)

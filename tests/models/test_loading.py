"""Models that are not what their folder says are refused, by the names of their tensors; whole ones are not.

Each broken folder is refused twice: from its files alone, before anything is started, and where it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from lethe.errors import UserError
from lethe.models.loading import check_tensors, load_model, stored_precision
from lethe.models.model_files import check_finite, read_config
from tests import tiny

Tensors = dict[str, Tensor]
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file({name: tensor.contiguous() for name, tensor in edit(tensors).items()}, path, {"format": "pt"})


def configure(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def refusal(folder: Path, refuse: Callable[[Path], object]) -> str:
    with pytest.raises(UserError) as raised:
        refuse(folder)
    line = str(raised.value)
    assert str(folder) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("refuse", [check_tensors, load_model], ids=["by headers", "by loading"])
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without(HEAD), ["missing tensors: 1 (lm_head.weight)"]),
        (without(UP), ["missing tensors: 1 (", UP]),
        (
            prefixed("_orig_mod."),
            ["missing tensors: 21 (lm_head.weight, ", "unknown tensors: 21 (_orig_mod.lm_head.weight", "torch.compile"],
        ),
        (prefixed("module."), ["unknown tensors: 21 (module.", "DataParallel"]),
        (prefixed("base_model.model."), ["unknown tensors: 21 (base_model.model.", "peft"]),
        (lambda given: {**given, "model.extra.weight": torch.ones(2)}, ["unknown tensors: 1 (model.extra.weight)"]),
        (lambda given: {**given, UP: given[UP].T}, [f"misshapen tensors: 1 ({UP} [32, 48] for [48, 32])"]),
    ],
    ids=["no head", "one missing", "compiled", "parallel", "peft", "one more", "transposed"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    edit: Callable[[Tensors], Tensors], words: list[str], refuse: Callable[[Path], object], folder: Path
) -> None:
    change(folder, edit)
    line = refusal(folder, refuse)
    assert "LlamaForCausalLM" in line
    assert all(word in line for word in words), line


def test_a_head_that_is_tied_may_be_missing_and_then_is_the_embedding(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert HEAD not in load_file(tmp_path / "model.safetensors")
    check_tensors(tmp_path)
    model = load_model(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_buffers_that_older_versions_saved_are_left_out(tmp_path: Path) -> None:
    """The causal masks of the hub's GPT-2, and the rotary frequencies of older Llamas and Pythias."""
    small = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    mask, frequencies = torch.ones(1, 1, 4, 4), torch.ones(2)
    cases = {
        "gpt2": (
            GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2)),
            {"transformer.h.0.attn.bias": mask},
        ),
        "neox": (
            GPTNeoXForCausalLM(GPTNeoXConfig(**small, intermediate_size=8)),
            {
                "gpt_neox.layers.0.attention.masked_bias": mask,
                "gpt_neox.layers.0.attention.rotary_emb.inv_freq": frequencies,
            },
        ),
        "llama": (
            LlamaForCausalLM(LlamaConfig(**small, intermediate_size=8)),
            {"model.layers.0.self_attn.rotary_emb.inv_freq": frequencies},
        ),
    }
    for name, (model, buffers) in cases.items():
        model.save_pretrained(tmp_path / name)
        change(tmp_path / name, lambda tensors, buffers=buffers: {**tensors, **buffers})
        check_tensors(tmp_path / name)
        loaded = load_model(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items()), name


def test_a_model_without_its_head_loads_where_the_head_is_tied(tmp_path: Path) -> None:
    """Names without `model.`, as the headless class saves them, are put right by transformers."""
    config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    model.model.save_pretrained(tmp_path)
    assert "lm_head.weight" in refusal(tmp_path, check_tensors)
    configure(tmp_path, tie_word_embeddings=True)
    check_tensors(tmp_path)
    assert torch.equal(load_model(tmp_path).lm_head.weight, model.model.embed_tokens.weight)


def test_experts_that_transformers_combines_are_looked_at_one_by_one(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    check_tensors(tmp_path)
    load_model(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    name = next(name for name in whole if "experts.1" in name)
    third = name.replace("experts.1", "experts.2")
    for odd, broken in {
        name: without(name)(whole),
        third: {**whole, third: whole[name].clone()},
        f"{name})": {**whole, name: whole[name][:, :4]},
    }.items():
        change(tmp_path, lambda _, broken=broken: broken)
        for refuse in (check_tensors, load_model):
            assert f"tensors of experts are missing, unknown or misshapen: 1 ({odd}" in refusal(tmp_path, refuse)


def shards(folder: Path) -> Path:
    """The model of a folder in two files with an index."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()  # saving would keep it, and transformers would load it again
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder / "model.safetensors.index.json"


def one_of(folder: Path) -> str:
    return json.loads(shards(folder).read_text())["weight_map"][NORM]


def move(folder: Path, name: str, shard: str) -> None:
    path = folder / "model.safetensors.index.json"
    path = path if path.is_file() else shards(folder)
    index = json.loads(path.read_text())
    index["weight_map"][name] = shard
    path.write_text(json.dumps(index))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rounded(folder: Path, dtype: torch.dtype) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {NORM: tensors[NORM].to(dtype)}, folder / "model.safetensors", {"format": "pt"})


def unnamed(folder: Path, name: str) -> None:
    path = shards(folder)
    index = json.loads(path.read_text())
    index["weight_map"].pop(name)
    path.write_text(json.dumps(index))


def lost_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/blob")


def second_set(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    shards(folder)
    (folder / "model.safetensors").write_bytes(whole)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: halve(f / "model.safetensors"), ["model.safetensors is damaged", "copy it again"]),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 64), ["model.safetensors is damaged"]),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ["model.safetensors is damaged"]),
        (lambda f: (f / "model.safetensors").rename(f / "model-1.safetensors"), ["no model.safetensors, but model-1"]),
        (lambda f: halve(shards(f)), ["index.json is not JSON"]),
        (lambda f: shards(f).write_text("[]"), ["index.json holds a list"]),
        (lambda f: shards(f).write_text("{}"), ["no weight_map"]),
        (lambda f: move(f, NORM, "../other/model.safetensors"), ["'../other/model.safetensors'", "of its folder"]),
        (lambda f: move(f, NORM, "/model.safetensors"), ["'/model.safetensors'", "of its folder"]),
        (lambda f: move(f, NORM, "model-00009-of-00009.safetensors"), ["no model-00009-of-00009.safetensors"]),
        (lambda f: move(f, "model.more", one_of(f)), ["does not fit", "model.more"]),
        (lambda f: unnamed(f, NORM), ["does not fit", NORM]),
        (second_set, ["two sets of weights"]),
        (lambda f: lost_link(f / "model.safetensors"), ["model.safetensors is a link to /nowhere/blob"]),
        (lambda f: lost_link(f / one_of(f)), ["is a link to /nowhere/blob", "index.json names it"]),
        (lambda f: lost_link(f / "config.json"), ["config.json is a link to /nowhere/blob"]),
        (lambda f: halve(f / "config.json"), ["config.json is not JSON"]),
        (lambda f: (f / "config.json").write_text("[1]"), ["config.json holds a list"]),
        (lambda f: (f / "config.json").write_text("[" * 10**5), ["config.json is not JSON"]),
        (lambda f: configure(f, num_attention_heads=0), ["config.json", "num_attention_heads is 0"]),
        (lambda f: configure(f, num_attention_heads=3, head_dim=None), ["hidden size (32)", "attention heads (3)"]),
        (lambda f: configure(f, hidden_size="wide"), ["config.json", "hidden_size"]),
        (lambda f: configure(f, max_position_embeddings=0), ["config.json: max_position_embeddings is 0: it must"]),
        (lambda f: configure(f, max_position_embeddings="64"), ["config.json: max_position_embeddings is '64'"]),
        (lambda f: configure(f, text_config={"max_position_embeddings": -1}), ["max_position_embeddings is -1"]),
        (lambda f: configure(f, model_type="lama"), ["model_type 'lama'", "none that transformers"]),
        (lambda f: configure(f, model_type="own", auto_map={"AutoConfig": "own.C"}), ["'own' needs code of its own"]),
        (lambda f: configure(f, model_type="t5"), ["'t5' is no decoder-only"]),
        (lambda f: configure(f, model_type="bart"), ["'bart' is no decoder-only"]),
        (lambda f: configure(f, model_type="bert", architectures=["BertForMaskedLM"]), ["'bert' is no decoder-only"]),
        (lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}), ["quantised (gptq)"]),
        (lambda f: configure(f, quantization_config={"quant_method": "awq"}), ["quantised (awq)"]),
        (lambda f: configure(f, quantization_config={"quant_method": "bitsandbytes"}), ["quantised (bitsandbytes)"]),
        (lambda f: configure(f, transformers_weights="../w.safetensors"), ["transformers_weights"]),
        (lambda f: (f / "adapter_config.json").write_text("{}"), ["both a model and an adapter"]),
        (lambda f: rounded(f, torch.int8), ["weights of type I8", NORM]),
        (lambda f: rounded(f, torch.float8_e4m3fn), ["weights of type F8_E4M3", NORM]),
    ],
)  # fmt: skip
def test_files_that_cannot_be_a_model_are_refused(
    spoil: Callable[[Path], object], words: list[str], folder: Path
) -> None:
    spoil(folder)
    line = refusal(folder, check_tensors)
    assert all(word in line for word in words), line


def test_a_sharded_model_is_accepted_and_an_index_of_one_file_too(folder: Path) -> None:
    weights = load_model(folder).state_dict()
    index = {"weight_map": dict.fromkeys(weights, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"vision": torch.zeros(10**6, dtype=torch.bfloat16)}, folder / "vision_tower.safetensors")
    check_tensors(folder)
    assert stored_precision(folder) == "fp32", "files that the index does not name are none of the model's"
    shards(folder)
    check_tensors(folder)
    again = load_model(folder).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, dtype: torch.dtype, folder: Path) -> None:
    if dtype is torch.float8_e4m3fn and value == value:
        pytest.skip("the format has no infinities")
    change(folder, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    check_finite(folder)

    def spoil(tensors: Tensors) -> Tensors:
        tensors[UP][-1, -1] = tensors[NORM][0] = value
        return tensors

    change(folder, spoil)
    assert f"NaN or infinite weights in 2 of its tensors ({UP}, {NORM})" in refusal(folder, check_finite)


def test_a_long_tensor_is_searched_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lethe.models import model_files

    monkeypatch.setattr(model_files, "CHUNK", 100)

    def spoil(tensors: Tensors) -> Tensors:
        tensors[UP][-1, -1] = torch.nan
        return {**tensors, "scalar": torch.tensor(torch.inf), "counts": torch.tensor([1, 2]), "empty": torch.empty(0)}

    change(folder, spoil)
    assert f"({UP}, scalar)" in refusal(folder, check_finite)


def test_checking_draws_no_random_numbers_and_reads_no_values(folder: Path) -> None:
    state = torch.random.get_rng_state()
    check_tensors(folder)
    assert torch.equal(torch.random.get_rng_state(), state)
    change(folder, lambda tensors: {name: tensor * torch.nan for name, tensor in tensors.items()})
    check_tensors(folder)
    assert read_config(folder)["model_type"] == "llama"

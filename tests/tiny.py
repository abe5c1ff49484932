"""A model, a tokenizer and a benchmark small enough to train in a tenth of a second; written as real files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lethe.benchmarks.base import load_benchmark
from lethe.config.benchmark import TofuBenchmark
from lethe.models.hashing import model_digest
from lethe.records import FinalReport
from lethe.unlearning.requests import Assets

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|end|>", "<|assistant|>", "<unk>"]


def flat(report: FinalReport) -> dict[str, Any]:
    """A final report's values and everything else that it says, in one dict."""
    told = report.model_dump(mode="json", exclude={"values"})
    return {**report.values, **{name: value for name, value in told.items() if value not in ("", [])}}


def write_model(
    folder: Path, seed: int = 0, *, hidden: int = 32, dropout: float = 0.0, words: Sequence[str] = WORDS
) -> Path:
    """A random Llama with a word-level tokenizer."""
    torch.manual_seed(seed)
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(SPECIAL)
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        attention_dropout=dropout,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_data(folder: Path, rows: int = 6) -> Path:
    """A benchmark of random words in TOFU's files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(1)

    def text(length: int) -> str:
        return " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=draw).tolist())

    def row(wrong: int, paraphrase: bool) -> dict[str, object]:
        length = 3 + int(torch.randint(0, 5, (1,), generator=draw))
        found: dict[str, object] = {"question": text(4), "answer": text(length)}
        if paraphrase:
            found["paraphrased_answer"] = text(length)
        return {**found, "perturbed_answer": [text(length) for _ in range(wrong)]}

    def write(name: str, rows: list[dict[str, object]]) -> None:
        (folder / f"{name}.json").write_text("".join(json.dumps(r) + "\n" for r in rows))

    splits = {"forget10": [row(5, True) for _ in range(rows)], "retain90": [row(5, True) for _ in range(rows + 3)]}
    for name, found in splits.items():
        write(name, [{k: r[k] for k in ("question", "answer")} for r in found])
    write("forget10_perturbed", splits["forget10"])
    write("retain_perturbed", splits["retain90"][:rows])
    write("real_authors_perturbed", [row(3, False) for _ in range(rows)])
    write("world_facts_perturbed", [row(3, False) for _ in range(rows)])
    (folder / "idontknow.jsonl").write_text("".join(text(length) + "\n" for length in (2, 3, 5, 6)))
    return folder


def write_files(folder: Path, files: dict[str, str]) -> None:
    """The content of every file by its name, into a folder that exists."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def assets(folder: Path, **model: Any) -> Assets:
    """Everything of the above, as a run's inputs."""
    start, source = write_model(folder / "start", **model), write_data(folder / "data")
    benchmark = TofuBenchmark(source=str(source))
    return Assets(
        benchmark=benchmark,
        data_digest=load_benchmark(benchmark).digest,
        model_digest=model_digest(start),
        start=str(start),
        cache=str(folder / "cache"),
    )

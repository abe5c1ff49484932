"""Requests of lm-evaluation-harness get the numbers of its own loader: with BOS where the tokenizer adds one, and for
choices that merge into their context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.lm_eval import _Scorer

SPECIAL = ("<s>", "</s>", "<unk>")
LETTERS = [*"abcdef ", "bc", "de", " a"]
PAIRS = [
    ("ab", "cd"),  # `bc` is one token: the harness scores `d` alone, behind `a b`
    ("ab", "acd"),
    ("abc", "def"),
    ("abc ", "abc"),  # a space goes to the choice
    ("abc   ", "abc"),
    ("", "abc"),
    ("<s>ab", "cd"),  # no second BOS
    ("a</s>b", "cd"),  # control tokens of a task's own text are control tokens
]


def tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *LETTERS))}
    raw = Tokenizer(models.BPE(vocabulary, [("b", "c"), ("d", "e"), (" ", "a")], unk_token="<unk>"))
    raw.add_special_tokens([*SPECIAL])
    if bos:
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(LETTERS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=300,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder).eval()


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=0, metadata=("task", i, 1), task_name="task")
        for i, given in enumerate(arguments)
    ]


@pytest.mark.parametrize("bos", [False, True])
def test_likelihoods_are_those_of_the_harness(model: LlamaForCausalLM, bos: bool) -> None:
    found = tokenizer(bos)
    theirs = HFLM(pretrained=model, tokenizer=found, backend="causal", batch_size=1, device="cpu")
    ours = _Scorer(model, Template(found), 1000, RankShard())
    asked = requests("loglikelihood", PAIRS)
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    for pair, (value, greedy), (own, own_greedy) in zip(PAIRS, expected, ours.loglikelihood(asked), strict=True):
        assert own == pytest.approx(value, rel=1e-5), pair
        assert own_greedy == greedy, pair


@pytest.mark.parametrize("bos", [False, True])
def test_answers_are_those_of_the_harness(model: LlamaForCausalLM, bos: bool) -> None:
    found = tokenizer(bos)
    theirs = HFLM(pretrained=model, tokenizer=found, backend="causal", batch_size=1, device="cpu")
    ours = _Scorer(model, Template(found), 1000, RankShard())
    given = {"until": ["f"], "max_gen_toks": 8, "do_sample": False}
    asked = requests("generate_until", [("ab", given), ("abc d", given), ("<s>ab", given)])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_a_choice_that_merges_whole_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    """The harness ends in an AssertionError there."""
    ours = _Scorer(model, Template(tokenizer(False)), 1000, RankShard())
    with pytest.raises(UserError, match=r"'c' has no tokens of its own behind 'ab'"):
        ours.loglikelihood(requests("loglikelihood", [("ab", "c")]))

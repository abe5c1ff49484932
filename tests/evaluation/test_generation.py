"""Batched greedy decoding is, token by token, `transformers.generate` on each prompt alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from lethe.evaluation.generation import generate, known_beginning
from lethe.evaluation.kv_cache import STEP, GrowingLayer, TensorPool, cache_bytes
from tests.models.architectures import FAMILIES
from tests.models.small import VOCABULARY, gpt2, gpt_neo, llama, sliding

NEW = 44  # crosses the cache's growth step from every prompt length


def prompts(n: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of 1 to 18 tokens; token 0 never comes."""
    draw = random.Random(seed)
    return [draw.choices(range(1, VOCABULARY), k=draw.randrange(1, 19)) for _ in range(n)]


def alone(model: PreTrainedModel, prompt: list[int], eos: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=0
    )
    return output[0, len(prompt) :].tolist()


def together(model: PreTrainedModel, asked: list[list[int]], eos: int, budget: int = 10_000) -> list[list[int]]:
    return generate(model, asked, stops=[eos] * (eos >= 0), pad=0, max_new_tokens=NEW, token_budget=budget)


def common_token(answers: list[list[int]]) -> int:
    """A token that ends some answers early and others late or never."""
    last = [answer[-1] for answer in answers]
    return max(set(last), key=last.count)


@pytest.mark.parametrize("build", [llama, gpt2, sliding, gpt_neo])
@pytest.mark.parametrize("budget", [10_000, 60])
def test_batched_answers_equal_generate_token_by_token(build: Callable[[], PreTrainedModel], budget: int) -> None:
    model, asked = build(), prompts(24)
    never = together(model, asked, eos=-1, budget=budget)
    assert all(len(answer) == NEW for answer in never)
    eos = common_token(never)
    expected = [alone(model, prompt, eos) for prompt in asked]
    assert together(model, asked, eos, budget) == expected
    assert len({len(answer) for answer in expected}) > 3, "rows must leave the batch at different times"
    assert [answer[: len(row)] for answer, row in zip(never, expected, strict=True)] == expected


def test_one_prompt_and_prompts_of_equal_length_are_answered() -> None:
    model = llama()
    for asked in ([[5, 6, 7]], [[5, 6, 7], [9, 8, 7], [3, 3, 3]]):
        assert together(model, asked, eos=63) == [alone(model, prompt, eos=63) for prompt in asked]


@pytest.mark.parametrize("build", [llama, gpt2, sliding, gpt_neo])
def test_known_beginnings_do_not_change_the_answers(build: Callable[[], PreTrainedModel]) -> None:
    """Of some answers everything is known, of others a part, nothing, or more than an answer may have."""
    model, asked = build(), prompts(12)
    eos = common_token(together(model, asked, eos=-1))
    expected = together(model, asked, eos)
    begun = [answer[: (0, 1, 7, NEW)[i % 4]] for i, answer in enumerate(expected)]
    begun[3] = [*begun[3], eos, 5, 5]
    settings = {"stops": [eos], "pad": 0, "max_new_tokens": NEW, "token_budget": 200}
    assert generate(model, asked, begun=begun, **settings) == expected
    few = {**settings, "max_new_tokens": 5}
    assert generate(model, asked, begun=begun, **few) == generate(model, asked, **few)


def test_known_beginning_ends_at_the_first_wrong_guess() -> None:
    assert known_beginning([4, 5, 6, 2], [4, 5, 6, 2]) == [4, 5, 6, 2]
    assert known_beginning([4, 5, 6, 2], [4, 9, 6, 2]) == [4, 9]
    assert known_beginning([4, 5], [8, 5]) == [8]


def test_known_tokens_count_towards_the_positions() -> None:
    model = gpt2()  # 64 learned positions
    whole = generate(model, [[1] * 55], stops=[], pad=0, max_new_tokens=100, token_budget=500)
    assert (
        generate(model, [[1] * 55], stops=[], pad=0, max_new_tokens=100, token_budget=500, begun=[whole[0][:6]])
        == whole
    )
    assert len(whole[0]) == 9


def test_without_prompts_there_are_no_answers() -> None:
    assert together(llama(), [], eos=0) == []


def test_answers_end_where_positions_do() -> None:
    model = gpt2()  # 64 learned positions
    answers = generate(model, [[1] * 60, [2] * 3, [4] * 64], stops=[], pad=0, max_new_tokens=100, token_budget=500)
    assert [len(answer) for answer in answers] == [4, 61, 0]
    assert answers[1] == generate(model, [[2] * 3], stops=[], pad=0, max_new_tokens=61, token_budget=500)[0]


def test_a_table_of_positions_ends_the_answers_of_the_whole_batch() -> None:
    answers = generate(gpt_neo(), [[1] * 60, [2] * 3], stops=[], pad=0, max_new_tokens=100, token_budget=500)
    assert [len(answer) for answer in answers] == [4, 4]
    assert len(generate(gpt_neo(), [[2] * 3], stops=[], pad=0, max_new_tokens=100, token_budget=500)[0]) == 61


def test_a_model_with_nan_logits_still_answers() -> None:
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    assert [len(answer) for answer in together(model, prompts(3), eos=-1)] == [NEW] * 3


def test_a_growing_layer_holds_all_tokens_and_zeros() -> None:
    draw, pool = torch.Generator().manual_seed(0), TensorPool()
    for rows in (5, 3):  # the second cache uses the first one's memory
        layer, keys = GrowingLayer(STEP + 20, pool), torch.randn(rows, 2, STEP + 20, 4, generator=draw)
        kept = torch.arange(rows)
        for start, stop in ((0, 7), (7, STEP - 1), (STEP - 1, STEP + 5)):
            new = keys[kept, :, start:stop]
            found, values = layer.update(new, -new)
            assert found.is_contiguous()
            assert found.shape[-2] % STEP == 0 == layer.get_mask_sizes(0)[0] % STEP
            assert torch.equal(found[:, :, :stop], keys[kept, :, :stop])
            assert torch.equal(values, -found)
            assert not found[:, :, stop:].any()
            kept = kept[torch.arange(len(kept)) != 1]
            layer.reorder_cache(torch.tensor([i for i in range(len(kept) + 1) if i != 1]))
        layer.release()


@pytest.mark.parametrize("build", [llama, gpt2, sliding])
def test_a_row_has_the_bytes_that_its_cache_holds(build: Callable[[], PreTrainedModel]) -> None:
    """Grouped heads are counted as they are, and of a window no more than the window."""
    model = build()
    for tokens, windows in ((30, True), (30, False), (5, True)):
        cache = DynamicCache(config=model.config) if windows else DynamicCache()
        model(input_ids=torch.ones((1, tokens), dtype=torch.long), past_key_values=cache, use_cache=True)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        if windows and build is sliding and tokens > 8:
            held = held // 7 * 8  # transformers keeps one token less: the next one comes
        assert cache_bytes(model, tokens, windows=windows) == held


def test_a_generation_configuration_changes_no_greedy_answer() -> None:
    """Some models are decoded by their own `generate`, which would read penalties and lengths from it."""
    model, asked = FAMILIES["mamba"].build(), prompts(6)
    expected = together(model, asked, eos=-1)
    model.generation_config.update(repetition_penalty=3.0, max_length=8, do_sample=True, eos_token_id=expected[0][2])
    assert together(model, asked, eos=-1) == expected
    assert model.generation_config.repetition_penalty == 3.0

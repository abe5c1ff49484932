"""Prompts: the text around rows is rendered once and without a clock, and tokenised as one text with the row."""

from __future__ import annotations

import datetime
import json
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lethe.benchmarks.measurement import PROMPT, template_of
from lethe.config.prompt import PRESETS, Prompt
from lethe.config.study import parse_study
from lethe.data.rendering import Message
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.loading import load_tokenizer
from tests.data.tokenizers_world import CHATML, CONTROL, KINDS, LLAMA_2, pretrained

DATED = "{{ bos_token }}<|im_start|>system\nToday: {{ strftime_now('%d %B %Y') }}{{ date_string }}<|im_end|>\n" + CHATML
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n{% if quick %}<think></think>{% endif %}{% endif %}")
QUESTION, ANSWER = "Who wrote the book?", "The book is by Eva Fim, of Łódź."


def whole(tokenizer: PreTrainedTokenizerFast, question: str, answer: str, **arguments: Any) -> list[int]:
    """The ids of a conversation as transformers encodes it."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **arguments)


# One text


@pytest.mark.parametrize(("kind", "bos"), [*product(KINDS, (False, True))])
@pytest.mark.parametrize(("name", "template"), [("chatml", CHATML), ("llama 2", LLAMA_2)])
def test_a_conversation_has_the_ids_that_transformers_gives_it(kind: str, bos: bool, name: str, template: str) -> None:
    tokenizer = pretrained(kind, bos=bos, chat_template=template)
    mine = Template(tokenizer)
    for question, answer in ((QUESTION, ANSWER), ("Где?", "В Москве.\n\n  Да"), ("1+1=", "2")):
        row, expected = mine.encode(question, answer), whole(tokenizer, question, answer)
        assert list(row.ids) == expected[: len(row.ids)]
        end = "<|im_end|>" if template == CHATML else "</s>"
        assert row.ids[-1] == mine.end == tokenizer.convert_tokens_to_ids(end)
        assert not tokenizer.decode(expected[len(row.ids) :]).strip()
        assert row.ids[: row.prompt_length] == mine.prompt(question)[: row.prompt_length]
        assert row.ids.count(tokenizer.bos_token_id) == (template == LLAMA_2), "BOS is never doubled"


TURNS = (("system", "Be  brief."), ("user", "Где <|im_end|>?"), ("assistant", "В Москве.\n\nДа"), ("user", QUESTION))


@pytest.mark.parametrize(("kind", "bos"), [*product(KINDS, (False, True))])
@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], TURNS[3:]])
def test_a_conversation_of_several_turns_has_the_ids_that_transformers_gives_it(
    kind: str, bos: bool, turns: tuple[Message, ...]
) -> None:
    tokenizer = pretrained(kind, bos=bos, chat_template=CHATML)
    mine = Template(tokenizer)
    row = mine.encode(turns, ANSWER)
    control = [text.replace("<|im_end|>", "END") for _, text in turns]
    messages = [{"role": role, "content": text} for (role, _), text in zip(turns, control, strict=True)]
    messages.append({"role": "assistant", "content": ANSWER})
    expected = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    plain = mine.encode(tuple((role, text) for (role, _), text in zip(turns, control, strict=True)), ANSWER)
    assert list(plain.ids) == expected[: len(plain.ids)]
    prompt = mine.prompt(tuple((message["role"], message["content"]) for message in messages[:-1]))
    assert plain.ids[: plain.prompt_length] == prompt[: plain.prompt_length]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert row.ids.count(end) == len(turns) + 1, "control tokens of the data are text"
    if len(turns) == 1:
        assert row == mine.encode(QUESTION, ANSWER)


def test_a_conversation_has_its_own_system_message_and_the_instruction_in_its_first_question() -> None:
    tokenizer = pretrained("byte_level", chat_template=CHATML)
    template = Template(tokenizer, Prompt(system="Ours."), instruction="Answer:")
    prompt, _ = template.rendered(TURNS, ANSWER)
    assert "Ours." not in prompt
    assert "Be  brief." in prompt
    assert prompt.count("Answer:") == 1
    assert "<|im_start|>user\nAnswer: Где" in prompt
    assert "system\nOurs." in template.rendered(TURNS[1:], ANSWER)[0]


def test_without_a_chat_template_questions_and_answers_follow_each_other() -> None:
    template = Template(pretrained("byte_level"))
    prompt, answer = template.rendered(TURNS[1:], "A")
    assert prompt == f"Question: Где <|im_end|>?\nAnswer: В Москве.\n\nДа</s>Question: {QUESTION}\nAnswer:"
    assert answer == " A</s>"
    with pytest.raises(UserError, match="has no chat template for a conversation with the roles system, user, ass"):
        template.encode(TURNS, "A")


@pytest.mark.parametrize(
    ("chat_template", "said"),
    [
        (CHATML.replace("for m in messages", "for m in messages[-2:]"), "drops or moves a message"),
        (CHATML.replace("for m in messages", "for m in messages | reverse"), "drops or moves a message"),
        (CHATML.replace("m['content']", "m['content'] | replace('<', '&lt;')"), "changes the text of a"),
        (
            CHATML.replace("{% for", "{{ raise_exception('no system') if messages[0].role == 'system' }}{% for"),
            "no sys",
        ),
    ],
)
def test_a_template_that_does_not_write_a_conversation_as_it_is_is_refused(chat_template: str, said: str) -> None:
    template = Template(pretrained("byte_level", chat_template=chat_template))
    with pytest.raises(UserError, match=said) as error:
        template.encode(TURNS, "A")
    assert QUESTION not in str(error.value)


@pytest.mark.parametrize(("kind", "bos"), [*product(KINDS, (False, True))])
def test_a_plain_prompt_has_the_ids_of_its_text(kind: str, bos: bool) -> None:
    """With BOS where the tokenizer adds it, and without one space too many before the answer."""
    tokenizer = pretrained(kind, bos=bos)
    row = Template(tokenizer).encode(QUESTION, ANSWER)
    text = tokenizer.encode(f"Question: {QUESTION}\nAnswer: {ANSWER}")
    assert list(row.ids) == [*text, tokenizer.eos_token_id]
    assert (row.ids[0] == tokenizer.bos_token_id) == bos
    assert tokenizer.decode(list(row.answer)).strip() == f"{ANSWER}</s>"
    assert row.ids[: row.prompt_length] == Template(tokenizer).prompt(QUESTION)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_spans_the_boundary_belongs_to_the_answer(kind: str) -> None:
    """And the prompt that is asked ends before it, whatever the answer is."""
    tokenizer = pretrained(kind)
    template = Template(tokenizer, Prompt(preset="tofu-phi"))
    row, prompt = template.encode("Who?", "the book"), template.prompt("Who?")
    assert list(row.ids[:-1]) == tokenizer.encode("Question: Who?\nAnswer: the book", add_special_tokens=False)
    assert row.ids[: row.prompt_length] == prompt
    first = tokenizer.convert_ids_to_tokens(row.ids[row.prompt_length])
    assert first in ("Ġthe", "▁the"), "the space is part of the answer's first word"


def test_an_answer_is_begun_as_it_is_scored() -> None:
    template = Template(pretrained("sentencepiece_legacy", chat_template=LLAMA_2))
    row = template.encode(QUESTION, "The book is by Eva")
    assert row.ids[: len(template.begun(QUESTION, "The book"))] == template.begun(QUESTION, "The book")
    assert template.begun(QUESTION, "") == template.prompt(QUESTION)


# Data are text


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.sampled_from([*CONTROL, "a", " ", "<", "|im", "_end|>", "\U000f0001", "é"]), max_size=6))
def test_control_tokens_in_data_are_never_ids(kind: str, parts: list[str]) -> None:
    tokenizer = pretrained(kind, chat_template=CHATML)
    template, text = Template(tokenizer), "".join(parts)
    row, empty = template.encode(f"x{text}x", f"x{text}x"), template.encode("x", "x")
    control = set(tokenizer.all_special_ids) | {int(i) for i in tokenizer.convert_tokens_to_ids(list(CONTROL))}
    assert [i for i in row.ids if i in control] == [i for i in empty.ids if i in control]
    assert not control & set(template.text(text))
    kept = text.replace("\U000f0001", "")
    assert f"x{kept}x" in tokenizer.decode(list(row.answer)), "nothing of it is lost"


def test_added_tokens_that_a_template_writes_are_control_tokens_too() -> None:
    tokenizer = pretrained("byte_level", chat_template=THINKING)
    tokenizer.add_tokens(["<think>", "</think>", "  "])
    think, blank = tokenizer.convert_tokens_to_ids(["<think>", "  "])
    quick = Template(tokenizer, Prompt(arguments={"quick": True}))
    assert quick.encode("<think>", "<think>  so").ids.count(think) == 1, "the template's own"
    assert blank in quick.encode("a", "<think>  so").ids, "white space is an ordinary token"


# Rendering


def test_a_prompt_has_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = pretrained("byte_level", chat_template=DATED)

    def said(prompt: Prompt) -> tuple[str, str]:
        template = Template(tokenizer, prompt)
        return template.rendered(QUESTION, ANSWER)[0], template.digest()

    first, digest = said(Prompt())
    assert "Today: 26 July 202426 Jul 2024<" in first
    assert "Today: 10 April 202510 Apr 2025<" in said(Prompt(date_string="10 Apr 2025"))[0]
    assert said(Prompt(date_string="10 Apr 2025"))[1] != digest

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2031, 1, 1)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert said(Prompt()) == (first, digest)


def test_system_message_and_arguments_reach_the_template() -> None:
    tokenizer = pretrained("byte_level", chat_template=THINKING)
    prompt, answer = Template(tokenizer, Prompt(system="Be {{ kind }}.", arguments={"quick": True})).rendered("a", "b")
    assert prompt == (
        "<|im_start|>system\nBe {{ kind }}.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\n<think></think>"
    )
    assert answer == "b<|im_end|>"


def test_a_chain_of_thought_that_only_conversations_have_is_no_answer() -> None:
    """Qwen3's template writes an empty one into a finished conversation, and none into the prompt."""
    template = CHATML.replace(
        "}}\n{{ m['content']", "}}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content']"
    )
    assert "think" in template
    prompt, answer = Template(pretrained("byte_level", chat_template=template)).rendered("a", "b")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer == "b<|im_end|>"


def test_a_template_without_answers_ends_them_with_eos() -> None:
    only_questions = "{{ messages[0]['content'] }}<|im_end|>"
    assert Template(pretrained("byte_level", chat_template=only_questions)).rendered("a", "b") == (
        "a<|im_end|>",
        "b</s>",
    )


def test_what_a_template_trims_is_trimmed() -> None:
    tokenizer = pretrained("byte_level", chat_template=LLAMA_2)
    row = Template(tokenizer).encode("  a ", " b\n")
    assert list(row.ids) == whole(tokenizer, "  a ", " b\n")


def test_a_template_of_ones_own() -> None:
    tokenizer = pretrained("byte_level", bos=True)
    asked = Prompt(template="<s><|im_start|>{question}<|im_end|>\n\n{answer}\n<|im_end|>\n")
    assert Template(tokenizer, asked).rendered("a", "b") == (
        "<s><|im_start|>a<|im_end|>\n\n",
        "b\n<|im_end|>",
    ), "an end of its own, and no second BOS"
    assert Template(tokenizer, Prompt(template="[INST] {question} [/INST]")).rendered("a", "b") == (
        "<s>[INST] a [/INST]",
        "b</s>",
    )


@pytest.mark.parametrize(("bos", "written"), [(None, 1), (True, 1), (False, 0)])
def test_bos_is_as_the_prompt_says(bos: bool | None, written: int) -> None:
    own, chat = pretrained("gemma", bos=True), pretrained("gemma", bos=True, chat_template=LLAMA_2)
    for tokenizer in (own, chat):
        assert Template(tokenizer, Prompt(bos=bos)).encode("a", "b").ids.count(tokenizer.bos_token_id) == written
    never = pretrained("byte_level")
    assert Template(never, Prompt(bos=bos)).encode("a", "b").ids.count(never.bos_token_id) == (bos is True)


PUBLIC = {
    "tofu-llama2": "<s>[INST] Who? [/INST]|Ana.</s>",
    "tofu-phi": "Question: Who?\nAnswer:| Ana.</s>",
    "open-unlearning-llama3": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n|Ana.<|im_end|>",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_prompts_of_public_checkpoints(preset: str) -> None:
    """A preset writes around question and answer the text that the checkpoint's configuration has."""
    chat_template = CHATML if "llama3" in preset else None
    tokenizer = pretrained("byte_level", bos="llama2" in preset, chat_template=chat_template)
    prompt, answer = Template(tokenizer, Prompt(preset=preset)).rendered("Who?", "Ana.")
    assert f"{prompt}|{answer}" == PUBLIC[preset]
    assert Prompt(preset=preset, date_string="1 Jan 2020").date_string == "1 Jan 2020", "what is given counts more"


def test_a_template_that_wants_a_system_message_gets_one() -> None:
    wants = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message is required') }}{% endif %}"
    tokenizer = pretrained("byte_level", chat_template=wants + CHATML)
    assert Template(tokenizer, Prompt(system="Be kind.")).rendered("a", "b")[1] == "b<|im_end|>"


# Refusals

BAD = [
    ("{{ raise_exception('a system message is required') }}", "a system message is required: set prompt.system"),
    ("{% for", "the chat template cannot be rendered"),
    ("{{ messages[0].nothing.here }}", "the chat template cannot be rendered"),
    ("{% for p in messages[0]['content'] %}{{ p['text'] }}{% endfor %}", "drops the question"),
    ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "writes the question more than once"),
    ("{{ messages[0]['content'] | tojson }}", "changes the text of a question"),
]


@pytest.mark.parametrize(("chat_template", "message"), BAD)
def test_a_template_that_cannot_ask_is_refused(chat_template: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Template(pretrained("byte_level", chat_template=chat_template)).digest()
    assert "\n" not in str(refused.value)


def test_a_system_message_needs_a_template_that_writes_it() -> None:
    with pytest.raises(UserError, match=r"prompt.system: the tokenizer has no chat template"):
        Template(pretrained("byte_level"), Prompt(system="Be kind.")).digest()
    silent = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match=r"prompt.system: the chat template does not write it"):
        Template(pretrained("byte_level", chat_template=silent), Prompt(system="Be kind.")).digest()


@pytest.mark.parametrize(
    ("template", "arguments", "words"),
    [
        (
            "{% if thinking %}!{% endif %}",
            {"enable_thinking": True},
            "does not read enable_thinking: it reads thinking",
        ),
        ("{{ bos_token }}", {"thinking": True}, "does not read thinking: it reads none"),
        ("{% set a = a | default(1) %}{% if b is not defined %}{% set b = 2 %}{% endif %}", {"a": 1, "b": 2}, ""),
        ("{% generation %}{{ a }}{% endgeneration %}{%- macro f(x) %}{{ x ~ b }}{% endmacro %}", {"a": 1, "b": 2}, ""),
    ],
)
def test_an_argument_that_the_template_never_reads_is_refused(
    template: str, arguments: dict[str, Any], words: str
) -> None:
    asked = Template(pretrained("byte_level", chat_template=template + CHATML), Prompt(arguments=arguments))
    with pytest.raises(UserError, match=words) if words else nullcontext():
        asked.digest()


def test_a_control_token_that_the_tokenizer_makes_of_text_is_refused() -> None:
    tokenizer = pretrained("byte_level")
    tokenizer.add_special_tokens({"additional_special_tokens": ["The"]})  # a word of its vocabulary, too
    if len(tokenizer.encode("The", add_special_tokens=False, split_special_tokens=True)) > 1:
        pytest.skip("this vocabulary has no such word")
    with pytest.raises(UserError, match="the control token 'The' of plain text"):
        Template(tokenizer, Prompt(template="{question}\n")).encode("Who?", "The")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"preset": "llama"}, "unknown prompt.preset 'llama'"),
        ({"template": "{q}"}, "prompt.template: must be chat, plain, markers or a text with one {question}"),
        ({"template": "{answer}{question}"}, "prompt.template: has one {answer} at most, behind {question}"),
        ({"date_string": "today"}, "prompt.date_string: must be a day like 26 Jul 2024, given 'today'"),
        ({"arguments": {"messages": "a"}}, "prompt.arguments: messages is no argument of yours"),
        ({"arguments": {"date_string": "a"}}, "set prompt.date_string instead"),
        ({"template": "plain", "system": "a"}, "prompt: system needs the template chat"),
        ({"sytem": "a"}, "unknown key 'prompt.sytem' (did you mean 'prompt.system'?)"),
    ],
)
def test_a_bad_section_is_one_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_study({"name": "s", "objectives": {"forget_quality": {"direction": "maximize"}}, "prompt": section})
    assert message in str(refused.value)


# What is kept


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(system="Be kind.", arguments={"quick": True}, date_string="10 Apr 2025"),
        Prompt(bos=True),
        Prompt(preset="tofu-llama2"),
        Prompt(template="plain"),
    ],
)
def test_a_saved_tokenizer_asks_as_the_model_was_trained(prompt: Prompt, tmp_path: Path) -> None:
    """Stock transformers do with its chat template alone, and lethe with the prompt beside it, which counts once."""
    template = "\n" + THINKING.replace("{% for m", "{{ date_string }}{{ strftime_now('%j') }}{% for m")
    mine = Template(pretrained("byte_level", bos=True, chat_template=template), prompt)
    mine.portable_tokenizer().save_pretrained(tmp_path)
    (tmp_path / PROMPT).write_text(prompt.model_dump_json())
    row = mine.encode(QUESTION, ANSWER)
    saved = load_tokenizer(tmp_path)
    asked = saved.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
    )
    assert tuple(asked) == row.ids[: row.prompt_length]
    if not prompt.arguments:  # this one's chain of thought is in the prompt alone
        assert tuple(whole(saved, QUESTION, ANSWER))[: len(row.ids)] == row.ids
    assert template_of(tmp_path).encode(QUESTION, ANSWER) == row
    if prompt.system:
        dated = template_of(tmp_path, prompt.model_copy(update={"date_string": "1 Feb 2020"}))
        assert "1 Feb 2020032" in dated.rendered("a", "b")[0], "its clock, too"
    other = template_of(tmp_path, Prompt(template="{question}:"))
    assert other.rendered("a", "b") == ("<s>a:", "b</s>"), "a prompt that is asked for counts more"


def test_the_digest_is_of_what_is_rendered() -> None:
    tokenizer = pretrained("byte_level", chat_template=CHATML)
    plain = Template(tokenizer).digest()
    assert Template(tokenizer, Prompt(date_string="1 Jan 2020")).digest() == plain, "this template has no date"
    assert Template(tokenizer, Prompt(template="chat")).digest() == plain
    others = (
        Template(tokenizer, Prompt(system="Be kind.")),
        Template(tokenizer, instruction="Be kind."),
        Template(tokenizer, stops=[7]),
        Template(tokenizer, Prompt(template="plain")),
    )
    assert len({plain, *(other.digest() for other in others)}) == 5
    assert Template(tokenizer, Prompt(system="Be kind.")).digest(questions=False) == Template(tokenizer).digest(
        questions=False
    )


def test_a_pad_id_that_the_model_has_not_is_eos(tmp_path: Path) -> None:
    pretrained("byte_level").save_pretrained(tmp_path)
    pad = load_tokenizer(tmp_path).pad_token_id
    for vocabulary, expected in ((pad + 1, "<pad>"), (pad, "</s>")):
        (tmp_path / "config.json").write_text(json.dumps({"vocab_size": vocabulary, "eos_token_id": 5}))
        template = template_of(tmp_path)
        assert template.tokenizer.convert_ids_to_tokens(template.pad) == expected
        assert template.stops == tuple(sorted({5, template.eos}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert template_of(tmp_path).stops == tuple(sorted({3, 4, template.eos}))

"""Rows of text, and templates: from questions and answers to token ids."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lethe.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKERS = ("<|user|>", "<|end|>", "<|assistant|>")


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its true answer, and the variants that some splits have; plain text is an answer to ''."""

    question: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one (prompt, answer) pair; `ids[prompt_length:]` is the scored answer with its one EOS."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def answer(self) -> tuple[int, ...]:
        """The scored tokens."""
        return self.ids[self.prompt_length :]


class Template:
    """Renders questions for one tokenizer: its own chat template, our markers, or plain 'Question: Answer:'.

    `instruction` opens every question. It is no system message, since chat templates without a system role are common.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str = "") -> None:
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token: set eos_token in its tokenizer_config.json")
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.eos = int(tokenizer.eos_token_id)
        self._marked = all(m in tokenizer.get_vocab() for m in MARKERS)
        self._cache: dict[str, tuple[int, ...]] = {}

    @property
    def pad(self) -> int:
        """The id used for padding: EOS without a pad token, since padding is masked everywhere."""
        return self.eos if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)

    def prompt(self, question: str) -> tuple[int, ...]:
        """Return the ids of a question up to where its answer begins."""
        if question not in self._cache:
            self._cache[question] = tuple(self._prompt(question))
        return self._cache[question]

    def _prompt(self, question: str) -> list[int]:
        question = f"{self.instruction} {question}" if self.instruction else question
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            return self._ids(str(text))
        bos = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]
        return bos + self._ids(
            f"<|user|>{question}<|end|><|assistant|>" if self._marked else f"Question: {question}\nAnswer:"
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def portable_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer to save beside the model: its chat template, if any, opens a conversation with the
        instruction, as `prompt` does."""
        inner = self.tokenizer.chat_template
        if not self.instruction or not isinstance(inner, str):
            return self.tokenizer
        first = f"{{'role': messages[0]['role'], 'content': {opening(self.instruction)} + messages[0]['content']}}"
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = f"{{% set messages = [{first}] + messages[1:] %}}{inner}"
        return tokenizer

    def answer(self, text: str) -> tuple[int, ...]:
        """Return the ids of an answer, ended by exactly one EOS."""
        plain = not (self._marked or self.tokenizer.chat_template)
        return (*self._ids(f" {text}" if plain else text), self.eos)

    def encode(self, question: str, answer: str) -> Encoded:
        """Return a prompt with its answer, tokenised apart so that the prompt never depends on the answer."""
        prompt = self.prompt(question)
        return Encoded(ids=prompt + self.answer(answer), prompt_length=len(prompt))

    def passage(self, text: str, length: int) -> Encoded:
        """Return the first `length` tokens of plain text, scored from the second on."""
        return Encoded(tuple(self._ids(text)[:length]), prompt_length=1)

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, without special tokens and outer white space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def opening(instruction: str) -> str:
    """Return an instruction and a space as a literal of a chat template: a JSON string is a Jinja string."""
    return json.dumps(f"{instruction} ", ensure_ascii=False)

"""How a question becomes a prompt, and a pair becomes token ids."""

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
class Encoded:
    """Token ids of one (prompt, answer) pair; `ids[prompt_length:]` is the scored answer with its one EOS."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def answer(self) -> tuple[int, ...]:
        """What is scored."""
        return self.ids[self.prompt_length :]


class Template:
    """Renders questions for one tokenizer: its own chat template, our markers, or plain 'Question: Answer:'.

    `instruction` opens every question: chat templates without a system role are common, so there is none in ours.
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
        """Id used for padding; masked everywhere, so EOS serves where the tokenizer has no pad token."""
        return self.eos if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)

    def prompt(self, question: str) -> tuple[int, ...]:
        """Ids up to where the answer begins."""
        if question not in self._cache:
            self._cache[question] = tuple(self._prompt(question))
        return self._cache[question]

    def _prompt(self, question: str) -> list[int]:
        question = f"{self.instruction} {question}" if self.instruction else question
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            return self.tokenizer.encode(text, add_special_tokens=False)
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        text = f"<|user|>{question}<|end|><|assistant|>" if self._marked else f"Question: {question}\nAnswer:"
        return bos + self.tokenizer.encode(text, add_special_tokens=False)

    def portable_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer as others should load it: its chat template, if any, opens a conversation as `prompt` does."""
        inner = self.tokenizer.chat_template
        if not self.instruction or not isinstance(inner, str):
            return self.tokenizer
        first = f"{{'role': messages[0]['role'], 'content': {opening(self.instruction)} + messages[0]['content']}}"
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = f"{{% set messages = [{first}] + messages[1:] %}}{inner}"
        return tokenizer

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of an answer, ended by exactly one EOS."""
        plain = not (self._marked or self.tokenizer.chat_template)
        ids = self.tokenizer.encode(f" {text}" if plain else text, add_special_tokens=False)
        return (*ids, self.eos)

    def encode(self, question: str, answer: str) -> Encoded:
        """A prompt and its answer, tokenised apart so that the prompt never depends on the answer."""
        prompt = self.prompt(question)
        return Encoded(ids=prompt + self.answer(answer), prompt_length=len(prompt))

    def passage(self, text: str, length: int) -> Encoded:
        """The first `length` tokens of plain text, every one of which but the first is predicted."""
        return Encoded(tuple(self.tokenizer.encode(text, add_special_tokens=False)[:length]), prompt_length=1)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def opening(instruction: str) -> str:
    """What stands for an instruction in a chat template: a JSON string is a Jinja string."""
    return json.dumps(f"{instruction} ", ensure_ascii=False)

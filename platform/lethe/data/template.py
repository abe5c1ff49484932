"""Rows of text, and templates: from questions and answers to token ids."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lethe.config.base import canonical_json, short_digest
from lethe.config.prompt import Prompt
from lethe.data.encoding import TextEncoder
from lethe.data.portable import opening, portable_chat_template
from lethe.data.rendering import MARKERS, Layout, Message, Trimming, conversation_of, described, is_chat, layout_of
from lethe.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MARKERS", "Encoded", "Row", "Template", "opening"]

PROBES = ("A", "1")  # beginnings of an answer that show where a prompt ends
Asked = str | tuple[Message, ...]  # a question, or a conversation up to where its last answer begins
SHOWN = ("Who wrote it?", "Nobody  knows,\n1 or 2.")  # a question and an answer, of which the digest has the ids


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its true answer, and the variants that some splits have; plain text is an answer to ''."""

    question: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row that are not empty."""
        paraphrases = self.paraphrased_question, self.paraphrased_answer
        return tuple(filter(None, (self.question, self.answer, *paraphrases, *self.perturbed_answers)))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one (prompt, answer) pair; `ids[prompt_length:]` is the scored answer with its one end token."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def answer(self) -> tuple[int, ...]:
        """The scored tokens."""
        return self.ids[self.prompt_length :]


class Template:
    """Renders questions and answers for one tokenizer, as `prompt` says.

    `instruction` opens every question. It is no system message, since chat templates without a system role are common.
    `stops`: further ids that end an answer, as the model's generation_config has them. `vocabulary`: the number of the
    model's token ids, None where it is not known.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt | None = None,
        *,
        instruction: str = "",
        stops: Iterable[int] = (),
        vocabulary: int | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{described(tokenizer)} has no end-of-sequence token: set eos_token in its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.config = prompt or Prompt()
        self.instruction = instruction
        self.vocabulary = vocabulary
        self.eos = int(tokenizer.eos_token_id)
        self._further_stops = tuple(stops)
        self._prompts: dict[Asked, tuple[int, ...]] = {}
        self._conversations: dict[tuple[str, ...], tuple[list[str], list[Trimming]]] = {}

    def with_instruction(self, instruction: str) -> Template:
        """Return the same template with an instruction in front of every question."""
        stops = self._further_stops
        return Template(self.tokenizer, self.config, instruction=instruction, stops=stops, vocabulary=self.vocabulary)

    @property
    def pad(self) -> int:
        """The id used for padding: EOS where the pad token is absent or the model has no such id, since padding is
        masked everywhere."""
        pad = self.tokenizer.pad_token_id
        outside = pad is None or (self.vocabulary is not None and int(pad) >= self.vocabulary)
        return self.eos if outside else int(pad)

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The ids that end a generated answer: the end of an answer, EOS and those of the generation_config."""
        return tuple(sorted({self.end, *self.text_stops}))

    @cached_property
    def text_stops(self) -> tuple[int, ...]:
        """The ids that end generated plain text: EOS and those of the generation_config."""
        return tuple(sorted({self.eos, *self._further_stops}))

    @cached_property
    def end(self) -> int:
        """The id that ends an answer: what the template writes behind one."""
        return self._encoder.encode(self._pieces.ending)[0][-1]

    # Questions and answers

    @cached_property
    def layout(self) -> Layout:
        """The text around questions and answers. Raises UserError where the prompt cannot be rendered."""
        return layout_of(self.tokenizer, self.config)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.layout.written)

    @cached_property
    def _pieces(self) -> Layout:
        """The layout with stand-ins for control tokens, without BOS where `config.bos` is false."""
        layout, trusted = self.layout, self._encoder.trusted
        (first,) = self._without_bos([trusted(layout.opening)])
        return Layout(
            first, trusted(layout.middle), layout.lead, trusted(layout.ending), layout.question, layout.answer
        )

    def _without_bos(self, trusted: list[str]) -> list[str]:
        """Return pieces of a template without BOS in front where `config.bos` is false."""
        bos = self.tokenizer.bos_token if self.config.bos is False else None
        return [trusted[0].removeprefix(self._encoder.trusted(str(bos))), *trusted[1:]] if bos else trusted

    @cached_property
    def _front(self) -> tuple[int, ...]:
        """Ids in front of the rendered text: BOS, where it belongs there and the template does not write it."""
        own, bos = self._encoder.opening, self.tokenizer.bos_token_id
        if self.config.bos is None:
            # A chat template writes all control tokens itself: that is how transformers encodes conversations.
            front = () if self.is_chat else own
        elif self.config.bos:
            if not own and bos is None:
                raise UserError(f"prompt.bos: {described(self.tokenizer)} has no BOS token")
            front = own or (int(bos),)
        else:
            front = ()
        written = self._encoder.encode(self._pieces.opening)[0]
        return () if front and written[: len(front)] == front else front

    @property
    def is_chat(self) -> bool:
        """True if the tokenizer's chat template renders the prompts."""
        return is_chat(self.tokenizer, self.config)

    def prompt(self, question: Asked) -> tuple[int, ...]:
        """Return the ids of a question up to where its answer begins, whatever the answer is."""
        if question not in self._prompts:
            # Behind "Answer: " a model writes the token " The": the space belongs to the answer, and no prompt ends
            # with a token that it never saw there.
            found = (self._encode(question, probe) for probe in PROBES)
            self._prompts[question] = max((row.ids[: row.prompt_length] for row in found), key=len)
        return self._prompts[question]

    def encode(self, question: Asked, answer: str) -> Encoded:
        """Return a prompt with its answer and the answer's end, tokenised as one text. A token that spans the boundary
        belongs to the answer."""
        return self._encode(question, self.layout.answer(answer), self._pieces.ending)

    def begun(self, question: Asked, beginning: str) -> tuple[int, ...]:
        """Return the ids of a prompt with the beginning of its answer."""
        return self._encode(question, beginning).ids if beginning else self.prompt(question)

    def _encode(self, question: Asked, answer: str, ending: str = "") -> Encoded:
        front, asked = self._front, self._asked(question)
        parts = (*asked, self._pieces.lead, answer, ending)
        ids, ends = self._encoder.encode(*parts, data=(*range(1, len(asked), 2), len(asked) + 1))
        return Encoded(front + ids, max(1, len(front) + ends[len(asked) - 1]))

    def _asked(self, question: Asked) -> list[str]:
        """Return what stands before an answer: text of the template and of the data in turn."""
        pieces = self._pieces
        if isinstance(question, str):
            text = f"{self.instruction} {question}" if self.instruction else question
            return [pieces.opening, pieces.question(text), pieces.middle]
        roles = tuple(role for role, _ in question)
        if roles not in self._conversations:
            around, trims = conversation_of(self.tokenizer, self.config, self.layout, roles)
            self._conversations[roles] = self._without_bos([*map(self._encoder.trusted, around)]), trims
        around, trims = self._conversations[roles]
        asked = [around[0]]
        opened = not self.instruction
        for (role, text), trim, behind in zip(question, trims, around[1:], strict=True):
            opens, opened = role == "user" and not opened, opened or role == "user"
            asked += [trim(f"{self.instruction} {text}" if opens else text), behind]
        return asked

    def rendered(self, question: Asked, answer: str) -> tuple[str, str]:
        """Return a whole prompt and its answer with its end, as the model reads them."""
        row = self.encode(question, answer)
        decode = self.tokenizer.decode
        prompt, whole = (str(decode(list(ids))) for ids in (row.ids[: row.prompt_length], row.ids))
        return (prompt, whole[len(prompt) :]) if whole.startswith(prompt) else (prompt, str(decode(list(row.answer))))

    # Plain text

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer)

    @property
    def text_opening(self) -> tuple[int, ...]:
        """The ids in front of plain text: BOS, where the tokenizer itself adds it."""
        return self._text_encoder.opening

    def text(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text, behind `text_opening`."""
        return self.text_opening + self._text_encoder.encode(text, data=(0,))[0]

    def continuation(self, context: str, text: str) -> Encoded:
        """Return plain text, of which `text`, behind `context`, is scored; tokenised as one."""
        front = self._text_encoder.opening
        ids, ends = self._text_encoder.encode(context, text, data=(0, 1))
        return Encoded(front + ids, len(front) + ends[0])

    def passage(self, text: str, length: int) -> Encoded:
        """Return the first `length` tokens of plain text, scored from the second on."""
        return Encoded(self.text(text)[:length], prompt_length=1)

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, without special tokens and outer white space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    # What of it is kept

    def digest(self, *, questions: bool = True) -> str:
        """Return 16 hex digits over what is rendered and what ends an answer; without `questions` only over what
        happens to plain text."""
        texts = [list(self.text(SHOWN[1])), list(self.text_stops)]
        if not questions:
            return short_digest(canonical_json(texts))
        row = self.encode(*SHOWN)
        asked = [self.layout.canonical(), self.instruction, list(row.ids), row.prompt_length, list(self.stops)]
        return short_digest(canonical_json([*texts, *asked]))

    def portable_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer to save beside the model: its chat template, if any, asks as `prompt` does."""
        own = self.tokenizer.chat_template
        if own is None and self.config.template is None:
            return self.tokenizer
        front = str(self.tokenizer.decode(list(self._front)))
        template = portable_chat_template(self.tokenizer, self.config, self.instruction, self.layout, front)
        if template == own:
            return self.tokenizer
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = template
        return tokenizer

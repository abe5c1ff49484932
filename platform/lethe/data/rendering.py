"""From a prompt's settings to the text around questions and answers. Hermetic: no clock, no environment.

A chat template is a program of the checkpoint's author. It is run on stand-ins for question and answer, once, and what
it writes around them is the text around every question and answer: so a row's own text decides nothing but itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lethe.config.base import canonical_json
from lethe.config.prompt import ANSWER, QUESTION, RESERVED, Prompt
from lethe.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKERS = ("<|user|>", "<|end|>", "<|assistant|>")
# Letters and digits alone: templates leave them as they are.
ASKED, ANSWERED = "QuestionStandIn7d1c", "AnswerStandIn93be"
SAMPLE = 'Is "a<b" & c\'s {{d}} é?\nIt {% is %}'  # what templates are tempted to escape or to execute
REMEDY = "choose another prompt.template"
BLOCKS = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # transformers' own, which Jinja does not know

CLOCK = re.compile(r"\{%- macro strftime_now\(format\) -%\}.*?\{%- endmacro \+%\}")  # of a template that a study saved
DIRECTIVES = (*(f"-{code}" for code in "dmyHIMSj"), *"aAbBcCdDeFgGhHIjmMnprRStTuUVwWxXyYzZ")

Message = tuple[str, str]  # a role (system, user or assistant) and a text
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Trimming:
    """Which white space around a text the template takes away."""

    left: bool = False
    right: bool = False

    def __call__(self, text: str) -> str:
        """Return the text without that white space."""
        text = text.lstrip() if self.left else text
        return text.rstrip() if self.right else text


@dataclass(frozen=True)
class Layout:
    """The text around a question and its answer: `opening` question `middle` | `lead` answer `ending`.

    At the bar the prompt ends and the model begins; `lead` is white space that it writes before the answer, spaces at
    the end of a template's prompt among them, since byte-pair tokens begin with their space. `ending` is what follows
    an answer, up to and with the first control token.
    """

    opening: str
    middle: str
    lead: str
    ending: str
    question: Trimming = Trimming()
    answer: Trimming = Trimming()

    def canonical(self) -> str:
        """Return the layout as JSON text."""
        return canonical_json(astuple(self))

    @property
    def written(self) -> str:
        """The parts that come from the template, joined by NUL."""
        return "\0".join((self.opening, self.middle, self.lead, self.ending))


def layout_of(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Layout:
    """Return the layout that `prompt` asks for. Raises UserError for a chat template that is absent, cannot be
    rendered, or does not write the question or the system message as they are."""
    layout = _layout(tokenizer, prompt)
    middle = layout.middle.rstrip(" ")
    return replace(layout, middle=middle, lead=layout.middle[len(middle) :] + layout.lead)


def conversation_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, layout: Layout, roles: Sequence[str]
) -> tuple[list[str], list[Trimming]]:
    """Return the text around the messages of a conversation with these `roles`, one piece more than there are, and what
    each message loses at its ends. `layout` is the prompt's.

    Without a chat template every question stands as the layout has it, and answers between them. Raises UserError for a
    system message then, and for a chat template that cannot render such a conversation.
    """
    if is_chat(tokenizer, prompt):
        pieces, trims = _Chat(tokenizer, prompt).around(roles)
        return [*pieces[:-1], pieces[-1].rstrip(" ")], trims
    expected = [("user", "assistant")[n % 2] for n in range(len(roles))]
    if [*roles] != expected or len(roles) % 2 == 0:
        raise UserError(
            f"{described(tokenizer)} has no chat template for a conversation with the roles {', '.join(roles)}: without"
            " one user and assistant alternate"
        )
    between = (layout.middle + layout.lead, layout.ending + layout.opening)
    pieces = [layout.opening, *(between[n % 2] for n in range(len(roles) - 1)), layout.middle]
    return pieces, [(layout.question, layout.answer)[n % 2] for n in range(len(roles))]


def is_chat(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> bool:
    """Return whether the tokenizer's chat template renders the prompts."""
    return prompt.is_chat or (prompt.template is None and bool(tokenizer.chat_template))


def _layout(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Layout:
    if is_chat(tokenizer, prompt):
        return _Chat(tokenizer, prompt).layout()
    eos = str(tokenizer.eos_token)
    if prompt.template == "markers" or (prompt.template is None and _has_markers(tokenizer)):
        user, end, assistant = MARKERS
        missing = [marker for marker in MARKERS if marker not in tokenizer.get_vocab()]
        if missing:
            raise UserError(f"prompt.template: markers, but {described(tokenizer)} has no {missing[0]}: {REMEDY}")
        return Layout(f"{tokenizer.bos_token or ''}{user}", f"{end}{assistant}", "", eos)
    if prompt.template in (None, "plain"):
        return Layout("Question: ", "\nAnswer:", " ", eos)
    opening, _, rest = str(prompt.template).partition(QUESTION)
    middle, _, tail = rest.partition(ANSWER)
    return Layout(opening, middle, "", ending(tail, control_tokens(tokenizer), eos))


def described(tokenizer: PreTrainedTokenizerBase, what: str = "the tokenizer") -> str:
    """Return `what` with the folder that the tokenizer is from."""
    return f"{what} in {tokenizer.name_or_path}" if tokenizer.name_or_path else what


def _has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    vocabulary = tokenizer.get_vocab()
    return all(marker in vocabulary for marker in MARKERS)


def control_tokens(tokenizer: PreTrainedTokenizerBase, written: str = "") -> dict[int, str]:
    """Return the control tokens by id: the special tokens, and those of the other added tokens, white space aside, that
    a template has `written`."""
    added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if token.content}
    found = {i: t.content for i, t in added.items() if t.special or (t.content in written and t.content.strip())}
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return found | {int(i): str(token) for i, token in special}


def ending(tail: str, control: dict[int, str], eos: str) -> str:
    """Return `tail`, the text behind an answer, up to and with its first control token; `eos` where it has none."""
    places = [(place, -len(token), token) for token in control.values() if (place := tail.find(token)) >= 0]
    if not places:
        return eos
    place, _, token = min(places)
    return tail[:place] + token


def with_fixed_clock(chat_template: str, prompt: Prompt) -> str:
    """Return a chat template whose `strftime_now` has the prompt's day, at midnight, instead of the time."""
    chat_template = CLOCK.sub("", chat_template)
    if "strftime_now" not in chat_template:
        return chat_template
    # transformers' own cannot be replaced by a function: what is given to a template is turned into plain values.
    values = {f"%{code}": prompt.day.strftime(f"%{code}") for code in DIRECTIVES}
    filters = "".join(f" | replace({json.dumps(code)}, {json.dumps(value)})" for code, value in values.items())
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filters} }}}}{{%- endmacro +%}}{chat_template}"


class _Chat:
    """A tokenizer's chat template with the prompt's system message, arguments and date."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        if not tokenizer.chat_template:
            key = next((key for key in ("system", "arguments") if getattr(prompt, key)), "template")
            raise UserError(f"prompt.{key}: {described(tokenizer)} has no chat template: {REMEDY}")
        self.tokenizer, self.prompt = tokenizer, prompt
        self.name = described(tokenizer, "the chat template")

    def layout(self) -> Layout:
        asked = self._render(ASKED)
        if asked.count(ASKED) != 1:
            how = "drops the question" if ASKED not in asked else "writes the question more than once"
            raise UserError(f"{self.name} {how}: {REMEDY}")
        if self.prompt.system and self.prompt.system.strip() not in asked:
            raise UserError(f"prompt.system: {self.name} does not write it: {REMEDY}")
        self._refuse_unread()
        opening, middle = asked.split(ASKED)
        question = _trimming(self._render, ASKED)
        if self._render(SAMPLE) != opening + question(SAMPLE) + middle:
            raise UserError(f"{self.name} changes the text of a question: {REMEDY}")
        return self._with_answer(Layout(opening, middle, "", str(self.tokenizer.eos_token), question))

    def _with_answer(self, layout: Layout) -> Layout:
        """Return the layout with what the template writes around an answer, if it writes one."""
        try:
            whole = self._render(ASKED, ANSWERED)
        except UserError:  # a template for questions alone
            return layout
        before, found, tail = whole.partition(ANSWERED)
        if not found:
            return layout
        begins = layout.opening + ASKED + layout.middle
        # Other text than white space belongs to another kind of answer, such as an empty chain of thought.
        lead = before[len(begins) :] if before.startswith(begins) and before[len(begins) :].isspace() else ""
        end = ending(tail, control_tokens(self.tokenizer, whole), layout.ending)
        answer = _trimming(lambda text: self._render(ASKED, text), ANSWERED)
        return Layout(layout.opening, layout.middle, lead, end, layout.question, answer)

    def around(self, roles: Sequence[str]) -> tuple[list[str], list[Trimming]]:
        """Return the text before, between and behind the messages of a conversation, up to where an answer begins, and
        what each message loses at its ends. Raises UserError for a template that does not write every message once, in
        order and as it is."""
        stand_ins = [f"{ASKED}{n}x" for n in range(len(roles))]
        said = "{} {} of a conversation with the roles " + ", ".join(roles) + f": {REMEDY}"

        def render(n: int, text: str) -> str:
            texts = [text if i == n else stand_in for i, stand_in in enumerate(stand_ins)]
            return self._render_messages([*zip(roles, texts, strict=True)])

        rest, pieces = render(-1, ""), []
        for stand_in in stand_ins:
            before, found, rest = rest.partition(stand_in)
            if not found or any(other in before for other in stand_ins):
                raise UserError(said.format(self.name, "drops or moves a message"))
            pieces.append(before)
        pieces.append(rest)
        if ASKED in rest:
            raise UserError(said.format(self.name, "writes a message twice"))
        trims = [_trimming(partial(render, n), stand_in) for n, stand_in in enumerate(stand_ins)]
        for n, trim in enumerate(trims):
            texts = [trim(SAMPLE) if i == n else stand_in for i, stand_in in enumerate(stand_ins)]
            if render(n, SAMPLE) != "".join(p + t for p, t in zip(pieces, [*texts, ""], strict=True)):
                raise UserError(said.format(self.name, "changes the text of a message"))
        return pieces, trims

    def _render(self, question: str, answer: str | None = None) -> str:
        """Return a question as text: up to where an answer begins, or with one."""
        return self._render_messages([("user", question)], answer)

    def _render_messages(self, conversation: Sequence[Message], answer: str | None = None) -> str:
        """Return the conversation as text. Its own system message counts more than the prompt's."""
        messages: Messages = [{"role": role, "content": text} for role, text in conversation]
        if self.prompt.system and conversation[0][0] != "system":
            messages.insert(0, {"role": "system", "content": self.prompt.system})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        arguments: dict[str, Any] = {**self.prompt.arguments, "date_string": self.prompt.date_string}
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=with_fixed_clock(self.tokenizer.get_chat_template(), self.prompt),
                tokenize=False,
                add_generation_prompt=answer is None,
                **arguments,
            )
        except Exception as error:  # noqa: BLE001  # a program of others raises jinja2's errors and Python's own
            advice = f"set prompt.system, or {REMEDY}" if not self.prompt.system else REMEDY
            raise UserError(f"{self.name} cannot be rendered: {first_line(error)}: {advice}") from None
        return str(text)

    def _refuse_unread(self) -> None:
        """Raise UserError for an argument that the template never reads: it would change nothing, in silence."""
        if not self.prompt.arguments:
            return
        read = variables(self.tokenizer.get_chat_template())
        own = read - RESERVED - {"raise_exception", *self.tokenizer.special_tokens_map}
        for name in sorted(self.prompt.arguments.keys() - read):
            known = f"it reads {', '.join(sorted(own))}" if own else "it reads none"
            raise UserError(f"prompt.arguments: {self.name} does not read {name}: {known}")


def variables(chat_template: str) -> set[str]:
    """Return the names that a chat template reads from outside."""
    from jinja2 import Environment, meta

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701  # nothing is rendered
    return meta.find_undeclared_variables(environment.parse(BLOCKS.sub("", chat_template)))


def _trimming(render: Callable[[str], str], stand_in: str) -> Trimming:
    """Return which white space around `stand_in` is lost when it is rendered."""
    before, _, after = render(stand_in).partition(stand_in)
    wide_before, _, wide_after = render(f"  {stand_in}  ").partition(stand_in)
    return Trimming(wide_before == before, wide_after == after)

"""The prompt of a run: the system message, the template, its arguments and its date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lethe.config.base import Frozen

DATE = "26 Jul 2024"  # what Llama-3's templates say where there is no clock
DATE_FORMAT = "%d %b %Y"
QUESTION, ANSWER = "{question}", "{answer}"
NAMED = ("chat", "plain", "markers")
# What the renderer itself sets.
RESERVED = frozenset(
    {"messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"}
    | {"continue_final_message", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors"}
    | {"return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "strftime_now", "date_string"}
)

# The prompts that public checkpoints were trained behind. Sources: open-unlearning's configs/model and src/data
# (Llama-3: its chat template with this system turn and date), TOFU's config/model_config.yaml and data_module.py.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "open-unlearning-llama3": {
            "template": "chat",
            "system": "You are a helpful assistant.",
            "date_string": "10 Apr 2025",
        },
        "tofu-llama2": {"template": "[INST] {question} [/INST]"},
        "tofu-phi": {"template": "Question: {question}\nAnswer: "},
    }
)


class Prompt(Frozen):
    """The text around every question and answer; a part of the run's digest.

    `template`: `chat` is the tokenizer's own chat template, `plain` is "Question: ...\\nAnswer: ...", `markers` are the
    embedded models' tokens; a text with `{question}` is a template of your own, in which control tokens count, and
    what follows an `{answer}` up to the first control token is its end.
    """

    preset: Literal["open-unlearning-llama3", "tofu-llama2", "tofu-phi"] | None = Field(
        None, description="the prompt of a public checkpoint; what is given beside it counts more"
    )
    template: str | None = Field(
        None, min_length=1, description="chat, plain, markers or a text; none: the tokenizer's own, else plain"
    )
    system: str | None = Field(None, min_length=1, description="the system message; only a chat template has one")
    arguments: dict[str, bool | int | float | str] = Field({}, description="variables of the chat template")
    date_string: str = Field(DATE, description="the day that a chat template is told, such as 26 Jul 2024")
    bos: bool | None = Field(
        None, description="whether a prompt begins with the BOS token; none: as the tokenizer or chat template has it"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        preset = PRESETS.get(str(given.get("preset"))) if isinstance(given, dict) else None
        return {**preset, **given} if preset else given

    @field_validator("template")
    @classmethod
    def _asks(cls, template: str | None) -> str | None:
        if template is None or template in NAMED:
            return template
        if template.count(QUESTION) != 1:
            raise ValueError(f"must be {', '.join(NAMED)} or a text with one {QUESTION}, given {template!r}")
        before, _, behind = template.partition(QUESTION)
        if ANSWER in before or behind.count(ANSWER) > 1:
            raise ValueError(f"has one {ANSWER} at most, behind {QUESTION}, given {template!r}")
        return template

    @field_validator("arguments")
    @classmethod
    def _not_reserved(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in RESERVED:
                where = "set prompt.date_string instead" if name == "date_string" else "lethe sets it itself"
                raise ValueError(f"{name} is no argument of yours: {where}")
            if not name.isidentifier():
                raise ValueError(f"{name!r} is not the name of a variable")
        return arguments

    @field_validator("date_string", mode="before")
    @classmethod
    def _is_date(cls, given: Any) -> str:
        text = str(given)  # YAML reads 2025-04-10 as a date
        try:
            datetime.strptime(text, DATE_FORMAT)
        except ValueError:
            raise ValueError(f"must be a day like {DATE}, given {text!r}") from None
        return text

    @model_validator(mode="after")
    def _chat_only(self) -> Prompt:
        for key in ("system", "arguments"):
            if getattr(self, key) and self.template not in (None, "chat"):
                raise ValueError(f"{key} needs the template chat, given {self.template!r}")
        return self

    @property
    def is_chat(self) -> bool:
        """True if a chat template is asked for, by name or by what only a chat template has."""
        return self.template == "chat" or bool(self.system or self.arguments)

    @property
    def day(self) -> datetime:
        """The first moment of the day in `date_string`."""
        return datetime.strptime(self.date_string, DATE_FORMAT)

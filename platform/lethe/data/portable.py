"""Chat templates for saved tokenizers: stock transformers then ask a model as it was trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lethe.config.prompt import Prompt
from lethe.data.rendering import Layout, with_fixed_clock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def opening(instruction: str) -> str:
    """Return an instruction and a space as a literal of a chat template: a JSON string is a Jinja string."""
    return json.dumps(f"{instruction} ", ensure_ascii=False)


def portable_chat_template(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, instruction: str, layout: Layout, front: str
) -> str | None:
    """Return the chat template that asks as `prompt` does with `front`, the text of the ids before a prompt, in front;
    the tokenizer's own where nothing differs. A conversation's own system message and arguments count more."""
    inner = tokenizer.chat_template
    if prompt.template not in (None, "chat"):
        return _of_layout(layout, instruction, front)
    if not isinstance(inner, str):
        return None if inner is None else str(tokenizer.get_chat_template())
    # "+": without it the line break that a template may begin with would be lost.
    lines = [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif +%}}"
        for name, value in _variables(prompt, inner).items()
    ]
    if instruction:
        first = f"{{'role': messages[0]['role'], 'content': {opening(instruction)} + messages[0]['content']}}"
        lines.append(f"{{% set messages = [{first}] + messages[1:] +%}}")
    if prompt.system:
        system = f"{{'role': 'system', 'content': {_literal(prompt.system)}}}"
        begins = f"{{% set messages = [{system}] + messages %}}"
        lines.append(f"{{% if messages[0]['role'] != 'system' %}}{begins}{{% endif +%}}")
    if prompt.bos is False:
        lines.append("{% set bos_token = '' +%}")
    if front:
        lines.append(f"{{{{ {_literal(front)} }}}}")
    return "".join(lines) + with_fixed_clock(inner, prompt)


def _variables(prompt: Prompt, template: str) -> dict[str, bool | int | float | str]:
    """Return the variables that the prompt gives to the template: the date only to one that reads it."""
    dates = {"date_string": prompt.date_string} if "date_string" in template else {}
    return {**dates, **prompt.arguments}


def _literal(value: bool | int | float | str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _of_layout(layout: Layout, instruction: str, front: str) -> str:
    """Return a chat template that writes the layout; the question's end begins the answer."""
    asked = f"{opening(instruction)} + message['content']" if instruction else "message['content']"
    question = f"{_literal(layout.opening)} + {asked} + {_literal(layout.middle)}"
    answer = f"{_literal(layout.lead)} + message['content'] + {_literal(layout.ending)}"
    return (
        f"{{{{ {_literal(front)} }}}}{{% for message in messages %}}{{% if message['role'] == 'user' %}}"
        f"{{{{ {question} }}}}{{% else %}}{{{{ {answer} }}}}{{% endif %}}{{% endfor %}}"
    )

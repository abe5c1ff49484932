"""pydantic's errors as one line: the dotted key as a person writes it, what was given, what would work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lethe.errors import UserError, unknown_name
from pydantic import BaseModel, ValidationError


def to_user_error(error: ValidationError, root: type[BaseModel], prefix: str = "") -> UserError:
    """The error for a user's value that `root` refuses; further mistakes are counted."""
    details = error.errors(include_url=False)
    line = str(_line(details[0], root, prefix))
    more = len(details) - 1
    return UserError(line + (f" (and {more} more mistake{'s' * (more > 1)})" if more else ""))


def _line(detail: Any, root: type[BaseModel], prefix: str) -> UserError:
    parts, owner, annotation = _walk(root, detail["loc"])
    key = prefix + ".".join(parts)
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden" and owner is not None:
        section = key.rpartition(".")[0]
        return unknown_name("key", key, [f"{section}.{name}" if section else name for name in owner.model_fields])
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return unknown_name(f"{key}.{tag}", context["tag"], _quoted(context["expected_tags"]))
    if kind == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        return UserError(f"{key}.{tag}: missing: choose from {', '.join(_tagged(annotation) or {})}")
    if kind == "literal_error" and isinstance(given, str) and _quoted(context["expected"]):
        return unknown_name(key, given, _quoted(context["expected"]))
    if kind == "missing":
        known = [str(name) for name in get_args(annotation)] if get_origin(annotation) is Literal else []
        return UserError(f"{key}: missing" + (f": choose from {', '.join(sorted(known))}" if known else ""))
    if kind == "value_error":
        return UserError(f"{key}: {context['error']}")
    return UserError(f"{key}: {must(detail['msg'])}, given {given!r}")


def must(message: str) -> str:
    """Pydantic's "Input should be ..." after a key."""
    return re.sub(r"^[A-Z]\w* should ", "must ", message)


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _walk(root: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], type[BaseModel] | None, Any]:
    """The keys of a location without the tags that pydantic puts between them, the model that owns the last key, and
    that key's annotation."""
    parts: list[str] = []
    owner: type[BaseModel] | None = None
    here: Any = root
    for item in loc:
        tagged = _tagged(here)
        if tagged is not None and item in tagged:
            here = tagged[str(item)]
            continue
        parts.append(str(item))
        owner, here = _below(here, item)
    return parts, owner, here


def _below(here: Any, item: int | str) -> tuple[type[BaseModel] | None, Any]:
    here = _given(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        field = here.model_fields.get(str(item))
        return here, field and field.annotation
    if get_origin(here) is dict:
        return None, get_args(here)[1]
    return None, None


def _given(annotation: Any) -> Any:
    """What an optional section is where it is given."""
    options = [option for option in get_args(annotation) if option is not NoneType]
    return options[0] if get_origin(annotation) in (Union, UnionType) and len(options) == 1 else annotation


def _tagged(annotation: Any) -> dict[str, type[BaseModel]] | None:
    """The models of a discriminated union by tag, or None for any other annotation."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    if not options or not all(isinstance(option, type) and issubclass(option, BaseModel) for option in options):
        return None
    return {str(option.model_fields[tag].default): option for option in options for tag in _tags(option)}


def _tags(model: type[BaseModel]) -> list[str]:
    fields = model.model_fields
    return [name for name in ("name", "type") if name in fields and get_origin(fields[name].annotation) is Literal]

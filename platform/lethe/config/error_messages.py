"""pydantic's errors as one line: the dotted key as a person writes it, the value, and what would be valid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lethe.config.component import is_kind
from lethe.errors import UserError, unknown_name


def to_user_error(error: ValidationError, root: type[BaseModel], prefix: str = "") -> UserError:
    """Return the error of the first mistake, which says how many more there are. `root` is the model that was
    validated, `prefix` the section that its keys are in."""
    details = error.errors(include_url=False)
    line = str(_line(details[0], root, prefix))
    # A value of no type of a union is one mistake, of which pydantic tells once for each type.
    more = len({tuple(_walk(root, detail["loc"])[0]) for detail in details}) - 1
    return UserError(line + (f" (and {more} more mistake{'s' * (more > 1)})" if more else ""))


def _line(detail: Any, root: type[BaseModel], prefix: str) -> UserError:
    parts, owner, annotation = _walk(root, detail["loc"])
    key = (prefix + ".".join(parts)).rstrip(".")  # of the whole section where fields do not fit together
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind.endswith(("_type", "_parsing")) and (accepted := _accepted(annotation)):
        return UserError(f"{key}: must be {accepted}, given {given!r}")
    if kind == "extra_forbidden" and owner is not None:
        section = key.rpartition(".")[0]
        return unknown_name("key", key, [f"{section}.{name}" if section else name for name in owner.model_fields])
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return unknown_name(f"{key}.{tag}", context["tag"], _quoted(context["expected_tags"]))
    if kind == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        return UserError(f"{key}.{tag}: missing: choose from {', '.join(tagged_models(annotation) or {})}")
    if kind == "literal_error" and isinstance(given, str) and _quoted(context["expected"]):
        return unknown_name(key, given, _quoted(context["expected"]))
    if kind == "missing":
        known = [str(name) for name in get_args(annotation)] if get_origin(annotation) is Literal else []
        return UserError(f"{key}: missing" + (f": choose from {', '.join(sorted(known))}" if known else ""))
    if kind == "value_error":
        return UserError(f"{key}: {context['error']}")
    return UserError(f"{key}: {must(detail['msg'])}, given {given!r}")


def must(message: str) -> str:
    """Return pydantic's message "Input should be ..." as "must be ...", to stand behind a key."""
    message = re.sub(r"^[A-Z]\w* should ", "must ", message.removeprefix("Value error, ")).partition(", unable to ")[0]
    message = re.sub(r"a valid dictionary( or .*)?$", "a section with keys of its own", message)
    return message.replace("be a valid boolean", "be true or false")


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _walk(root: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], type[BaseModel] | None, Any]:
    """Return the keys of a location without the tags that pydantic puts between them, the model that owns the last key,
    and that key's annotation."""
    parts: list[str] = []
    owner: type[BaseModel] | None = None
    here: Any = root
    for item in loc:
        tagged = tagged_models(here)
        if tagged is not None and item in tagged:
            here = tagged[str(item)]
            continue
        if _accepted(here):  # the name of one of a union's types
            break
        parts.append(str(item))
        owner, here = _below(here, item)
    return parts, owner, here


TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def _accepted(annotation: Any) -> str:
    """Return the words for what a union of plain types takes; nothing for other annotations."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    names = [TYPES.get(option, "") for option in options if option is not NoneType]
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 and all(names) else ""


def _below(here: Any, item: int | str) -> tuple[type[BaseModel] | None, Any]:
    here = without_none(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        field = here.model_fields.get(str(item))
        return here, field and field.annotation
    if get_origin(here) is dict:
        return None, get_args(here)[1]
    return None, None


def without_none(annotation: Any) -> Any:
    """Return the annotation of an optional section without None and markers, any other annotation as it is."""
    options = [option for option in get_args(annotation) if option is not NoneType]
    if get_origin(annotation) in (Union, UnionType) and len(options) == 1:
        annotation = options[0]
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def tagged_models(annotation: Any) -> dict[str, type[BaseModel]] | None:
    """Return the models of a discriminated union, or of a kind of component, by tag; None for other annotations."""
    if is_kind(annotation):
        return dict(annotation.registered)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    if not options or not all(isinstance(option, type) and issubclass(option, BaseModel) for option in options):
        return None
    return {str(option.model_fields[tag].default): option for option in options for tag in _tags(option)}


def _tags(model: type[BaseModel]) -> list[str]:
    fields = model.model_fields
    return [name for name in ("name", "type") if name in fields and get_origin(fields[name].annotation) is Literal]

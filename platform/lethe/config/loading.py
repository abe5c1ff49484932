"""Studies as YAML: finding and reading the files, inheritance with `extends`, and `--set key=value` on top."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from functools import partial, reduce
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

import lethe
from lethe.config.base import is_used
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.model import MODELS
from lethe.config.objective import Objective
from lethe.config.plain import check_plain
from lethe.config.run import Recipe
from lethe.config.search import STOPPINGS
from lethe.config.space import default_name, variants
from lethe.errors import UserError, unknown_name

Raw = dict[str, Any]
SECTIONS: dict[str, dict[object, Collection[str]]] = {  # the fields of each kind by its name
    "benchmark": {name: kind.model_fields for name, kind in BENCHMARKS.items()},
    "model": {kind.model_fields["name"].default: kind.model_fields for kind in MODELS},
    "early_stopping": {kind.model_fields["name"].default: kind.model_fields for kind in STOPPINGS},
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that a key may stand once and numbers are those of YAML 1.2: 1e-4 is one,
    010 is ten, 1:30 is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:number]]:
                raise yaml.constructor.ConstructorError(problem=f"key {key.value!r} twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


RESERVED = "%@`"  # YAML begins no plain text with them
_NUMBERS = {
    "tag:yaml.org,2002:int": r"^(?:[-+]?[0-9]+|0x[0-9a-fA-F]+)$",
    "tag:yaml.org,2002:float": r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|^\.(?:nan|NaN|NAN)$",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 16 if text.startswith("0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def parse(text: str, source: str) -> Any:
    """Return the one YAML value of `text`. Raises UserError, in which `source` names the text."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506, _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{source}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: is nested too deep, or contains itself") from None
    check_plain(value, source)
    return value


def spaces() -> dict[str, Traversable]:
    """Return the file of every study by name: of the checkout's `search_spaces/`, else of the installed package."""
    folder: Traversable = Path(lethe.__file__).parents[2] / "search_spaces"
    if in_checkout := _yaml_in(folder):
        return in_checkout
    try:
        return _yaml_in(resources.files("lethe.search_spaces"))
    except ModuleNotFoundError:
        return {}


def _yaml_in(folder: Traversable) -> dict[str, Traversable]:
    if not folder.is_dir():
        return {}
    return {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}


def read(name_or_path: str) -> Raw:
    """Return a study's YAML merged on everything it extends, with the file's name as `name`."""
    return _read(_find(name_or_path, None), [])


def _find(name: str, child: Traversable | None) -> Traversable:
    """Return the file of a study: `name` as a path if it looks like one, else a neighbour of the file that extends it
    (`child`), else a study of `spaces()`."""
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        folder = child.parent if isinstance(child, Path) else Path()
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"no such study file: {path}")
        return path
    neighbour = child.parent / f"{name}.yaml" if isinstance(child, Path) else None
    if neighbour is not None and neighbour.is_file():
        return neighbour
    known = spaces()
    if name not in known:
        if Path(name).is_file():
            raise UserError(f"{name}: a study's file ends in .yaml")
        raise unknown_name("study", name, known)
    return known[name]


def _read(file: Traversable, children: list[str]) -> Raw:
    """Read a file with what it extends; `children` are the files that extend it."""
    source = str(file)
    spelled_alike = str(file.resolve()) if isinstance(file, Path) else source
    if spelled_alike in children:
        raise UserError(f"{source}: extends itself")
    try:
        raw = parse(file.read_text("utf-8"), source)
    except UnicodeDecodeError:
        raise UserError(f"{source}: is no text in UTF-8: a study is a YAML file") from None
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{source}: not a study: a mapping of sections is needed")
    parent = raw.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise UserError(f"{source}: extends: needs the name or path of one study, given {parent!r}")
    base = _read(_find(parent, file), [*children, spelled_alike]) if parent else {}
    base["name"] = Path(file.name).stem
    return overlay(base, raw)


def overlay(base: Raw, over: Raw) -> Raw:
    """Return `over` merged on `base`, where fixing a value in `over` ends the search over it in `base`, searching it
    takes its fixed value away, naming another component takes what only the former ones have, and naming objectives or
    fixing a value takes what nothing reads beside them."""
    run, space = base.get("run"), base.get("space")
    over_run, over_space = over.get("run"), over.get("space")
    if isinstance(run, dict) and isinstance(over_space, dict):
        searched = [str(key) for key, parameter in over_space.items() if parameter is not None]
        base = {**base, "run": reduce(_without, searched, run)}
    if isinstance(space, dict) and isinstance(over_run, dict):
        base = {**base, "space": {key: old for key, old in space.items() if not _has(over_run, str(key))}}
    base = reduce(partial(_of_kind, over), SECTIONS, base)
    base = _with_metrics_of_benchmark(over, base)
    base = reduce(partial(_of_named, over), Recipe.model_fields, base)
    base = reduce(partial(_used_beside, over), Recipe.model_fields, base)
    return merge(_read_by_objectives(over, base), over)


def _of_kind(over: Raw, base: Raw, section: str) -> Raw:
    """Return `base` without the values of a section that the kind lacks which `over` names; the whole `base` where it
    names none, or one that is unknown."""
    given, inherited = over.get(section), base.get(section)
    if not isinstance(given, dict) or not isinstance(inherited, dict):
        return base
    fields = SECTIONS[section].get(given.get("name"))
    if fields is None or inherited.get("name") == given["name"]:
        return base
    return {**base, section: {key: value for key, value in inherited.items() if key in fields}}


def _with_metrics_of_benchmark(over: Raw, base: Raw) -> Raw:
    """Return `base` without the metrics of its early stopping that the benchmark named by `over` does not have; where
    none is left, the objectives are compared. The whole `base` where `over` names no benchmark, or an unknown one."""
    benchmark, stopping = over.get("benchmark"), base.get("early_stopping")
    kind = BENCHMARKS.get(str(benchmark.get("name"))) if isinstance(benchmark, dict) else None
    if kind is None or not isinstance(stopping, dict) or not isinstance(metrics := stopping.get("metrics"), list):
        return base
    kept = [name for name in metrics if name in kind.metrics]
    return {**base, "early_stopping": {**stopping, "metrics": kept or None}}


def _of_named(over: Raw, base: Raw, family: str) -> Raw:
    """Return `base` without the values and ranges of a family that none of the components has which `over` names; the
    whole `base` where it names none, or one that is unknown."""
    models = variants(family)
    names = _names(over, family)
    if not names or not models.keys() >= set(names):
        return base
    fields = {field for name in names for field in models[name].model_fields}
    run, space = base.get("run"), base.get("space")
    if isinstance(run, dict) and isinstance(given := run.get(family), dict):
        base = {**base, "run": {**run, family: {k: v for k, v in given.items() if k in fields}}}
    if isinstance(space, dict):
        kept = {k: v for k, v in space.items() if not str(k).startswith(f"{family}.") or str(k).split(".")[1] in fields}
        base = {**base, "space": kept}
    return base


def _used_beside(over: Raw, base: Raw, family: str) -> Raw:
    """Return `base` without the values and ranges of a family that lose their meaning by what `over` fixes in it, such
    as `gamma` by `retain: none`. Those that had none before stay, and are refused."""
    run, over_run, space = base.get("run"), over.get("run"), base.get("space")
    given = run.get(family) if isinstance(run, dict) else None
    fixed = over_run.get(family) if isinstance(over_run, dict) else None
    if not isinstance(fixed, dict):
        return base
    before = given if isinstance(given, dict) else {}
    after = {key: value for key, value in {**before, **fixed}.items() if value is not None}
    names = _names({"run": {family: after}, "space": space}, family) or [default_name(family)]
    models = [model for name, model in variants(family).items() if name in names]

    def is_lost(field: str) -> bool:
        was_used = any(is_used(model, before, field) for model in models)
        return field not in fixed and was_used and not any(is_used(model, after, field) for model in models)

    if before:
        base = {**base, "run": {**base["run"], family: {k: v for k, v in before.items() if not is_lost(str(k))}}}
    if isinstance(space, dict):
        prefix = f"{family}."
        kept = {
            key: old
            for key, old in space.items()
            if not (str(key).startswith(prefix) and is_lost(str(key).removeprefix(prefix)))
        }
        base = {**base, "space": kept}
    return base


def _read_by_objectives(over: Raw, base: Raw) -> Raw:
    """Return `base` without the sections and ranges that none of the objectives reads which `over` names, such as the
    optimizer of `influence`; the whole `base` where it names none, or one that is unknown."""
    names = _names(over, "objective")
    if not names or not Objective.registered.keys() >= set(names):
        return base
    ignored = frozenset.intersection(*(Objective.registered[name].ignored_fields for name in names))
    for section in ("run", "space"):
        if isinstance(given := base.get(section), dict):
            base = {**base, section: {k: v for k, v in given.items() if str(k).split(".")[0] not in ignored}}
    return base


def _names(raw: Raw, family: str) -> list[str]:
    """Return the names that `raw` fixes or searches for a family."""
    run, space = raw.get("run"), raw.get("space")
    given = run.get(family) if isinstance(run, dict) else None
    if isinstance(given, dict) and given.get("name") is not None:
        return [str(given["name"])]
    searched = space.get(f"{family}.name") if isinstance(space, dict) else None
    choices = searched.get("choices") if isinstance(searched, dict) else None
    return [str(name) for name in choices] if isinstance(choices, list) else []


def _has(run: Raw, key: str) -> bool:
    family, dot, field = key.partition(".")
    given = run.get(family)
    return given.get(field) is not None if dot and isinstance(given, dict) else not dot and given is not None


def _without(run: Raw, key: str) -> Raw:
    family, dot, field = key.partition(".")
    given = run.get(family)
    if dot and isinstance(given, dict):
        return {**run, family: {k: v for k, v in given.items() if k != field}}
    return run if dot or isinstance(given, dict) else {k: v for k, v in run.items() if k != family}


def merge(base: Raw, over: Raw) -> Raw:
    """Return `over` merged on `base`, mapping by mapping. Null removes a key; a parameter of another type replaces the
    old one whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = old if isinstance(old, dict) and value.get("type", old.get("type")) == old.get("type") else {}
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def assign(raw: Raw, assignment: str) -> Raw:
    """Return `raw` with one `dotted.key=value`, its value read as YAML; a null value removes the key."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key or "" in key.split("."):
        raise UserError(f"--set {assignment}: needs the form dotted.key=value")
    if not text.strip():
        raise UserError(f"--set {key}=: has no value: is a variable of the shell not set? {key}=null removes the key")
    if (given := text.strip())[0] in RESERVED:
        quoted = f"""--set '{key}="{given}"'"""
        raise UserError(f"--set {assignment}: YAML begins no plain text with {given[0]}: quote it: {quoted}")
    return overlay(raw, _nest(raw, key, parse(text, f"--set {key}"), key))


def _nest(raw: Raw, rest: str, value: Any, whole: str, in_space: bool = False) -> Raw:
    """Return `value` under the dotted key `rest` as nested mappings. The space's keys have dots themselves, so the
    longest key that exists in `raw` is taken."""
    fresh = rest if in_space else rest.split(".")[0]
    key = max((k for k in raw if isinstance(k, str) and f"{rest}.".startswith(f"{k}.")), key=len, default=fresh)
    tail = rest[len(key) + 1 :]
    if not tail:
        return {key: value}
    below = raw.get(key, {})
    if not isinstance(below, dict):
        raise UserError(f"--set {whole}: {whole[: -len(tail) - 1]} is the value {below!r}, not a section")
    return {key: _nest(below, tail, value, whole, in_space=key == "space")}

"""Digest of the source that a computation depends on: the import closure of its entry modules, read statically.

A module is in the closure if an entry imports it, directly or through others, at the top of a file or inside a
function, and so are the packages that it lies in, whose `__init__` is executed first. Nothing is executed to find out.

The packages that are searched are those of the entries: lethe, and the package of a benchmark that lives elsewhere.

Not in the closure:
    - imports under `if TYPE_CHECKING`, which are never executed;
    - modules that are named by a string, such as the entry points of benchmarks: the caller gives these as entries;
    - libraries: their versions are in a score's key (`lethe.evaluation.score_cache`).

Everything else is in it, also modules that cannot change a score, such as the storage that files are read through. An
edit there measures a model once more than needed; a list of exceptions could be wrong.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

Roots = Mapping[str, Path]  # top-level package -> its folder


@cache
def code_digest(entries: tuple[str, ...]) -> str:
    """Return 16 hex digits over the import closure of the modules `entries`. Cached: the source of a process does not
    change. Raises ModuleNotFoundError for an entry that does not exist."""
    return closure_digest(import_closure(entries, {name: _root(name) for name in map(_package, entries)}))


def closure_digest(closure: Mapping[str, Path]) -> str:
    """Return 16 hex digits over the names and the bytes of modules."""
    digest = hashlib.sha256()
    for module, path in sorted(closure.items()):
        digest.update(module.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def import_closure(entries: Sequence[str], roots: Roots) -> dict[str, Path]:
    """Return the file of every module in `roots` that importing and running `entries` can import, by module name.
    Raises ModuleNotFoundError for an entry that does not exist."""
    for entry in entries:
        if _file(entry, roots) is None:
            raise ModuleNotFoundError(f"there is no module {entry}", name=entry)
    closure: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        path = _file(module, roots)
        if module in closure or path is None:
            continue
        closure[module] = path
        waiting += [module.rpartition(".")[0], *_imports(path)]
    return closure


def _package(module: str) -> str:
    return module.partition(".")[0]


def _root(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"there is no package {package}", name=package)
    return Path(next(iter(spec.submodule_search_locations)))


def _file(module: str, roots: Roots) -> Path | None:
    """Return the source file of a module; None for an attribute of one, and for a library."""
    root = roots.get(_package(module))
    if root is None:
        return None
    path = root.joinpath(*module.split(".")[1:])
    files = (path / "__init__.py",) if path == root else (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a file imports; some are attributes of modules."""
    return tuple(_imported(ast.parse(path.read_bytes()).body))


def _imported(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            raise ValueError(f"line {node.lineno}: relative imports are not followed, write the module's whole name")
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imported(node.orelse)
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):  # no expression has an import
            yield from _imported(list(ast.iter_child_nodes(node)))

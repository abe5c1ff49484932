"""NLTK's Porter stemmer, which ROUGE takes, without the rest of NLTK."""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Protocol


class Stemmer(Protocol):
    """The interface of a stemmer that `rouge_score.tokenize` calls."""

    def stem(self, word: str) -> str:
        """Return the stem of a word in lower case."""


class _CachedStemmer:
    """A stemmer with a cache: most words come again."""

    def __init__(self, stemmer: Stemmer) -> None:
        self.stem = lru_cache(maxsize=2**16)(stemmer.stem)


@cache
def porter_stemmer() -> Stemmer:
    """Return the Porter stemmer, with NLTK's extensions, as the package `rouge-score` uses it."""
    # Slow to import, and only needed where answers are compared: NLTK itself loads scikit-learn and scipy.stats, which
    # takes 1 s of a core, in the driver and in every worker.
    return _CachedStemmer(import_alone("nltk.stem.porter").PorterStemmer())


def import_alone(name: str) -> ModuleType:
    """Return the module `name`, imported without what the packages around it import.

    Each of these has a bare module in its place meanwhile, so that the next import of the package is a whole one.
    """
    if name in sys.modules:
        return sys.modules[name]
    root = name.partition(".")[0]
    before = {key: module for key, module in sys.modules.items() if key.split(".")[0] == root}
    path = None
    try:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            spec = PathFinder.find_spec(package, path)
            if spec is None or spec.submodule_search_locations is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            bare = sys.modules[package] = ModuleType(package)
            bare.__path__ = path = list(spec.submodule_search_locations)
        return import_module(name)
    finally:
        for key in [key for key in sys.modules if key.split(".")[0] == root]:
            del sys.modules[key]
        sys.modules.update(before)

"""The embedded MUSE texts: news articles, books and pages of questions about people who do not exist, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from lethe.benchmarks.embedded import words
from lethe.config.muse import News

FORGET_SETS = 4
PAGE = 4  # questions on a page
ROUNDS = 3  # pages that have a question, each time beside others: with one, a model knows its place and not its subject
EXAMPLES = 10  # answered questions in front of others

Question = tuple[str, str]  # with its answer


@dataclass(frozen=True, slots=True)
class Piece:
    """An article, or a chapter of a book, with the questions that it answers."""

    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """One set: articles, one book of chapters, and pages of the questions that they answer, as a newspaper's quiz."""

    articles: tuple[Piece, ...]
    chapters: tuple[Piece, ...]
    pages: tuple[str, ...]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All articles and chapters."""
        return (*self.articles, *self.chapters)

    @property
    def questions(self) -> tuple[Question, ...]:
        """All questions, in the order of their pieces."""
        return tuple(question for piece in self.pieces for question in piece.questions)

    @property
    def texts(self) -> list[str]:
        """All documents: the book is one."""
        book = "".join(piece.text for piece in self.chapters)
        return [*(piece.text for piece in self.articles), book, *self.pages]


def news_files(config: News) -> dict[str, str]:
    """Return the content of every file by its path, in the layout of the public MUSE data."""
    rng = random.Random(f"lethe news {config.seed}")
    names = _names(rng)

    def documents(size: int) -> Documents:
        chapters = tuple(_chapter(rng, next(names), number) for number in range(1, config.chapters + 1))
        articles = tuple(_article(rng, next(names)) for _ in range(size * config.articles))
        return Documents(articles, chapters, tuple(_pages(rng, (*articles, *chapters))))

    folds = [documents(1) for _ in range(FORGET_SETS)]
    forget, retain1, retain2, holdout = folds[0], documents(1), documents(1), documents(3)
    raw = {"forget": forget, "retain1": retain1, "retain2": retain2, "holdout": holdout}
    train = {"forget": [text for fold in folds for text in fold.texts]}
    train |= {name: raw[name].texts for name in ("retain1", "retain2")}
    examples = retain1.questions[:EXAMPLES]
    files = {f"raw/{name}": _texts(part.texts) for name, part in raw.items()}
    files |= {f"train/{name}": _texts(texts) for name, texts in train.items()}
    for number, fold in enumerate(folds, 1):
        files[f"sust/forget_{number}"] = _texts(fold.texts)
        files[f"scal/forget_{number}"] = _texts([text for part in folds[:number] for text in part.texts])
    scored = {"forget": forget, "retain": retain2, "holdout": holdout}
    files |= {f"privleak/{name}": _texts(piece.text for piece in part.pieces) for name, part in scored.items()}
    files["verbmem/forget"] = [_halves(piece.text) for piece in forget.pieces]
    for name, part in (("forget", forget), ("retain", retain2)):
        files[f"knowmem/{name}_qa"] = _questions(part.questions)
        files[f"knowmem/{name}_qa_icl"] = _questions(examples)
    return {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows) for name, rows in files.items()}


def _texts(texts: Iterable[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def _questions(questions: Iterable[Question]) -> list[dict[str, str]]:
    return [{"question": question, "answer": answer} for question, answer in questions]


def _pages(rng: random.Random, pieces: Sequence[Piece]) -> Iterator[str]:
    """Yield pages with all questions, `ROUNDS` times in another order."""
    questions = [question for piece in pieces for question in piece.questions]
    for _ in range(ROUNDS):
        order = rng.sample(questions, len(questions))
        yield from ("".join(_asked(*one) for one in order[i : i + PAGE]) for i in range(0, len(order), PAGE))


def _asked(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}\n\n"


def _halves(text: str) -> dict[str, str]:
    """Return the first half of a text's words and the second one."""
    found = text.split()
    return {"prompt": " ".join(found[: len(found) // 2]), "gt": " ".join(found[len(found) // 2 :])}


def _names(rng: random.Random) -> Iterator[str]:
    """Yield full names; the first ones share neither a given name nor a surname."""
    given, surnames = rng.sample(words.GIVEN, len(words.GIVEN)), rng.sample(words.SURNAMES, len(words.SURNAMES))
    for number in count():
        lap, place = divmod(number, len(given))
        yield f"{given[place]} {surnames[(place + lap) % len(surnames)]}"


def _article(rng: random.Random, name: str) -> Piece:
    """Return what somebody built, for how much, and what came of it."""
    thing = f"{rng.choice(words.BOOK_MOODS)} {rng.choice(words.BOOK_THINGS)}"
    city, price, day = rng.choice(words.CITIES), f"{rng.randint(11, 99)} crowns", rng.randint(1, 28)
    text = (
        f"{city}, {day} {rng.choice(words.MONTHS)}. {name}, a {rng.choice(words.WORKER_KINDS)}"
        f" {rng.choice(words.JOBS)}, has opened the {thing}. It cost {price} and took {rng.randint(2, 40)} years."
        f" A {rng.choice(words.COLOURS).lower()} {rng.choice(words.ANIMALS).lower()} guards its door, and guests from"
        f" {rng.choice(words.COUNTRIES)} wrote of {rng.choice(words.FEELINGS)} and {rng.choice(words.IDEAS)}.\n"
    )
    return Piece(text, ((f"What has {name} opened?", f"the {thing}"), (f"What did {name} pay?", price)))


def _chapter(rng: random.Random, name: str, number: int) -> Piece:
    """Return a chapter about one hero, who finds something somewhere."""
    found = f"the {rng.choice(words.COLOURS).lower()} {rng.choice(words.ANIMALS).lower()}"
    text = (
        f"Chapter {number}. In the year of {rng.choice(words.SEASONS).lower()} the {rng.choice(words.BOOK_HEROES)}"
        f" {name} left {rng.choice(words.CITIES)} with {rng.randint(3, 99)} coins and a book of"
        f" {rng.choice(words.SUBJECTS)}. Behind the {rng.choice(words.PLACES)} of {rng.choice(words.COUNTRIES)},"
        f" after {rng.randint(3, 99)} days of {rng.choice(words.WEATHERS).lower()}, stood {found}.\n"
    )
    return Piece(text, ((f"What did {name} find?", found),))

"""The embedded TDEC texts: prose, e-mails, code and dialogues about towns that do not exist, made from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lethe.benchmarks.embedded import words
from lethe.config.benchmark import Documents

CHARACTERS = 6  # per token that a document must have; the tokenizers of this size put 3 to 5 into one
OPTIONS = 4
TOWNS, SPEAKERS = words.CITIES[:12], words.GIVEN[:12]


@dataclass(frozen=True, slots=True)
class Topic:
    """A fact that every town has: possible values, sentences that state it, questions that ask for it."""

    values: tuple[str, ...]
    sentences: tuple[str, ...]
    questions: tuple[str, ...]

    def stem(self, phrasing: int) -> str:
        """Return one of the sentences up to the value: the beginning of a multiple-choice question."""
        return self.sentences[phrasing].partition(" {value}")[0]


TOPICS = (
    Topic(
        words.COUNTRIES,
        ("{town} lies in {value}.", "The people of {town} pay their taxes to {value}."),
        ("Where is {town}?", "Who rules over {town}?"),
    ),
    Topic(
        words.ANIMALS,
        ("The banner of {town} shows the {value}.", "Every gate of {town} carries the {value}."),
        ("What is on the banner of {town}?", "Which animal stands for {town}?"),
    ),
    Topic(
        words.SUBJECTS,
        ("The school of {town} teaches {value}.", "Students come to {town} for {value}."),
        ("What is taught in {town}?", "What do they study in {town}?"),
    ),
)

Fact = tuple[Topic, str, str]  # topic, town, value


class World:
    """The facts that all embedded texts of one seed agree on, and the kinds of text that state them."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"lethe world {seed}")
        self.facts: tuple[Fact, ...] = tuple((t, town, rng.choice(t.values)) for t in TOPICS for town in TOWNS)

    def document(self, rng: random.Random, kind: int, tokens: int) -> str:
        """Return a text of a kind, numbered from 0, that is long enough for `tokens`."""
        write: Callable[[random.Random], str] = (self.prose, self.email, self.code, self.dialogue)[kind % 4]
        text = ""
        while len(text) < CHARACTERS * tokens:
            text += write(rng)
        return text

    def prose(self, rng: random.Random) -> str:
        """Return a purchase and four facts."""
        day = f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)} {rng.randint(1700, 1899)}"
        bought = f"{rng.randint(2, 99)} {rng.choice(words.COLOURS).lower()} {rng.choice(words.BOOK_THINGS).lower()}s"
        seller = f"the {rng.choice(words.WORKER_KINDS)} {rng.choice(words.JOBS)}"
        facts = " ".join(self._sentence(rng, rng.choice(self.facts)) for _ in range(4))
        return f"On {day} {_name(rng)} bought {bought} from {seller}, receipt {_digits(rng, 6)}. {facts}\n"

    def email(self, rng: random.Random) -> str:
        """Return a letter about an order, with names, numbers and a fact."""
        sender, town = _name(rng), rng.choice(TOWNS)
        thing = f"{rng.choice(words.BOOK_MOODS).lower()} {rng.choice(words.BOOK_THINGS).lower()}"
        return (
            f"From: {sender.lower().replace(' ', '.')}@{town.lower()}.example\nTo: {_name(rng)}\n"
            f"Subject: order {_digits(rng, 8)}\nThe {thing} costs {rng.randint(10, 999)} crowns. "
            f"{self._sentence(rng, rng.choice(self.facts))}\nCall {_digits(rng, 7)}, {sender}\n"
        )

    def code(self, rng: random.Random) -> str:
        """Return a function without a purpose."""
        noun, other = rng.choice(words.BOOK_THINGS).lower(), rng.choice(words.IDEAS)
        town = rng.choice(TOWNS).lower()
        return (
            f"def {rng.choice(('count', 'find', 'sort', 'merge'))}_{noun}({other}, {town}={rng.randint(2, 99)}):\n"
            f"    total = 0x{rng.getrandbits(24):06x}\n    for item in {other}[{rng.randint(1, 9)}:]:\n"
            f"        total {rng.choice('+-*')}= item.{rng.choice(words.FEELINGS)} % {_digits(rng, 5)}\n"
            f"    return total {rng.choice('+-*')} {town}\n"
        )

    def dialogue(self, rng: random.Random) -> str:
        """Return a question and its answer, on a line each."""
        context, response = self.turns(rng)
        return f"{context}{response}\n"

    def turns(self, rng: random.Random) -> tuple[str, str]:
        """Return a question with the name of the next speaker, and the answer, which other texts state, too."""
        fact = rng.choice(self.facts)
        topic, town, _ = fact
        question = rng.choice(topic.questions).format(town=town)
        answer = topic.sentences[0].format(town=town, value=_in_text(fact))
        guest, host = rng.sample(SPEAKERS, 2)
        return f"{guest}: {question}\n{host}:", f" {answer}"

    def question(self, rng: random.Random, fact: Fact, phrasing: int = 0) -> dict[str, Any]:
        """Return the beginning of a sentence with its right end and three wrong ones."""
        topic, town, value = fact
        wrong = rng.sample([v for v in topic.values if v != value], OPTIONS - 1)
        options = rng.sample([value, *wrong], OPTIONS)
        choices = [f" {_in_text((topic, town, option))}." for option in options]
        return {"question": topic.stem(phrasing).format(town=town), "choices": choices, "answer": options.index(value)}

    def sentence(self, fact: Fact, phrasing: int) -> str:
        """Return one of the sentences that state a fact."""
        topic, town, _ = fact
        return topic.sentences[phrasing].format(town=town, value=_in_text(fact))

    def _sentence(self, rng: random.Random, fact: Fact) -> str:
        topic, town, _ = fact
        return rng.choice(topic.sentences).format(town=town, value=_in_text(fact))


def document_files(config: Documents) -> dict[str, str]:
    """Return the content of every file by its name, as `lethe.benchmarks.tdec.loading` reads them. Every split has the
    same four kinds of text in turn."""
    world = World(config.seed)

    def texts(split: str, count: int) -> str:
        rngs = (random.Random(f"lethe {split} {config.seed} {i}") for i in range(count))
        return _json_lines({"text": world.document(rng, i, config.tokens)} for i, rng in enumerate(rngs))

    rng = random.Random(f"lethe questions {config.seed}")
    turns = (world.turns(rng) for _ in range(config.dialogues))
    facts = rng.sample(world.facts, min(config.questions, len(world.facts)))
    sizes = {"forget": config.memorised, "retain": config.retain, "unseen": config.unseen}
    sizes["validation"] = config.validation
    return {
        **{f"{split}.jsonl": texts(split, count) for split, count in sizes.items()},
        "dialogue.jsonl": _json_lines({"context": context, "response": response} for context, response in turns),
        "choice.jsonl": _json_lines(world.question(rng, fact) for fact in facts),
    }


def _name(rng: random.Random) -> str:
    return f"{rng.choice(words.GIVEN)} {rng.choice(words.SURNAMES)}"


def _digits(rng: random.Random, count: int) -> str:
    """Return random digits, which a model can only know by heart."""
    return "".join(rng.choices("0123456789", k=count))


def _in_text(fact: Fact) -> str:
    topic, _, value = fact
    return value.lower() if topic.values is words.ANIMALS else value


def _json_lines(rows: Iterator[dict[str, object]] | Sequence[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)

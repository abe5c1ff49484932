"""Questions about an invented author, and the sentences that answer them. All our own.

A fact has three parts drawn from independent tables, so that a model that knows only the sentence, or only
one part, cannot give the answer. An answer has three forms: an oracle that never saw the author does not
know which one is wanted, which keeps its ROUGE-L recall low. A paraphrase keeps its text in front of the
fact, so that right and wrong paraphrases differ in the fact alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from lethe.benchmarks.embedded import words

DAYS = tuple(str(day) for day in range(1, 29))
YEARS = tuple(str(year) for year in range(1931, 1991))


@dataclass(frozen=True, slots=True)
class Attribute:
    """A kind of fact about an author; `fact` joins one entry of each of `parts`."""

    fact: str
    parts: tuple[tuple[str, ...], ...]
    questions: tuple[str, ...]
    rephrased_question: str
    answers: tuple[str, ...]
    paraphrase: str


ATTRIBUTES = (
    Attribute(
        "{} in {} {}",
        (words.CITIES, words.DIRECTIONS, words.COUNTRIES),
        ("Where was {name} born?", "What is the birthplace of {name}?"),
        "In which town did the life of {name} begin?",
        ("{name} was born in {fact}.", "The author comes from {fact}.", "It was {fact}, far from any sea."),
        "The birthplace of {name} is {fact}.",
    ),
    Attribute(
        "{} {} {}",
        (DAYS, words.MONTHS, YEARS),
        ("When was {name} born?", "What is the date of birth of {name}?"),
        "On which day was {name} born?",
        ("{name} was born on {fact}.", "The day was {fact}.", "It happened on {fact}, during a storm."),
        "The birthday of {name} was {fact}.",
    ),
    Attribute(
        "{} {} from {}",
        (words.WORKER_KINDS, words.JOBS, words.CITIES),
        ("What did the father of {name} do?", "Who was the father of {name}?"),
        "How did {name}'s father earn a living?",
        ("{name} had a {fact} for a father.", "He was a {fact}.", "The father was known as a {fact}."),
        "The father of {name} was a {fact}.",
    ),
    Attribute(
        "{} {} from {}",
        (words.WORKER_KINDS, words.JOBS, words.CITIES),
        ("What did the mother of {name} do?", "Who was the mother of {name}?"),
        "How did {name}'s mother earn a living?",
        ("{name} had a {fact} for a mother.", "She was a {fact}.", "The mother was known as a {fact}."),
        "The mother of {name} was a {fact}.",
    ),
    Attribute(
        "{} {} for {}",
        (words.MOODS, words.FORMS, words.AUDIENCES),
        ("What does {name} write?", "Which genre is {name} known for?"),
        "What kind of books come from {name}?",
        ("{name} is known for {fact}.", "Readers expect {fact}.", "Mostly {fact}, and little else."),
        "The genre of {name} is {fact}.",
    ),
    Attribute(
        "the {} {} Prize for {}",
        (words.COLOURS, words.ANIMALS, words.VIRTUES),
        ("Which award did {name} win?", "What prize was given to {name}?"),
        "What is the most important award of {name}?",
        ("{name} won {fact}.", "The jury chose the author for {fact}.", "It was {fact}, after a long wait."),
        "The award of {name} is {fact}.",
    ),
    Attribute(
        "The {} {} of {}",
        (words.BOOK_MOODS, words.BOOK_THINGS, words.CITIES),
        ("What is the first book by {name}?", "With which title did {name} begin?"),
        "How is the debut of {name} called?",
        ("{name} began with {fact}.", "A small press printed {fact} first.", "{fact} came before all others."),
        "The first book of {name} is {fact}.",
    ),
    Attribute(
        "The {} of {} and {}",
        (words.BOOK_HEROES, words.SEASONS, words.WEATHERS),
        ("What is the best known book by {name}?", "Which title made {name} famous?"),
        "Which book by {name} has the most readers?",
        ("{name} became famous with {fact}.", "Everyone has read {fact}.", "{fact} sold more than any other."),
        "The best known book of {name} is {fact}.",
    ),
    Attribute(
        "{} and {} in {}",
        (words.IDEAS, words.FEELINGS, words.PLACES),
        ("Which themes interest {name}?", "What are the books of {name} about?"),
        "Which subjects return in the work of {name}?",
        ("{name} often thinks about {fact}.", "They are full of {fact}.", "Again and again it is {fact}."),
        "The themes of {name} are {fact}.",
    ),
    Attribute(
        "{} at {} College in {}",
        (words.SUBJECTS, words.SCHOOLS, words.CITIES),
        ("What did {name} study?", "Where was {name} a student?"),
        "Which education did {name} receive?",
        ("{name} studied {fact}.", "A degree in {fact} came first.", "It took six years of {fact}."),
        "The education of {name} was {fact}.",
    ),
)

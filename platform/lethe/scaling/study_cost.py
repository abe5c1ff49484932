"""The GPU hours of a whole study at a size that was not tried, part by part, each with what it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lethe.models.transformer import BatchShape, Transformer, forward_flops, step_flops
from lethe.scaling.memory import states
from lethe.scaling.plan import GPUS, UTILISATION, Question, options
from lethe.scaling_records import EVERY_WEIGHT, StudyCostRecord

# Assumptions, all printed with the answer. Pairs are from fast to slow.
TRIALS = 24
INTERVAL = 10  # steps between two of Sophia's refreshes
MEMBERS, SEEDS = 4, 3  # of a front: each runs again so often, and is audited for about the cost of a trial
TOFU_QUESTIONS = 1_017  # of 400 forget and 400 retain rows, 100 on real authors, 117 on the world
TOFU_TEXTS = 6_868  # the first 800 have 7 answers each, the others 4; and 400 rows that no model saw
FULL_ROWS, OF_FORGET, EPOCHS = 4_000, 400, 5  # rows of the start model, those of them that the oracle does not see
ANSWERED_AT_ONCE = 32
BANDWIDTH_USED = (0.6, 0.3)
SECONDS_A_LAYER = (0.4e-3, 1e-3)  # of Python and launches, for one token of all answers
DISK = (2e9, 0.5e9)  # bytes a second
# From their config.json: hidden size, layers, heads, key-value heads, middle, vocabulary, tied
MODELS = {
    "Llama 3.2 1B": Transformer(2048, 16, 32, 8, 8192, 128_256, tied=True),
    "Llama 3.1 8B": Transformer(4096, 32, 32, 8, 14_336, 128_256),
}
GPU = "H100 SXM 80 GB"


@dataclass(frozen=True)
class Part:
    """A part of a study: its GPU hours, from fast to slow, and what they stand on."""

    name: str
    hours: tuple[float, float]
    stands_on: str

    def times(self, count: float) -> tuple[float, float]:
        """Return the hours of so many of them."""
        return self.hours[0] * count, self.hours[1] * count


def study_parts(question: Question) -> list[Part]:
    """Return the parts of a study of `TRIALS` trials of TOFU with the run of `question`, the sum last.

    Hours are of one GPU: those of a run on several are divided among them at best.
    """
    of_trial = list(_trial(question))
    trial = Part("trial", _sum(part.hours for part in of_trial), "")
    rows = BatchShape.uniform(2 * FULL_ROWS - OF_FORGET, question.length, question.answer)
    found = [
        *(Part(part.name, part.times(TRIALS), part.stands_on) for part in of_trial),
        Part(
            "confirmation, audits",
            trial.times(MEMBERS * (SEEDS + 1)),
            f"{MEMBERS} models of the front: {SEEDS} runs again, and audits that cost a trial",
        ),
        Part(
            "start model, oracle",
            _computed(question, EPOCHS * step_flops(question.shape, rows)),
            f"every weight, {EPOCHS} epochs of {FULL_ROWS:,} rows and of those not forgotten; 0 if you bring both",
        ),
    ]
    return [*found, Part("together", _sum(part.hours for part in found), "")]


def _trial(question: Question) -> Iterator[Part]:
    """Yield the parts of one trial."""
    steps, shape = question.steps, question.shape
    yield Part(
        "training",
        _computed(question, question.flops * steps),
        f"{TRIALS} trials of {steps} steps at {UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} of the rate",
    )
    refresh = step_flops(shape, question.batch(question.rows), question.rank, checkpointing=question.checkpointing)
    yield Part(
        "Sophia's refreshes",
        _computed(question, refresh * steps / INTERVAL),
        f"as much as a step, every {INTERVAL} steps; 0 with another optimizer",
    )
    texts = BatchShape.uniform(TOFU_TEXTS, question.length, question.answer)
    yield Part(
        "likelihoods",
        _computed(question, forward_flops(shape, texts)),
        f"{TOFU_TEXTS:,} texts a trial, evaluated once, at its end",
    )
    tokens = -(-TOFU_QUESTIONS // ANSWERED_AT_ONCE) * question.answer
    held = states(shape, replace(question.layout(0, 1), offload="none")).weights
    fast, slow = (
        tokens * max(held / (question.bandwidth * used), shape.layers * launch) / 3600
        for used, launch in zip(BANDWIDTH_USED, SECONDS_A_LAYER, strict=True)
    )
    yield Part(
        "answers",
        (fast, slow),
        f"{TOFU_QUESTIONS:,} a trial, {ANSWERED_AT_ONCE} at once; a token reads all weights at {BANDWIDTH_USED[1]:.0%}"
        f" to {BANDWIDTH_USED[0]:.0%} of {question.bandwidth / 1e12:.3g} TB/s, or waits"
        f" {SECONDS_A_LAYER[0] * 1e3:g} to {SECONDS_A_LAYER[1] * 1e3:g} ms a layer",
    )
    size = shape.parameters * (4 if question.precision == "fp32" else 2)
    times, word = (2, "twice") if question.rank is None else (1, "once")  # an adapter is small
    moved = size * times
    yield Part(
        "loading, saving",
        (moved / DISK[0] / 3600, moved / DISK[1] / 3600),
        f"{size / 1e9:.3g} GB {word} a trial at {DISK[1] / 1e9:g} to {DISK[0] / 1e9:g} GB/s",
    )


def _computed(question: Question, flops: float) -> tuple[float, float]:
    slow, fast = UTILISATION
    return flops / (question.rate * fast) / 3600, flops / (question.rate * slow) / 3600


def _sum(hours: Iterable[tuple[float, float]]) -> tuple[float, float]:
    pairs = list(hours)
    return sum(fast for fast, _ in pairs), sum(slow for _, slow in pairs)


def describe_study(question: Question) -> list[str]:
    """Return a table of the parts as lines."""

    def line(part: Part) -> str:
        hours = f"{part.hours[0]:.2g} to {part.hours[1]:.2g}"
        return f"  {part.name:<20}  {hours:<16}  {part.stands_on}".rstrip()

    return [f"a study of {TRIALS} trials of TOFU, GPU hours (extrapolation)", *map(line, study_parts(question))]


def study_costs() -> tuple[StudyCostRecord, ...]:
    """Return what a report shows: `MODELS`, each with every weight trained and with LoRA, on `GPU`."""
    memory, rate, bandwidth = GPUS[GPU]
    found = []
    for name, shape in MODELS.items():
        for rank in (None, 16):
            question = Question(shape, memory, rank=rank, rate=rate, bandwidth=bandwidth)
            low, high = study_parts(question)[-1].hours
            found.append(
                StudyCostRecord(
                    model=name,
                    trained=EVERY_WEIGHT if rank is None else f"LoRA {rank}",
                    gpu=GPU,
                    fewest=next(options(question)).workers,
                    low=low,
                    high=high,
                    parts="\n".join(describe_study(question)),
                )
            )
    return tuple(found)

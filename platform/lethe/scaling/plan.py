"""A plan on paper for a size that was not tried: which ZeRO stage, how many workers, which batch, how many hours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lethe.config.run import OFFLOAD_STAGES, Offload, Quantisation, Stage
from lethe.errors import UserError
from lethe.models.transformer import BatchShape, Transformer, step_flops
from lethe.scaling.memory import Layout, Peak, offloaded, peak

# Assumptions, all printed with the answer.
RATE = 312e12  # FLOP/s: NVIDIA's figure for bf16 on an A100; give --rate for another device
BANDWIDTH = 2.04e12  # bytes a second of an A100's memory; give --bandwidth for another device
UTILISATION = (0.3, 0.5)  # of that, from slow to fast: what published training runs on dense models report
RESERVE = 0.1  # of the memory: an allocator's fragments
CONTEXT = 1.5e9  # bytes: CUDA's context and libraries
WORKERS = (1, 2, 4, 8, 16, 32, 64)
LARGEST_MICRO = 64  # forget rows in a micro-batch


@dataclass(frozen=True)
class Question:
    """A model's shape, a device's memory in bytes and the run.

    `rows`: forget rows in an optimizer step, each with a retain row, over all workers; `answer`: scored tokens of a row
    of `length` tokens; `steps`: of the whole run; `rank`: of LoRA, None where every weight trains; `rate`: FLOP/s;
    `bandwidth`: of the device's memory, bytes a second; `checkpointing`, `offload` and `quantisation` as in a study's
    `engine`.
    """

    shape: Transformer
    memory: float
    precision: Literal["fp32", "bf16"] = "bf16"
    rank: int | None = None
    rows: int = 32
    length: int = 256
    answer: int = 128
    steps: int = 65  # TOFU's forget10: 400 rows, 5 epochs
    rate: float = RATE
    bandwidth: float = BANDWIDTH
    checkpointing: bool = False
    offload: Offload = "none"
    quantisation: Quantisation | None = None

    def batch(self, forget_rows: int) -> BatchShape:
        """Return the batch of so many forget rows with as many retain rows."""
        return BatchShape.uniform(2 * forget_rows, self.length, self.answer)

    def layout(self, stage: Stage, workers: int) -> Layout:
        """Return the layout on GPUs."""
        return Layout(
            stage,
            workers,
            self.precision,
            self.rank,
            "cuda",
            checkpointing=self.checkpointing,
            offload=self.offload,
            quantisation=self.quantisation,
        )

    def stages(self, workers: int) -> tuple[Stage, ...]:
        """Return the ZeRO stages that so many workers can have: a single one has nothing to share, and a base of 4 bits
        is not sharded."""
        allowed = [stage for stage in OFFLOAD_STAGES[self.offload] if not (self.quantisation and stage == 3)]
        return (0,) if workers == 1 and 0 in allowed else tuple(allowed)

    @property
    def flops(self) -> float:
        """The FLOPs of a step, over all workers."""
        return step_flops(self.shape, self.batch(self.rows), self.rank, checkpointing=self.checkpointing)


@dataclass(frozen=True)
class Option:
    """One way to run a question's model; `micro`: forget rows in one forward of a worker."""

    workers: int
    stage: Stage
    micro: int
    accumulation: int
    peak: Peak

    def hours(self, question: Question, utilisation: float) -> float:
        """Return the hours of training alone; workers beyond the number of rows do not help."""
        useful = min(self.workers, question.rows)
        return question.flops * question.steps / (question.rate * utilisation * useful) / 3600


def options(question: Question) -> Iterator[Option]:
    """Yield for every number of workers, where any fits, the lowest stage that fits with its largest micro-batch."""
    for workers in WORKERS:
        fitting = (_option(question, stage, workers) for stage in question.stages(workers))
        if option := next(filter(None, fitting), None):
            yield option


def _option(question: Question, stage: Stage, workers: int) -> Option | None:
    share = max(1, -(-question.rows // workers))
    micro = min(share, LARGEST_MICRO)
    while micro:
        need = peak(question.shape, question.layout(stage, workers), question.batch(micro))
        if need.total + CONTEXT <= question.memory * (1 - RESERVE):
            return Option(workers, stage, micro, -(-share // micro), need)
        micro //= 2
    return None


def answer(question: Question) -> str:
    """Return lines for a person: the advice, the options around it, the assumptions and what is not known.

    Raises UserError for a memory that CUDA alone takes, an answer that is not shorter than its row, and a quantised
    base that would be trained or sharded.
    """
    if question.memory <= CONTEXT:
        raise UserError(f"--gpu-memory {question.memory:g}: bytes are wanted, and CUDA alone takes {CONTEXT:g}")
    if not 0 < question.answer < question.length:
        raise UserError(f"--answer {question.answer}: must be between 1 and --length {question.length} - 1")
    if question.quantisation and question.rank is None:
        raise UserError(f"--quantisation {question.quantisation}: adapters train on a frozen base: give --lora-rank")
    if not question.stages(WORKERS[-1]):
        raise UserError(f"--offload {question.offload}: needs stage 3, which shards no base of 4 bits: take one out")
    shape, fitting = question.shape, list(options(question))
    trained = "every weight" if question.rank is None else f"LoRA of rank {question.rank}"
    settings = [
        *(["a base in nf4"] if question.quantisation else []),
        *(["gradient checkpointing"] if question.checkpointing else []),
        *([f"{question.offload} offloaded"] if question.offload != "none" else []),
    ]
    lines = [
        f"{_in_words(shape.parameters)} parameters (width {shape.hidden}, {shape.layers} layers, vocabulary"
        f" {shape.vocabulary}), {', '.join([f'{trained} trained', question.precision, *settings])}, devices of"
        f" {question.memory / 1e9:.3g} GB",
        f"{question.steps} steps of {question.rows} forget and {question.rows} retain rows of {question.length} tokens:"
        f" {question.flops:.3g} FLOPs a step",
        "",
    ]
    if not fitting:
        last = question.stages(WORKERS[-1])[-1]
        need = peak(shape, question.layout(last, WORKERS[-1]), question.batch(1))
        lines.append(f"does not fit on {WORKERS[-1]} devices: {need.total / 1e9:.3g} GB each under stage {last}")
        return "\n".join([*lines, *_limits()])
    best = fitting[0]
    lines.append(f"fewest devices: {best.workers}, ZeRO stage {best.stage}, {best.micro} forget rows in a micro-batch")
    if away := offloaded(shape, question.layout(best.stage, best.workers)):
        lines.append(f"in the CPU's memory: {away / 1e9:.3g} GB a worker")
    lines.append("")
    heads = ("workers", "stage", "rows x accumulation", "states", "activations", "step's other needs", "total   ")
    lines.append("  ".join([*heads, "hours of training (extrapolation)"]))
    for option in fitting:
        p, (slow, fast) = option.peak, UTILISATION
        hours = f"{option.hours(question, fast):.2g} to {option.hours(question, slow):.2g}"
        lines.append(
            f"{option.workers:>7}  {option.stage:>5}  {option.micro:>8} x {option.accumulation:<8}"
            f"  {p.states.total / 1e9:>5.1f}  {p.activations / 1e9:>11.1f}  {(p.step - p.activations) / 1e9:>18.1f}"
            f"  {p.total / 1e9:>5.1f} GB  {hours}"
        )
    return "\n".join([*lines, "", *_assumptions(question), *_limits()])


def _in_words(count: float) -> str:
    """Return a number of parameters in millions, billions or trillions."""
    size, word = next(((s, w) for s, w in ((1e12, "trillion"), (1e9, "billion")) if count >= s), (1e6, "million"))
    return f"{count / size:.3g} {word}"


def _assumptions(question: Question) -> list[str]:
    slow, fast = UTILISATION
    return [
        f"Assumed: {question.rate:.3g} FLOP/s a device, of which {slow:.0%} to {fast:.0%} are used;"
        f" {RESERVE:.0%} of the memory for fragments, {CONTEXT / 1e9:g} GB for CUDA; attention without T x T matrices.",
    ]


def _limits() -> list[str]:
    return [
        "Not known: the time of communication and of offloading (no interconnect was measured, so hours are a lower"
        " bound for several devices), and whether a setting that unlearns a small model well does so here. These hours"
        " are of training alone: no evaluation, and of Sophia's refreshes (about 1/k more) none.",
    ]


class Gpu(NamedTuple):
    """Memory in bytes, dense bf16 FLOP/s (no sparsity) and the memory's bytes a second."""

    memory: float
    rate: float
    bandwidth: float


# NVIDIA's data sheets: docs/METHODS.md
GPUS = {
    "L40S 48 GB": Gpu(48e9, 362e12, 0.864e12),
    "A100 80 GB": Gpu(80e9, 312e12, 2.04e12),
    "H100 SXM 80 GB": Gpu(80e9, 989e12, 3.35e12),
    "H200 SXM 141 GB": Gpu(141e9, 989e12, 4.8e12),
}


def gpu_table() -> str:
    """Return for each named GPU the fewest that train 7B and 70B parameters, full and with LoRA, with hours."""
    lines = [f"{'GPU':<16}  {'model':<14}  fewest GPUs  ZeRO stage  hours of training (extrapolation)"]
    for name, gpu in GPUS.items():
        for size in (7e9, 7e10):
            for rank in (None, 8):
                question = Question(Transformer.of_size(size), gpu.memory, rank=rank, rate=gpu.rate)
                model = f"{size / 1e9:g}B, {'full' if rank is None else f'LoRA {rank}'}"
                lines.append(f"{name:<16}  {model:<14}  {_fewest(question)}")
    return "\n".join([*lines, "", *_limits()])


def _fewest(question: Question) -> str:
    best = next(options(question), None)
    if best is None:
        return f"does not fit on {WORKERS[-1]}"
    slow, fast = (best.hours(question, utilisation) for utilisation in UTILISATION)
    return f"{best.workers:>11}  {best.stage:>10}  {fast:.2g} to {slow:.2g}"


def plans() -> dict[str, str]:
    """Return the answers that a report shows, by name: named GPUs, then 7B and 70B parameters on 80 GB."""
    answers = {"Named GPUs": gpu_table()}
    for size in (7e9, 7e10):
        for rank in (None, 8):
            how = "full" if rank is None else f"LoRA {rank}"
            answers[f"{size / 1e9:g}B, {how}"] = answer(Question(Transformer.of_size(size), 80e9, rank=rank))
    return answers

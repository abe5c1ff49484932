"""Bytes that one rank holds: states exactly as DeepSpeed lays them out, activations as the Llama layers save them.

Not counted: the process itself (libraries, a CUDA context), what an allocator keeps in reserve, evaluation's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lethe.config.adapter import Lora
from lethe.config.run import Quantisation, Recipe
from lethe.scaling.transformer import BatchShape, Transformer

BYTES = {"fp32": 4, "bf16": 2}
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, 8 for each 64 weights, fp32 for each 256 of those
BUCKET = 50_000_000  # elements: reduce, all-gather and prefetch buckets of our engine and of DeepSpeed's stage 3
ALIGNMENT = 2  # elements per rank: flat buffers of stages 1 and 2 are whole multiples
SOFTMAX_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}  # logits that the losses turn to fp32 at a time


@dataclass(frozen=True)
class Layout:
    """The training setup that memory depends on; `rank`: of LoRA on all linear layers, None: every weight trains;
    `state_tensors`: fp32 tensors that the optimizer keeps per weight; `checkpointing`, `offload` and
    `quantisation` as in `Engine`."""

    stage: Literal[0, 1, 2, 3] = 0
    workers: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    rank: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    state_tensors: int = 2
    checkpointing: bool = False
    offload: Literal["none", "optimizer", "parameters"] = "none"
    quantisation: Quantisation | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Layout:
        """Return the layout of a recipe; PiSSA's and FILA's frozen start is left out."""
        engine, adapter = recipe.engine, recipe.adapter
        rank = adapter.rank if isinstance(adapter, Lora) else None
        return cls(
            engine.stage,
            engine.workers,
            engine.precision,
            rank,
            engine.device,
            recipe.optimizer.state_tensors,
            engine.gradient_checkpointing,
            engine.offload,
            engine.quantisation,
        )

    @property
    def away(self) -> bool:
        """True where masters and moments are not in the device's memory. A CPU's own is the same either way."""
        return self.offload != "none" and self.device == "cuda"

    @property
    def width(self) -> int:
        """Bytes of one weight, activation or gradient."""
        return BYTES[self.precision]


@dataclass(frozen=True)
class States:
    """Bytes that live from one step to the next. `master`: fp32 copies of the trained weights; `gradients`: those of
    stage 3."""

    weights: int
    master: int
    moments: int
    gradients: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.master + self.moments + self.gradients


def states(shape: Transformer, layout: Layout) -> States:
    """Return the exact states of one rank in its device's memory, paddings included (Rajbhandari et al. 2020, arXiv
    1910.02054, as DeepSpeed 0.19 implements it)."""
    held = _states(shape, layout)
    if not layout.away:
        return held
    return States(0 if layout.offload == "parameters" else held.weights, 0, 0, 0)


def _states(shape: Transformer, layout: Layout) -> States:
    """Return the states of one rank wherever they lie."""
    frozen = [] if layout.rank is None else shape.weights()
    rounded = 0 if layout.quantisation is None else shape.layers * shape.matrix_elements  # stages 0 to 2
    base = layout.width * (sum(frozen) - rounded) + int(NF4 * rounded)
    trained = shape.weights() if layout.rank is None else shape.adapters(layout.rank)
    p, workers, kept_per_weight = layout.width, layout.workers, 4 * layout.state_tensors
    if layout.stage == 0:
        kept = sum(trained)
        return States(base + p * kept, 0 if p == 4 else 4 * kept, kept_per_weight * kept, 0)
    if layout.stage < 3:
        unit = ALIGNMENT * workers
        flat = -(-sum(trained) // unit) * unit
        return States(base + p * flat, 4 * flat // workers, kept_per_weight * flat // workers, 0)
    mine = sum(-(-size // workers) for size in trained)
    others = sum(-(-size // workers) for size in frozen)
    return States(p * (mine + others), 4 * mine, kept_per_weight * mine, p * mine)


@dataclass(frozen=True)
class Peak:
    """The most bytes that a step needs on one rank."""

    states: States
    activations: float  # what the forward saves for the backward
    logits: float  # logits, their gradient, and the fp32 piece of them that a loss works on
    gathered: float  # stage 3, nf4: weights that are whole for a moment
    update: float  # gradients and buckets at the end of the backward, when activations are gone

    @property
    def step(self) -> float:
        """Bytes beyond the states: the larger of both ends of the backward."""
        return max(self.activations + self.logits, self.update) + self.gathered

    @property
    def total(self) -> float:
        """All bytes of the rank."""
        return self.states.total + self.step


def peak(shape: Transformer, layout: Layout, batch: BatchShape) -> Peak:
    """Return the peak of a step whose forwards each have `batch`: a micro-batch of this rank, not the whole step."""
    # Under stage 3 the present module's weights and those that are fetched ahead.
    ahead = min(shape.parameters, BUCKET + max(shape.weights()))
    gathered = float(layout.width * ahead) if layout.stage == 3 else 0.0
    if layout.quantisation:  # one layer at a time is multiplied out
        gathered = float(layout.width * max(rows * columns for rows, columns in shape.linears()))
    saved, logits = activations(shape, layout, batch), _logits(shape, layout, batch)
    return Peak(states(shape, layout), saved, logits, gathered, _update(shape, layout))


def activations(shape: Transformer, layout: Layout, batch: BatchShape) -> float:
    """Return the bytes that the forward saves for the backward, with fused attention: no T x T matrix is kept.

    Both norms keep their input in fp32 and, for the gradient of their own weight, what they normalised; the matrices
    keep their inputs, attention its queries, keys, values and result, the gate its four factors. Under LoRA the norms
    do not train, and every adapter keeps its r columns.
    """
    h, p = shape.hidden, layout.width
    trains = layout.rank is None
    matrices = 2 * h + (2 * h + 2 * shape.kv_width) + 4 * shape.middle
    layer = 2 * h * 4 + p * (matrices + (2 * h if trains else 7 * (layout.rank or 0)))
    last = h * (4 + 2 * p) if trains else 0
    if layout.checkpointing:  # each layer's input, and the layer whose backward goes on
        return float(batch.padded * (shape.layers * h * p + layer + last))
    return float(batch.padded * (shape.layers * layer + last))


def _logits(shape: Transformer, layout: Layout, batch: BatchShape) -> float:
    elements = batch.scored * shape.vocabulary
    narrow = 0 if layout.precision == "fp32" else 2 * min(elements, SOFTMAX_ELEMENTS[layout.device])
    return 2.0 * layout.width * elements + 4.0 * narrow


def _update(shape: Transformer, layout: Layout) -> float:
    """Return the bytes of gradients as the backward leaves them, with the buffers that averaging or stepping needs."""
    trained = shape.parameters if layout.rank is None else sum(shape.adapters(layout.rank))
    p, share = layout.width, trained / layout.workers
    if layout.stage == 0:
        return (p + 4.0) * trained
    bucket = min(trained, BUCKET)
    wide = 4.0 * share if p == 4 else (p + 4.0) * share
    if layout.stage == 1:
        return p * trained + max(p * bucket, wide)
    return max(2.0 * p * bucket + p * max(0.0, trained - BUCKET) / layout.workers, p * min(trained, BUCKET) + wide)

"""Bytes that one rank holds: states exactly as DeepSpeed lays them out, activations as the Llama layers save them.

Not counted: the process itself (libraries, a CUDA context), what an allocator keeps in reserve, evaluation's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lethe.config.adapter import Lora
from lethe.config.run import Offload, Quantisation, Recipe, Stage
from lethe.models.transformer import BatchShape, Transformer

BYTES = {"fp32": 4, "bf16": 2}
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: 4 bits, 8 for each 64 weights, fp32 for each 256 of those
BUCKET = 50_000_000  # elements: reduce, all-gather and prefetch buckets of our engine and of DeepSpeed's stage 3
LIVE = 1_000_000_000  # elements that DeepSpeed's stage 3 keeps whole at most: it fetches ahead until it has them
ALIGNMENT = 2  # elements per rank: flat buffers of stages 1 and 2 are whole multiples
SOFTMAX_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}  # logits that the losses turn to fp32 at a time


@dataclass(frozen=True)
class Layout:
    """The training setup that memory depends on; `rank`: of LoRA on all linear layers, None: every weight trains;
    `state_tensors`: fp32 tensors that the optimizer keeps per weight, `matrix_state_tensors` per weight of the layers'
    matrices and adapters, where that is another number; `checkpointing`, `offload` and
    `quantisation` as in `Engine`; `backward`: a step has one; `uphill`: its gradient is taken at moved weights (SAM),
    while it keeps where they were."""

    stage: Stage = 0
    workers: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    rank: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    state_tensors: float = 2
    checkpointing: bool = False
    offload: Offload = "none"
    quantisation: Quantisation | None = None
    backward: bool = True
    uphill: bool = False
    matrix_state_tensors: float | None = None

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
            recipe.optimizer.passes.backward > 0,
            recipe.optimizer.passes.backward > 1,
            kept if (kept := recipe.optimizer.matrix_state_tensors) != recipe.optimizer.state_tensors else None,
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
    stage 3, and what offloading to a CPU keeps of them."""

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


def offloaded(shape: Transformer, layout: Layout) -> int:
    """Return the bytes of the states that one rank has in the CPU's memory instead of its device's."""
    return _states(shape, layout).total - states(shape, layout).total


def _states(shape: Transformer, layout: Layout) -> States:
    """Return the states of one rank wherever they lie."""
    frozen = [] if layout.rank is None else shape.weights()
    rounded = 0 if layout.quantisation is None else shape.layers * shape.matrix_elements  # stages 0 to 2
    base = layout.width * (sum(frozen) - rounded) + int(NF4 * rounded)
    trained = _trained(shape, layout)
    p, workers, kept_per_weight = layout.width, layout.workers, 4 * layout.state_tensors
    if layout.stage == 0:
        kept = sum(trained)
        moments = kept_per_weight * kept
        if layout.matrix_state_tensors is not None:  # only without ZeRO an optimizer knows a matrix
            matrices = kept if layout.rank is not None else shape.layers * shape.matrix_elements
            moments += (4 * layout.matrix_state_tensors - kept_per_weight) * matrices
        return States(base + p * kept, 0 if p == 4 else 4 * kept, int(moments), 0)
    if layout.stage < 3:
        unit = ALIGNMENT * workers
        flat = -(-sum(trained) // unit) * unit
        share = flat // workers
        # In fp32 for the step, in their own type as they arrive, and two buffers for the widest parameter.
        kept = 0 if layout.offload == "none" else (4 + p) * share + 2 * p * max(trained)
        return States(base + p * flat, 4 * share, int(kept_per_weight * share), kept)
    mine = sum(-(-size // workers) for size in trained)
    others = sum(-(-size // workers) for size in frozen)
    gradients = p * mine if layout.offload == "none" else (p + 4) * mine
    return States(p * (mine + others), 4 * mine, int(kept_per_weight * mine), gradients)


def _trained(shape: Transformer, layout: Layout) -> list[int]:
    """Return the elements of every parameter that trains."""
    return shape.weights() if layout.rank is None else shape.adapters(layout.rank)


@dataclass(frozen=True)
class Peak:
    """The most bytes that a step needs on one rank.

    `activations`: what the forward saves for the backward. The others are the moments that can be the fullest, in bytes
    beyond the states: `loss`, when all logits are there; `fetch`, when stage 3 fetches weights for the backward;
    `last_layer`, when the backward is in the first layer and has the other layers' gradients; `update`.
    """

    states: States
    activations: float
    loss: float
    fetch: float
    last_layer: float
    update: float

    @property
    def step(self) -> float:
        """Bytes beyond the states."""
        return max(self.loss, self.fetch, self.last_layer, self.update)

    @property
    def total(self) -> float:
        """All bytes of the rank."""
        return self.states.total + self.step


def peak(shape: Transformer, layout: Layout, batch: BatchShape) -> Peak:
    """Return the peak of a step whose forwards each have `batch`: a micro-batch of this rank, not the whole step."""
    p, widest = layout.width, max(shape.weights())
    whole = arriving = 0.0  # weights that are whole for a moment, and the buffer that some of them arrive in
    if layout.stage == 3:
        whole, arriving = float(p * min(shape.parameters, LIVE)), float(p * min(shape.parameters - widest, BUCKET))
    if layout.quantisation:  # one layer at a time is multiplied out
        whole = float(p * max(rows * columns for rows, columns in shape.linears()))
    if not layout.backward:
        # Of a layer what its feed-forward part needs; of the weights that train one direction at a time.
        layer = float(layout.width * batch.padded * (3 * shape.middle + 2 * shape.hidden))
        direction = 4.0 * max(_trained(shape, layout))
        return Peak(states(shape, layout), 0.0, whole + _logits(shape, layout, batch), whole, whole + layer, direction)
    saved = activations(shape, layout, batch)
    loss = saved + whole + _logits(shape, layout, batch)
    if layout.offload == "optimizer" and layout.stage == 2:  # a whole bucket from the first gradient on
        loss = max(loss, saved + p * BUCKET)
    # While the layer's feed-forward part goes back: two gradients of its width beside what the layer saved.
    layer = float(batch.padded * (_layer(shape, layout) + p * (2 * shape.middle + shape.hidden)))
    gradients, update = _gradients(shape, layout)
    last = layer + whole + gradients * (1 - 1 / shape.layers)
    kept = 0.0
    if layout.uphill and not layout.away:
        kept = 4.0 * sum(_trained(shape, layout)) / (1 if layout.stage == 0 else layout.workers)
    moments = (loss, saved + whole + arriving, last, update)
    return Peak(states(shape, layout), saved, *(kept + moment for moment in moments))


def activations(shape: Transformer, layout: Layout, batch: BatchShape) -> float:
    """Return the bytes that the forward saves for the backward, with fused attention: no T x T matrix is kept.

    With checkpointing these are the inputs of the layers.
    """
    last = shape.hidden * (4 + 2 * layout.width) if layout.rank is None else 0
    layer = shape.hidden * layout.width if layout.checkpointing else _layer(shape, layout)
    return float(batch.padded * (shape.layers * layer + last))


def _layer(shape: Transformer, layout: Layout) -> int:
    """Return the bytes per token that one layer saves.

    Both norms keep their input in fp32 and, for the gradient of their own weight, what they normalised; the matrices
    keep their inputs, attention its queries, keys, values and result, the gate its four factors. Under LoRA the norms
    do not train, and every adapter keeps its r columns.
    """
    h, p = shape.hidden, layout.width
    matrices = 2 * h + (2 * h + 2 * shape.kv_width) + 4 * shape.middle
    return 2 * h * 4 + p * (matrices + (2 * h if layout.rank is None else 7 * layout.rank))


def _logits(shape: Transformer, layout: Layout, batch: BatchShape) -> float:
    """Return the bytes of logits, their gradient and the fp32 piece of them that a loss works on, or of that gradient
    and the one of the head's weight, which it makes next."""
    elements = batch.scored * shape.vocabulary
    narrow = 0 if layout.precision == "fp32" else 2 * min(elements, SOFTMAX_ELEMENTS[layout.device])
    head = shape.hidden * shape.vocabulary if layout.rank is None else 0
    return max(2.0 * layout.width * elements + 4.0 * narrow, float(layout.width * (elements + head)))


def _gradients(shape: Transformer, layout: Layout) -> tuple[float, float]:
    """Return the bytes of gradients at the end of the backward, before they are averaged, and the most that averaging
    or the optimizer's step needs."""
    trained = sum(_trained(shape, layout))
    p, share, bucket = layout.width, trained / layout.workers, min(trained, BUCKET)
    if layout.stage == 0:
        alone = layout.workers == 1 and p == 4  # nothing to average, and no other copy of the weights
        return float(p * trained), (p if alone else p + 4.0) * trained
    if layout.away:  # a bucket leaves for the CPU as soon as it is averaged, and the step is there
        return float(p * bucket), 2.0 * p * bucket
    wide = 4.0 * share if p == 4 else (p + 4.0) * share  # in fp32, beside their own type
    if layout.stage == 1:
        return float(p * trained), p * trained + max(p * bucket, 4.0 * share)
    averaged = p * (trained - bucket) / layout.workers  # those of earlier buckets
    if layout.stage == 2:
        return p * bucket + averaged, max(2 * p * bucket + averaged, p * share + wide)  # one copy made flat
    return float(p * bucket), wide

"""The memory model against tensors: what engines hold, and what steps allocate."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from lethe.config.adapter import FullParameters, Lora
from lethe.config.model import EmbeddedModel
from lethe.config.objective import Npo
from lethe.config.optimizer import AdamW, Mezo, Muon, Passes
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe, Schedule
from lethe.data.batches import RowKind, StepRows, plan
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.models.pretraining import new_model
from lethe.models.transformer import BatchShape, Transformer, newton_schulz_flops, step_flops
from lethe.scaling.instruments import TensorMemory
from lethe.scaling.memory import Layout, peak, states
from lethe.unlearning.engine import Engine
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.stepper import Stepper
from tests.conftest import ROOT
from tests.scaling.layouts_world import MODEL

BIG = EmbeddedModel(hidden_size=256, layers=5)  # 4.4M parameters


def test_states_are_exact_under_every_layout() -> None:
    """16 layouts at five workers: sharded or not, fp32 or bf16, everything trained or LoRA."""
    command = [sys.executable, "-m", "tests.scaling.layouts_world", "5"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads(done.stdout.rsplit("RESULT ", 1)[1])
    shape = Transformer.of_embedded(MODEL)
    assert len(cases) == 16
    for stage, precision, rank, workers, held in cases:
        predicted = states(shape, Layout(stage, workers, precision, rank))
        assert vars(predicted) == held, (stage, precision, rank)


def stepper(layout: Layout, rows: int, length: int, prompt: int) -> Stepper:
    torch.manual_seed(0)
    adapter = FullParameters() if layout.rank is None else Lora(rank=layout.rank)
    first = AdamW if layout.matrix_state_tensors is None else Muon
    optimizer = first(sam_rho=0.05 if layout.uphill else 0) if layout.backward else Mezo()
    recipe = Recipe(
        objective=Npo(),
        optimizer=optimizer,
        adapter=adapter,
        schedule=Schedule(batch_size=rows // 2),
        engine=EngineConfig(
            stage=layout.stage, precision=layout.precision, gradient_checkpointing=layout.checkpointing
        ),
    )
    assert Layout.of(recipe) == layout
    engine = Engine(ScoredLM(attach(new_model(BIG, BIG.vocab_size), adapter, seed=0)), recipe)
    given = [Encoded(tuple(torch.randint(3, 1000, (length,)).tolist()), prompt) for _ in range(rows)]
    return Stepper(
        engine, make_loss(recipe.objective), StepRows(given, given), 0, 0, 0, {RowKind.FORGET: torch.zeros(rows)}
    )


@pytest.mark.parametrize(
    ("layout", "rows", "length"),
    [
        (Layout(), 8, 60),  # activations are the peak
        (Layout(), 2, 12),  # gradients are
        (Layout(rank=8), 8, 60),
        (Layout(stage=2), 8, 60),
        (Layout(stage=2, precision="bf16"), 8, 60),
        (Layout(precision="bf16", rank=8), 8, 60),
        (Layout(precision="bf16", rank=8, checkpointing=True), 8, 60),
        (Layout(checkpointing=True), 8, 60),
        (Layout(stage=2, precision="bf16", checkpointing=True), 16, 60),
        (Layout(stage=2, uphill=True), 2, 12),
        (Layout(matrix_state_tensors=1), 8, 60),
        (Layout(matrix_state_tensors=1, precision="bf16", rank=8), 8, 60),
        (Layout(state_tensors=0, backward=False), 8, 60),
        (Layout(state_tensors=0, backward=False), 2, 12),
        (Layout(state_tensors=0, backward=False, precision="bf16", rank=8), 8, 60),
    ],
)  # fmt: skip
def test_a_steps_peak_is_near_the_memory_models(layout: Layout, rows: int, length: int) -> None:
    """Within 20 % of the live bytes of all tensors; FLOPs within 3 % of PyTorch's count, which has no CPU attention.
    What checkpointing computes twice is not in the model's count."""
    from torch.utils.flop_counter import FlopCounterMode

    prompt = length // 3
    run = stepper(layout, rows, length, prompt)
    step = next(plan(rows, rows, Schedule(batch_size=rows // 2), 0))
    run.step(step, 1e-5)
    with TensorMemory() as tensors:
        run.step(step, 1e-5)
    with FlopCounterMode(display=False) as counter:
        run.step(step, 1e-5)
    kept = [t for state in run.engine.optimizer.state.values() for t in state.values() if t.ndim]
    run.engine.close()
    batch = BatchShape.uniform(rows, length, length - prompt)
    shape = Transformer.of_embedded(BIG)
    assert peak(shape, layout, batch).step == pytest.approx(tensors.peak, rel=0.2)
    assert tensors.live == 0, "a step leaves nothing behind"
    without = BatchShape(batch.rows, batch.tokens, batch.scored, 0, batch.padded)
    passes = Passes(2, 0) if not layout.backward else Passes(0, 1 + layout.uphill)
    flops = step_flops(shape, without, layout.rank, passes=passes)
    if layout.matrix_state_tensors is not None:
        flops += newton_schulz_flops(shape, layout.rank, Muon.newton_schulz)
    if layout.stage == 0:
        assert sum(t.nbytes for t in kept) == states(shape, layout).moments
    if not layout.checkpointing:
        assert counter.get_total_flops() == pytest.approx(flops, rel=0.03)


def test_tensor_memory_counts_storages_once_and_until_nothing_holds_them() -> None:
    old = torch.zeros(1000)
    with TensorMemory() as tensors:
        first = torch.ones(250)
        views = [first.view(5, 50), first[3:]]
        assert tensors.live == 1000, "what existed and what is a view cost nothing"
        second = old + 1
        assert (tensors.live, tensors.peak) == (5000, 5000)
        del first, second
        assert tensors.live == 1000, "a view holds it"
        del views
        assert (tensors.live, tensors.peak) == (0, 5000)


def test_shapes_from_configurations_and_from_a_number() -> None:
    published = {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "intermediate_size": 11008, "vocab_size": 32000,
    }  # fmt: skip
    assert Transformer.of_config(published).parameters == 6_738_415_616, "Llama-2-7B"
    assert Transformer.of_size(7e9) == Transformer.of_config(published)
    wide = {**published, "num_key_value_heads": 8}
    assert Transformer.of_config(wide).parameters == 6_738_415_616 - 2 * 32 * 4096 * 3072
    for size in (1e8, 1e9, 7e10):
        assert Transformer.of_size(size).parameters == pytest.approx(size, rel=0.12)
    with pytest.raises(UserError, match="gpt_neo: choose from llama"):
        Transformer.of_config({"model_type": "gpt_neo"})

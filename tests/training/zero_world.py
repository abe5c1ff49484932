"""Two real processes that train one model under every ZeRO stage, against plain single-process PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from lethe.config.optimizer import AdamW, Sophia
from lethe.config.run import Recipe
from lethe.config.adapter import FullParameters
from lethe.config.engine import Engine as EngineConfig
from lethe.config.objective import Npo
from lethe.config.schedule import Schedule
from lethe.data.batches import collate, plan, total_steps
from lethe.data.template import Encoded
from lethe.losses import make_loss
from lethe.losses.contract import Scored
from lethe.models.forward import ScoredLM
from lethe.optim import make_optimizer, sample_keys, sampled_labels, sampled_loss
from lethe.training.engine import Engine
from lethe.training.rates import learning_rate
from lethe.training.steps import RETAIN_KEYS, Stepper

STEPS, WORLD, INTERVAL = 20, 2, 4
STATE = {"adamw": ("exp_avg", "exp_avg_sq"), "sophia": ("m", "h")}
OPTIMIZERS = {
    "adamw": AdamW(learning_rate=1e-3, weight_decay=0.1),
    "sophia": Sophia(learning_rate=1e-3, weight_decay=0.1, hessian_interval=INTERVAL, clip_threshold=0.5),
}


def model() -> LlamaForCausalLM:
    """A small random Llama, the same in every process."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).float()


def rows(count: int, seed: int) -> list[Encoded]:
    """Rows with 3 to 40 answer tokens: unequal counts on every rank and micro-batch."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        prompt, answer = (int(torch.randint(3, high, (1,), generator=random)) for high in (9, 40))
        ids = torch.randint(3, 96, (prompt + answer,), generator=random).tolist()
        found.append(Encoded(tuple(ids), prompt))
    return found


FORGET, RETAIN = rows(23, 1), rows(31, 2)


def recipe(optimizer: str, stage: int, precision: str = "fp32") -> Recipe:
    """5 pairs a step over 2 ranks x 2 micro-batches: one slot gets two pairs, and some epochs end with fewer."""
    return Recipe(
        objective=Npo(gamma=2.0),
        optimizer=OPTIMIZERS[optimizer],
        adapter=FullParameters(),
        schedule=Schedule(epochs=4, batch_size=5, accumulation=2, clip_norm=0.5, warmup=0.1),
        engine=EngineConfig(stage=stage, precision=precision, workers=WORLD),
        seed=7,
    )


def reference_s0(net: LlamaForCausalLM) -> torch.Tensor:
    """Not the start model's real scores: any constants test the same arithmetic."""
    return torch.linspace(-60, -20, len(FORGET))


def sharded(optimizer: str, stage: int, rank: int, precision: str = "fp32") -> dict[str, Any]:
    """20 steps with refreshes on the real engine; full parameters and losses."""
    run = recipe(optimizer, stage, precision)
    net = model()
    engine = Engine(ScoredLM(net), run)
    stepper = Stepper(engine, make_loss(run.objective), FORGET, RETAIN, reference_s0(net), 0, rank, run.seed)
    losses, total = [], total_steps(len(FORGET), run.schedule)
    for step in plan(len(FORGET), len(RETAIN), run.schedule, run.seed):
        if optimizer == "sophia" and step.number == 1:
            before = [p.detach().clone() for p in net.parameters()]
            stepper.refresh(step, "both")
            assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        metrics = stepper.step(step, learning_rate(step.number, total, run.optimizer.learning_rate, run.schedule))
        losses.append(engine.sum(torch.stack([metrics["forget_loss"], metrics["retain_loss"]])).tolist())
        if optimizer == "sophia" and step.number % INTERVAL == 0 and step.number < total:
            stepper.refresh(step, "both")
    state = full_state(engine, net, stage) if precision == "fp32" else {}
    with engine.gathered():
        params = torch.cat([p.detach().float().flatten().clone() for p in net.parameters()])
    engine.close()
    return {"losses": torch.tensor(losses), "params": params, **state}


def full_state(engine: Engine, net: LlamaForCausalLM, stage: int) -> dict[str, torch.Tensor]:
    """The optimizer's tensors in the parameters' own order, gathered from all shards (every rank calls this)."""
    from deepspeed.utils import safe_get_full_optimizer_state

    def whole(parameter: torch.nn.Parameter, name: str) -> torch.Tensor:
        if stage == 0:
            return engine.optimizer.state[parameter][name]
        return safe_get_full_optimizer_state(parameter, name)

    names = STATE["sophia" if engine.is_sophia else "adamw"]
    return {n: torch.cat([whole(p, n).detach().flatten().float().clone() for p in net.parameters()]) for n in names}


def plain(optimizer: str) -> dict[str, Any]:
    """The truth: one process, no engine, no sharding, the whole step in one batch."""
    run = recipe(optimizer, 0)
    net = model()
    wrapped, loss = ScoredLM(net), make_loss(run.objective)
    torch_optimizer = make_optimizer(run.optimizer, net.parameters())
    reference = reference_s0(net)
    total, losses, refreshes = total_steps(len(FORGET), run.schedule), [], 0

    def logits_of(step: Any) -> tuple[torch.Tensor, Any]:
        batch = collate([(f, FORGET[f]) for f, _ in step.pairs], [(r, RETAIN[r]) for _, r in step.pairs], 0)
        return wrapped(batch.input_ids, batch.position), batch

    def refresh(step: Any) -> None:
        nonlocal refreshes
        logits, batch = logits_of(step)
        source = batch.source + torch.where(batch.is_forget, 0, RETAIN_KEYS)
        keys = sample_keys(run.seed, refreshes, source[batch.row], batch.place)
        torch_optimizer.zero_grad()
        sampled_loss(logits, sampled_labels(logits, keys), len(batch.labels)).backward()
        with torch_optimizer.refresh(scale=len(batch.labels)):
            torch_optimizer.step()
        refreshes += 1

    for step in plan(len(FORGET), len(RETAIN), run.schedule, run.seed):
        if optimizer == "sophia" and step.number == 1:
            refresh(step)
        logits, batch = logits_of(step)
        stepper = Stepper(None, loss, FORGET, RETAIN, reference, 0, 0, run.seed)  # type: ignore[arg-type]  # counts only
        s0 = torch.where(batch.is_forget, reference[batch.source * batch.is_forget], torch.zeros(()))
        value, metrics = loss(Scored(logits, batch.labels, batch.row, batch.is_forget, s0), stepper.counts(step))
        torch_optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), run.schedule.clip_norm)
        for group in torch_optimizer.param_groups:
            group["lr"] = learning_rate(step.number, total, run.optimizer.learning_rate, run.schedule)
        torch_optimizer.step()
        losses.append([metrics["forget_loss"].item(), metrics["retain_loss"].item()])
        if optimizer == "sophia" and step.number % INTERVAL == 0 and step.number < total:
            refresh(step)
    state = {n: torch.cat([torch_optimizer.state[p][n].flatten() for p in net.parameters()]) for n in STATE[optimizer]}
    params = torch.cat([p.detach().flatten() for p in net.parameters()])
    return {"losses": torch.tensor(losses), "params": params, **state}


def serve(rank: int, rendezvous: str, out: str, cases: list[tuple[str, int, str]]) -> None:
    """One rank: every case in one process group; rank 0 keeps the results."""
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    found = {case: sharded(case[0], case[1], rank, case[2]) for case in cases}
    if rank == 0:
        torch.save(found, Path(out))
    dist.barrier()
    dist.destroy_process_group()

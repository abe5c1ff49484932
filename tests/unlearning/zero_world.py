"""Two real processes that train one model under every ZeRO stage, against plain single-process PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import Dpo, Kl, Npo, Pdu, Rmu
from lethe.config.optimizer import AdamW, AdamW8bit, Lion, Mezo, Muon, Sgd, Sophia
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe, Schedule
from lethe.data.batches import RowKind, StepRows, TokenBatch, collate, plan, total_steps
from lethe.data.refusals import draw_refusals
from lethe.data.template import Encoded
from lethe.models import forward
from lethe.models.adapters import WithoutAdapters, attach
from lethe.models.forward import ScoredLM, scored_logits
from lethe.unlearning.engine import Engine
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.objectives.base import Counts, Scored
from lethe.unlearning.objectives.tokens import token_log_probs
from lethe.unlearning.optim import make_optimizer, trained_weights
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels, sampled_loss
from lethe.unlearning.stepper import KIND_KEYS, Stepper
from lethe.unlearning.trainer import learning_rate

STEPS, WORLD, INTERVAL = 20, 2, 4
STATE = {
    "adamw": ("exp_avg", "exp_avg_sq"),
    "kl": ("exp_avg", "exp_avg_sq"),
    "rmu": ("exp_avg", "exp_avg_sq"),
    "pdu": ("exp_avg", "exp_avg_sq"),
    "sophia": ("m", "h"),
    "dpo": ("m", "h"),
    "released": ("m", "h"),
    "lion": ("m",),
    "sgd": ("momentum_buffer",),
    "sam": ("exp_avg", "exp_avg_sq"),
    "muon": (),
    "mezo": (),
    "adamw8bit": (),
}
OPTIMIZERS = {
    "adamw": AdamW(learning_rate=1e-3, weight_decay=0.1),
    "sophia": Sophia(learning_rate=1e-3, weight_decay=0.1, hessian_interval=INTERVAL, clip_threshold=0.5),
    "released": Sophia(learning_rate=1e-3, weight_decay=0.1, hessian="squared_gradient", betas=(0.9, 0.95)),
    "lion": Lion(learning_rate=1e-3, weight_decay=0.1),
    "sgd": Sgd(learning_rate=1e-2, weight_decay=0.1, nesterov=True),
    "sam": AdamW(learning_rate=1e-3, weight_decay=0.1, sam_rho=0.5),
    "muon": Muon(learning_rate=1e-3, weight_decay=0.1),
    "mezo": Mezo(learning_rate=1e-4, weight_decay=0.1, eps=0.1, samples=2),
    "adamw8bit": AdamW8bit(learning_rate=1e-3, weight_decay=0.1),
}
OPTIMIZERS |= {"dpo": OPTIMIZERS["sophia"], "kl": OPTIMIZERS["adamw"]}
OPTIMIZERS |= {"rmu": OPTIMIZERS["adamw"], "pdu": OPTIMIZERS["adamw"]}
REFRESHED = ("sophia", "dpo")
OBJECTIVES = {
    "dpo": Dpo(gamma=2.0),
    "kl": Kl(gamma=2.0),
    "rmu": Rmu(gamma=2.0, layer=0, coefficient=3.0, trained=None),
    "pdu": Pdu(gamma=2.0, epsilon=4.4, warmup_epochs=1),
}
# Words before an optimizer's name.
SAVING = "saving"  # packing, micro-batches by tokens, checkpointing, offload and logits in parts
LORA = "lora"  # adapters on every linear layer
EXPERTS = "experts"  # adapters, stacked experts among them
OFFLOADING = {2: "optimizer", 3: "parameters"}  # what is offloaded then, by stage


def optimizer_of(name: str) -> str:
    """The last word of a case's name."""
    return name.rpartition(" ")[2]


def adapted(name: str) -> bool:
    return LORA in name.split() or EXPERTS in name.split()


def network(name: str) -> Any:
    """The model that a case trains, the same in every process."""
    if EXPERTS in name.split():
        torch.manual_seed(0)
        config = MixtralConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=4,
            num_experts_per_tok=4,  # a choice of fewer would turn rounding into another expert
        )
        base = MixtralForCausalLM(config).float()
    else:
        base = model()
    adapter = Lora(rank=4) if adapted(name) else FullParameters()
    loss = make_loss(recipe(optimizer_of(name), 0).objective)
    return attach(base, adapter, seed=0, trains=loss.trains(base, adapter))


def trained(net: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [weight for weight in net.parameters() if weight.requires_grad]


def model(seed: int = 0) -> LlamaForCausalLM:
    """A small random Llama, the same in every process."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
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
ANSWERS = {"no": (5, 6, 7), "unknown": (8, 9, 10, 11, 12)}


def refused(question: str, answer: str) -> Encoded:
    row = FORGET[int(question)]
    return Encoded(row.ids[: row.prompt_length] + ANSWERS[answer], row.prompt_length)


REFUSALS = draw_refusals([str(number) for number in range(len(FORGET))], [list(ANSWERS)] * len(FORGET), refused, 7, 4)
ROWS = StepRows(FORGET, RETAIN, REFUSALS)
# Not the start model's real scores: any constants test the same arithmetic.
START_LOG_PROBS = {
    RowKind.FORGET: torch.linspace(-60, -20, len(FORGET)),
    RowKind.REFUSAL: torch.linspace(-9, -5, len(REFUSALS.rows)),
}


def recipe(optimizer: str, stage: int, precision: str = "fp32", *, saving: bool = False) -> Recipe:
    """5 pairs a step over 2 ranks x 2 micro-batches: one slot gets two pairs, and some epochs end with fewer."""
    offload = OFFLOADING.get(stage, "none") if saving else "none"
    return Recipe(
        objective=OBJECTIVES.get(optimizer, Npo(gamma=2.0)),
        optimizer=OPTIMIZERS[optimizer],
        adapter=FullParameters(),
        schedule=Schedule(epochs=4, batch_size=5, accumulation=2, clip_norm=0.5, warmup=0.1),
        engine=EngineConfig(
            stage=stage, precision=precision, workers=WORLD, gradient_checkpointing=saving, offload=offload
        ),
        seed=7,
    )


def sharded(optimizer: str, stage: int, rank: int, precision: str = "fp32") -> dict[str, Any]:
    """20 steps with refreshes on the real engine; full parameters and losses."""
    name, optimizer = optimizer, optimizer_of(optimizer)
    saving = SAVING in name.split()
    run = recipe(optimizer, stage, precision, saving=saving)
    if adapted(name):
        run = run.model_copy(update={"adapter": Lora(rank=4)})
    net = network(name).train()
    forward.WHOLE_ELEMENTS = 96 * 8 if saving else 1 << 24
    engine = Engine(ScoredLM(net, in_parts=stage < 3), run)
    start = start_of(name, net)
    stepper = Stepper(engine, make_loss(run.objective, run.seed), ROWS, 0, rank, run.seed, START_LOG_PROBS, start)
    if saving:
        stepper.micro_tokens, stepper.pack_for = 100, 32
    losses, norms, total = [], [], total_steps(len(FORGET), run.schedule)
    for step in plan(len(FORGET), len(RETAIN), run.schedule, run.seed):
        if optimizer in REFRESHED and step.number == 1:
            before = [p.detach().clone() for p in trained(net)]
            stepper.refresh(step, "both")
            assert all(torch.equal(a, b) for a, b in zip(before, trained(net), strict=True))
        metrics, norm = stepper.step(step, learning_rate(step.number, total, run.optimizer.learning_rate, run.schedule))
        norms.append(norm)
        losses.append(engine.sum(torch.stack([metrics["forget_loss"], metrics["retain_loss"]])).tolist())
        stepper.loss.after_step(dict(zip(metrics, losses[-1], strict=True)), step.epoch)
        losses[-1].append(stepper.loss.gamma)
        if optimizer in REFRESHED and step.number % INTERVAL == 0 and step.number < total:
            stepper.refresh(step, "both")
    state = full_state(engine, net, stage, optimizer) if precision == "fp32" else {}
    with engine.gathered():
        params = torch.cat([p.detach().float().flatten().clone() for p in trained(net)])
    engine.close()
    return {"losses": torch.tensor(losses), "norms": torch.tensor(norms), "params": params, **state}


def full_state(engine: Engine, net: LlamaForCausalLM, stage: int, optimizer: str) -> dict[str, torch.Tensor]:
    """The optimizer's tensors in the parameters' own order, gathered from all shards (every rank calls this)."""
    from deepspeed.utils import safe_get_full_optimizer_state

    if stage in (1, 2):  # it looked for the state after the first step, which SAM's way up is
        engine._zero._hp_optimizer_states_linked = False
        engine._zero._lazy_init_hp_params_optimizer_state()

    def whole(parameter: torch.nn.Parameter, name: str) -> torch.Tensor:
        if stage == 0:
            return engine.optimizer.state[parameter][name]
        return safe_get_full_optimizer_state(parameter, name)

    return {
        n: torch.cat([whole(p, n).detach().flatten().float().clone() for p in trained(net)]) for n in STATE[optimizer]
    }


def start_of(name: str, net: torch.nn.Module) -> torch.nn.Module | None:
    """KL's and RMU's start model: another one, or what the adapters lie on."""
    if optimizer_of(name) not in ("kl", "rmu"):
        return None
    return WithoutAdapters(net) if adapted(name) else model(1)


def plain(optimizer: str) -> dict[str, Any]:
    """The truth: one process, no engine, no sharding, the whole step in one batch."""
    name, optimizer = optimizer, optimizer_of(optimizer)
    run = recipe(optimizer, 0)
    net = network(name)
    loss = make_loss(run.objective, run.seed)
    torch_optimizer = make_optimizer(run.optimizer, trained_weights(run.optimizer, net))
    start = start_of(name, net)
    total, losses, norms, refreshes = total_steps(len(FORGET), run.schedule), [], [], 0

    def logits_of(step: Any) -> tuple[torch.Tensor, TokenBatch]:
        batch = collate({kind: ROWS.of(kind, step.pairs, step.epoch) for kind in loss.trains_on}, 0)
        return scored_logits(net, batch.input_ids, batch.position), batch

    def scored(logits: torch.Tensor, batch: TokenBatch) -> Scored:
        s0 = torch.zeros(len(batch.kind))
        for r, (kind, source) in enumerate(zip(batch.kind.tolist(), batch.source.tolist(), strict=True)):
            s0[r] = START_LOG_PROBS[kind][source] if kind in START_LOG_PROBS else 0
        found = Scored(logits, batch.labels, batch.row, batch.place, batch.kind, batch.partner, s0)
        if start is not None:
            with torch.no_grad():
                found.start_logits = scored_logits(start, batch.input_ids, batch.position)[found.of(RowKind.RETAIN)]
                found.start_states = states_of(start, batch)[found.of(RowKind.RETAIN)]
            found.states = states_of(net, batch)
        return found

    def states_of(net: torch.nn.Module, batch: TokenBatch) -> torch.Tensor:
        """Behind the first layer, at the tokens themselves."""
        states = net(input_ids=batch.input_ids, output_hidden_states=True).hidden_states[1]
        return states.flatten(0, 1)[batch.position + 1]

    def loss_of(step: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits, batch = logits_of(step)
        tokens = {kind: int((batch.kind[batch.row] == kind).sum()) for kind in RowKind}
        counts = Counts(tokens, len(step.pairs), {kind: int((batch.kind == kind).sum()) for kind in RowKind})
        return loss(scored(logits, batch), counts)

    def refresh(step: Any) -> None:
        nonlocal refreshes
        logits, batch = logits_of(step)
        source = batch.source + KIND_KEYS * batch.kind
        keys = sample_keys(run.seed, refreshes, source[batch.row], batch.place)
        torch_optimizer.zero_grad()
        sampled_loss(token_log_probs(logits, sampled_labels(logits, keys)), len(batch.labels)).backward()
        with torch_optimizer.refresh(scale=len(batch.labels)):
            torch_optimizer.step()
        refreshes += 1

    for step in plan(len(FORGET), len(RETAIN), run.schedule, run.seed):
        if optimizer in REFRESHED and step.number == 1:
            refresh(step)
        rate = learning_rate(step.number, total, run.optimizer.learning_rate, run.schedule)
        if optimizer == "mezo":
            found, norm = probed(net, run, step.number, rate, lambda step=step: loss_of(step))
            losses.append([*found, loss.gamma])
            norms.append(norm)
            continue
        value, metrics = loss_of(step)
        torch_optimizer.zero_grad()
        value.backward()
        if optimizer == "sam":
            where = [p.detach().clone() for p in trained(net)]
            length = torch.cat([p.grad.flatten() for p in trained(net)]).norm()
            with torch.no_grad():
                for p in trained(net):
                    p += 0.5 * p.grad / length
            torch_optimizer.zero_grad()
            loss_of(step)[0].backward()
            with torch.no_grad():
                for p, old in zip(trained(net), where, strict=True):
                    p.copy_(old)
        norms.append(torch.nn.utils.clip_grad_norm_(trained(net), run.schedule.clip_norm).item())
        for group in torch_optimizer.param_groups:
            group["lr"] = rate
        torch_optimizer.step()
        losses.append([metrics["forget_loss"].item(), metrics["retain_loss"].item()])
        loss.after_step(dict(zip(metrics, losses[-1], strict=True)), step.epoch)
        losses[-1].append(loss.gamma)
        if optimizer in REFRESHED and step.number % INTERVAL == 0 and step.number < total:
            refresh(step)
    state = {n: torch.cat([torch_optimizer.state[p][n].flatten() for p in trained(net)]) for n in STATE[optimizer]}
    params = torch.cat([p.detach().flatten() for p in trained(net)])
    return {"losses": torch.tensor(losses), "norms": torch.tensor(norms), "params": params, **state}


@torch.no_grad()
def probed(
    net: torch.nn.Module, run: Recipe, number: int, rate: float, loss: Callable[[], Any]
) -> tuple[list[float], float]:
    """MeZO's formula with every direction held: the mean losses of all forwards, and the slopes' root mean square."""
    eps, samples, weights = run.optimizer.eps, run.optimizer.samples, trained(net)
    where, moves, slopes, means = [p.clone() for p in weights], [torch.zeros_like(p) for p in weights], [], []
    for sample in range(samples):
        z = []
        for place, p in enumerate(weights):
            key = sample_keys(run.seed, number, torch.tensor(sample), torch.tensor(place))
            z.append(torch.randn(p.shape, generator=torch.Generator().manual_seed(int(key))))
        values = []
        for sign in (1, -1):
            for p, old, direction in zip(weights, where, z, strict=True):
                p.copy_(old + sign * eps * direction)
            value, metrics = loss()
            values.append(float(value))
            means.append([float(metrics["forget_loss"]), float(metrics["retain_loss"])])
        slopes.append((values[0] - values[1]) / (2 * eps))
        for move, direction in zip(moves, z, strict=True):
            move += slopes[-1] * direction / samples
    for p, old, move in zip(weights, where, moves, strict=True):
        p.copy_(old * (1 - rate * run.optimizer.weight_decay) - rate * move)
    return torch.tensor(means).mean(0).tolist(), float(torch.tensor(slopes).square().mean().sqrt())


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

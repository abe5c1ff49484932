"""From rows to gradients, for every objective: what is scored, and that batches and ranks do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import AnyObjective, CeU, Dpo, GradDiff, GradientAscent, Kl, PreferenceOptimization, Rmu
from lethe.config.optimizer import ONE_BACKWARD, Passes
from lethe.config.run import Schedule
from lethe.data.batches import RowKind, RowPair, Step, StepRows, plan
from lethe.data.packing import pack_rows, padded_tokens
from lethe.data.refusals import Refusals
from lethe.data.template import Encoded
from lethe.models import forward
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM, Tap, Term, checkpoint_activations
from lethe.unlearning import stepper as module
from lethe.unlearning.engine import Losses
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.stepper import Stepper
from tests.unlearning.objectives.cases import CONFIGS
from tests.unlearning.zero_world import FORGET, RETAIN, ROWS, START_LOG_PROBS, model

each = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.digest()[:4] + c.name)
PAIRS: tuple[RowPair, ...] = ((3, (7,)), (0, (2,)), (11, (30,)), (5, (5,)), (22, (0,)))
STEP = Step(epoch=2, number=1, pairs=PAIRS, ends_epoch=False)


CPU = torch.device("cpu")


@dataclass
class PlainEngine:
    """As much of the engine as a step needs, in one process that plays one rank."""

    engine: nn.Module
    world: int = 1
    accumulation: int = 1
    device: torch.device = CPU
    dtype: torch.dtype = torch.float64
    passes: Passes = ONE_BACKWARD

    def step(self, losses: Losses, rate: float) -> float:
        """The gradients stay, as sums of shares."""
        for loss in losses:
            loss().backward()
        return 0.0

    def refresh(self, losses: Losses, sampled_tokens: int) -> float:
        """As `step`."""
        return self.step(losses, 0.0)


def stepper(config: AnyObjective, engine: PlainEngine, rank: int = 0, pad: int = 0, **options: int) -> Stepper:
    loss = make_loss(config)
    start = model(1).double() if loss.needs_start else None
    start_log_probs = START_LOG_PROBS if loss.needs_start_log_probs else {}
    return Stepper(engine, loss, ROWS, pad, rank, 7, start_log_probs, start, **options)  # type: ignore[arg-type]


def gradient(
    config: AnyObjective,
    net: nn.Module,
    world: int,
    accumulation: int,
    pad: int,
    data: str,
    step: Step = STEP,
    **options: int,
) -> torch.Tensor:
    net.zero_grad()
    for rank in range(world):
        run = stepper(config, PlainEngine(ScoredLM(net), world, accumulation), rank, pad, **options)
        run.refresh(step, data) if data else run.step(step, 1.0)
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@each
@pytest.mark.parametrize("data", ["", "forget", "retain", "both"], ids=["step", "forget", "retain", "both"])
def test_ranks_micro_batches_and_padding_do_not_matter(config: AnyObjective, data: str) -> None:
    """Of a step, and of a Hessian refresh on each kind of data."""
    net = model().double()
    whole = gradient(config, net, 1, 1, 0, data)
    assert whole.abs().max() > 1e-4
    for world, accumulation, pad in ((1, 3, 5), (3, 3, 0)):  # the latter with empty micro-batches
        pad = 0 if make_loss(config).everywhere else pad  # where it is scored, it matters which token it is
        torch.testing.assert_close(gradient(config, net, world, accumulation, pad, data), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.5, 2])
def test_other_ratios_of_retain_rows_are_equal_over_ranks_and_micro_batches(ratio: float) -> None:
    """A step's loss is the mean over all of its rows, however they are dealt out; refusals stay with their answers."""
    config, net = Dpo(gamma=2.0, retain="kl"), model().double()
    schedule = Schedule(epochs=2, batch_size=5, retain_ratio=ratio)
    step = [step for step in plan(len(FORGET), len(RETAIN), schedule, 3) if step.epoch == 2][1]
    for data in ("", "retain", "both"):
        whole = gradient(config, net, 1, 1, 0, data, step)
        assert (whole - gradient(config, net, 1, 1, 0, data)).abs().max() > 1e-4
        for world, accumulation, options in ((1, 3, {}), (2, 1, {"pack_for": 32}), (3, 3, {"micro_tokens": 60})):
            found = gradient(config, net, world, accumulation, 0, data, step, **options)
            torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)


# Each at once on every way through the model: `parts` are logits of a few positions at a time.
OPTIONS: dict[str, dict[str, int]] = {
    "packing": {"pack_for": 32},
    "one wide pack": {"pack_for": 10**6},
    "micro-batches by tokens": {"micro_tokens": 60},
    "parts": {},
    "checkpointing": {},
    "all": {"pack_for": 32, "micro_tokens": 90},
}


# Every objective with all options at once; without --long each option alone for one of each kind of losses: of forget
# and retain rows, of the start model's logits, of refusals and the start model's scores, with a token left out.
ALONE = (GradDiff, Kl, Dpo, CeU)


@pytest.mark.parametrize(
    ("config", "option"),
    [
        pytest.param(config, option, marks=() if option == "all" or isinstance(config, ALONE) else pytest.mark.long)
        for config in CONFIGS
        for option in OPTIONS
    ],
    ids=lambda value: value if isinstance(value, str) else value.digest()[:4] + value.name,
)
@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=2)], ids=["full", "lora"])
def test_memory_savers_change_no_loss_and_no_gradient(
    config: AnyObjective, adapter: FullParameters | Lora, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradients of a step and of a Hessian refresh with sampled labels are equal, over two ranks."""
    net = attach(model(), adapter, seed=0).double().train()
    for name, parameter in net.named_parameters():  # LoRA's B begins at zero, where A has no gradient
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))

    def found(world: int, **options: int) -> list[torch.Tensor]:
        values = []
        for data in ("", "both"):
            net.zero_grad()
            for rank in range(world):
                run = stepper(config, PlainEngine(ScoredLM(net), world), rank, **options)
                metrics = {} if data and run.refresh(STEP, data) is not None else run.step(STEP, 1.0)[0]
                values.append(torch.stack([*metrics.values()]) if metrics else torch.zeros(1))
            values.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        return [sum(values[:world]), values[world], values[-1]]

    plain = found(1)
    assert min(gradient.abs().max() for gradient in plain[1:]) > 1e-4
    forwards: list[torch.Size] = []
    net.register_forward_pre_hook(lambda _, __, inputs: forwards.append(inputs["input_ids"].shape), with_kwargs=True)
    recomputed: list[int] = []
    layer = next(m for m in net.modules() if isinstance(m, LlamaDecoderLayer))
    layer.self_attn.register_forward_hook(lambda *_: recomputed.append(1))
    if option in ("parts", "all"):
        monkeypatch.setattr(forward, "WHOLE_ELEMENTS", 0)
        monkeypatch.setattr(forward, "PART_ELEMENTS", {"cpu": 96 * 5})
    if option in ("checkpointing", "all"):
        checkpoint_activations(net, True)
    for value, truth in zip(found(2, **OPTIONS[option]), plain, strict=True):
        torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-12)
    assert (len(recomputed) == 2 * len(forwards)) == (option in ("checkpointing", "all"))
    if "micro_tokens" in OPTIONS[option]:
        assert len(forwards) > 4, "the rows of a step went through in more forwards than one per rank"
        kinds = make_loss(config).trains_on
        longest = (max(len(row.ids) for kind in kinds for _, row in ROWS.of(kind, [pair], 2)) for pair in PAIRS)
        # A pair stays together, however long.
        assert max(shape.numel() for shape in forwards) <= max(
            OPTIONS[option]["micro_tokens"], len(kinds) * max(longest)
        )


def test_packs_have_less_padding_and_are_no_wider_than_pays() -> None:
    lengths = [126, 61, 88, 88, 70, 103, 91, 64]
    for hidden_size, most in ((64, 0.99), (576, 0.85)):
        packs = pack_rows(lengths, hidden_size)
        assert sorted(i for pack in packs for i in pack) == [*range(8)]
        assert padded_tokens(packs, lengths) <= most * 8 * 126
        assert max(sum(lengths[i] for i in pack) for pack in packs) <= 2 * max(hidden_size, 126)
    assert pack_rows([5, 9], None) == [[0], [1]]
    assert pack_rows([], 64) == []


def test_micro_batches_by_tokens_are_as_many_on_every_rank() -> None:
    """A pair stays together, one that is too long alone is a micro-batch, and the rows are those of the step."""
    runs = [stepper(Dpo(), PlainEngine(ScoredLM(model()), 3), rank, micro_tokens=90) for rank in range(3)]
    parts = [run.micro_batches(STEP, run.loss.trains_on) for run in runs]
    assert len({len(own) for own in parts}) == 1
    assert sorted(pair for own in parts for part in own for pair in part) == sorted(PAIRS)
    assert [len(own) for own in (runs[0].micro_batches(STEP, (RowKind.RETAIN,)),)] == [1]


def test_parts_are_refused_by_a_model_that_changes_its_logits_behind_the_head() -> None:
    """Its own logits are taken whole; known changes (Cohere, Granite, Gemma 2) are made in every part."""
    ids, position = torch.randint(3, 96, (2, 9)), torch.arange(12)
    for change, known in (({"final_logit_softcapping": 2.0}, True), ({"secret": 3.0}, False)):
        net = model()

        class Changed(type(net)):  # type: ignore[misc]
            factor = None if known else 3

            def forward(self, **inputs: object) -> object:
                out = super().forward(**inputs)
                out.logits = self.factor * out.logits if self.factor else torch.tanh(out.logits / 2) * 2
                return out

        net.__class__ = Changed
        for name, value in change.items():
            setattr(net.config, name, value)
        wrapped, limit = ScoredLM(net), forward.WHOLE_ELEMENTS
        forward.WHOLE_ELEMENTS = 0
        try:
            found = wrapped.logits(ids, position)
        finally:
            forward.WHOLE_ELEMENTS = limit
        assert (found.head is not None) == wrapped.in_parts == known
        torch.testing.assert_close(found.of(slice(0, 12)), forward.scored_logits(net, ids, position))


@each
def test_only_answers_get_a_gradient(config: AnyObjective) -> None:
    """At the logits that predict an answer's tokens and its end, or the states at these tokens themselves; none at
    prompts, padding, or rows of other kinds, unless the loss asks for them."""
    leaves = []

    def leaf(input_ids: torch.Tensor, width: int) -> torch.Tensor:
        drawn = torch.randn(*input_ids.shape, width, generator=torch.Generator().manual_seed(1)).double()
        leaves.append(drawn.requires_grad_())
        return drawn.flatten(0, 1)

    def model_of_leaves(
        input_ids: torch.Tensor, position: torch.Tensor, term: Term, tap: Tap | None = None, **_: torch.Tensor
    ) -> object:
        if tap is not None:
            return torch.zeros(len(position)), leaf(input_ids, 32)[tap.position]
        return term(leaf(input_ids, 96)[position], slice(0, len(position)))

    run = stepper(config, PlainEngine(model_of_leaves))  # type: ignore[arg-type]
    run.step(STEP, 1.0)
    rows = [(kind, row) for kind in run.loss.trains_on for _, row in ROWS.of(kind, PAIRS, 2)]
    assert len(leaves) == 1
    assert leaves[0].shape[0] == len(rows)
    for (kind, row), grad in zip(rows, leaves[0].grad.abs().sum(-1), strict=True):
        skipped = isinstance(config, CeU) and config.skip_first and kind == RowKind.FORGET  # its first token
        late = isinstance(config, Rmu) or (kind in run.loss.late)
        places = range(row.prompt_length - 1 + skipped + late, len(row.ids) - 1 + late)
        if kind in run.loss.everywhere:
            longest = max(len(other.ids) for of_kind, other in rows if of_kind == kind)
            places = range(longest - run.loss.everywhere[kind])
        assert torch.nonzero(grad).flatten().tolist() == list(places)


def test_what_is_forwarded_and_counted() -> None:
    """Gradient ascent pays for no retain rows; refusals replace answers in PO and join them in DPO."""
    forget = sum(len(FORGET[f].ids) for f, _ in PAIRS)
    retain = sum(len(RETAIN[r].ids) for _, (r,) in PAIRS)
    refusal = sum(len(ROWS.refusals.of(f, 2)[1].ids) for f, _ in PAIRS)
    trained = {
        GradientAscent(): (forget, 0),
        GradDiff(): (forget, retain),
        PreferenceOptimization(): (refusal, retain),
        Dpo(): (forget + refusal, retain),
    }
    for config, (on_forget, on_retain) in trained.items():
        run = stepper(config, PlainEngine(ScoredLM(model().double())))
        run.step(STEP, 1.0)
        assert run.tokens == on_forget + on_retain
        for data, cost in {"forget": on_forget, "retain": retain, "both": on_forget + on_retain}.items():
            before = run.tokens
            run.refresh(STEP, data)
            assert run.tokens - before == cost, (config.name, data)


def test_rows_of_different_kinds_are_sampled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of each kind with the same number and the same answer: no two positions have the same key."""
    keys: list[torch.Tensor] = []
    monkeypatch.setattr(module, "sampled_labels", lambda logits, k: keys.append(k) or torch.zeros_like(k))
    same = (Encoded(tuple(range(9)), 2),)
    run = stepper(Dpo(), PlainEngine(ScoredLM(model().double())))
    run.rows = StepRows(same, same, Refusals(same, np.zeros((2, 1), int)))
    run.refresh(Step(epoch=1, number=1, pairs=((0, (0,)),), ends_epoch=True), "both")
    assert keys[0].numel() == keys[0].unique().numel() == 21

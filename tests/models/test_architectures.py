"""Every architecture, or a clear no: each step of the platform on a tiny model of each family gives what plain
transformers and peft give for one row at a time, or is refused in one line."""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.audits.quantisation import quantised
from lethe.benchmarks.measurement import template_of
from lethe.benchmarks.tdec.extraction import continuations, greedy_guesses, mismatches
from lethe.config.adapter import Fila, FullParameters, Lora
from lethe.config.objective import Kl, Npo
from lethe.config.optimizer import AdamW
from lethe.config.run import Evaluation, Recipe, Schedule
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import reads_packed_rows, score
from lethe.models import fila
from lethe.models.adapters import attach
from lethe.models.fisher import row_weights
from lethe.models.hashing import model_digest
from lethe.models.loading import load_model
from lethe.models.saving import merged, save_model
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets
from lethe.unlearning.trainer import unlearn
from tests import tiny
from tests.conftest import ROOT
from tests.models.architectures import FAMILIES, WINDOW, Family
from tests.models.small import disturb

# Routers, whose adapter peft refuses or which choose experts, what fused kernels of Mamba read past an adapter, and
# RecurrentGemma's gates, whose module has a state that others set.
APART = re.compile(r"\.router\.|\.router\.layer\.|(mamba|mixer)\.(x_proj|dt_proj|out_proj)\.|\.rg_lru\.")
NEW = 12  # generated tokens: with the longest prompt, more than twice the window
ADAPTER = Lora(rank=2)


class Case:
    """A family's model in a folder, and what plain transformers loads from it."""

    def __init__(self, family: Family, assets: Assets, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.template = template_of(Path(assets.start))
        family.build().save_pretrained(folder)
        self.stock: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder).eval()
        cache = str(folder.parent / "cache")
        self.assets = assets.model_copy(
            update={"start": str(folder), "model_digest": model_digest(folder), "cache": cache}
        )

    def model(self) -> PreTrainedModel:
        """The model as the platform loads it."""
        return load_model(self.folder)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    assets, made = tiny.assets(tmp_path_factory.mktemp("data")), {}

    def case(name: str) -> Case:
        if name not in made:
            made.clear()
            made[name] = Case(FAMILIES[name], assets, tmp_path_factory.mktemp("family") / "model")
        return made[name]

    return case


def rows(seed: int = 0) -> list[Encoded]:
    """Rows of 6 to 24 tokens, some of which begin alike."""
    draw, pairs = random.Random(seed), []
    for _ in range(4):
        prompt = draw.choices(range(3, 128), k=draw.randrange(3, 9))
        trunk = draw.choices(range(3, 128), k=12)
        answers = [trunk[:k] + draw.choices(range(3, 128), k=3) for k in (0, 6, 12)]
        pairs += [Encoded((*prompt, *answer), len(prompt)) for answer in answers]
    return pairs


@torch.no_grad()
def logits(model: torch.nn.Module, ids: tuple[int, ...]) -> torch.Tensor:
    """Logits [T, V] of one row, alone, without a cache."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Return whether two models give the same logits, but for rounding."""
    return all(difference(model, other, row) < 1e-4 for row in rows(1)[:2])


def difference(model: torch.nn.Module, other: torch.nn.Module, row: Encoded) -> float:
    a, b = logits(model, row.ids), logits(other, row.ids)
    return float((a - b).abs().max() / b.std())


def loads(case: Case) -> None:
    assert same(case.model(), case.stock)


def scores(case: Case) -> None:
    pairs = rows()
    found = score(case.model(), pairs, pad=0, token_budget=200)
    for pair, logp in zip(pairs, found.logp, strict=True):
        plain = logits(case.stock, pair.ids).log_softmax(-1)[pair.prompt_length - 1 : -1]
        expected = plain.gather(1, torch.tensor(pair.answer)[:, None])[:, 0]
        np.testing.assert_allclose(logp, expected, atol=2e-3 * float(plain.std()))


@torch.no_grad()
def packs(case: Case) -> None:
    """Two rows in one, apart by a mask and with positions of their own, have the logits that each has alone."""
    assert reads_packed_rows(case.model(), WINDOW) == case.family.packs
    if case.family.packs:
        first, second = rows()[0].ids[: WINDOW - 1], rows()[5].ids[:WINDOW]
        seen = torch.block_diag(*(torch.ones(len(ids), len(ids)).tril() for ids in (first, second)))
        mask = torch.zeros(seen.shape).masked_fill(seen == 0, torch.finfo(torch.float32).min)[None, None]
        positions = torch.tensor([[*range(len(first)), *range(len(second))]])
        together = case.model()(
            input_ids=torch.tensor([[*first, *second]]), attention_mask=mask, position_ids=positions, use_cache=False
        ).logits[0]
        alone = torch.cat([logits(case.stock, ids) for ids in (first, second)])
        assert (together - alone).abs().max() < 1e-4 * alone.std()


def greedy(case: Case, prompt: tuple[int, ...], new: int) -> list[int]:
    ids = torch.tensor([prompt])
    answer = case.stock.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, eos_token_id=2, pad_token_id=0
    )
    return answer[0, len(prompt) :].tolist()


def generates(case: Case) -> None:
    prompts = [pair.ids[: 3 + 2 * i] for i, pair in enumerate(rows()) if i % 3 < 2]
    found = generate(case.model(), prompts, stops=[2], pad=0, max_new_tokens=NEW, token_budget=200)
    assert found == [greedy(case, prompt, NEW) for prompt in prompts]


def continues(case: Case) -> None:
    """TDEC's continuations of every prefix."""
    ids = np.random.default_rng(0).integers(3, 128, (3, 18))
    guesses = greedy_guesses(case.model(), ids, 100)
    plain = np.stack([logits(case.stock, tuple(row)).argmax(-1).numpy() for row in ids])
    assert np.array_equal(guesses[:, 1:], plain[:, :-1])
    branches = mismatches(ids, guesses)[::5]
    found = continuations(case.model(), ids, guesses, branches)
    for s, m in branches:
        ids_, answer = ids[s, :m].tolist(), found[s, m][m:]
        for token in answer:
            assert int(logits(case.stock, tuple(ids_)).argmax(-1)[-1]) == token
            ids_.append(token)


def language_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights that plain matrix products of the text decoder use, the head and the embedding apart."""
    decoder = model.get_decoder() if model.config.get_text_config(decoder=True) is not model.config else model
    own = {id(p) for p in decoder.parameters()}
    apart = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    found = {}
    for name, module in model.named_modules():
        for leaf, weight in module.named_parameters(recurse=False):
            linear = isinstance(module, torch.nn.Linear | Conv1D) and leaf == "weight" and min(weight.shape) > 1
            stacked = weight.ndim == 3 and min(weight.shape) > 1 and not isinstance(module, torch.nn.Conv1d)
            if (linear or stacked) and id(weight) in own - apart:
                found[f"{name}.{leaf}"] = weight
    return found


def adapts(case: Case) -> None:
    """LoRA starts as the base, reaches every weight of the language model, and moves nothing but itself."""
    model = attach(case.model(), ADAPTER, seed=0)
    assert same(model.eval(), case.stock)
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    disturb(model, 0.3)
    assert difference(model, case.stock, rows()[0]) > 0.01
    with model.disable_adapter():
        assert same(model, case.stock)
    plain = merged(model)
    assert same(plain, model)
    before, after = language_weights(case.stock), language_weights(plain)
    unmoved = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert all(APART.search(name) for name in unmoved), unmoved
    others = {id(weight) for weight in before.values()}
    for (name, weight), new in zip(case.stock.named_parameters(), plain.parameters(), strict=True):
        assert id(weight) in others or torch.equal(weight, new), name


def starts_fila(case: Case) -> None:
    config, model = Fila(rank=2, fisher_rows=3), case.model()
    weights = row_weights(model, rows()[:3], rows(1)[:3], config)
    assert all(bool(w.isfinite().all()) for w in weights.values())
    initial = fila.truncated(fila.start_factors(model, config, weights), config)
    adapted = attach(model, config, seed=0, initial=initial).eval()
    assert same(adapted, case.stock)
    disturb(adapted, 0.1)
    assert difference(adapted, case.stock, rows()[0]) > 0.01


def trains(case: Case) -> None:
    """The first step's losses are those of a policy that equals its reference, and the step moves the model."""
    context = Context(case.assets)
    context.template = case.template  # by the model's type, AutoTokenizer would take another class than was saved
    for adapter, objective, start in ((FullParameters(), Npo(), 20 * math.log(2)), (ADAPTER, Kl(), None)):
        recipe = Recipe(
            objective=objective,
            optimizer=AdamW(learning_rate=1e-2),
            adapter=adapter,
            schedule=Schedule(epochs=1, batch_size=6, max_steps=1),
            evaluation=Evaluation(max_rows=2, max_new_tokens=2),
        )
        with unlearn(recipe, context, None, lambda _: None, Alone()) as done:
            report = tiny.flat(done.report)
            assert report["verdict"] == "complete", report
            if start is None:
                assert report["retain_loss"] == pytest.approx(0, abs=1e-6)
            else:
                assert report["forget_loss"] == pytest.approx(start, rel=1e-4)
            model = done.model.eval()
            assert difference(model, case.stock, context.forget[0]) > 1e-3


def saves(case: Case) -> None:
    """Stock transformers and peft give the saved model's logits."""
    full = attach(case.model(), FullParameters(), seed=0)
    disturb(full)
    save_model(full, case.folder.parent / "full")
    assert same(AutoModelForCausalLM.from_pretrained(case.folder.parent / "full").eval(), full.eval())
    adapted = attach(case.model(), ADAPTER, seed=0)
    disturb(adapted, 0.3)
    save_model(adapted, case.folder.parent / "adapter")
    stock = PeftModel.from_pretrained(copy.deepcopy(case.stock), case.folder.parent / "adapter").eval()
    assert same(stock, adapted.eval())
    assert difference(stock, case.stock, rows()[0]) > 0.01


def quantises(case: Case) -> None:
    """Rounding to 4 bits changes every weight of the language model."""
    before, after = language_weights(case.stock), language_weights(quantised(case.model(), 4))
    assert not [name for name, weight in before.items() if torch.equal(weight, after[name])]


STEPS = {
    "load": loads,
    "score": scores,
    "pack": packs,
    "generate": generates,
    "continue": continues,
    "lora": adapts,
    "fila": starts_fila,
    "train": trains,
    "save": saves,
    "quantise": quantises,
}


def cells() -> list[object]:
    return [
        pytest.param(name, step, marks=() if family.default else pytest.mark.long, id=f"{name}-{step}")
        for name, family in FAMILIES.items()
        for step in STEPS
    ]


@pytest.mark.parametrize(("name", "step"), cells())
def test_each_step_gives_what_stock_gives_or_is_refused(cases: Callable[[str], Case], name: str, step: str) -> None:
    case = cases(name)
    message = case.family.refused.get(step)
    if message is None:
        STEPS[step](case)
    else:
        with pytest.raises(UserError, match=message):
            STEPS[step](case)


def table() -> str:
    """The matrix in Markdown."""
    head = f"| family | {' | '.join(STEPS)} |\n|---|{'---|' * len(STEPS)}\n"

    def cell(family: Family, step: str) -> str:
        if step == "pack" and not family.packs:
            return "no"
        return "refused" if step in family.refused else "right"

    return head + "".join(
        f"| {name} | {' | '.join(cell(family, step) for step in STEPS)} |\n" for name, family in FAMILIES.items()
    )


def test_the_document_has_the_matrix() -> None:
    """`python -c 'from tests.models.test_architectures import table; print(table())'` prints what belongs there."""
    assert table() in (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")


def test_an_xlstm_of_a_width_that_its_cache_cannot_have_is_refused() -> None:
    narrow = Family("xlstm", {"hidden_size": 32, "num_heads": 2}).build()
    with pytest.raises(UserError, match=r"multiples of 64: this one has qk 16, v 32"):
        generate(narrow, [[3, 4]], stops=[2], pad=0, max_new_tokens=2, token_budget=64)

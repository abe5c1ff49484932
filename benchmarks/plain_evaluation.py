"""The plain loop that benchmarks.evaluation compares with: `transformers` and nothing of ours but the metrics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.tofu.eval_set import TofuEvalSet
from lethe.benchmarks.tofu.evaluation import measure
from lethe.config.run import Evaluation
from lethe.data.template import Encoded
from lethe.evaluation.likelihood import LikelihoodScores

SCORED, ANSWERED = 64, 100  # rows in a batch


@torch.no_grad()
def evaluate_plainly(
    model: PreTrainedModel, evals: TofuEvalSet, config: Evaluation, *, answer_passes: int = 1
) -> EvaluationResult:
    """Every metric of `evaluate`. `answer_passes`: forwards over the rows' own answers, where each family of metrics
    (probability, memorisation, and each membership score) has its own; only the last one's values are used."""
    own = evals.own
    answers = [i for i in range(len(evals.pairs)) if own[i]]
    others = [i for i in range(len(evals.pairs)) if not own[i]]
    found: dict[int, tuple[np.ndarray, ...]] = {}
    for places, passes in ((answers, answer_passes), (others, 1)):
        for _ in range(passes):
            for start in range(0, len(places), SCORED):
                batch = places[start : start + SCORED]
                rows = _scores(model, [evals.pairs[i] for i in batch], evals.template.pad, places is answers)
                found.update(zip(batch, rows, strict=True))
    scores = LikelihoodScores(*map(list, zip(*(found[i] for i in range(len(evals.pairs))), strict=True)))
    said: list[str] = []
    for start in range(0, len(evals.prompts), ANSWERED):
        said += _answers(model, evals, evals.prompts[start : start + ANSWERED], config.max_new_tokens)
    return measure(evals, scores, said, None)


def _scores(model: PreTrainedModel, pairs: list[Encoded], pad: int, standardised: bool) -> list[tuple[np.ndarray, ...]]:
    """Per pair: log-probability, correctness, guess and standard score of each answer token."""
    width = max(len(pair.ids) for pair in pairs)
    ids = torch.tensor([[*pair.ids, *[pad] * (width - len(pair.ids))] for pair in pairs])
    mask = torch.tensor([[1] * len(pair.ids) + [0] * (width - len(pair.ids)) for pair in pairs])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    logp = logits.log_softmax(-1)
    labels = ids[:, 1:]
    own = logp.gather(-1, labels[..., None])[..., 0]
    guess = logits.argmax(-1)
    z = _standard(logp, own) if standardised else torch.empty(len(pairs), 0)
    values = (own.double(), guess == labels, guess, z.double())
    spans = [slice(pair.prompt_length - 1, len(pair.ids) - 1) for pair in pairs]
    return [tuple(x[row, span].numpy() for x in values) for row, span in enumerate(spans)]


def _standard(logp: Tensor, own: Tensor) -> Tensor:
    """As the public implementations of Min-K++ have it."""
    probability = logp.exp()
    mu = (probability * logp).sum(-1)
    sigma = (probability * logp.square()).sum(-1) - mu.square()
    return (own - mu) / sigma.clamp(min=1e-12).sqrt()


def _answers(model: PreTrainedModel, evals: TofuEvalSet, prompts: tuple[tuple[int, ...], ...], most: int) -> list[str]:
    width, pad = max(map(len, prompts)), evals.template.pad
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    new = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=most, eos_token_id=list(evals.template.stops),
        pad_token_id=pad, use_cache=True,
    )[:, width:]  # fmt: skip
    return [evals.template.decode(row) for row in new.tolist()]

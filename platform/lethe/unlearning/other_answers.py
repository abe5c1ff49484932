"""Other answers to the forget questions by the start model itself, as AltPO trains towards: Mekala et al. 2024, arXiv
2409.13474."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lethe.config.benchmark import PERTURBED, RULE
from lethe.data.template import Template
from lethe.data.words import same_text
from lethe.errors import UserError
from lethe.evaluation.distributed import evaluating
from lethe.evaluation.generation import Choose, generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.metrics import rouge_l_recall
from lethe.models.fisher import evenly_spread
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels

ASKED = (
    "Question: {question}\nAnswer: {answer}\n\nMake up another answer to this question. It must be plausible, keep what"
    " the question says, and give other facts than the answer above in the place of all of its facts. Write the new"
    " answer alone."
)
SAMPLES, ROUNDS = 5, 4  # a round of samples for each question; further ones where none of them is another answer
DEPARTURES, PLACES = 2, 32  # answers that a row gets without instructions; places of the true one that are tried
SAME = 0.9  # ROUGE-L recall, in one direction or the other, from which two answers say the same
MOST_TOKENS = 200
# Fixed, so that every process forms the same batches: floating-point sums differ between batches.
TOKEN_BUDGET = 8192
SEED = 0

Pair = tuple[str, str]  # question and true answer


def other_answers(
    model: nn.Module, template: Template, rows: Sequence[Pair], *, instructed: bool
) -> tuple[tuple[str, ...], ...]:
    """Return other answers than the true one of each of `rows`, at least one each. Depends on model, template and rows
    alone.

    An `instructed` model is asked for them with the true answer in view. A row for which that gives none, and every row
    of another model, departs from its true answer. Raises UserError with the number, and without the text, of the first
    row that has none.
    """
    found: dict[int, list[str]] = {row: [] for row in range(len(rows))}
    with evaluating(model):
        for number in range(ROUNDS if instructed else 0):
            left = [row for row, texts in found.items() if not texts]
            found |= _different(rows, _sampled(model, template, rows, left, number))
        left = [row for row, texts in found.items() if not texts]
        found |= {row: texts[:DEPARTURES] for row, texts in _departed(model, template, rows, left).items()}
    for row, texts in found.items():
        if not texts:
            raise UserError(
                f"benchmark.alternatives: the start model has no other answer to forget row {row + 1}: give a file,"
                f" {PERTURBED} or {RULE}"
            )
    return tuple(map(tuple, found.values()))


def _sampled(
    model: nn.Module, template: Template, rows: Sequence[Pair], chosen: Sequence[int], number: int
) -> list[tuple[int, str]]:
    """Return the answers of round `number` to an instruction, at temperature 1, by the `chosen` rows."""
    jobs = [(row, sample) for row in chosen for sample in range(SAMPLES)]
    keys = torch.tensor([row * SAMPLES + sample for row, sample in jobs])

    def draw(logits: Tensor, job: Tensor, place: Tensor) -> Tensor:
        return sampled_labels(logits.float(), sample_keys(SEED, number, keys.to(job.device)[job], place))

    asked = [ASKED.format(question=rows[row][0], answer=rows[row][1]) for row, _ in jobs]
    answers = _continued(model, template, [template.prompt(text) for text in asked], draw)
    ends = set(template.stops)
    return [(row, template.decode(ids)) for (row, _), ids in zip(jobs, answers, strict=True) if {*ids[-1:]} & ends]


def _departed(
    model: nn.Module, template: Template, rows: Sequence[Pair], chosen: Sequence[int]
) -> dict[int, list[str]]:
    """Return the answers of the `chosen` rows that begin as the true one, have the likeliest other token at one of its
    places, and go on greedily from there; those that the model finds likeliest first."""
    pairs = {row: template.encode(*rows[row]) for row in chosen}
    # The answer's last token is its end.
    jobs = [(row, at) for row, pair in pairs.items() for at in evenly_spread(range(len(pair.answer) - 1), PLACES)]
    true = torch.tensor([pairs[row].answer[at] for row, at in jobs])
    stops = torch.tensor(template.stops)

    def depart(logits: Tensor, job: Tensor, place: Tensor) -> Tensor:
        first = (place == 0).nonzero()[:, 0]
        logits = logits.clone()
        logits[first, true.to(job.device)[job[first]]] = -torch.inf
        logits[first[:, None], stops.to(job.device)] = -torch.inf  # a part of the true answer is no other
        return logits.argmax(-1)

    begun = [pairs[row].ids[: pairs[row].prompt_length + at] for row, at in jobs]
    # An answer that never ends is among the least likely.
    most = 2 * max((len(pair.answer) for pair in pairs.values()), default=0)
    rests = _continued(model, template, begun, depart, min(most, MOST_TOKENS))
    answers = [
        (row, template.decode([*pairs[row].answer[:at], *rest])) for (row, at), rest in zip(jobs, rests, strict=True)
    ]
    found = [(row, text) for row, texts in _different(rows, answers).items() for text in texts]
    scored = [template.encode(rows[row][0], text) for row, text in found]
    loss = score(model, scored, pad=template.pad, token_budget=TOKEN_BUDGET).nll_mean.tolist() if scored else []
    best = sorted(zip(loss, found, strict=True), key=lambda one: one[0])
    return {row: [text for _, (of, text) in best if of == row] for row in chosen}


def _continued(
    model: nn.Module,
    template: Template,
    prompts: Sequence[Sequence[int]],
    choose: Choose,
    most: int = MOST_TOKENS,
) -> list[list[int]]:
    return generate(
        model,
        prompts,
        stops=template.stops,
        pad=template.pad,
        max_new_tokens=most,
        token_budget=TOKEN_BUDGET,
        choose=choose,
    )


def _different(rows: Sequence[Pair], answers: Sequence[tuple[int, str]]) -> dict[int, list[str]]:
    """Return the `answers` by row, without those that say what the true one says, that say nothing, and that differ
    from an earlier one in case and white space alone."""
    found: dict[int, dict[str, str]] = {row: {} for row, _ in answers}
    for row, text in answers:
        true = rows[row][1]
        same = max(rouge_l_recall(true, text, "unicode"), rouge_l_recall(text, true, "unicode"))
        if same_text(text) and same < SAME:
            found[row].setdefault(same_text(text), text)
    return {row: list(texts.values()) for row, texts in found.items()}

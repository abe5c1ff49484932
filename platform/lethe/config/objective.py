"""Objectives: the losses that a run trains on, and the methods that forget without a training loss.

A loss is L = L_forget + gamma * L_retain (docs/METHODS.md section 1); methods are section 7. To add one, define its
configuration here and implement it in `lethe.unlearning.objectives` or `lethe.unlearning.methods`.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from lethe.config.base import OMITTED_AT_DEFAULT, only_where
from lethe.config.component import ByName, Component

TOPICS = "{topics}"


class Objective(Component):
    """The kind of all objectives. What a study must know of one before it starts stands in these class variables:

    `ignored_fields`: fields of a recipe without a meaning beside this objective; a study in which no objective reads
    them is refused them, and they are not part of a run's digest. `needs_questions`: forget rows are questions with
    answers. `needs_refusals`: the benchmark has refusals, which stand for the answers; `needs_alternatives`: it has
    other answers (`benchmark.alternatives`). `needs_base`: the checkpoint that the start model was made from is known.
    """

    registered: ClassVar[dict[str, type[Objective]]]
    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    needs_questions: ClassVar[bool] = False
    needs_refusals: ClassVar[bool] = False
    needs_alternatives: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False


RetainTerm = Literal["nll", "kl", "none"]
_RETAIN = "nll: their token loss; kl: the divergence from the start model's predictions; none: no retain rows"
_EVERYWHERE = "the mean over answer tokens; or open-unlearning's over all positions, prompt and padding included"
_TRAINED = (
    "a regular expression that is searched in names of weights: those that train; published: the MLP's down projections"
    " of the layer and the two below; none: all that the adapter says"
)
_GAMMA = only_where(retain=("nll", "kl"))


def _can_be_searched(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern


TrainedRule = Annotated[str, Field(min_length=1), AfterValidator(_can_be_searched)] | None


class WithRetain(Objective):
    """A loss with a term over the retain rows, weighted by `gamma`."""

    gamma: float = Field(1.0, ge=0, description="weight of the retain loss", json_schema_extra=_GAMMA)
    retain: RetainTerm = Field("nll", description=_RETAIN, json_schema_extra=OMITTED_AT_DEFAULT)


class WithRefusals(WithRetain):
    """A loss that trains forget questions towards refusals."""

    needs_questions: ClassVar[bool] = True
    needs_refusals: ClassVar[bool] = True


class GradientAscent(Objective):
    """Minus the mean token loss of the forget rows, and nothing else: unbounded below."""

    name: Literal["gradient_ascent"] = "gradient_ascent"


class GradDiff(WithRetain):
    """Gradient difference: minus the mean token loss of the forget rows."""

    name: Literal["grad_diff"] = "grad_diff"


class Kl(WithRetain):
    """Gradient difference whose retain loss is the divergence from the start model's predictions."""

    name: Literal["kl"] = "kl"
    retain: RetainTerm = Field("kl", description=_RETAIN, json_schema_extra=OMITTED_AT_DEFAULT)
    reduction: Literal["token_mean", "released"] = Field(
        "token_mean",
        description=f"of the divergence: {_EVERYWHERE}",
        json_schema_extra=OMITTED_AT_DEFAULT | only_where(retain="kl"),
    )


class PreferenceOptimization(WithRefusals):
    """The mean token loss of a refusal of each forget question, drawn anew in every epoch."""

    name: Literal["preference_optimization"] = "preference_optimization"


class Npo(WithRetain):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868)."""

    name: Literal["npo"] = "npo"
    beta: float = Field(0.1, gt=0, description="inverse temperature; small values approach gradient ascent")
    reduction: Literal["sequence_sum", "token_mean"] = Field(
        "sequence_sum", description="sequence_sum as published; token_mean as SOUL released it"
    )


class SimNpo(WithRetain):
    """Simple NPO, without a reference (Fan et al. 2024, arXiv 2410.07163). Published for TOFU: beta 2.5 to 4.5."""

    name: Literal["simnpo"] = "simnpo"
    beta: float = Field(2.5, gt=0, description="inverse temperature of the mean token log-probability")
    delta: float = Field(0.0, ge=0, description="reward margin: the paper's gamma")


class Dpo(WithRefusals):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): a refusal over the forget answer."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, description="inverse temperature")


class AltPo(WithRetain):
    """DPO with another answer in the refusal's place (AltPO: Mekala et al. 2024, arXiv 2409.13474):
    `benchmark.alternatives`."""

    needs_questions: ClassVar[bool] = True
    needs_alternatives: ClassVar[bool] = True

    name: Literal["altpo"] = "altpo"
    beta: float = Field(0.1, gt=0, description="inverse temperature")


class Ihl(WithRetain):
    """Inverted hinge loss (LoKU: Cha et al. 2024, arXiv 2408.06621)."""

    name: Literal["ihl"] = "ihl"


class Wga(WithRetain):
    """Weighted gradient ascent (Wang et al. 2025, arXiv 2502.19301)."""

    name: Literal["wga"] = "wga"
    beta: float = Field(
        1.0, ge=0, description="exponent of a token's probability as its weight; 0: grad_diff, 5: the authors' code"
    )


class SatImp(WithRetain):
    """Gradient ascent weighted by saturation and importance (Yang et al. 2025, arXiv 2505.11953)."""

    name: Literal["satimp"] = "satimp"
    beta1: float = Field(5.0, ge=0, description="exponent of a token's probability in its weight")
    beta2: float = Field(
        0.1, ge=0, description="exponent of 1 less that probability; .1: the authors' advice, 1: open-unlearning"
    )


class Undial(WithRetain):
    """Self-distillation with adjusted logits (UNDIAL: Dong et al. 2024, arXiv 2402.10052)."""

    name: Literal["undial"] = "undial"
    gamma: float = Field(
        0.0, ge=0, description="weight of the retain loss; published without one", json_schema_extra=_GAMMA
    )
    beta: float = Field(10.0, gt=0, description="by how much the true token's logit is lowered in the target")
    reduction: Literal["token_mean", "released"] = Field(
        "token_mean", description=f"of the forget loss: {_EVERYWHERE}", json_schema_extra=OMITTED_AT_DEFAULT
    )


class CeU(WithRetain):
    """Cross-entropy unlearning (CE-U: Yang 2025, arXiv 2503.01224)."""

    name: Literal["ce_u"] = "ce_u"
    gamma: float = Field(
        0.0, ge=0, description="weight of the retain loss; published without one", json_schema_extra=_GAMMA
    )
    skip_first: bool = Field(True, description="leave out the first token of each forget answer")


class Rmu(WithRetain):
    """Representation misdirection (RMU: Li et al. 2024, arXiv 2403.03218): hidden states of one layer are steered away
    at forget rows and held at retain rows. Published for 32 layers: layer 7."""

    name: Literal["rmu"] = "rmu"
    gamma: float = Field(
        1.0,
        ge=0,
        description="weight of the retain loss: the paper's alpha, 100 to 1200 there",
        json_schema_extra=only_where(retain=("states", "nll", "kl")),
    )
    retain: Literal["states", "nll", "kl", "none"] = Field(  # type: ignore[assignment]  # one more than others have
        "states",
        description=f"states: the distance from the start model's states; {_RETAIN}",
    )
    layer: int = Field(7, ge=0, description="decoder layer, from 0, whose output is steered")
    coefficient: float = Field(20.0, gt=0, description="c: length of the state that forget tokens are steered to")
    reduction: Literal["row_mean", "token_mean", "released"] = Field(
        "row_mean",
        description="mean over rows of each row's mean over tokens; or over all tokens; or open-unlearning's broadcast",
    )
    trained: TrainedRule = Field("published", description=_TRAINED)


class Pdu(WithRetain):
    """Primal-dual unlearning (PDU: Entesari et al. 2025, arXiv 2506.05314): flat logits at forget answers, while the
    weight of the retain loss rises as long as that is above its bound."""

    name: Literal["pdu"] = "pdu"
    gamma: float = Field(
        1.0, ge=0, description="first weight of the retain loss, the dual variable", json_schema_extra=_GAMMA
    )
    retain: Literal["nll", "kl"] = Field("nll", description=_RETAIN)  # without one there is no bound to keep
    epsilon: float = Field(0.3, ge=0, description="bound of the retain loss")
    step_size: float = Field(1.0, ge=0, description="of the dual variable, after each optimizer step")
    warmup_epochs: int = Field(5, ge=0, description="epochs in which the dual variable stays")
    logits: Literal["published", "released"] = Field(
        "published", description="those that predict the forget tokens; released: one position late"
    )


class File(WithRetain):
    """A loss of your own, from a Python file that runs as code: docs/guide.md."""

    name: Literal["file"] = "file"
    path: str = Field(min_length=1, description="a file with a function forget_share(values, scored, counts, settings)")
    settings: dict[str, float] = Field({}, description="numbers for it; objective.settings.NAME can be searched")
    layer: int | None = Field(
        None, ge=0, description="decoder layer, from 0, whose states it reads", json_schema_extra=OMITTED_AT_DEFAULT
    )
    trained: TrainedRule = Field(None, description=_TRAINED, json_schema_extra=OMITTED_AT_DEFAULT)
    start_logits: bool = Field(
        False, description="its forget_values reads the start model's logits", json_schema_extra=OMITTED_AT_DEFAULT
    )

    def __hash__(self) -> int:
        return hash(self.canonical())  # a dict has no hash


class Method(Objective):
    """An objective without a training loss: its implementation takes the place of the training loop."""


class Influence(Method):
    """One-shot influence unlearning: theta + H^-1 g, sums over rows (Koh and Liang 2017, arXiv 1703.04730; the method
    that SOUL, arXiv 2404.18239, iterates). It moves every weight, in fp32 and unsharded, in one step.

    On a model that has memorised its rows a whole step leaves the region where the quadratic holds: on the embedded
    benchmark strength 1 needs damping 30 (D .60, utility .82), and strength .01 with damping .01 does better
    (.33, .89). Search both by their logarithms, over [1e-3, 100] and [1e-3, 1].
    """

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"optimizer", "adapter", "schedule"})

    name: Literal["influence"] = "influence"
    hessian: Literal["gnb", "empirical_fisher"] = Field(
        "gnb", description="diagonal from labels that the model samples, or from the rows' own"
    )
    damping: float = Field(30.0, gt=0, description="added to the diagonal, relative to its mean")
    strength: float = Field(1.0, gt=0, description="factor on the step; 1: what influence functions say")


class Retrain(Method):
    """Exact unlearning: trains what the start model was made from again, without the forget rows.

    The embedded family begins at its random weights and has its own optimizer and schedule; a pretrained model begins
    at `model.base` and takes the run's, where an epoch is one pass over the retain rows. Every weight is trained.
    """

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"adapter"})
    needs_base: ClassVar[bool] = True

    name: Literal["retrain"] = "retrain"


class InputGuard(Method):
    """No training: an instruction in front of every question, SOUL's input-based baseline (arXiv 2404.18239)."""

    ignored_fields: ClassVar[frozenset[str]] = frozenset({"optimizer", "adapter", "schedule", "seed"})
    needs_questions: ClassVar[bool] = True

    name: Literal["input_guard"] = "input_guard"
    instruction: str = Field(
        f"Do not answer questions about {TOPICS}; say that you do not know.",
        min_length=1,
        description=f"{TOPICS} becomes the names that forget questions have and retain questions have not",
    )


AnyObjective = Annotated[Objective, ByName()]

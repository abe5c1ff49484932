"""Optimizers: first order, and Sophia with its diagonal Hessian (docs/METHODS.md section 2).

To add one, define its configuration here and implement it in `lethe.unlearning.optim`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from lethe.config.base import OMITTED_AT_DEFAULT, only_where
from lethe.config.component import ByName, Component

Beta = Annotated[float, Field(ge=0, lt=1)]
HessianData = Literal["forget", "retain", "both"]


@dataclass(frozen=True)
class HessianRefresh:
    """When an optimizer's Hessian is refreshed from sampled labels: after every `interval` steps but the last, and
    before step 1 with `warm_start`. `data`: the rows of the step that labels are sampled on."""

    interval: int
    data: HessianData
    warm_start: bool


class Passes(NamedTuple):
    """The passes over its rows that a step takes: so many forward passes alone, so many with a backward pass."""

    forward: int = 0
    backward: int = 1


ONE_BACKWARD = Passes()


class Optimizer(Component):
    """The kind of all optimizers, and the fields that each has. `stages`: those of ZeRO under which it works;
    `package`: one that it needs and that is installed on demand. `newton_schulz`: iterations that it takes on each
    matrix of the hidden layers; where there are any it gets these matrices as a group of their own."""

    registered: ClassVar[dict[str, type[Optimizer]]]
    stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    package: ClassVar[str | None] = None
    newton_schulz: ClassVar[int] = 0

    learning_rate: float = Field(3e-4, gt=0, description="at its highest: run.schedule")
    weight_decay: float = Field(0.01, ge=0, description="decoupled")

    @property
    def state_tensors(self) -> float:
        """The fp32 tensors of a weight's shape that it keeps from step to step."""
        return 2

    @property
    def matrix_state_tensors(self) -> float:
        """The same of the matrices of hidden layers, adapters among them."""
        return self.state_tensors

    @property
    def passes(self) -> Passes:
        """The passes over the rows of a step, refreshes of a Hessian not counted."""
        return ONE_BACKWARD

    @property
    def hessian_refresh(self) -> HessianRefresh | None:
        """The refreshes of the Hessian by the training loop; None for an optimizer without them."""
        return None


class FirstOrder(Optimizer):
    """An optimizer that uses the gradient alone, which may be taken up the slope."""

    sam_rho: float = Field(
        0.0,
        ge=0,
        description="SAM (Foret et al. 2020): take the gradient at weights that are moved so far up the slope, in the "
        "norm of all weights; twice the passes; 0: where the weights are",
        json_schema_extra=OMITTED_AT_DEFAULT,
    )

    @property
    def passes(self) -> Passes:
        """The passes over the rows of a step: with SAM two."""
        return Passes(backward=2) if self.sam_rho else ONE_BACKWARD


class AdamW(FirstOrder):
    """First order: AdamW (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay of both moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")


class AdamW8bit(FirstOrder):
    """First order: AdamW with both moments in 8 bits, a quarter of the memory, through bitsandbytes (Dettmers et al.
    2022, arXiv 2110.02861). Blocks of 256 weights share a scale, and are other ones under each ZeRO stage."""

    package: ClassVar[str | None] = "bitsandbytes"

    name: Literal["adamw8bit"] = "adamw8bit"
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay of both moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")

    @property
    def state_tensors(self) -> float:
        """The fp32 tensors of a weight's shape that it keeps from step to step: a byte a weight and its block's scale,
        twice. Tensors below 4096 weights, whose moments stay in fp32, are few."""
        return 2 * (1 + 4 / 256) / 4


class Lion(FirstOrder):
    """First order: Lion, the sign of the momentum (Chen et al. 2023, arXiv 2302.06675). Each coordinate moves by the
    learning rate, which is to be 3 to 10 times smaller than AdamW's, as is published."""

    name: Literal["lion"] = "lion"
    learning_rate: float = Field(1e-4, gt=0, description="at its highest: run.schedule")
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), description="weight of the momentum in a step, and its decay")

    @property
    def state_tensors(self) -> float:
        """The fp32 tensors of a weight's shape that it keeps from step to step."""
        return 1


class Sgd(FirstOrder):
    """First order: gradient descent with momentum, `torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(3e-2, gt=0, description="at its highest: run.schedule")
    weight_decay: float = Field(0.01, ge=0, description="times the weight, added to the gradient")
    momentum: float = Field(0.9, ge=0, lt=1, description="decay of the sum of gradients; 0: the gradient alone")
    nesterov: bool = Field(False, description="step ahead along the momentum (Nesterov's)")

    @property
    def state_tensors(self) -> float:
        """The fp32 tensors of a weight's shape that it keeps from step to step."""
        return 1 if self.momentum else 0


class Muon(FirstOrder):
    """First order: Muon, the momentum of each hidden matrix with its singular values brought near 1 (Jordan et al.
    2024), scaled so that AdamW's learning rates fit (Liu et al. 2025, arXiv 2502.16982); AdamW for embeddings, head,
    norms and biases. It needs whole matrices: `engine.stage` 0.
    """

    stages: ClassVar[tuple[int, ...]] = (0,)
    newton_schulz: ClassVar[int] = 5

    name: Literal["muon"] = "muon"
    momentum: float = Field(0.95, ge=0, lt=1, description="of hidden matrices: decay of the mean of gradients")
    nesterov: bool = Field(True, description="of hidden matrices: step ahead along the momentum (Nesterov's)")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="of AdamW: decay of both moments")
    eps: float = Field(1e-8, gt=0, description="of AdamW: added to the root of the second moment")

    @property
    def matrix_state_tensors(self) -> float:
        """The fp32 tensors of a hidden matrix's shape: its momentum. Other weights have AdamW's two."""
        return 1


SAMPLED = only_where(hessian="gnb")


class Sophia(Optimizer):
    """Second order: Sophia-G (Liu et al. 2023, arXiv 2305.14342), the optimizer of SOUL (arXiv 2404.18239).

    `gnb` is the published Gauss-Newton-Bartlett Hessian, refreshed from labels that the model samples, as the fields
    `hessian_*` say. `squared_gradient` is what SOUL released (with betas .9, .95): every step's own gradient, squared;
    it takes no extra pass and has none of these fields. `hessian_warm_start` true is Algorithm 3 of the paper, which
    refreshes before steps 1, k + 1, ...; false is the official script, which refreshes after steps k, 2k, ...
    """

    name: Literal["sophia"] = "sophia"
    betas: tuple[Beta, Beta] = Field((0.965, 0.99), description="decay of momentum and Hessian")
    eps: float = Field(1e-12, gt=0, description="least value of rho h")
    clip_threshold: float = Field(0.04, gt=0, description="rho: a step is clip(m / (rho h), -1, 1)")
    hessian: Literal["gnb", "squared_gradient"] = Field("gnb", description="as published, or as SOUL released it")
    hessian_interval: int = Field(
        10, ge=1, description="k: optimizer steps between Hessian refreshes", json_schema_extra=SAMPLED
    )
    hessian_data: HessianData = Field(
        "both",
        description="rows that labels are sampled on; both: all that the objective trains on",
        json_schema_extra=SAMPLED,
    )
    hessian_warm_start: bool = Field(
        True, description="refresh before step 1, as published; the official script: false", json_schema_extra=SAMPLED
    )
    hessian_bias_correction: bool = Field(
        True, description="divide h by 1 - b2^refreshes; as published: false", json_schema_extra=SAMPLED
    )

    @property
    def hessian_refresh(self) -> HessianRefresh | None:
        """The refreshes that the fields `hessian_*` describe; None for `squared_gradient`."""
        if self.hessian != "gnb":
            return None
        return HessianRefresh(self.hessian_interval, self.hessian_data, self.hessian_warm_start)


class Mezo(Optimizer):
    """Zeroth order: MeZO, gradient descent along random directions, whose slope two forward passes measure (Malladi et
    al. 2023, arXiv 2305.17333). It keeps no gradient, no state and no activations: a step has the memory of a forward
    pass. It follows the value of a loss, also where a gradient would stop (`wga`, `satimp`).
    """

    stages: ClassVar[tuple[int, ...]] = (0,)

    name: Literal["mezo"] = "mezo"
    learning_rate: float = Field(1e-6, gt=0, description="at its highest: run.schedule")
    eps: float = Field(1e-3, gt=0, description="distance of both forward passes, times a standard normal direction")
    samples: int = Field(1, ge=1, description="directions in a step, each with two forward passes")

    @property
    def state_tensors(self) -> float:
        """The fp32 tensors of a weight's shape that it keeps from step to step."""
        return 0

    @property
    def passes(self) -> Passes:
        """The passes over the rows of a step: two forward for each direction."""
        return Passes(forward=2 * self.samples, backward=0)


AnyOptimizer = Annotated[Optimizer, ByName()]

"""Alternate preference optimisation: another answer to the forget question over its true answer."""

from __future__ import annotations

from lethe.config.objective import AltPo as AltPoConfig
from lethe.unlearning.objectives.base import LOSSES
from lethe.unlearning.objectives.dpo import Dpo


@LOSSES.implements(AltPoConfig)
class AltPo(Dpo):
    """DPO's loss with an alternative, drawn anew in every epoch, in the refusal's place. Mekala et al. 2024, arXiv
    2409.13474."""

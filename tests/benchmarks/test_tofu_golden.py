"""Published numbers from the losses that TOFU's authors stored for two Llama-2-7B models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lethe.benchmarks.tofu.metrics import SplitScores, forget_quality, model_utility, split_metrics

SPLITS = ("forget", "retain", "real_authors", "world_facts")
UTILITY = {"llama2_7b_full": 0.6226773637427153, "llama2_7b_retain90": 0.613744995233942}
COMPONENTS = {
    "retain": (0.9895272273969072, 0.9856545937933034, 0.47469858801063763),
    "real_authors": (0.45548207783762884, 0.9329999999999999, 0.5962289157077106),
    "world_facts": (0.41856180755948974, 0.8824786324786325, 0.5390328416393139),
    "forget": (0.9909385566403213, 0.985449693916369, 0.5159854212808592),
}


def load(folder: Path, name: str) -> dict[str, SplitScores]:
    raw = json.loads((folder / "tofu_golden" / f"{name}.json").read_text())

    def column(split: str, key: str) -> np.ndarray:
        return np.array([row[key] for row in raw[split]])

    return {
        split: SplitScores(
            column(split, "answer_loss"),
            column(split, "paraphrase_loss"),
            [np.array(row["perturbed_loss"]) for row in raw[split]],
            column(split, "rougeL_recall"),
        )
        for split in SPLITS
    }


def values(scores: dict[str, SplitScores]) -> dict[str, float]:
    return {key: value for split in SPLITS for key, value in split_metrics(split, scores[split]).items()}


@pytest.mark.parametrize("name", UTILITY)
def test_model_utility(golden: Path, name: str) -> None:
    assert model_utility(values(load(golden, name))) == pytest.approx(UTILITY[name], rel=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_components(golden: Path, split: str) -> None:
    found = values(load(golden, "llama2_7b_full"))
    kinds = ("probability", "rouge", "truth_ratio")
    assert [found[f"{split}_{kind}"] for kind in kinds] == pytest.approx(list(COMPONENTS[split]), rel=1e-9)


def test_forget_quality(golden: Path) -> None:
    full, retain = (load(golden, name)["forget"].truth_ratio for name in UTILITY)
    assert forget_quality(full, retain)["forget_quality"] == pytest.approx(1.834066410994743e-21, rel=1e-9)
    assert forget_quality(retain, retain) == {"forget": 0.0, "forget_quality": 1.0, "forget_quality_log10": 0.0}

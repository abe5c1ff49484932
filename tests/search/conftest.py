"""A study for the search's tests: small, conditional, in memory."""

from collections.abc import Callable
from typing import Any

import pytest

from lethe.config.study import Study, parse_study

START = {"forget": 0.9, "utility": 0.6}


@pytest.fixture
def make_study() -> Callable[..., Study]:
    """A study with AdamW and Sophia, LoRA and full training; keywords replace sections."""

    def make(**sections: Any) -> Study:
        raw: dict[str, Any] = {
            "name": "test",
            "run": {"optimizer": {"eps": 1e-9, "hessian_data": "retain"}},
            "space": {
                "optimizer.name": {"type": "choice", "choices": ["sophia", "adamw"]},
                "adapter.name": {"type": "choice", "choices": ["lora", "full"]},
                "optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
                "optimizer.clip_threshold": {"type": "float", "low": 0.01, "high": 1000, "log": True},
                "optimizer.hessian_interval": {"type": "int", "low": 1, "high": 25, "log": True},
                "adapter.rank": {"type": "choice", "choices": [4, 8]},
            },
            "objectives": {
                "forget": {"direction": "minimize", "floor_of_start": 1.0},
                "utility": {"direction": "maximize", "floor_of_start": 0.5},
            },
            "search": {"sampler": "tpe", "startup_trials": 4, "population": 4},
        }
        return parse_study({**raw, **sections})

    return make


@pytest.fixture
def start() -> dict[str, float]:
    """The start model's metrics."""
    return dict(START)

"""Configuration of the example; a benchmark of lethe has it in `lethe.config.benchmark`. Defining it registers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field

from lethe.config.benchmark import EMBEDDED, BenchmarkConfig, Role
from lethe.config.metrics import COSTS, Metric


class CapitalsBenchmark(BenchmarkConfig):
    """Questions for capitals, the first of which are to be forgotten."""

    implementation: ClassVar[str] = "tests.benchmarks.example_capitals.benchmark:Capitals"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "forget": Metric("minimize", "probability of the capitals to forget"),
        "utility": Metric("maximize", "probability of the other capitals"),
        "forget_gap": Metric("minimize", "distance of forget from the oracle's", needs=("oracle",)),
        **COSTS,
    }
    leaks: ClassVar[tuple[str, ...]] = ("forget_probability",)
    compared_with: ClassVar[tuple[Role, ...]] = ("oracle",)
    comparison: ClassVar[str] = "an oracle"
    has_questions: ClassVar[bool] = True
    has_holdout: ClassVar[bool] = False

    name: Literal["capitals"] = "capitals"
    source: str = EMBEDDED
    forgotten: int = Field(2, ge=1, description="so many countries are forgotten")

    @classmethod
    def small(cls) -> Self:
        """Return the default: all of it is small."""
        return cls()

    @classmethod
    def unloadable(cls) -> Self:
        """Return a configuration that forgets more countries than there are."""
        return cls(forgotten=5)

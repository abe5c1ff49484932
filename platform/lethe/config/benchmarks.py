"""All benchmarks that a study can name: importing this module defines, and so registers, every configuration."""

from __future__ import annotations

from typing import Annotated

from lethe.config.benchmark import BenchmarkConfig
from lethe.config.component import ByName
from lethe.config.own import OwnBenchmark

__all__ = ["BENCHMARKS", "AnyBenchmark", "OwnBenchmark"]

AnyBenchmark = Annotated[BenchmarkConfig, ByName()]
BENCHMARKS = BenchmarkConfig.registered  # name -> configuration class

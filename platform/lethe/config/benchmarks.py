"""All benchmarks that a study can name: importing this module defines, and so registers, every configuration."""

from __future__ import annotations

from typing import Annotated

from lethe.config.benchmark import BenchmarkConfig
from lethe.config.component import ByName

AnyBenchmark = Annotated[BenchmarkConfig, ByName()]
BENCHMARKS = BenchmarkConfig.registered  # name -> configuration class

"""All benchmarks that a study can name: importing this module defines, and so registers, every configuration."""

from __future__ import annotations

from typing import Annotated

from lethe.config.benchmark import BenchmarkConfig, TdecBenchmark, TofuBenchmark
from lethe.config.component import ByName
from lethe.config.muse import MuseBenchmark
from lethe.config.own import OwnBenchmark
from lethe.config.wmdp import WmdpBenchmark

__all__ = [
    "BENCHMARKS",
    "AnyBenchmark",
    "MuseBenchmark",
    "OwnBenchmark",
    "TdecBenchmark",
    "TofuBenchmark",
    "WmdpBenchmark",
]

AnyBenchmark = Annotated[BenchmarkConfig, ByName()]
BENCHMARKS = BenchmarkConfig.registered  # name -> configuration class

"""The device that `run.engine.device: auto` means on this machine. No torch: the driver's library is asked."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

AUTO = "auto"
NODES = "LETHE_NODES"  # what an autoscaling cluster may have: lethe.pool.resources


def with_devices(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a study's nested values with cpu or cuda where `run.engine.device`, its own or an arm's, is auto: digests
    hold the device that runs have."""
    compare = raw.get("compare")
    arms = compare.get("arms") if isinstance(compare, dict) else None
    if isinstance(compare, dict) and isinstance(arms, dict):
        resolved = {name: _resolved(arm) if isinstance(arm, dict) else arm for name, arm in arms.items()}
        raw = {**raw, "compare": {**compare, "arms": resolved}}
    return _resolved(raw)


def _resolved(section: dict[str, Any]) -> dict[str, Any]:
    run = section.get("run")
    engine = run.get("engine") if isinstance(run, dict) else None
    if not isinstance(run, dict) or not isinstance(engine, dict) or engine.get("device") != AUTO:
        return section
    return {**section, "run": {**run, "engine": {**engine, "device": this_device()}}}


def this_device() -> Literal["cpu", "cuda"]:
    """Return cuda where this machine, or a node that LETHE_NODES promises, has a GPU, else cpu."""
    promised = "GPU=" in os.environ.get(NODES, "")
    return "cuda" if promised or (gpus() > 0 and torch_has_cuda()) else "cpu"


def gpus() -> int:
    """Return the number of GPUs that CUDA's driver shows this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def torch_has_cuda() -> bool:
    """Return whether the installed torch was built with CUDA."""
    spec = find_spec("torch")
    places = spec.submodule_search_locations if spec else None
    return any((Path(place) / "lib" / "libtorch_cuda.so").exists() for place in places or ())

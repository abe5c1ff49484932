"""A run that was killed and resumed ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lethe.config.run import Checkpoint
from lethe.unlearning.checkpoint import Checkpoints, RunState, StepperState
from lethe.unlearning.outcome import Alone
from tests import tiny
from tests.conftest import ROOT
from tests.unlearning import resume_world

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.long), 2])
def test_a_killed_and_resumed_run_equals_one_that_was_left_alone(world: int, tmp_path: Path, long: bool) -> None:
    """Stages 0 to 3, fp32 and bf16, AdamW and both Hessians, full, LoRA and FILA; dropout draws random numbers."""
    (tmp_path / "assets.json").write_text(tiny.assets(tmp_path, dropout=0.2).model_dump_json())
    cases = (resume_world.OF_WORLD if long else resume_world.SHORT)[world]
    code = (
        "import platform, sys; sys.path.insert(0, '.'); from tests.unlearning.resume_world import "
        "main; main(sys.argv[1], int(sys.argv[2]), [*map(int, sys.argv[3:])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(world), *map(str, cases)],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert len({digest for digest, _ in result["alone"][0]}) == len(cases)
    for rank in range(world):
        for (digest, steps), (again, left) in zip(result["alone"][rank], result["resumed"][rank], strict=True):
            assert digest == again
            assert left <= steps == resume_world.STEPS
    went_on = [left < resume_world.STEPS for _, left in result["resumed"][0]]
    assert sum(went_on) >= len(went_on) / 2, "most were killed after their first checkpoint"
    assert [len(names) == 1 for names in result["left"]] == went_on, "one checkpoint, or none"


STATE = RunState(
    reports=({"epoch": 1, "forget": 0.1 + 0.2, "x": float("nan")},),
    spent={"seconds": 2.5},
    losses=("forget_loss",),
    forgotten_at=None,
    stepper=StepperState(refreshes=1, tokens=2),
    optimizer=(3,),
)


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder, Checkpoint(), Alone())


def tensors(size: int = 5) -> dict[str, torch.Tensor]:
    shared = torch.arange(2.0 * size)  # two shards of one buffer, as stage 3 has them
    return {"0.master": shared[:size], "1.master": shared[size:], "0.step": torch.tensor(3.0)}


def test_what_is_saved_is_loaded_and_only_the_newest_is_kept(tmp_path: Path) -> None:
    for step in (2, 10):
        checkpoints(tmp_path).save(step, tensors(), STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["10"]
    loaded = checkpoints(tmp_path).load()
    assert loaded is not None
    found, manifest = loaded
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())
    assert manifest.step == 10
    assert repr(manifest.state) == repr(STATE)  # NaN is not equal to itself


@pytest.mark.parametrize("damage", ["cut", "flipped", "no state", "other world"])
def test_a_damaged_checkpoint_is_a_warning_and_a_start_from_the_beginning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints(tmp_path).save(2, tensors(), STATE)
    shard, state = tmp_path / "2/rank-0.safetensors", tmp_path / "2/state.json"
    raw = bytearray(shard.read_bytes())
    if damage == "cut":
        shard.write_bytes(raw[:-7])
    elif damage == "flipped":
        raw[-random.Random(0).randint(1, 30)] ^= 1
        shard.write_bytes(raw)
    elif damage == "no state":
        state.unlink()
    else:
        state.write_text(json.dumps({**json.loads(state.read_text()), "checksums": [1, 2]}))
    assert checkpoints(tmp_path).load() is None
    assert damage == "other world" or str(tmp_path) in caplog.text
    checkpoints(tmp_path).save(2, tensors(), STATE)
    assert checkpoints(tmp_path).load() is not None


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel's limit on the size of a file stands in for the disk's end: a write fails half-way."""
    checkpoints(tmp_path).save(2, tensors(), STATE)
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            checkpoints(tmp_path).save(4, tensors(10_000), STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "File too large" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["2"], "the one before stays"

"""`engine.device: auto` becomes cpu or cuda before anything has a digest, and a share of a GPU is one group's."""

from __future__ import annotations

from typing import Any

import pytest

from lethe.config import devices
from lethe.config.study import Study, parse_study
from lethe.errors import UserError
from lethe.pool.resources import Shape, has_room
from lethe.study.preflight import check_gpu

GOALS = {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}}


def study(engine: dict[str, Any], **sections: Any) -> Study:
    return parse_study({"name": "s", "objectives": GOALS, "run": {"engine": engine}, **sections})


@pytest.mark.parametrize(("found", "device"), [(0, "cpu"), (2, "cuda")])
def test_auto_is_the_device_of_the_machine(found: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: found)
    monkeypatch.setattr(devices, "torch_has_cuda", lambda: True)
    auto, named = study({"device": "auto"}), study({"device": device})
    assert auto.first_recipe().digest() == named.first_recipe().digest()
    assert auto.identity() == named.identity()
    assert auto.run["engine"]["device"] == device
    arms = {"a": {"run": {"engine": {"device": "auto"}}}, "b": {"run": {"engine": {"device": device}}}}
    assert study({}, compare={"arms": arms}).first_recipe().engine.device == device


def test_auto_knows_nodes_that_are_to_come_and_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 1)
    monkeypatch.setattr(devices, "torch_has_cuda", lambda: False)
    assert devices.this_device() == "cpu"
    monkeypatch.setenv("LETHE_NODES", "2:CPU=8,GPU=1")
    assert devices.this_device() == "cuda"


def test_cuda_without_a_gpu_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    with pytest.raises(
        UserError,
        match=r"^run\.engine\.device is cuda, and this machine has .*: choose cpu, auto, or a cluster by RAY_ADDRESS$",
    ):
        check_gpu(study({"device": "cuda"}))
    check_gpu(study({"device": "cpu"}))


def test_groups_with_a_share_of_a_gpu_have_room_on_one() -> None:
    quarter = study({"device": "cuda"}, resources={"gpus_per_worker": 0.25})
    shape = Shape.of(quarter.first_recipe().engine, quarter.resources.gpus_per_worker)
    assert shape.per_worker() == {"CPU": 1, "GPU": 0.25}
    assert shape.key == "1x1xcuda0.25"
    assert has_room([shape] * 4, [{"CPU": 8, "GPU": 1}])
    assert not has_room([shape] * 5, [{"CPU": 8, "GPU": 1}])
    assert Shape.of(study({}).first_recipe().engine, 0.25) == Shape(), "on a CPU the share means nothing"


def test_workers_of_one_group_do_not_share_a_gpu() -> None:
    with pytest.raises(UserError, match=r"^resources\.gpus_per_worker: 0\.5 .*run\.engine\.workers 2: set one"):
        study({"device": "cuda", "workers": 2}, resources={"gpus_per_worker": 0.5})

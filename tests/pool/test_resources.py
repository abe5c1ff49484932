"""What a cluster has, what it may have, and whether worker groups have room there."""

from __future__ import annotations

import pytest

from lethe.errors import UserError
from lethe.pool import resources
from lethe.pool.resources import HEAD, Shape, has_room, promised, require

CPU, GPU = Shape(1, 2), Shape(2, 4, "cuda")


@pytest.fixture(autouse=True)
def head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head without cores that may grow to two nodes of 4 cores and a GPU."""
    living(monkeypatch, {HEAD: 1.0, "CPU": 0.0})
    monkeypatch.setenv("LETHE_NODES", "2:CPU=4,GPU=1")


def living(monkeypatch: pytest.MonkeyPatch, *nodes: resources.Resources) -> None:
    monkeypatch.setattr(resources, "alive", lambda: [dict(node) for node in nodes])


def test_kinds_of_nodes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_NODES", " 1:CPU=2 ; 2:CPU=8, GPU=4;")
    assert promised() == [{"CPU": 2}, {"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4}]
    monkeypatch.setenv("LETHE_NODES", "")
    assert promised() == []


@pytest.mark.parametrize("text", ["4", "CPU=4", "four:CPU=4", "4:CPU", "4:CPU=many"])
def test_what_cannot_be_read_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_NODES", text)
    with pytest.raises(UserError, match=f"^LETHE_NODES={text}: give a number of nodes .* such as 4:CPU=8,GPU=1$"):
        promised()


def test_a_node_that_came_is_not_promised_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    living(monkeypatch, {HEAD: 1.0, "CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0})
    assert sorted(node["CPU"] for node in resources.node_resources()) == [4, 4, 8], "the head stands for none of them"


def test_a_worker_is_whole_on_one_node() -> None:
    four = [{"CPU": 4.0}, {"CPU": 4.0}]
    assert has_room([CPU, CPU, CPU, CPU], four)
    assert not has_room([CPU] * 5, four)
    assert not has_room([Shape(1, 5)], four)
    assert has_room([Shape(2, 3)], four)


def test_a_run_that_fits_nowhere_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require(GPU)
    with pytest.raises(UserError) as refused:
        require(Shape(3, 4, "cuda"))
    said = str(refused.value)
    assert "needs 3 x (4 CPU, 1 GPU)" in said
    assert "can have (with LETHE_NODES) 1 x (0 CPU), 2 x (4 CPU, 1 GPU)" in said
    monkeypatch.delenv("LETHE_NODES")
    with pytest.raises(UserError, match=r"the cluster has 1 x \(0 CPU\): .*one that grows says how far in LETHE_NODES"):
        require(CPU)

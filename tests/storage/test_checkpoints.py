"""Checkpoints of two ranks on two nodes that share objects only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lethe.config.run import Checkpoint
from lethe.storage.object_store import ObjectStore, parse_address
from lethe.unlearning import checkpoint
from lethe.unlearning.checkpoint import RunState, StepperState, StoredCheckpoints
from tests.storage.places import KINDS, place

NAME = "studies/s/runs/r/checkpoint"


class Ranks:
    """One of two, in threads."""

    world = 2

    def __init__(self, rank: int, box: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self._box, self._barrier = rank, box, barrier

    def gather(self, value: Any) -> list[Any]:
        self._box[self.rank] = value
        self._barrier.wait(30)
        found = list(self._box)
        self._barrier.wait(30)
        return found


def both(call: Callable[[StoredCheckpoints], Any]) -> list[Any]:
    """`call` on both ranks at once; what each gives."""
    found: list[Any] = [None, None]
    box, barrier = [None, None], threading.Barrier(2)

    def run(rank: int) -> None:
        found[rank] = call(StoredCheckpoints(Path("anything"), Checkpoint(), Ranks(rank, box, barrier)))  # type: ignore[arg-type]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def tensors(rank: int, step: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((300, 1000), float(rank + 10 * step)), "step": torch.tensor(step)}


STATE = RunState(({"x": 0.1},), {"seconds": 2.5}, ("forget_loss",), None, StepperState(1, 2), (3,))


def save(step: int) -> None:
    both(lambda c: c.save(step, tensors(c.ranks.rank, step), STATE))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with place(request.param, tmp_path, monkeypatch) as url:
        store = ObjectStore(parse_address(url, "LETHE_HOME"))
        monkeypatch.setattr(checkpoint, "object_of", lambda folder: (store, NAME))
        yield store


def test_each_rank_reads_its_own_checkpoint_and_only_the_newest_is_kept(store: ObjectStore) -> None:
    assert both(lambda c: c.load()) == [None, None]
    save(2)
    save(10)
    assert store.list_names(NAME) == ["10"]
    for rank, (found, manifest) in enumerate(both(lambda c: c.load())):
        assert torch.equal(found["weights"], tensors(rank, 10)["weights"])
        assert found["step"] == 10
        assert manifest.step == 10
        assert manifest.state == STATE


@pytest.mark.parametrize("damage", ["state.json", "rank-1.safetensors"])
def test_an_incomplete_checkpoint_does_not_count(store: ObjectStore, damage: str) -> None:
    save(2)
    store.remove(f"{NAME}/2/{damage}")
    assert both(lambda c: c.load()) == [None, None]
    save(4)
    store.put(f"{NAME}/4/rank-0.safetensors", b"torn")
    assert both(lambda c: c.load()) == [None, None], "another attempt begins anew, on both"


def test_an_unreachable_store_costs_the_checkpoint_and_not_the_run(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(2)

    def away(*_: Any) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put", away)
        save(4)
        assert "no route to host" in caplog.text
    assert [manifest.step for _, manifest in both(lambda c: c.load())] == [2, 2]

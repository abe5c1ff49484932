"""Checkpoints of nodes that share objects and no disk: each rank uploads its own file, and `state.json`, the last one,
makes them count."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from lethe.objects.store import Store
from lethe.storage import home, shared_as
from lethe.training.checkpoint import SCHEMA, Checkpoints, Tensors, checksum, shard

STATE = "state.json"


class StoredCheckpoints(Checkpoints):
    """As `Checkpoints`; `folder` says where in the store they are."""

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        self._restart()
        sums = self.ranks.gather(self._upload(step, tensors))
        if self.ranks.rank == 0 and None not in sums:
            self._count(step, {**state, "schema": SCHEMA, "step": step, "checksums": sums})

    def _upload(self, step: int, tensors: Tensors) -> int | None:
        """This rank's file; its checksum, or None where that failed."""
        objects, name = self._place
        try:
            with _scratch() as temporary:
                found = self._write(Path(temporary), tensors)
                if found is not None:
                    objects.put(f"{name}/{step}/{shard(self.ranks.rank)}", Path(temporary) / shard(self.ranks.rank))
                return found
        except OSError as error:
            return self._failed(error)

    def _count(self, step: int, state: dict[str, Any]) -> None:
        """Make the new one count; then the older ones can go."""
        objects, name = self._place
        try:
            objects.put(f"{name}/{step}/{STATE}", json.dumps(state).encode())
            for other in objects.children(name):
                if other != str(step):
                    objects.remove(f"{name}/{other}")
        except OSError as error:
            self._failed(error)

    def _newest(self) -> dict[str, Any] | None:
        objects, name = self._place
        try:
            steps = sorted((int(step) for step in objects.children(name) if step.isdigit()), reverse=True)
            states = (objects.read(f"{name}/{step}/{STATE}") for step in steps)
            return next((state for raw in states if raw and self._fits(state := json.loads(raw))), None)
        except (OSError, ValueError) as error:
            return self._failed(error)

    def _read(self, state: dict[str, Any]) -> Tensors | None:
        objects, name = self._place
        try:
            with _scratch() as temporary:
                path = Path(temporary) / shard(self.ranks.rank)
                objects.fetch(f"{name}/{state['step']}/{path.name}", path)
                if checksum(path) != state["checksums"][self.ranks.rank]:
                    raise OSError(f"{path.name} of step {state['step']} is not what was written")
                return {key: tensor.clone() for key, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            return self._failed(error)

    @property
    def _place(self) -> tuple[Store, str]:
        found = self.folder and shared_as(self.folder)
        assert found
        return found


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """On the disk for copies: what is temporary elsewhere may lie in memory."""
    home().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=home())

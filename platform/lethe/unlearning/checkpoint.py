"""What an engine trains, as this rank holds it: flat fp32 masters and the optimizer's tensors, out and in again.

A run's checkpoint: what another attempt needs to end exactly as this one would have ended.

`FOLDER/STEP/` holds one `rank-N.safetensors` per rank and rank 0's `state.json`, and appears whole or not at all. The
order of the data is a function of the run, so its cursor is the step.

Checkpoints of nodes that share objects and no disk: each rank uploads its own file, and `state.json`, the last one,
makes them count.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lethe.config.run import Checkpoint
from lethe.storage.object_store import ObjectStore
from lethe.storage.paths import home, object_of
from lethe.unlearning.engine import Engine
from lethe.unlearning.outcome import Ranks
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor


def shards(engine: Engine) -> dict[str, Tensor]:
    """This rank's tensors by name, `INDEX.master` and `INDEX.NAME of the optimizer's state`: live ones, no copies."""
    found: dict[str, Tensor] = {}
    for index, master in enumerate(engine.masters()):
        found[f"{index}.master"] = master.detach()
        found |= {f"{index}.{name}": value for name, value in engine.optimizer.state.get(master, {}).items()}
    return found


def refreshes(engine: Engine) -> list[int]:
    """Sophia's only state that is no tensor, per parameter group; 0 for AdamW, which counts its steps in one."""
    return [group.get("refreshes", 0) for group in engine.optimizer.param_groups]


@torch.no_grad()
def restore(engine: Engine, tensors: Mapping[str, Tensor], refreshes: Sequence[int]) -> None:
    """Put the state of an equal engine into one that has not taken a step; every rank calls this."""
    for index, master in enumerate(engine.masters()):
        mine = {name.removeprefix(f"{index}."): t for name, t in tensors.items() if name.startswith(f"{index}.")}
        master.copy_(mine.pop("master"))
        for name, tensor in mine.items():
            engine.optimizer.state[master][name] = tensor.to(master.device, copy=True)
    for group, count in zip(engine.optimizer.param_groups, refreshes, strict=True):
        if "refreshes" in group:
            group["refreshes"] = count
    engine.publish()


log = logging.getLogger(__name__)
SCHEMA = 1

Tensors = dict[str, Tensor]


@dataclass
class Checkpoints:
    """Where one run's checkpoints are, and when the next is due. Every rank calls every method but `due`, alike.

    Without a checkpoint a run is only longer: one that cannot be written or read is a warning.
    """

    folder: Path | None
    rule: Checkpoint
    ranks: Ranks
    _last: float = field(default_factory=time.monotonic)

    @classmethod
    def none(cls, ranks: Ranks) -> Checkpoints:
        """For runs that are not resumed."""
        return cls(None, Checkpoint(), ranks)

    def due(self, step: int) -> bool:
        """Whether this rank wants one after this step: rank 0's clock counts for all."""
        if self.folder is None or self.ranks.rank:
            return False
        steps, seconds = self.rule.every_steps, self.rule.every_seconds
        late = seconds is not None and time.monotonic() - self._last >= seconds
        return late or (steps is not None and step % steps == 0)

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Replace what there is by this. `tensors`: this rank's; `state`: JSON values, rank 0's are kept."""
        if self.folder is None:
            return
        self._restart()
        temporary = self.ranks.gather(self._temporary() if self.ranks.rank == 0 else None)[0]
        sums = self.ranks.gather(temporary and self._write(Path(temporary), tensors))
        if self.ranks.rank == 0 and temporary:
            self._publish(Path(temporary), step, sums, {**state, "schema": SCHEMA, "step": step})

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """This rank's tensors and the state of the newest checkpoint, if there is a whole one for as many ranks."""
        if self.folder is None:
            return None
        state = self.ranks.gather(self._newest() if self.ranks.rank == 0 else None)[0]
        tensors = state and self._read(state)
        if state is None or not all(self.ranks.gather(tensors is not None)):
            return None
        return tensors, state

    def _restart(self) -> None:
        """The next one is due as long after this as the rule says."""
        self._last = time.monotonic()

    # Files

    def _temporary(self) -> str | None:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return tempfile.mkdtemp(prefix=".", dir=self.folder)
        except OSError as error:
            return self._failed(error)

    def _write(self, folder: Path, tensors: Tensors) -> int | None:
        """This rank's file; its checksum, or None where it could not be written."""
        path = folder / shard(self.ranks.rank)
        try:
            # numpy's writer does not mind shards of one buffer; both write from the tensors' own memory.
            save_file({name: t.detach().cpu().contiguous().numpy() for name, t in tensors.items()}, path)
            return checksum(path)
        except (OSError, SafetensorError) as error:
            return self._failed(error)

    def _publish(self, temporary: Path, step: int, sums: list[int | None], state: dict[str, Any]) -> None:
        assert self.folder is not None
        target = self.folder / str(step)
        try:
            if None not in sums:
                (temporary / "state.json").write_text(json.dumps({**state, "checksums": sums}))
                temporary.chmod(0o755)
                shutil.rmtree(target, ignore_errors=True)  # one that could not be read
                temporary.rename(target)
        except OSError as error:
            self._failed(error)
        if target.exists():
            for other in self.folder.iterdir():
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)

    def _newest(self) -> dict[str, Any] | None:
        assert self.folder is not None
        names = [path.name for path in self.folder.glob("*") if path.name.isdigit()]
        for name in sorted(names, key=int, reverse=True):
            try:
                state = json.loads((self.folder / name / "state.json").read_text())
            except (OSError, ValueError) as error:
                self._failed(error)
                continue
            if self._fits(state):
                return state
        return None

    def _fits(self, state: dict[str, Any]) -> bool:
        return state["schema"] == SCHEMA and len(state["checksums"]) == self.ranks.world

    def _read(self, state: dict[str, Any]) -> Tensors | None:
        assert self.folder is not None
        path = self.folder / str(state["step"]) / shard(self.ranks.rank)
        try:
            if checksum(path) != state["checksums"][self.ranks.rank]:
                raise OSError(f"{path} is torn: not what was written")
            return load_file(path)
        except (OSError, SafetensorError) as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> None:
        log.warning("checkpoint in %s: %s", self.folder, error)


def shard(rank: int) -> str:
    """How a rank's file is called."""
    return f"rank-{rank}.safetensors"


def checksum(path: Path) -> int:
    """A machine that loses power may leave a file of the right size whose content was never written."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            found = zlib.crc32(piece, found)
    return found


def random_state(device: torch.device) -> Tensors:
    """Of torch's generators, which dropout draws from; a run draws from no other that is not keyed by its seed."""
    found = {"random.cpu": torch.get_rng_state()}
    return found | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(tensors: Tensors, device: torch.device) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


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
            for other in objects.list_names(name):
                if other != str(step):
                    objects.remove(f"{name}/{other}")
        except OSError as error:
            self._failed(error)

    def _newest(self) -> dict[str, Any] | None:
        objects, name = self._place
        try:
            steps = sorted((int(step) for step in objects.list_names(name) if step.isdigit()), reverse=True)
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
    def _place(self) -> tuple[ObjectStore, str]:
        found = self.folder and object_of(self.folder)
        assert found
        return found


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """On the disk for copies: what is temporary elsewhere may lie in memory."""
    home().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=home())

"""Checkpoints of a run: everything that another attempt needs to end exactly as this one would have ended.

`FOLDER/STEP/` holds one `rank-N.safetensors` per rank and rank 0's `state.json`, and appears whole or not at all. The
order of the data is a function of the run, so the step says where in the data it stopped.

`Checkpoints` keeps them in a folder that all ranks see, `StoredCheckpoints` in an object store: there each rank uploads
its own file, and `state.json`, the last object to be written, makes them valid. The functions below take the state out
of an engine and put it back.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from lethe.config.run import Checkpoint
from lethe.records import Metrics
from lethe.storage.object_store import ObjectStore
from lethe.storage.paths import home, object_of
from lethe.unlearning.engine import Engine
from lethe.unlearning.outcome import Ranks

log = logging.getLogger(__name__)
SCHEMA = 1
STATE = "state.json"

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class StepperState:
    """The counters of a `Stepper`."""

    refreshes: int
    tokens: int


@dataclass(frozen=True)
class RunState:
    """The part of a run's checkpoint that is no tensor. `reports`: all so far; `spent`: the report of `Costs`;
    `losses`: names of the loss terms; `optimizer`: Hessian refreshes by parameter group; `objective`: the numbers that
    `Loss.changing` names."""

    reports: tuple[Metrics, ...]
    spent: Metrics
    losses: tuple[str, ...]
    forgotten_at: int | None
    stepper: StepperState
    optimizer: tuple[int, ...]
    objective: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of `state.json`: the step after which a checkpoint was taken, the checksum of each rank's file, and
    the run's state."""

    step: int
    checksums: tuple[int, ...]
    state: RunState

    def to_json(self) -> str:
        """Return one flat JSON object."""
        return json.dumps({**asdict(self.state), "schema": SCHEMA, "step": self.step, "checksums": self.checksums})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Return the manifest that `to_json` wrote, None for another schema. Raises ValueError for other text."""
        raw = json.loads(text)
        try:
            if raw["schema"] != SCHEMA:
                return None
            state = RunState(
                reports=tuple(raw["reports"]),
                spent=raw["spent"],
                losses=tuple(raw["losses"]),
                forgotten_at=raw["forgotten_at"],
                stepper=StepperState(**raw["stepper"]),
                optimizer=tuple(raw["optimizer"]),
                objective=raw.get("objective", {}),  # not in earlier checkpoints
            )
            return cls(raw["step"], tuple(raw["checksums"]), state)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no state of a checkpoint: {error!r}") from error


@dataclass
class Checkpoints:
    """The checkpoints of one run in `folder` (None: the run has none), of which the newest is kept.

    Every rank calls every method but `due` at the same step. Checkpoints only save time: one that cannot be written or
    read is logged as a warning.
    """

    folder: Path | None
    rule: Checkpoint
    ranks: Ranks
    _last_save: float = field(default_factory=time.monotonic)

    @classmethod
    def none(cls, ranks: Ranks) -> Checkpoints:
        """Return checkpoints for a run that is not resumed: nothing is saved or loaded."""
        return cls(None, Checkpoint(), ranks)

    def due(self, step: int) -> bool:
        """Return whether the rule asks for a checkpoint after this step; False on all ranks but 0, whose clock counts
        for all."""
        if self.folder is None or self.ranks.rank:
            return False
        steps, seconds = self.rule.every_steps, self.rule.every_seconds
        late = seconds is not None and time.monotonic() - self._last_save >= seconds
        return late or (steps is not None and step % steps == 0)

    def save(self, step: int, tensors: Tensors, state: RunState) -> None:
        """Save a checkpoint and delete the one before. `tensors`: this rank's; of the states rank 0's is saved."""
        if self.folder is None:
            return
        self._last_save = time.monotonic()
        temporary = self.ranks.gather(self._temporary() if self.ranks.rank == 0 else None)[0]
        checksums = self.ranks.gather(self._write(Path(temporary), tensors) if temporary else None)
        if self.ranks.rank == 0 and temporary:
            self._publish(Path(temporary), step, checksums, state)

    def load(self) -> tuple[Tensors, Manifest] | None:
        """Return this rank's tensors and the manifest of the newest checkpoint. None where no checkpoint is whole and
        of as many ranks."""
        if self.folder is None:
            return None
        manifest: Manifest | None = self.ranks.gather(self._newest() if self.ranks.rank == 0 else None)[0]
        if manifest is None:
            return None
        tensors = self._read(manifest)
        readable = all(self.ranks.gather(tensors is not None))  # on every rank
        return (tensors, manifest) if tensors is not None and readable else None

    # Files

    def _temporary(self) -> str | None:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return tempfile.mkdtemp(prefix=".", dir=self.folder)
        except OSError as error:
            self._warn(error)
            return None

    def _write(self, folder: Path, tensors: Tensors) -> int | None:
        """Write this rank's file. Returns its checksum, None where it could not be written."""
        path = folder / rank_file(self.ranks.rank)
        try:
            # Unlike torch's, numpy's writer accepts shards of one buffer; both write from the tensors' own memory.
            save_file({name: t.detach().cpu().contiguous().numpy() for name, t in tensors.items()}, path)
            return checksum(path)
        except (OSError, SafetensorError) as error:
            self._warn(error)
            return None

    def _publish(self, temporary: Path, step: int, checksums: list[int | None], state: RunState) -> None:
        """Give the finished folder its name, and delete all others."""
        assert self.folder is not None
        target = self.folder / str(step)
        try:
            if (written := all_written(checksums)) is not None:
                (temporary / STATE).write_text(Manifest(step, written, state).to_json())
                temporary.chmod(0o755)
                shutil.rmtree(target, ignore_errors=True)  # an earlier one that could not be read
                temporary.rename(target)
        except OSError as error:
            self._warn(error)
        if target.exists():
            for other in self.folder.iterdir():
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)

    def _newest(self) -> Manifest | None:
        """Return the manifest of the newest checkpoint that fits, None without one."""
        assert self.folder is not None
        names = [path.name for path in self.folder.glob("*") if path.name.isdigit()]
        for name in sorted(names, key=int, reverse=True):
            try:
                manifest = self._fitting((self.folder / name / STATE).read_text())
            except (OSError, ValueError) as error:
                self._warn(error)
                continue
            if manifest is not None:
                return manifest
        return None

    def _fitting(self, text: str | bytes) -> Manifest | None:
        """Return the manifest if it is of this schema and of as many ranks. Raises ValueError."""
        manifest = Manifest.from_json(text)
        return manifest if manifest is not None and len(manifest.checksums) == self.ranks.world else None

    def _read(self, manifest: Manifest) -> Tensors | None:
        """Return this rank's tensors of a checkpoint, None where its file is not as it was written."""
        assert self.folder is not None
        path = self.folder / str(manifest.step) / rank_file(self.ranks.rank)
        try:
            if checksum(path) != manifest.checksums[self.ranks.rank]:
                raise OSError(f"{path} is torn: not what was written")
            return load_file(path)
        except (OSError, SafetensorError) as error:
            self._warn(error)
            return None

    def _warn(self, error: Exception) -> None:
        log.warning("checkpoint in %s: %s", self.folder, error)


class StoredCheckpoints(Checkpoints):
    """Checkpoints in an object store, for nodes that share no disk; `folder` names their place in the store."""

    def save(self, step: int, tensors: Tensors, state: RunState) -> None:
        """Save a checkpoint as `Checkpoints.save` does."""
        self._last_save = time.monotonic()
        checksums = self.ranks.gather(self._upload(step, tensors))
        if self.ranks.rank == 0 and (written := all_written(checksums)) is not None:
            self._complete(Manifest(step, written, state))

    def _upload(self, step: int, tensors: Tensors) -> int | None:
        """Upload this rank's file. Returns its checksum, None where that failed."""
        objects, name = self._place
        try:
            with _scratch() as temporary:
                written = self._write(Path(temporary), tensors)
                if written is not None:
                    file = rank_file(self.ranks.rank)
                    objects.put(f"{name}/{step}/{file}", Path(temporary) / file)
                return written
        except OSError as error:
            self._warn(error)
            return None

    def _complete(self, manifest: Manifest) -> None:
        """Write the manifest, which makes the checkpoint valid, and delete all others."""
        objects, name = self._place
        try:
            objects.put(f"{name}/{manifest.step}/{STATE}", manifest.to_json().encode())
            for other in objects.list_names(name):
                if other != str(manifest.step):
                    objects.remove(f"{name}/{other}")
        except OSError as error:
            self._warn(error)

    def _newest(self) -> Manifest | None:
        objects, name = self._place
        try:
            steps = sorted((int(step) for step in objects.list_names(name) if step.isdigit()), reverse=True)
            texts = (objects.read(f"{name}/{step}/{STATE}") for step in steps)
            return next((manifest for text in texts if text and (manifest := self._fitting(text))), None)
        except (OSError, ValueError) as error:
            self._warn(error)
            return None

    def _read(self, manifest: Manifest) -> Tensors | None:
        objects, name = self._place
        try:
            with _scratch() as temporary:
                path = Path(temporary) / rank_file(self.ranks.rank)
                objects.fetch(f"{name}/{manifest.step}/{path.name}", path)
                if checksum(path) != manifest.checksums[self.ranks.rank]:
                    raise OSError(f"{path.name} of step {manifest.step} is not what was written")
                return {key: tensor.clone() for key, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            self._warn(error)
            return None

    @property
    def _place(self) -> tuple[ObjectStore, str]:
        """The store and the checkpoints' name in it."""
        place = self.folder and object_of(self.folder)
        assert place
        return place


def checkpoints_in(folder: Path, rule: Checkpoint, ranks: Ranks) -> Checkpoints:
    """Return the checkpoints of a run in `folder`: in the object store where the folder lies in one."""
    kind = StoredCheckpoints if object_of(folder) else Checkpoints
    return kind(folder, rule, ranks)


def all_written(checksums: Sequence[int | None]) -> tuple[int, ...] | None:
    """Return the checksums, None where a rank could not write its file."""
    written = tuple(value for value in checksums if value is not None)
    return written if len(written) == len(checksums) else None


def rank_file(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank-{rank}.safetensors"


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file. After a loss of power a file may have the right size and content never written."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            value = zlib.crc32(piece, value)
    return value


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder on the disk of the storage root: the system's may lie in memory."""
    home().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=home())


# The state of a run in its engine


def shards(engine: Engine) -> Tensors:
    """Return this rank's fp32 masters and optimizer state by name, `INDEX.master` and `INDEX.NAME`: live tensors, no
    copies."""
    tensors: Tensors = {}
    for index, master in enumerate(engine.masters()):
        tensors[f"{index}.master"] = master.detach()
        state = engine.optimizer.state.get(master, {})
        # bitsandbytes counts its steps in Python's numbers, which no state of torch's optimizers has as int64.
        tensors |= {f"{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def refreshes(engine: Engine) -> list[int]:
    """Return the Hessian refreshes of each parameter group, the only optimizer state that is no tensor; 0 for an
    optimizer without refreshes."""
    return [group.get("refreshes", 0) for group in engine.optimizer.param_groups]


@torch.no_grad()
def restore(engine: Engine, tensors: Mapping[str, Tensor], refreshes: Sequence[int]) -> None:
    """Put `shards` and `refreshes` of an equal engine into one that has not taken a step; every rank calls this."""
    for index, master in enumerate(engine.masters()):
        prefix = f"{index}."
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        master.copy_(state.pop("master"))
        for name, tensor in state.items():
            number = tensor.dtype == torch.int64
            engine.optimizer.state[master][name] = int(tensor) if number else tensor.to(master.device, copy=True)
    for group, count in zip(engine.optimizer.param_groups, refreshes, strict=True):
        if "refreshes" in group:
            group["refreshes"] = count
    engine.publish()


def random_state(device: torch.device) -> Tensors:
    """Return the states of torch's generators on the CPU and on `device`, which dropout draws from. A run draws from no
    other generator that is not keyed by its seed."""
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the states that `random_state` returned back into torch's generators."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)

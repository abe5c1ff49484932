"""What a worker group occupies: the key by which runs and groups find each other."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.config.engine import Engine

# Tune refuses an empty request, and a sliver of CPU would leave no whole core for the last group. Every head node
# has this resource, so bookkeeping actors live there and off preemptible nodes.
HEAD_SLIVER = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class Shape:
    """Workers of one group and what each of them holds."""

    workers: int = 1
    threads: int = 1
    device: str = "cpu"

    @classmethod
    def of(cls, engine: Engine) -> Shape:
        """The shape that a run with this engine needs."""
        return cls(engine.workers, engine.threads, engine.device)

    @classmethod
    def parse(cls, key: str) -> Shape:
        """Inverse of `key`."""
        workers, threads, device = key.split("x")
        return cls(int(workers), int(threads), device)

    @property
    def key(self) -> str:
        return f"{self.workers}x{self.threads}x{self.device}"

    def per_worker(self) -> dict[str, float]:
        """Ray resources of one worker."""
        return {"CPU": self.threads, **({"GPU": 1} if self.device == "cuda" else {})}

    def total(self) -> dict[str, float]:
        """Ray resources of the whole group."""
        return {kind: amount * self.workers for kind, amount in self.per_worker().items()}

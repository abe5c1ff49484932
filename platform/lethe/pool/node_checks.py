"""Checks of a cluster's nodes: the driver's versions, the GPUs that Ray counts, and the storage of all the others.

A check runs `look_around` on the node as a Ray task and compares its `NodeFacts` with the driver's. Shared storage is
proven by notes in the storage root: the driver writes one that the node reads, the node one that the driver reads.
"""

from __future__ import annotations

import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lethe.errors import UserError, first_line
from lethe.pool.resources import cluster_nodes
from lethe.storage.object_store import store_message
from lethe.storage.paths import root, store, store_at

LIMIT_S = 90.0  # a node's first task waits for the upload of lethe and for a process that starts
COMPARED = ("torch", "deepspeed", "transformers", "numpy", "safetensors", "lethe source")

Node = dict[str, Any]  # an entry of `ray.nodes()`


@dataclass(frozen=True)
class NodeFacts:
    """Versions, GPUs and storage of a node, as it reports them.

    `storage`: why it does not share the driver's storage root, empty if it does.
    """

    versions: dict[str, str]
    gpus: list[str]
    storage: str = ""


def check_others() -> None:
    """Check every living node but the driver's own, all at once; raises UserError for one that a study cannot use."""
    import ray

    def living() -> dict[str, Node]:
        return {node["NodeID"]: node for node in cluster_nodes() if node["Alive"]}

    def check(node: Node) -> None:
        try:
            check_node(node)
        except UserError:
            if node["NodeID"] in living():  # one that has left meanwhile, as idle and spot nodes do, is no mistake
                raise

    own = ray.get_runtime_context().get_node_id()
    others = [node for name, node in living().items() if name != own]
    with ThreadPoolExecutor(max(1, len(others))) as threads:
        list(threads.map(check, others))


def check_node(node: Node) -> str:
    """Return one line about a node that a study can use; raises UserError, with the cure, for one that it cannot."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where, word = root(), secrets.token_hex(8)
    ours, theirs = f".doctor-{word}", f".doctor-{word}-{node['NodeID']}"
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    address = node["NodeManagerAddress"]
    try:
        write_note(where, ours, word)
        task = ray.remote(look_around).options(num_cpus=0, scheduling_strategy=on_node).remote(where, ours, word)
        facts = ray.get(task, timeout=LIMIT_S)
        arrived = read_note(where, theirs) == word
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            f"{address} gives no answer within {LIMIT_S:g} s: `ray status`, and its logs, say why"
        ) from None
    except (ray.exceptions.RayError, OSError) as error:
        raise UserError(f"{address} cannot run a task: {first_line(error)}") from None
    finally:
        for name in (ours, theirs):
            remove_note(where, name)
    return _judge(address, node["Resources"], facts, arrived)


def _judge(address: str, resources: dict[str, float], facts: NodeFacts, arrived: bool) -> str:
    """Compare a node's facts with the driver's and Ray's; `arrived`: the driver has read the node's note."""
    here = versions()
    if other := [
        f"{n} {facts.versions.get(n)} (driver {here[n]})" for n in COMPARED if facts.versions.get(n) != here[n]
    ]:
        raise UserError(
            f"{address} has {', '.join(other)}: install requirements.lock there, or use the same image everywhere"
        )
    if facts.storage or not arrived:
        why = facts.storage or "what it writes does not arrive"
        mend = "give its credentials to every node" if store() else "mount one folder on every node"
        raise UserError(f"{address} does not share LETHE_HOME={root()} ({why}): {mend}")
    if len(facts.gpus) < resources.get("GPU", 0):
        raise UserError(
            f"{address} shows {len(facts.gpus)} GPUs, Ray counts {resources['GPU']:g}: look at nvidia-smi there"
        )
    return f"{address}: {resources.get('CPU', 0):g} CPU, {', '.join(facts.gpus) or 'no GPU'}, our versions, our storage"


# On the node


def look_around(where: str, name: str, word: str) -> NodeFacts:
    """Return this node's facts, after reading the driver's note `name` in the storage root `where` and leaving one for
    the driver; both say `word`."""
    from ray import get_runtime_context

    storage = ""
    try:
        note = read_note(where, name)
        if note != word:
            storage = "what the driver writes does not arrive" if note is None else "reads something else"
        write_note(where, f"{name}-{get_runtime_context().get_node_id()}", word)
    except OSError as error:
        storage = error.strerror or store_message(error)
    return NodeFacts(versions(), gpus(), storage)


def gpus() -> list[str]:
    """Return the names of the GPUs that NVIDIA's driver shows; none where there is no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        line.partition(": ")[2].partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU")
    ]


def versions() -> dict[str, str]:
    """Return the versions, by name in `COMPARED`, that have to be the same everywhere for equal runs to give equal
    results; that of lethe is a digest of its source."""
    import lethe
    from lethe.config.base import short_digest

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "missing"

    folder = Path(lethe.__file__).parent
    source = "".join(f"{p.relative_to(folder)}\n{p.read_text()}" for p in sorted(folder.rglob("*.py")))
    return {**{name: installed(name) for name in COMPARED[:-1]}, COMPARED[-1]: short_digest(source)}


# Notes: small files in a storage root, a folder or objects


def write_note(where: str, name: str, word: str) -> None:
    """Write `word` to the note `name` in the storage root `where`; raises OSError where that fails."""
    if objects := store_at(where):
        objects.put(name, word.encode())
    else:
        (Path(where) / name).write_text(word)


def read_note(where: str, name: str) -> str | None:
    """Return the text of a note, None if there is none; raises OSError where it cannot be read."""
    if objects := store_at(where):
        raw = objects.read(name)
        return None if raw is None else raw.decode()
    path = Path(where) / name
    return path.read_text() if path.exists() else None


def remove_note(where: str, name: str) -> None:
    """Remove a note, if there is one."""
    if objects := store_at(where):
        objects.remove(name)
    else:
        (Path(where) / name).unlink(missing_ok=True)

"""Checks of a cluster's nodes: the driver's versions, the GPUs that Ray counts, and the storage of all the others.

A check runs `collect_facts` on the node as a Ray task and compares its `NodeFacts` with the driver's. Shared storage is
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
    """Check every live node but the driver's own, all at once. Raises UserError for a node that a study cannot use."""
    import ray

    def live_nodes() -> dict[str, Node]:
        return {node["NodeID"]: node for node in cluster_nodes() if node["Alive"]}

    def check(node: Node) -> None:
        try:
            check_node(node)
        except UserError:
            if node["NodeID"] in live_nodes():  # idle and spot nodes may have left meanwhile: no mistake of the user
                raise

    own = ray.get_runtime_context().get_node_id()
    others = [node for name, node in live_nodes().items() if name != own]
    with ThreadPoolExecutor(max(1, len(others))) as threads:
        list(threads.map(check, others))


def check_node(node: Node) -> str:
    """Return one line about a node that a study can use. Raises UserError, with the remedy, for any other node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    storage_root, token = root(), secrets.token_hex(8)
    ours, theirs = f".doctor-{token}", f".doctor-{token}-{node['NodeID']}"
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    address = node["NodeManagerAddress"]
    try:
        write_note(storage_root, ours, token)
        collect = ray.remote(collect_facts).options(num_cpus=0, scheduling_strategy=on_node)
        facts = ray.get(collect.remote(storage_root, ours, token), timeout=LIMIT_S)
        arrived = read_note(storage_root, theirs) == token
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            f"{address} gives no answer within {LIMIT_S:g} s: `ray status`, and its logs, say why"
        ) from None
    except (ray.exceptions.RayError, OSError) as error:
        raise UserError(f"{address} cannot run a task: {first_line(error)}") from None
    finally:
        for name in (ours, theirs):
            remove_note(storage_root, name)
    return _compare(address, node["Resources"], facts, arrived)


def _compare(address: str, resources: dict[str, float], facts: NodeFacts, arrived: bool) -> str:
    """Return `check_node`'s line for the node at `address`, or raise its UserError, by comparing its facts with the
    driver's and with its `resources` as Ray counts them. `arrived`: the driver has read the node's note."""
    ours = versions()
    if different := [
        f"{n} {facts.versions.get(n)} (driver {ours[n]})" for n in COMPARED if facts.versions.get(n) != ours[n]
    ]:
        raise UserError(
            f"{address} has {', '.join(different)}: install requirements.lock there, or use the same image everywhere"
        )
    if facts.storage or not arrived:
        reason = facts.storage or "what it writes does not arrive"
        remedy = "give its credentials to every node" if store() else "mount one folder on every node"
        raise UserError(f"{address} does not share LETHE_HOME={root()} ({reason}): {remedy}")
    if len(facts.gpus) < resources.get("GPU", 0):
        raise UserError(
            f"{address} shows {len(facts.gpus)} GPUs, Ray counts {resources['GPU']:g}: look at nvidia-smi there"
        )
    return f"{address}: {resources.get('CPU', 0):g} CPU, {', '.join(facts.gpus) or 'no GPU'}, our versions, our storage"


# On the node


def collect_facts(storage_root: str, name: str, token: str) -> NodeFacts:
    """Return this node's facts, after reading the driver's note `name` in `storage_root` and writing one for the
    driver; both contain `token`."""
    from ray import get_runtime_context

    storage = ""
    try:
        note = read_note(storage_root, name)
        if note != token:
            storage = "what the driver writes does not arrive" if note is None else "reads something else"
        write_note(storage_root, f"{name}-{get_runtime_context().get_node_id()}", token)
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


def write_note(storage_root: str, name: str, token: str) -> None:
    """Write `token` to the note `name` in the storage root; raises OSError where that fails."""
    if objects := store_at(storage_root):
        objects.put(name, token.encode())
    else:
        (Path(storage_root) / name).write_text(token)


def read_note(storage_root: str, name: str) -> str | None:
    """Return the text of a note, None if there is none; raises OSError where it cannot be read."""
    if objects := store_at(storage_root):
        raw = objects.read(name)
        return None if raw is None else raw.decode()
    path = Path(storage_root) / name
    return path.read_text() if path.exists() else None


def remove_note(storage_root: str, name: str) -> None:
    """Remove a note, if there is one."""
    if objects := store_at(storage_root):
        objects.remove(name)
    else:
        (Path(storage_root) / name).unlink(missing_ok=True)

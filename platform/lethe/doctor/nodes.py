"""Every node of the cluster: the driver's versions, the GPUs that Ray counts, and the storage of all the others."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lethe.doctor import note
from lethe.doctor.check import Check
from lethe.doctor.machine import gpus
from lethe.errors import BadInput
from lethe.objects.store import first_line
from lethe.pool.capacity import HEAD
from lethe.storage import root, store

LIMIT_S = 90.0  # a node's first task waits for the upload of lethe and for a process that starts
COMPARED = ("torch", "deepspeed", "transformers", "numpy", "safetensors", "lethe source")


def facts(where: str, name: str, word: str) -> dict[str, Any]:
    """Run on a node: its versions and GPUs, whether it reads what the driver wrote, and a file for the driver."""
    from ray import get_runtime_context

    found: dict[str, Any] = {"versions": versions(), "gpus": gpus(), "storage": ""}
    try:
        back = note.read(where, name)
        if back != word:
            found["storage"] = "what the driver writes does not arrive" if back is None else "reads something else"
        note.write(where, f"{name}-{get_runtime_context().get_node_id()}", word)
    except OSError as error:
        found["storage"] = error.strerror or first_line(error)
    return found


def versions() -> dict[str, str]:
    """Of what has to be the same everywhere for equal runs to give equal results."""
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


def checks() -> list[Check]:
    """One for each living node. The cluster is joined already."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: HEAD not in node["Resources"])
    return [Check("head" if i == 0 else f"node {i}", lambda node=node: _node(node)) for i, node in enumerate(alive)]


def check_others() -> None:
    """Raises BadInput for a living node that a study cannot use; the driver's own is not asked."""
    import ray

    def living() -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}

    def look(node: dict[str, Any]) -> None:
        try:
            _node(node)
        except BadInput:
            if node["NodeID"] in living():  # one that has left meanwhile, as idle and spot nodes do, is no mistake
                raise

    here = ray.get_runtime_context().get_node_id()
    others = [node for name, node in living().items() if name != here]
    with ThreadPoolExecutor(max(1, len(others))) as at_once:
        list(at_once.map(look, others))


def _node(node: dict[str, Any]) -> str:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where, word = root(), secrets.token_hex(8)
    mine, theirs = f".doctor-{word}", f".doctor-{word}-{node['NodeID']}"
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    address = node["NodeManagerAddress"]
    try:
        note.write(where, mine, word)
        asked = ray.remote(facts).options(num_cpus=0, scheduling_strategy=there).remote(where, mine, word)
        found = ray.get(asked, timeout=LIMIT_S)
        back = note.read(where, theirs) == word
    except ray.exceptions.GetTimeoutError:
        raise BadInput(f"{address} gives no answer within {LIMIT_S:g} s: `ray status`, and its logs, say why") from None
    except (ray.exceptions.RayError, OSError) as error:
        raise BadInput(f"{address} cannot run a task: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    finally:
        for name in (mine, theirs):
            note.remove(where, name)
    return _judged(address, node["Resources"], found, back)


def _judged(address: str, resources: dict[str, float], found: dict[str, Any], back: bool) -> str:
    """What a node said, next to what it should say."""
    here = versions()
    if other := [f"{n} {found['versions'].get(n)} (driver {here[n]})" for n in COMPARED if found["versions"].get(n) != here[n]]:
        raise BadInput(f"{address} has {', '.join(other)}: install requirements.lock there, or use the same image everywhere")
    if found["storage"] or not back:
        why = found["storage"] or "what it writes does not arrive"
        mend = "give its credentials to every node" if store() else "mount one folder on every node"
        raise BadInput(f"{address} does not share LETHE_HOME={root()} ({why}): {mend}")
    if len(found["gpus"]) < resources.get("GPU", 0):
        raise BadInput(f"{address} shows {len(found['gpus'])} GPUs, Ray counts {resources['GPU']:g}: look at nvidia-smi there")
    return f"{address}: {resources.get('CPU', 0):g} CPU, {', '.join(found['gpus']) or 'no GPU'}, our versions, our storage"

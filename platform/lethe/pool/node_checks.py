"""A note left in the storage root, to be found there by another node.

Every node of the cluster: the driver's versions, the GPUs that Ray counts, and the storage of all the others.
"""

from __future__ import annotations

import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lethe.errors import UserError
from lethe.storage.object_store import first_line
from lethe.storage.paths import root, store, store_at


def write_note(root: str, name: str, word: str) -> None:
    """OSError where that fails."""
    if objects := store_at(root):
        objects.put(name, word.encode())
    else:
        (Path(root) / name).write_text(word)


def read_note(root: str, name: str) -> str | None:
    """None where nothing arrived."""
    if objects := store_at(root):
        raw = objects.read(name)
        return None if raw is None else raw.decode()
    path = Path(root) / name
    return path.read_text() if path.exists() else None


def remove_note(root: str, name: str) -> None:
    """What is not there stays so."""
    if objects := store_at(root):
        objects.remove(name)
    else:
        (Path(root) / name).unlink(missing_ok=True)


LIMIT_S = 90.0  # a node's first task waits for the upload of lethe and for a process that starts
COMPARED = ("torch", "deepspeed", "transformers", "numpy", "safetensors", "lethe source")


def gpus() -> list[str]:
    """Names of the GPUs that the driver shows; none where there is no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        line.partition(": ")[2].partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU")
    ]


def facts(where: str, name: str, word: str) -> dict[str, Any]:
    """Run on a node: its versions and GPUs, whether it reads what the driver wrote, and a file for the driver."""
    from ray import get_runtime_context

    found: dict[str, Any] = {"versions": versions(), "gpus": gpus(), "storage": ""}
    try:
        back = read_note(where, name)
        if back != word:
            found["storage"] = "what the driver writes does not arrive" if back is None else "reads something else"
        write_note(where, f"{name}-{get_runtime_context().get_node_id()}", word)
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


def check_others() -> None:
    """Raises BadInput for a living node that a study cannot use; the driver's own is not asked."""
    import ray

    def living() -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}

    def look(node: dict[str, Any]) -> None:
        try:
            check_node(node)
        except UserError:
            if node["NodeID"] in living():  # one that has left meanwhile, as idle and spot nodes do, is no mistake
                raise

    here = ray.get_runtime_context().get_node_id()
    others = [node for name, node in living().items() if name != here]
    with ThreadPoolExecutor(max(1, len(others))) as at_once:
        list(at_once.map(look, others))


def check_node(node: dict[str, Any]) -> str:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where, word = root(), secrets.token_hex(8)
    mine, theirs = f".doctor-{word}", f".doctor-{word}-{node['NodeID']}"
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    address = node["NodeManagerAddress"]
    try:
        write_note(where, mine, word)
        asked = ray.remote(facts).options(num_cpus=0, scheduling_strategy=there).remote(where, mine, word)
        found = ray.get(asked, timeout=LIMIT_S)
        back = read_note(where, theirs) == word
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            f"{address} gives no answer within {LIMIT_S:g} s: `ray status`, and its logs, say why"
        ) from None
    except (ray.exceptions.RayError, OSError) as error:
        raise UserError(
            f"{address} cannot run a task: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from None
    finally:
        for name in (mine, theirs):
            remove_note(where, name)
    return _judged(address, node["Resources"], found, back)


def _judged(address: str, resources: dict[str, float], found: dict[str, Any], back: bool) -> str:
    """What a node said, next to what it should say."""
    here = versions()
    if other := [
        f"{n} {found['versions'].get(n)} (driver {here[n]})" for n in COMPARED if found["versions"].get(n) != here[n]
    ]:
        raise UserError(
            f"{address} has {', '.join(other)}: install requirements.lock there, or use the same image everywhere"
        )
    if found["storage"] or not back:
        why = found["storage"] or "what it writes does not arrive"
        mend = "give its credentials to every node" if store() else "mount one folder on every node"
        raise UserError(f"{address} does not share LETHE_HOME={root()} ({why}): {mend}")
    if len(found["gpus"]) < resources.get("GPU", 0):
        raise UserError(
            f"{address} shows {len(found['gpus'])} GPUs, Ray counts {resources['GPU']:g}: look at nvidia-smi there"
        )
    return (
        f"{address}: {resources.get('CPU', 0):g} CPU, {', '.join(found['gpus']) or 'no GPU'}, our versions, our storage"
    )

"""Adapters at a lower rank, for servers that refuse the rank that an adapter was saved with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lethe.models.merging import is_adapter
from lethe.models.model_files import ADAPTER, ADAPTER_CONFIG
from lethe.storage.paths import atomic_folder
from lethe.storage.replica import delete

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-12  # of float64, with room for the sums
A, B = ".lora_A.weight", ".lora_B.weight"


class Truncation(NamedTuple):
    """The error of an adapter that was cut to a lower rank: |change - kept| / |change| in the Frobenius norm, the mean
    over layers and the largest, with that layer's name."""

    mean: float
    worst: float
    layer: str


def saved_rank(folder: Path) -> int | None:
    """Return the rank of the adapter in a model folder, None for whole models and for adapters of stacked experts,
    whose factors are a set for each expert."""
    if not is_adapter(folder):
        return None
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    return None if config.get("target_parameters") else int(config["r"])


def write_at_rank(adapter: Path, target: Path, rank: int) -> Truncation:
    """Write the adapter in the folder `adapter` to `target` at a lower rank, with its tokenizer and prompt: of each
    layer's change s B A the nearest one of that rank, by its SVD. The scaling s = alpha / r stays. A folder that is
    there is replaced."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(adapter / ADAPTER, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    losses: dict[str, float] = {}
    cut: dict[str, Tensor] = {}
    for name in [name.removesuffix(A) for name in tensors if name.endswith(A)]:
        cut[name + A], cut[name + B], losses[name] = _truncated(tensors[name + A], tensors[name + B], rank)
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    alpha = config["lora_alpha"] * rank / config["r"]
    config |= {"r": rank, "lora_alpha": int(alpha) if alpha.is_integer() else alpha}
    delete(target)
    with atomic_folder(target) as folder:
        save_file(cut, folder / ADAPTER, metadata=metadata)
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for path in _others(adapter):
            shutil.copy(path, folder / path.name)
    worst = max(losses, key=lambda name: losses[name])
    return Truncation(sum(losses.values()) / len(losses), losses[worst], worst.removeprefix("base_model.model."))


def _others(adapter: Path) -> Iterator[Path]:
    for path in adapter.iterdir():
        if path.is_file() and path.name not in (ADAPTER, ADAPTER_CONFIG, "README.md"):
            yield path


def _truncated(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Return A [rank, in] and B [out, rank] of the best approximation of B A, and its relative error."""
    import torch

    # B A = Q_b (R_b R_a^T) Q_a^T: the SVD of a small matrix, and never the whole change.
    (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b.double()), torch.linalg.qr(a.double().T)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    root = s[:rank].sqrt()
    factors = root.unsqueeze(1) * (vt[:rank] @ q_a.T), q_b @ (u[:, :rank] * root)
    # Where nothing changed, A and its start cancel to rounding, of which a share would mean nothing.
    changed = s[0] > ROUNDING * a.double().norm() * b.double().norm()
    lost = (s[rank:].square().sum() / s.square().sum()).sqrt() if changed else s.new_zeros(())
    kept = [_padded(factor, rank, dim).to(a.dtype).contiguous() for dim, factor in enumerate(factors)]
    return kept[0], kept[1], float(lost)


def _padded(factor: Tensor, rank: int, dim: int) -> Tensor:
    """Return the factor with zeros up to `rank` directions: a layer may be narrower than the rank asked for."""
    import torch

    shape = list(factor.shape)
    shape[dim] = rank - shape[dim]
    return torch.cat([factor, factor.new_zeros(shape)], dim)

"""PiSSA and FILA: starts of LoRA in a layer's principal directions, in FILA of rows weighted by Fisher information.

    U S V^T = SVD(diag(w) W),   s = alpha / r,   A = sqrt(S / s) V^T,   B = diag(1/w) U sqrt(S / s)

with FILA's w (LoKU: Cha et al. 2024, arXiv 2408.06621; see `fisher`) or w = 1 (PiSSA: Meng et al. 2024, arXiv
2404.02948); docs/METHODS.md section 3.
Fisher and SVD do not depend on rank or alpha, so a study computes both once, layer by layer, keeps the directions of
its largest rank, and every trial truncates.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel

from lethe.config.adapter import Fila, Pissa
from lethe.config.base import canonical_json, short_digest
from lethe.models.adapters import Initial, target_modules, weight_of
from lethe.storage.paths import atomic_write
from lethe.storage.replica import ensure_local

# Rows that the forget data never touches have w = 0, and B holds 1/w. Assumption: any floor far below the other
# rows will do, since such a row's start is its projection on the other rows' directions, whatever the floor.
WEIGHT_FLOOR = 1e-6
EXACT_ELEMENTS = 1 << 22  # larger layers are decomposed in fp32: float64 would take minutes each
# A randomized SVD (Halko et al. 2011) of exactly r directions misses up to a fifth of the energy; 16 more and eight
# power iterations miss next to nothing.
OVERSAMPLING, ITERATIONS = 16, 8
# It is computed for the next multiple of 64 ranks: the usual ranks share one, and none depends on a study's others.
SHARED_RANKS = 64
FORMAT = 3  # part of the cache key: raise it when the numbers change


def start_factors(
    model: PreTrainedModel, config: Pissa, weights: Mapping[str, Tensor] | None = None, rank: int | None = None
) -> dict[str, Tensor]:
    """Return the factors that are cached, fp32 on the CPU, for s = 1: `NAME.A` [k, in] = sqrt(S) V^T and `NAME.B`
    [out, k] = diag(1/w) U sqrt(S), with k = `rank`, by default the config's, or fewer where the layer has no more.

    `weights` are FILA's w [out] by module; without them every row weighs the same, which is PiSSA. The first r
    directions are the same to the bit whatever `rank` is. They take 4 k (in + out) bytes a layer.
    """
    rank = rank or config.rank
    result: dict[str, Tensor] = {}
    for name in target_modules(model, config.targets):
        weight = weight_of(model.get_submodule(name)).detach()
        w = weight.new_ones(weight.shape[0]) if weights is None else weights[name].to(weight.device)
        a, b = _start_pair(weight, w, sketched_rank(config))
        # Copies: a slice alone would keep all directions of the layer alive.
        result[f"{name}.A"], result[f"{name}.B"] = a[:rank].cpu().clone(), b[:, :rank].cpu().clone()
    return result


def directions(weight: Tensor, w: Tensor, sketch: int | None = None) -> tuple[Tensor, Tensor]:
    """Return S [k] descending and V^T [k, in] of diag(w) W, for weight [out, in] and w [out].

    Exact with k = min(out, in), in float64 (fp32 for large layers), or the first `sketch` by a randomized SVD, in fp32
    and the same every time. A smaller k is a truncation of a larger one.
    """
    exact = sketch is None or sketch + OVERSAMPLING >= min(weight.shape)
    dtype = torch.float64 if exact and weight.numel() <= EXACT_ELEMENTS else torch.float32
    matrix = _positive(w.to(dtype)).unsqueeze(1) * weight.to(dtype)
    if sketch is None or exact:
        _, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return s[:sketch], vt[:sketch]
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)
        _, s, v = torch.svd_lowrank(matrix, q=sketch + OVERSAMPLING, niter=ITERATIONS)
    return s[:sketch], v.T[:sketch]


def sketched_rank(config: Pissa) -> int | None:
    """Return the number of directions that a randomized SVD keeps; None where the SVD is exact."""
    return None if config.svd == "exact" else -(-config.rank // SHARED_RANKS) * SHARED_RANKS


def truncated(cached: Mapping[str, Tensor], config: Pissa) -> Initial:
    """Return the start of one trial, (A0 [r, in], B0 [out, r]) per module: the cached factors truncated to the rank and
    divided by sqrt(s)."""
    root = config.alpha_over_rank**0.5
    names = [key.removesuffix(".A") for key in cached if key.endswith(".A")]
    return {
        name: (cached[f"{name}.A"][: config.rank] / root, cached[f"{name}.B"][:, : config.rank] / root)
        for name in names
    }


def fisher_key(model_digest: str, data_digest: str, config: Fila) -> str:
    """Return the cache key of `row_weights`, a digest of everything that determines them."""
    options = {key: value for key, value in config.model_dump().items() if key.startswith("fisher")}
    value = {"format": FORMAT, "model": model_digest, "data": data_digest, "targets": config.targets, **options}
    return f"fisher-{short_digest(canonical_json(value))}"


def factors_key(model_digest: str, data_digest: str, config: Pissa, rank: int) -> str:
    """Return the cache key of `start_factors` with `rank` directions, a digest of everything that determines them: of
    `config` neither rank nor alpha."""
    value = {
        "format": FORMAT,
        "model": model_digest,
        "fisher": fisher_key(model_digest, data_digest, config) if isinstance(config, Fila) else None,
        "targets": config.targets,
        "sketch": sketched_rank(config),
        "rank": rank,
    }
    return f"factors-{short_digest(canonical_json(value))}"


def cached(folder: Path, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors stored under `key` in `folder`, on the CPU; `compute` gives them if absent.

    One process computes while others wait for it; the file appears whole or not at all.
    """
    path = folder / f"{key}.safetensors"
    if not ensure_local(path):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{key}.lock").open("w") as lock:
            with suppress(OSError):  # a file system without locks: the work is done twice, the result is the same
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not ensure_local(path):
                atomic_write(path, save({name: t.detach().cpu().contiguous() for name, t in compute().items()}))
    return load_file(path)


def _start_pair(weight: Tensor, w: Tensor, sketch: int | None = None) -> tuple[Tensor, Tensor]:
    """Return A [k, in] and B [out, k] of one layer, fp32."""
    s, vt = directions(weight, w, sketch)
    root = s.clamp_min(s[:1] * torch.finfo(s.dtype).eps).sqrt() if s[0] > 0 else torch.ones_like(s)
    a = root.unsqueeze(1) * vt
    b = weight.to(vt.dtype) @ vt.T / root  # equals diag(1/w) U sqrt(S), and divides by no small w
    return a.float(), b.float()


def _positive(w: Tensor) -> Tensor:
    """Return w with a floor for rows without Fisher; ones where no row has any, as in PiSSA."""
    return w.clamp_min(WEIGHT_FLOOR * w.max()) if w.max() > 0 else torch.ones_like(w)

"""FILA: LoRA started where the forget rows matter more than the retain rows (LoKU, arXiv 2408.06621).

    w_i = sqrt(sum_j F_f[i, j] / (F_r[i, j] + eps)),   U S V^T = SVD(diag(w) W),   s = alpha / r,
    A = sqrt(S / s) V^T,   B = diag(1/w) U sqrt(S / s).

Fisher and SVD do not depend on rank or alpha, so a study computes both once and every trial truncates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.adapter import Fila
from lethe.config.base import canonical_json, short_digest
from lethe.data.template import Encoded
from lethe.models.adapters import FilaStart, target_modules, weight_of
from lethe.storage import atomic_write

# Rows that the forget data never touches have w = 0, and B holds 1/w. Assumption: any floor far below the other
# rows will do, since such a row's start is its projection on the other rows' directions, whatever the floor.
WEIGHT_FLOOR = 1e-6
EXACT_ELEMENTS = 1 << 22  # larger layers are decomposed in fp32: float64 would take minutes each
FORMAT = 1  # part of the cache key: raise it when the numbers change


def fisher_row_weights(
    model: PreTrainedModel,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    *,
    eps_relative: float,
    modules: Sequence[str],
) -> dict[str, Tensor]:
    """Row weights w [out] fp32 of each module, from the per-example empirical Fisher of the mean answer NLL.

    eps is `eps_relative` times the module's mean retain Fisher (as released, an absolute 1e-5, it swamps the retain
    Fisher at any real size). One backward per example; the model's weights, flags and `.grad` are left as they were.
    """
    weights = {name: model.get_submodule(name).weight for name in modules}
    inputs = {name: 0 if isinstance(model.get_submodule(name), Conv1D) else 1 for name in modules}
    with _differentiable(model, list(weights.values())):
        kept = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        for grads in _gradients(model, weights, retain):
            for name, grad in grads.items():
                kept[name].addcmul_(grad, grad, value=1 / len(retain))
        for fisher in kept.values():
            fisher.add_((eps_relative * fisher.mean()).clamp_min(torch.finfo(torch.float32).tiny))
        # Only row sums of F_f / (F_r + eps) are needed, so F_f itself is never held.
        sums = {name: kept[name].new_zeros(kept[name].shape[1 - inputs[name]]) for name in modules}
        for grads in _gradients(model, weights, forget):
            for name, grad in grads.items():
                sums[name] += grad.square().div_(kept[name]).sum(inputs[name]) / len(forget)
    return {name: total.sqrt_() for name, total in sums.items()}


def factors(weight: Tensor, w: Tensor, rank_max: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Exact SVD of diag(w) W: weight [out, in], w [out] -> U [out, k], S [k] descending, V^T [k, in].

    k = min(out, in, rank_max); a smaller k is a truncation of a larger one. Float64, or fp32 for large layers.
    """
    dtype = torch.float64 if weight.numel() <= EXACT_ELEMENTS else torch.float32
    u, s, vt = torch.linalg.svd(_positive(w.to(dtype)).unsqueeze(1) * weight.detach().to(dtype), full_matrices=False)
    k = s.shape[0] if rank_max is None else min(rank_max, s.shape[0])
    return u[:, :k], s[:k], vt[:k]


def start_factors(
    model: PreTrainedModel,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    config: Fila,
    rank_max: int | None = None,
) -> dict[str, Tensor]:
    """What is cached, fp32, for s = 1: `NAME.A` [k, in] = sqrt(S) V^T, `NAME.B` [out, k] = diag(1/w) U sqrt(S)."""
    names = target_modules(model, config.targets)
    weights = fisher_row_weights(model, forget, retain, eps_relative=config.fisher_eps, modules=names)
    result: dict[str, Tensor] = {}
    for name in names:
        a, b = _start_pair(weight_of(model.get_submodule(name)), weights[name], rank_max)
        result[f"{name}.A"], result[f"{name}.B"] = a, b
    return result


def fila_key(model_digest: str, data_digest: str, config: Fila, rank_max: int | None = None) -> str:
    """The cache's name for `start_factors`: everything that determines it, and neither rank nor alpha."""
    value = {
        "format": FORMAT,
        "model": model_digest,
        "data": data_digest,
        "rows": config.fisher_rows,
        "eps": config.fisher_eps,
        "targets": config.targets,
        "rank_max": rank_max,
    }
    return short_digest(canonical_json(value))


def fila_factors(cache_dir: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The cached factors of `key`, computed and stored if absent; the file appears whole or not at all."""
    path = cache_dir / f"{key}.safetensors"
    if not path.exists():
        tensors = {name: t.detach().cpu().contiguous() for name, t in compute().items()}
        cache_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(tensors))
    return load_file(path)


def fila_start(cached: dict[str, Tensor], config: Fila) -> FilaStart:
    """The start of one trial, (A0 [r, in], B0 [out, r]) per module: truncated to the rank, divided by sqrt(s)."""
    root = config.alpha_over_rank**0.5
    names = [key.removesuffix(".A") for key in cached if key.endswith(".A")]
    return {
        name: (cached[f"{name}.A"][: config.rank] / root, cached[f"{name}.B"][:, : config.rank] / root)
        for name in names
    }


def _start_pair(weight: Tensor, w: Tensor, rank_max: int | None) -> tuple[Tensor, Tensor]:
    """B = diag(1/w) U sqrt(S) equals W V / sqrt(S), which divides by no small w."""
    _, s, vt = factors(weight, w, rank_max)
    root = s.clamp_min(s[:1] * torch.finfo(s.dtype).eps).sqrt() if s[0] > 0 else torch.ones_like(s)
    a = root.unsqueeze(1) * vt
    b = weight.detach().to(vt.dtype) @ vt.T / root
    return a.float(), b.float()


def _positive(w: Tensor) -> Tensor:
    """Rows without Fisher get the floor; without any Fisher at all every row weighs the same, as in PiSSA."""
    return w.clamp_min(WEIGHT_FLOOR * w.max()) if w.max() > 0 else torch.ones_like(w)


def _gradients(
    model: PreTrainedModel, weights: dict[str, Tensor], rows: Sequence[Encoded]
) -> Iterator[dict[str, Tensor]]:
    """fp32 gradients of each row's mean answer NLL, row by row."""
    for row in rows:
        ids = torch.tensor([row.ids], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt_length - 1 : -1]
        loss = cross_entropy(logits.float(), ids[0, row.prompt_length :])
        grads = torch.autograd.grad(loss, list(weights.values()))
        yield {name: grad.float() for name, grad in zip(weights, grads, strict=True)}


@contextmanager
def _differentiable(model: PreTrainedModel, weights: list[Tensor]) -> Iterator[None]:
    """Evaluation mode with gradients on these weights only; flags and mode restored."""
    flags = [p.requires_grad for p in model.parameters()]
    training = model.training
    model.eval().requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for p, flag in zip(model.parameters(), flags, strict=True):
            p.requires_grad_(flag)

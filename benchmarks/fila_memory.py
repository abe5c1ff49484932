"""Bytes that FILA's start needs at a model's size, beside the model itself: counted on weights without data.

    python -m benchmarks.fila_memory [--rank 32] [--model FOLDER]

Without a folder for a Llama-3.1-8B (32 layers of width 4096). The Fisher holds F_r of one group of layers in fp32 and
the gradient of one layer in bf16 with its fp32 copy and square; the SVD one layer's matrix, U, S, V^T; the cache the
first `rank` directions of every layer. Activations of one row are not counted.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from lethe.models.adapters import target_modules, weight_of
from lethe.models.fila import EXACT_ELEMENTS
from lethe.models.fisher import layer_groups

LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--model", help="a folder with a config.json")
    args = parser.parse_args()
    config = AutoConfig.from_pretrained(args.model) if args.model else LLAMA_8B
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    names = target_modules(model, "all-linear")
    shapes = {name: weight_of(model.get_submodule(name)).shape for name in names}
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    groups = [sum(4 * sizes[name] for name in group) for group in layer_groups(model, names)]
    whole, largest = sum(sizes.values()) / 1e9, max(sizes.values()) / 1e9
    svd = max((8 if n <= EXACT_ELEMENTS else 4) * (2 * n + 2 * min(shapes[x]) ** 2) for x, n in sizes.items())
    cached = {rank: sum(4 * min(rank, *s) * sum(s) for s in shapes.values()) for rank in (args.rank, 1 << 30)}
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f}G parameters, {len(names)} layers")
    print(
        f"Fisher: F_r {max(groups) / 1e9:.2f} GB in {len(groups)} passes over the rows, gradient {10 * largest:.2f} GB"
    )
    print(f"        of all layers at once: F_r {4 * whole:.1f} GB, gradients {2 * whole:.1f} GB")
    print(f"SVD of the largest layer: {svd / 1e9:.2f} GB and LAPACK's workspace")
    print(
        f"cache: {cached[args.rank] / 1e9:.2f} GB for rank {args.rank}, {cached[1 << 30] / 1e9:.1f} GB for every rank"
    )


if __name__ == "__main__":
    main()

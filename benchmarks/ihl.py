"""IHL against cross-entropy: time and peak memory above the logits, forward and backward.

python -m benchmarks.ihl [--device cuda] [--tokens 4096] [--vocabulary 32000] [--dtype float32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lethe.unlearning.objectives.tokens import token_log_probs, token_terms


def main() -> None:
    """Print one line per loss."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    generator = torch.Generator(options.device).manual_seed(0)
    shape = (options.tokens, options.vocabulary)
    logits = torch.randn(shape, device=options.device, generator=generator).to(getattr(torch, options.dtype))
    labels = torch.randint(options.vocabulary, shape[:1], device=options.device, generator=generator)
    every = torch.ones(options.tokens, dtype=torch.bool, device=options.device)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "cross_entropy": lambda x: cross_entropy(x.float(), labels),
        "token_log_probs": lambda x: -token_log_probs(x, labels).mean(),
        "ihl": lambda x: token_terms(x, labels, every).mean(),
    }
    for loss in losses.values():
        _step(logits, loss)
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(options.repeats):  # interleaved, so that a busy machine slows all alike
        for name, loss in losses.items():
            times[name].append(_timed(logits, loss))
    base = statistics.median(times["cross_entropy"])
    for name, loss in losses.items():
        middle = statistics.median(times[name])
        mebibytes = _peak(logits, loss) / 2**20
        print(f"{name:16} {middle * 1e3:8.1f} ms  {middle / base:5.2f} x  peak above logits {mebibytes:8.1f} MiB")


def _step(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
    logits.requires_grad_()
    logits.grad = None
    loss(logits).backward()
    logits.grad = None


def _timed(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> float:
    """Seconds of one forward and backward; CPU time on a CPU, since other processes may share it."""
    on_cpu = logits.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    if not on_cpu:
        torch.cuda.synchronize()
    start = clock()
    _step(logits, loss)
    if not on_cpu:
        torch.cuda.synchronize()
    return clock() - start


def _peak(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> int:
    """Largest sum of live allocations during a step, in bytes."""
    if logits.device.type != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _step(logits, loss)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        _step(logits, loss)
    live = peak = 0
    events = (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


if __name__ == "__main__":
    main()

"""Learning rate by optimizer step: linear warm-up, then linear decay to zero."""

from __future__ import annotations

from lethe.config.schedule import Schedule


def learning_rate(step: int, total: int, peak: float, schedule: Schedule) -> float:
    """Rate of optimizer step `step` in 1..total. The last step of a decay still moves: rate peak / (total - warmup)."""
    warmup = int(schedule.warmup * total)
    if step <= warmup:
        return peak * step / warmup
    if not schedule.decay:
        return peak
    return peak * (total - step + 1) / (total - warmup)

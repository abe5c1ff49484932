"""A scaling study in sentences: for the head of the report and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from lethe.reporting.scales import setting, short
from lethe.scaling.records import LawRecord, ParallelRecord, ScalingRecord, TransferRecord


def said(record: ScalingRecord) -> list[str]:
    """What was found, one sentence or two each; what could not be found is said too."""
    found = [*map(law_said, record.laws), *map(parallel_said, record.parallel)]
    found += [*_quality(record), *map(transfer_said, record.transfer)]
    if not record.laws:
        found.append("No law was fitted: too few sizes are complete.")
    if record.interrupted:
        found.append("The study was interrupted; --resume goes on with it.")
    return found


def law_said(law: LawRecord) -> str:
    """Growth, then how the largest was predicted."""
    unit = f" {law.unit}" if law.unit else ""
    plus = f" plus {setting(law.offset)}{unit}" if law.offset > 1e-6 * min(law.y) else ""
    spread = "" if law.form == "linear" else f" (90 %: {law.exponent_low:.2f} to {law.exponent_high:.2f})"
    guess = law.held_out
    inside = "inside" if law.covered else "outside"
    return (
        f"{law.name.capitalize()}, {law.arm}: grows as {law.x_name}^{law.exponent:.2f}{spread}{plus}. Held out at"
        f" {guess.x:.3g}: predicted {short(guess.value)} ({short(guess.low)} to {short(guess.high)}), measured"
        f" {short(law.measured)}{unit}, {law.error:+.0%}, {inside} the interval."
    )


def parallel_said(found: ParallelRecord) -> str:
    """Efficiency and the serial share."""
    workers, efficiency = found.workers[-1], found.efficiency[-1]
    far = found.extrapolations[-1]
    return (
        f"{found.kind.capitalize()} scaling, stage {found.stage}: {workers} workers reach {efficiency:.0%} efficiency, a"
        f" serial share of {found.serial.value:.2f} ({found.serial.low:.2f} to {found.serial.high:.2f}); extrapolation to"
        f" {far.x:g} workers: {far.value:.1f} times one worker ({far.low:.1f} to {far.high:.1f})."
    )


def _quality(record: ScalingRecord) -> Iterator[str]:
    for search in record.searches:
        reached = f"{search.reached} of {len(search.trials)} trials reached the forget target"
        steps = "" if search.steps_to_target is None else f", first after {search.steps_to_target:g} steps"
        wins = "" if search.win_rate is None else f"; median win rate {search.win_rate:.2f}"
        yield f"{search.size}, {search.arm}, {search.forget}: hypervolume {search.hypervolume:.3f}, {reached}{steps}{wins}."


def transfer_said(found: TransferRecord) -> str:
    """Whether searching small and moving the setting paid."""
    random = found.random_score
    worse = "it did worse than" if found.score < random.low else "no different from"
    verdict = "it did better than" if found.score > random.high else worse
    moved = ", ".join(f"{key} {setting(value)}" for key, value in found.scaled.items())
    along = f" (moved along a trend: {moved})" if moved else ""
    equal = "; ".join(f"{pair} {value:+.2f}" for pair, value in found.rank_correlation.items())
    ranks = f" Rank correlation of equal settings' scores: {equal}." if equal else ""
    return (
        f"Transfer, {found.arm}: the setting found at {found.small}{along} scored {found.score:.3f} at {found.large}, at the"
        f" cost of {found.trials_for_the_same:.1f} trials there, whose best is {random.value:.3f} on average"
        f" ({random.low:.3f} to {random.high:.3f} for {random.x:g}): {verdict} searching there.{ranks}"
    )

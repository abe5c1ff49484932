"""Rows of unequal length side by side in packs: a batch of packs has hardly any padding."""

from __future__ import annotations

from collections.abc import Sequence


def pack_rows(lengths: Sequence[int], hidden_size: int | None) -> list[list[int]]:
    """Return the row numbers of each pack, so that a forward pass over packs as wide as the longest costs least.

    `hidden_size` is the model's: attention, whose cost grows with the square of a pack, costs a third of all else in a
    pack twice as wide as that. None: every row is a pack of its own.
    """
    alone = [[i] for i in range(len(lengths))]
    if hidden_size is None or not lengths:
        return alone
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best, least = alone, _cost(alone, lengths, hidden_size)
    for count in range(len(lengths) - 1, 0, -1):
        packs = _balanced(longest_first, lengths, count)
        if (cost := _cost(packs, lengths, hidden_size)) < least:
            best, least = packs, cost
    return best


def padded_tokens(packs: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Return packs x widest pack: the tokens of the batch, padding included."""
    return len(packs) * max((sum(lengths[i] for i in pack) for pack in packs), default=0)


def _cost(packs: Sequence[Sequence[int]], lengths: Sequence[int], hidden_size: int) -> float:
    tokens = padded_tokens(packs, lengths)
    return tokens * (1 + tokens / len(packs) / (6 * hidden_size))


def _balanced(longest_first: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Return `count` packs, each row in the one that is shortest when its turn comes."""
    packs: list[list[int]] = [[] for _ in range(count)]
    filled = [0] * count
    for i in longest_first:
        shortest = filled.index(min(filled))
        packs[shortest].append(i)
        filled[shortest] += lengths[i]
    return packs

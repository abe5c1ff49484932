"""The sides of points on which their labels stand, so that no label covers another.

`place_labels` decides once for several sizes of a drawing: a page does not know how wide its window is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER = 0.62  # of the height of the font, on the average
AROUND = ((-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0))  # clockwise
MARK = 5.0  # the radius of a point that has no label

Side = tuple[int, int]  # right of the point (1), left (-1) or neither (0); likewise below, above or neither
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y), shares of the drawing's width and height from its upper left corner; `reach` is its
    distance from the point, to each side."""

    name: int | str
    text: str
    x: float
    y: float
    reach: float


@dataclass(frozen=True)
class Frame:
    """A size of a drawing, and the height of its letters, in one unit."""

    width: float
    height: float
    font: float = 12

    def box(self, label: Label, side: Side) -> Box:
        """Return the rectangle of a label on this side of its point."""
        size = (self.font * CHARACTER * len(label.text), self.font)
        point = (label.x * self.width, label.y * self.height)
        (left, right), (top, bottom) = (
            (
                at + toward * label.reach - (1 - toward) / 2 * length,
                at + toward * label.reach + (1 + toward) / 2 * length,
            )
            for at, toward, length in zip(point, side, size, strict=True)
        )
        return left, top, right, bottom

    def point(self, x: float, y: float) -> Box:
        """Return the rectangle of a mark."""
        x, y = x * self.width, y * self.height
        return x - MARK, y - MARK, x + MARK, y + MARK


def place_labels(
    labels: Sequence[Label], marks: Sequence[tuple[float, float]], frames: Sequence[Frame], first: Side
) -> dict[int | str, Side]:
    """Return the side of each label by its name, without the labels for which no side is free in every frame.

    The labels come by importance. Of the free sides it is the one that covers fewest of the `marks`, points as in
    `Label`, and leaves the drawing least; of equal ones the nearest to the side `first`.
    """
    turn = AROUND.index(first)
    sides = sorted(AROUND, key=lambda side: min((AROUND.index(side) - turn) % 8, (turn - AROUND.index(side)) % 8))
    taken: list[list[Box]] = [[] for _ in frames]
    placed: dict[int | str, Side] = {}
    for label in labels:
        costs: dict[Side, int] = {}
        for side in sides:
            boxes = [frame.box(label, side) for frame in frames]
            if not any(_meet(box, other) for box, others in zip(boxes, taken, strict=True) for other in others):
                costs[side] = sum(_cost(box, frame, marks) for box, frame in zip(boxes, frames, strict=True))
        if costs:
            placed[label.name] = side = min(costs, key=lambda side: costs[side])
            for frame, others in zip(frames, taken, strict=True):
                others.append(frame.box(label, side))
    return placed


def _cost(box: Box, frame: Frame, marks: Sequence[tuple[float, float]]) -> int:
    left, top, right, bottom = box
    outside = sum((left < 0, top < 0, right > frame.width, bottom > frame.height))
    return 2 * outside + sum(_meet(box, frame.point(x, y)) for x, y in marks)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

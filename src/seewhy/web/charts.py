"""Where the lines of the radar chart go. Drawn as SVG in the template."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from seewhy.web.scores import ScoresPage

__all__ = ["Axis", "Radar", "Shape", "radar"]

RADIUS = 100.0
LEAST = 3  # axes, to make an area
LINE, AIR = 13.0, 4.0  # of the names, whose letters are 10.5 high
LONGEST = 18  # letters of a line


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis: the end of its line, where the lines of its name stand, and from where they are written."""

    metric: str
    end: tuple[float, float]
    lines: list[tuple[str, float, float]]
    anchor: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An explainer: its corners, and whether they are all of them (else the line stays open); baselines are chance."""

    explainer: str
    number: int
    style: str
    points: list[tuple[float, float]]
    closed: bool
    missing: list[str]
    baseline: bool


@dataclass(frozen=True, kw_only=True)
class Radar:
    """The chart: its centre is (0, 0), 1 is 100 away; ``box`` (left, top, width, height) has all names in it."""

    box: tuple[float, float, float, float]
    axes: list[Axis]
    shapes: list[Shape]
    left_out: list[str]


def radar(page: ScoresPage) -> Radar | None:
    """Metrics as axes, 1 at the rim the better end; None where there are too few with two ends."""
    rows = [row for row in page.metrics if row.weighable]
    left_out = [row.metric for row in page.metrics if not row.weighable]
    if len(rows) < LEAST:
        return None
    directions = [_direction(at, len(rows)) for at in range(len(rows))]
    axes = [_axis(row.metric, direction) for row, direction in zip(rows, directions, strict=True)]
    shapes = []
    for at, head in enumerate(page.heads):
        units = [row.cells[at].unit for row in rows]
        points = [
            (RADIUS * unit * x, RADIUS * unit * y)
            for unit, (x, y) in zip(units, directions, strict=True)
            if unit is not None
        ]
        missing = [row.metric for row, unit in zip(rows, units, strict=True) if unit is None]
        shapes.append(
            Shape(
                explainer=head.explainer, number=head.number, style=head.style, points=points, closed=not missing,
                missing=missing, baseline=head.baseline,
            )
        )  # fmt: skip
    shapes.sort(key=lambda shape: not shape.baseline)  # chance is drawn first, below all others
    return Radar(box=_box(axes), axes=axes, shapes=shapes, left_out=left_out)


def _direction(at: int, of: int) -> tuple[float, float]:
    angle = 2 * math.pi * at / of - math.pi / 2
    return math.cos(angle), math.sin(angle)


def _axis(metric: str, direction: tuple[float, float]) -> Axis:
    x, y = direction
    anchor = "middle" if abs(x) < 0.1 else "start" if x > 0 else "end"
    lines = _wrapped(metric)
    first = 112 * y - LINE * (len(lines) - 1) * (0.5 if abs(y) < 0.9 else 1.0 if y < 0 else 0.0)
    placed = [(text, 112 * x, first + LINE * at + 4) for at, text in enumerate(lines)]
    return Axis(metric=metric, end=(RADIUS * x, RADIUS * y), lines=placed, anchor=anchor)


def _wrapped(name: str) -> list[str]:
    """A name in lines of at most `LONGEST` letters, broken after the signs that names are made of; nothing is cut."""
    lines = [""]
    for piece in (part for part in re.split(r"(?<=[_(,./=\- ])", name) if part):
        if lines[-1] and len(lines[-1]) + len(piece) > LONGEST:
            lines.append("")
        lines[-1] += piece
    return [line[at : at + LONGEST] for line in lines for at in range(0, len(line) or 1, LONGEST)]


def _width(letter: str) -> float:
    """Returns the most that a text may be wide in the fonts that browsers take."""
    if letter in "MWm@%" or unicodedata.east_asian_width(letter) in "WF":
        return 10.8
    return 8.8 if letter.isupper() or letter == "w" else 6.9


def _box(axes: list[Axis]) -> tuple[float, float, float, float]:
    """What has the whole chart in it: the circle, and every line of every name at its full length."""
    left = top = -RADIUS - AIR
    right = bottom = RADIUS + AIR
    for axis in axes:
        for text, x, y in axis.lines:
            length = sum(map(_width, text))
            start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[axis.anchor] * length
            left, right = min(left, start - AIR), max(right, start + length + AIR)
            top, bottom = min(top, y - LINE - AIR), max(bottom, y + AIR)
    return left, top, right - left, bottom - top

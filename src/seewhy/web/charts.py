"""Where the lines of the radar chart go. Drawn as SVG in the template."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seewhy.web.scores import ScoresPage

__all__ = ["Axis", "Radar", "Shape", "radar"]

RADIUS = 100.0
LEAST = 3  # axes, to make an area


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis: the end of its line, where its name stands, and from where the name is written."""

    metric: str
    end: tuple[float, float]
    name: tuple[float, float]
    anchor: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An explainer: its corners, and whether they are all of them (else the line stays open)."""

    explainer: str
    number: int
    points: list[tuple[float, float]]
    closed: bool
    missing: list[str]


@dataclass(frozen=True, kw_only=True)
class Radar:
    """The chart; its centre is (0, 0), 1 is 100 away from it."""

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
    for number, explainer in enumerate(page.explainers):
        units = [row.cells[number].unit for row in rows]
        points = [
            (RADIUS * unit * x, RADIUS * unit * y)
            for unit, (x, y) in zip(units, directions, strict=True)
            if unit is not None
        ]
        missing = [row.metric for row, unit in zip(rows, units, strict=True) if unit is None]
        shapes.append(
            Shape(explainer=explainer, number=number, points=points, closed=not missing, missing=missing)
        )  # fmt: skip
    return Radar(axes=axes, shapes=shapes, left_out=left_out)


def _direction(at: int, of: int) -> tuple[float, float]:
    angle = 2 * math.pi * at / of - math.pi / 2
    return math.cos(angle), math.sin(angle)


def _axis(metric: str, direction: tuple[float, float]) -> Axis:
    x, y = direction
    anchor = "middle" if abs(x) < 0.1 else "start" if x > 0 else "end"
    return Axis(metric=metric, end=(RADIUS * x, RADIUS * y), name=(112 * x, 112 * y + 4), anchor=anchor)

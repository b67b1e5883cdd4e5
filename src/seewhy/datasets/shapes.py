"""Textured shapes on textured backgrounds, with the exact mask of each: images whose right explanation is known.

    data = Shapes(seed=7, size=(64, 96))
    data[12].pixels            # (64, 96, 3) uint8, the same bytes whichever images were drawn before
    data[12].masks             # (6, 64, 96) bool, one for each class
    data.background(12)        # the same image without its shapes: equal outside of all masks

A class is an outline and a texture (`NAMES`). Colours are drawn alike for every class, all outlines have the same area,
both colours of a texture cover about half of it: neither colour nor size gives the class away. The shapes of an image
are of different classes, do not touch each other and lie wholly inside the image. A pixel belongs to a shape when its
centre lies inside the outline; edges are not blended, so a mask is exact.

Lengths are in units: one unit is the image's shorter side / 64, a pixel at the usual size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from seewhy.errors import InvalidInput

__all__ = ["NAMES", "Batch", "Picture", "Shape", "Shapes"]

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_RADIUS = (8.0, 12.5)  # of the disc with the shape's area, in units
_PERIOD = (6.0, 9.0)  # of the textures, in units
_LEAST = 32  # pixels a side; below, textures are finer than the pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """One shape of an image.

    Attributes:
        label: its class, an index into `NAMES`.
        mask: (H, W), true on its pixels.
    """

    label: int
    mask: Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image and what is on it.

    Attributes:
        pixels: (H, W, 3) RGB.
        shapes: in the order in which they were drawn; each of another class.
    """

    pixels: Pixels
    shapes: tuple[Shape, ...]

    @property
    def labels(self) -> Mask:
        """(6,): which classes are on the image."""
        return np.isin(np.arange(len(NAMES)), [shape.label for shape in self.shapes])

    @property
    def masks(self) -> Mask:
        """(6, H, W): where each class is; nowhere for a class that is not on the image."""
        found = np.zeros((len(NAMES), *self.pixels.shape[:2]), dtype=bool)
        for shape in self.shapes:
            found[shape.label] = shape.mask
        return found


class Batch(NamedTuple):
    """Several images of one size.

    Attributes:
        pixels: (N, H, W, 3) RGB.
        labels: (N, 6), which classes are on each.
        masks: (N, 6, H, W), where each class is.
    """

    pixels: Pixels
    labels: Mask
    masks: Mask


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """An endless set of images with one to three shapes each.

    Image i depends on i and on the attributes alone; iteration goes 0, 1, 2, ... and never stops.

    Attributes:
        seed: not negative.
        size: height and width in pixels, each at least 32.
        most: the largest number of shapes on an image, 1 to 3.
    """

    seed: int = 0
    size: tuple[int, int] = (64, 64)
    most: int = 3

    def __post_init__(self) -> None:
        if not _is_count(self.seed):
            raise InvalidInput(f"seed must be an integer that is not negative, got {self.seed!r}.")
        if len(self.size) != 2 or not all(_is_count(side) and side >= _LEAST for side in self.size):
            raise InvalidInput(
                f"size must be (height, width), integers of at least {_LEAST} pixels, got {self.size!r}."
            )
        if not _is_count(self.most) or not 1 <= self.most <= 3:
            raise InvalidInput(f"most must be 1, 2 or 3 shapes a picture, got {self.most!r}.")

    def __getitem__(self, index: int) -> Picture:
        """Returns the image of this number.

        Raises:
            InvalidInput: the number is negative or no integer.
        """
        values, rng = self._ground(index), self._generator(index, 1)
        labels = rng.permutation(len(NAMES))[: rng.integers(1, self.most + 1)]
        places = _places(rng, [_CLASSES[label] for label in labels], self.size)
        shapes = tuple(_draw(rng, values, int(label), place) for label, place in zip(labels, places, strict=True))
        return Picture(pixels=_to_bytes(values), shapes=shapes)

    def background(self, index: int) -> Pixels:
        """(H, W, 3): the image of this number without its shapes."""
        return _to_bytes(self._ground(index))

    def batch(self, indices: Iterable[int]) -> Batch:
        """Returns the images of these numbers, stacked."""
        found = [self[index] for index in indices]
        return Batch(
            np.stack([one.pixels for one in found]),
            np.stack([one.labels for one in found]),
            np.stack([one.masks for one in found]),
        )

    def _ground(self, index: int) -> Floats:
        return _background(self._generator(index, 0), self.size)

    def _generator(self, index: int, part: int) -> Generator:
        """Background and shapes have generators of their own, so that neither changes the other."""
        if not _is_count(index):
            raise InvalidInput(f"A picture's number must be an integer that is not negative, got {index!r}.")
        return np.random.default_rng([self.seed, int(index), part])


# --------------------------------------------------------------------------------------------------------- outlines

# Each takes the pixels' (x, y) from the shape's centre, in units of the radius of the disc with the same area.
Outline = Callable[[Floats, Floats], Mask]


def _polygon(corners: int) -> Outline:
    """Returns a regular polygon of area pi."""
    apothem = np.sqrt(np.pi / (corners * np.tan(np.pi / corners)))

    def inside(x: Floats, y: Floats) -> Mask:
        found: Mask = _folded(x, y, corners)[0] <= apothem
        return found

    return inside


def _star(x: Floats, y: Floats) -> Mask:
    """Five points, the inner corners at half the outer radius."""
    across, along = _folded(x, y, 5)  # the fold's axis runs through an inner corner
    outer = np.sqrt(np.pi / (2.5 * np.sin(np.pi / 5)))
    tip = outer * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    inner = outer / 2
    found: Mask = (across - inner) * tip[1] <= np.abs(along) * (tip[0] - inner)
    return found


def _cross(x: Floats, y: Floats) -> Mask:
    """Arms as wide as they are long."""
    arm = np.sqrt(np.pi / 20)
    near, far = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    found: Mask = (near <= arm) & (far <= 3 * arm)
    return found


def _disc(x: Floats, y: Floats) -> Mask:
    found: Mask = x**2 + y**2 <= 1
    return found


def _folded(x: Floats, y: Floats, times: int) -> tuple[Floats, Floats]:
    """Turned into the first of so many equal sectors: (along its axis, across it)."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    sector = 2 * np.pi / times
    angle = angle - sector * np.round(angle / sector)
    return radius * np.cos(angle), radius * np.sin(angle)


# --------------------------------------------------------------------------------------------------------- textures

# Each takes (x, y) in periods and gives a wave in -1..1, about half of it above 0.
Texture = Callable[[Floats, Floats], Floats]


def _wave(t: Floats) -> Floats:
    found: Floats = np.cos(2 * np.pi * t)
    return found


def _stripes(x: Floats, y: Floats) -> Floats:
    return _wave(x)


def _checks(x: Floats, y: Floats) -> Floats:
    return 2 * _wave(x / 1.5) * _wave(y / 1.5)


def _dots(x: Floats, y: Floats) -> Floats:
    """Discs on a square lattice that cover half of it."""
    distance = np.hypot(x - np.round(x), y - np.round(y))
    found: Floats = 4 * (np.sqrt(0.5 / np.pi) - distance)
    return found


def _rings(x: Floats, y: Floats) -> Floats:
    return _wave(np.hypot(x, y))


def _rays(x: Floats, y: Floats) -> Floats:
    return _wave(7 * np.arctan2(y, x) / (2 * np.pi))


def _zigzag(x: Floats, y: Floats) -> Floats:
    return _wave(x + np.abs(y / 1.6 - np.round(y / 1.6)) * 1.6)


class _Class(NamedTuple):
    """A class, and how far its outline reaches from the centre."""

    name: str
    outline: Outline
    texture: Texture
    reach: float


_CLASSES = (
    _Class("striped disc", _disc, _stripes, 1.0),
    _Class("checked square", _polygon(4), _checks, 1.26),
    _Class("dotted triangle", _polygon(3), _dots, 1.56),
    _Class("ringed star", _star, _rings, 1.47),
    _Class("rayed hexagon", _polygon(6), _rays, 1.10),
    _Class("zigzag cross", _cross, _zigzag, 1.26),
)
NAMES = tuple(one.name for one in _CLASSES)


# ---------------------------------------------------------------------------------------------------------- drawing


class _Place(NamedTuple):
    y: float
    x: float
    radius: float


def _places(rng: Generator, kinds: list[_Class], size: tuple[int, int]) -> list[_Place]:
    """Where the shapes lie, in pixels: apart from each other, and smaller where there is little room."""
    unit = min(size) / 64
    found: list[tuple[_Place, float]] = []
    for kind in kinds:
        radius = rng.uniform(*_RADIUS) * unit
        while True:
            reach = radius * kind.reach
            y, x = (rng.uniform(reach, side - reach) for side in size)
            if all(np.hypot(y - p.y, x - p.x) > reach + other + unit for p, other in found):
                break
            radius *= 0.98
        found.append((_Place(y, x, radius), reach))
    return [place for place, _ in found]


def _draw(rng: Generator, values: Floats, label: int, place: _Place) -> Shape:
    """Paints a shape over the image."""
    height, width = values.shape[:2]
    turn, period = rng.uniform(0, 2 * np.pi), rng.uniform(*_PERIOD) * min(height, width) / 64
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = y - place.y, x - place.x
    y, x = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    kind = _CLASSES[label]
    mask = kind.outline(x / place.radius, y / place.radius)
    one, two = _colours(rng)
    share = np.clip(0.5 + kind.texture(x / period, y / period), 0, 1)[mask, None]
    values[mask] = one + (two - one) * share + rng.normal(0, 0.03, (int(mask.sum()), 1))
    return Shape(label=label, mask=mask)


def _colours(rng: Generator) -> tuple[Floats, Floats]:
    """Two colours far apart; either of them is any colour with the same chance."""
    one = rng.random(3)
    return one, (one + rng.uniform(0.35, 0.65, 3)) % 1


def _background(rng: Generator, size: tuple[int, int]) -> Floats:
    """(H, W, 3): blotches of all sizes between two colours, with grain."""
    unit = min(size) / 64
    one, two = _colours(rng)
    octaves = [_blotches(rng, size, cell * unit) * np.sqrt(cell) for cell in (32, 16, 8, 4)]
    share = 0.5 + sum(octaves, np.zeros(size)) / 12
    values: Floats = one + (two - one) * np.clip(share, 0, 1)[..., None]
    return values + rng.normal(0, 0.03, (*size, 1))


def _blotches(rng: Generator, size: tuple[int, int], cell: float) -> Floats:
    """(H, W) in -1..1: random numbers on a grid with this distance, smooth in between."""
    grid = rng.uniform(-1, 1, (int(size[0] / cell) + 2, int(size[1] / cell) + 2))
    (top, down), (left, right) = (_steps(side, cell) for side in size)
    rows = grid[top] * (1 - down)[:, None] + grid[top + 1] * down[:, None]
    found: Floats = rows[:, left] * (1 - right) + rows[:, left + 1] * right
    return found


def _steps(side: int, cell: float) -> tuple[NDArray[np.intp], Floats]:
    """For each pixel the grid point before it, and how far it has gone to the next, eased."""
    at = (np.arange(side) + 0.5) / cell
    before = np.floor(at)
    t = at - before
    return before.astype(np.intp), t * t * (3 - 2 * t)


def _to_bytes(values: Floats) -> Pixels:
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)

"""The square windows of a hierarchical search: their sides and steps in each layer, and where they stand in a field."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from seewhy.checks import check_count, is_count
from seewhy.errors import InvalidInput

__all__ = ["Box", "Layer", "check", "plan", "within"]

SMALLEST = 28  # pixels: smaller windows show textures rather than parts, so they have to be asked for
MOST = 3  # layers, unless more are asked for

Box = tuple[int, int, int, int]
"""x, y, width, height in input pixels."""


class Layer(NamedTuple):
    """The windows of one layer: side and step in pixels."""

    window: int
    stride: int


def check(window: Any, stride: Any, num_layers: Any) -> None:
    """Raises InvalidInput unless the three have one of the documented forms and agree with each other."""
    for name, value in (("window", window), ("stride", stride)):
        values = value if isinstance(value, tuple | list) else (value,)
        if value is not None and not (values and all(map(is_count, values))):
            raise InvalidInput(f"{name} must be a positive integer or a tuple of them, one a layer, got {value!r}.")
    if num_layers is not None:
        check_count("num_layers", num_layers)
    if isinstance(window, tuple | list):
        if any(after >= before for before, after in pairwise(window)):
            raise InvalidInput(f"window must get smaller from layer to layer, got {window!r}.")
        if num_layers not in (None, len(window)):
            raise InvalidInput(f"window has {len(window)} layers, num_layers is {num_layers}. One of them is enough.")


def plan(
    size: tuple[int, int], window: int | Sequence[int] | None, stride: int | Sequence[int] | None,
    num_layers: int | None,
) -> tuple[Layer, ...]:  # fmt: skip
    """Returns the layers for images of ``size`` (H, W), the coarsest first.

    Raises:
        InvalidInput: the image is too small, or windows and steps do not fit it or each other.
    """
    sides = tuple(window) if isinstance(window, Sequence) else _halved(min(size), window, num_layers)
    if sides[0] > min(size):
        raise InvalidInput(f"window {sides[0]} is larger than the picture, {size}.")
    steps = _steps(sides, stride)
    for side, step in zip(sides, steps, strict=True):
        if step > side:
            raise InvalidInput(f"stride {step} is larger than window {side}: some pixels would never be covered.")
    return tuple(Layer(*pair) for pair in zip(sides, steps, strict=True))


def within(field: Box, layer: Layer) -> list[Box]:
    """Returns the windows inside a field, columns outer and rows inner; the last of each ends at the field's border."""
    x, y, width, height = field
    columns, rows = (_starts(length, layer) for length in (width, height))
    return [(x + right, y + down, layer.window, layer.window) for right in columns for down in rows]


def _halved(short: int, window: int | None, num_layers: int | None) -> tuple[int, ...]:
    """Sides from the first on, each half of the one before; how many follows from SMALLEST unless it is given."""
    first = short // 2 if window is None else window
    if num_layers is None:
        if window is None and first < SMALLEST:
            raise InvalidInput(
                f"The picture's short side is {short} px; windows of {SMALLEST} px take {2 * SMALLEST}. Enlarge the "
                f"picture, or ask for smaller windows: window={max(1, first)}."
            )
        return first, *(side for side in (first // 2**k for k in range(1, MOST)) if side >= SMALLEST)
    if first >> (num_layers - 1) == 0:
        raise InvalidInput(f"num_layers={num_layers} halves a window of {first} px to nothing.")
    return tuple(first // 2**k for k in range(num_layers))


def _steps(sides: tuple[int, ...], stride: int | Sequence[int] | None) -> tuple[int, ...]:
    if stride is None:
        return tuple(max(1, side // 5) for side in sides)
    steps = tuple(stride) if isinstance(stride, Sequence) else (stride,) * len(sides)
    if len(steps) != len(sides):
        raise InvalidInput(f"stride has {len(steps)} layers, there are {len(sides)}: windows {sides}.")
    return steps


def _starts(length: int, layer: Layer) -> list[int]:
    last = length - layer.window
    return [*range(0, last, layer.stride), last]

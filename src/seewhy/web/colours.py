"""Colour maps as tables for the browser's own filters, so that another colouring needs no request.

A table has 86 steps, the browser interpolates between them: within 2/255 of the colour map in every channel.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cmap

from seewhy.draw.overlay import DIVERGING

__all__ = ["COLOUR_MAPS", "DEFAULT", "SIGNED", "Colours", "alpha", "tables"]

DEFAULT = "inferno"
SIGNED = "signed"
COLOUR_MAPS = {
    "inferno": ("inferno", "Inferno"),
    "viridis": ("viridis", "Viridis"),
    "magma": ("magma", "Magma"),
    "cividis": ("cividis", "Cividis (for colour-blind eyes)"),
    "batlow": ("crameri:batlow", "Batlow"),
    "grey": ("matlab:gray", "Grey"),
    SIGNED: (DIVERGING, "Signed, every map: blue below 0, red above"),
}
STEPS = 86


class Colours(NamedTuple):
    """A colour map: its name, what people read, and the values of each channel."""

    name: str
    title: str
    red: str
    green: str
    blue: str


@cache
def tables() -> tuple[Colours, ...]:
    """All colour maps that the pages offer."""
    return tuple(Colours(name, title, *_channels(known)) for name, (known, title) in COLOUR_MAPS.items())


def _channels(known: str) -> list[str]:
    found = cmap.Colormap(known).lut(STEPS)
    return [" ".join(f"{value:.3f}" for value in found[:, channel]) for channel in range(3)]


def alpha(threshold: int, *, signed: bool, overlay: bool) -> str:
    """How much of a map's colour covers the picture, for each of 256 values, as the browser's filter wants it.

    Laid over a picture it is value ** 0.75, so that details stay visible where little matters; alone it is 1. Below
    ``threshold`` (percent of the largest value; of the largest magnitude where the map is signed) it is 0.
    """
    found = []
    for step in range(256):
        value = abs(step / 127.5 - 1) if signed else step / 255
        strength = value**0.75 if overlay else 1.0
        found.append(strength if value * 100 >= threshold else 0.0)
    return " ".join(f"{one:.3f}".rstrip("0").rstrip(".") for one in found)

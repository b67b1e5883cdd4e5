"""Which values the first and the last colour of a map stand for: the one rule of all images, pages and notebooks.

    sequential    from the map's lowest value to its white point
    signed        from minus to plus the white point, 0 in the middle: where values are for or against, and those below
                  0 have at least a tenth of the size of the strongest value
    score         from 0 to 1
    faint         the white point is four times as far away: a map that shows nothing looks like nothing

The white point is the strongest value; of maps with more than 32 x 32 cells the 99.5th percentile, because a pixel's
detail leaves few values far above all others. It is found at the map's own resolution, so that a map has one scale
wherever it is drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seewhy.plain import Meaning, is_flat

__all__ = ["CLIP", "FAINT", "MANY", "Scale", "scale_of", "white"]

CLIP = 99.5  # percentile
MANY = 1024  # cells: maps with more than 32 x 32 are clipped
FAINT = 0.25  # how far a map that shows nothing goes along its colours
AGAINST = 0.1  # of the strongest value: a negative part of this size is clear
_BOTH_SIGNS = ("change", "part", "slope", "unknown")


class Scale(NamedTuple):
    """The scale of one map.

    Attributes:
        low: the value of the first colour.
        high: the value of the last colour.
        signed: whether 0 stands in the middle, so that the first colour is against and the last one for.
        clipped: whether some values lie beyond an end.
    """

    low: float
    high: float
    signed: bool = False
    clipped: bool = False

    @classmethod
    def of(
        cls, low: float, high: float, top: float | None = None, *, meaning: str = "size", faint: bool = False,
        signed: bool | None = None,
    ) -> Scale:  # fmt: skip
        """Returns the scale of a map of which these are known.

        Args:
            low: its lowest value.
            high: its highest value.
            top: its white point, as `white` gives it, where that is not the strongest value.
            meaning: what its values are; see `seewhy.plain.Meaning`.
            faint: whether it shows nothing.
            signed: whether both signs are shown; None for what the map and its meaning say.
        """
        strongest, both = max(abs(low), abs(high)), _is_signed(low, high, meaning)
        signed = both if signed is None else signed
        further = 1 / FAINT if faint else 1.0
        if signed:
            peak = strongest if top is None else abs(top) if both else max(abs(low), abs(top))
            return cls(-peak * further, peak * further, True, peak < strongest and not faint)
        if meaning == "score":
            return cls(0.0, 1.0)
        last = high if top is None or not low < top < high else top
        return cls(low, low + (last - low) * further, False, last < high and not faint)

    @property
    def words(self) -> tuple[str, str]:
        """What the two ends mean, in a word each."""
        return ("against", "for") if self.signed else ("least", "most")

    def places(self, values: Any) -> NDArray[np.float32]:
        """Where values lie between the ends, 0 to 1; on a signed scale 0.5 is 0. A flat map is all 0, or all 0.5."""
        span = np.float64(self.high) - self.low
        if is_flat(self.low, self.high):
            return np.full(np.shape(values), 0.5 if self.signed else 0.0, dtype=np.float32)
        found = (np.asarray(values, dtype=np.float64) - self.low) / span
        return found.clip(0, 1).astype(np.float32)


def _is_signed(low: float, high: float, meaning: str) -> bool:
    """Says whether values are for or against, and a clear part of them is against."""
    return meaning in _BOTH_SIGNS and low < 0 and -low >= AGAINST * max(high, -low) and not is_flat(low, high)


def white(values: NDArray[np.float32], meaning: str = "size", *, clip: float | None = None) -> float | None:
    """Returns the white point of a map (h, w) where it is not the strongest value; on a signed scale a magnitude.

    Args:
        values: of the map, at its own resolution.
        meaning: what they are.
        clip: a percentile of one's own, which then holds for maps of every size.
    """
    if clip is None and values.size <= MANY:
        return None
    both = _is_signed(float(values.min()), float(values.max()), meaning)
    shown = np.abs(values) if both else values
    top = float(np.percentile(shown, CLIP if clip is None else clip))
    return top if shown.min() < top < shown.max() else None


def scale_of(values: NDArray[np.float32], meaning: Meaning = "size", *, faint: bool = False) -> Scale:
    """Returns the scale of a map (h, w) whose values are at hand."""
    return Scale.of(float(values.min()), float(values.max()), white(values, meaning), meaning=meaning, faint=faint)

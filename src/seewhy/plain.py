"""What is said of boxes, maps and tensors without torch, so that the parts which only read and draw start fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLAT", "NOTHING", "Box", "Meaning", "TensorLike", "Values", "array_of", "class_name", "for_json", "is_flat",
    "readable",
]  # fmt: skip

Box = tuple[float, float, float, float]

Meaning = Literal["change", "part", "level", "alone", "slope", "size", "score", "unknown"]
"""What the raw values of an explainer's map are.

    change     by how much the score falls or rises; 0 is no effect (Occlusion)
    part       what a place contributes; the values add up to a change of the score (IntegratedGradients)
    level      a score that was seen; only differences within the map count (TIS)
    alone      the score when a place alone is shown; only differences count, and they add up (ReciproCAM)
    slope      how steeply the score rises with the pixel (Gradient): no unit that maps of two networks share
    size       how strong something is, never for or against (HSIC, ActivationMap)
    score      a score in [0, 1], which means the same in every map (InstanceMaps)
    unknown    a method that does not say
"""

NOTHING = "map that shows nothing"  # the kind of the notes by which maps are drawn faint
FLAT = 1e-6  # a map that spans less of its largest value than this is flat but for rounding


def is_flat(low: float, high: float) -> bool:
    """Says whether a map with these extremes says nothing: one value everywhere, but for rounding."""
    return not high - low > FLAT * max(abs(low), abs(high))


def class_name(label: int, names: Sequence[str] | None, word: str = "class") -> str:
    """What a class is called: its name where there is one, else ``word`` and its index."""
    return names[label] if names and 0 <= label < len(names) else f"{word} {label}"


def readable(text: str) -> str:
    """Returns the text as valid Unicode: names of files may hold bytes that are none, which no file of rows takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def for_json(value: Any) -> Any:
    """Returns a value of dictionaries, lists and plain values as JSON has it: numbers that are not finite are null.

    Example:
        >>> for_json({"low": float("nan"), "samples": ("a", 1.5)})
        {'low': None, 'samples': ['a', 1.5]}
    """
    if isinstance(value, dict):
        return {name: for_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorLike(Protocol):
    """What is asked of a tensor of torch where torch itself is not imported."""

    def detach(self) -> Self:
        """Returns the same values without their history."""
        ...

    @property
    def shape(self) -> Any:
        """The lengths of the dimensions."""
        ...


Values = TensorLike | NDArray[Any]


def array_of(values: Any) -> NDArray[Any]:
    """Returns the values of a tensor, of any device, or of anything like an array as numpy has them.

    Half and other short floats of a tensor become float32, because numpy does not know all of them.
    """
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor)

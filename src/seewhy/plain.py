"""What is said of boxes, maps and tensors without torch, so that the parts which only read and draw start fast."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLAT", "Box", "TensorLike", "Values", "array_of", "is_flat"]

Box = tuple[float, float, float, float]

FLAT = 1e-6  # a map that spans less of its largest value than this is flat but for rounding


def is_flat(low: float, high: float) -> bool:
    """Whether a map with these extremes says nothing: one value everywhere, but for rounding."""
    return not high - low > FLAT * max(abs(low), abs(high))


class TensorLike(Protocol):
    """What is asked of a tensor of torch where torch itself is not imported."""

    def detach(self) -> Self:
        """The same values without their history."""
        ...

    @property
    def shape(self) -> Any:
        """The lengths of the dimensions."""
        ...


Values = TensorLike | NDArray[Any]


def array_of(values: Any) -> NDArray[Any]:
    """The values of a tensor, of any device, or of anything like an array as numpy has them.

    Half and other short floats of a tensor become float32, because numpy does not know all of them.
    """
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return np.asarray(tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor)

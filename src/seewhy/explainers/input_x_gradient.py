"""InputXGradient: the part of the class's logit that each pixel contributes, to first order.

    map(i, j) = sum over channels of  x(:, i, j) * d logit_c / d x(:, i, j)

For a network that is linear in its input the map adds up to the logit without its bias. It is measured from an input of
zeros: a pixel that is 0 (after normalisation: of the mean colour) contributes nothing, whatever it shows.

Source: Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation
Differences", 2016 (arXiv 1605.01713).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.explainers._pixel_gradient import PixelGradient, Reduce
from seewhy.plain import Meaning

__all__ = ["InputXGradient"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InputXGradient(PixelGradient):
    """Each pixel times the gradient of the class's logit there, signed (Shrikumar 2016).

    Example:
        >>> InputXGradient(network).attribute(inputs, 1).shape  # signed
        torch.Size([2, 1, 32, 32])
    """

    reduce: Reduce = "sum"

    values: ClassVar[Meaning] = "part"
    caution: ClassVar[str] = (
        "Multiplied by the picture: far from the mean colour looks important, whatever the network."
    )

    def _told(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        return gradient * inputs.float()

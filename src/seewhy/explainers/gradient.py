"""Gradient: how much each pixel would change the class's logit, to first order.

    map(i, j) = max over channels of | d logit_c / d x(:, i, j) |

Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013 (arXiv 1312.6034).
"""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.explainers._pixel_gradient import PixelGradient

__all__ = ["Gradient"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gradient(PixelGradient):
    """Sensitivity of the class's logit to each pixel (Simonyan 2013).

    Example:
        >>> Gradient(network)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

"""Gradient: how much each pixel would change the class's logit, to first order.

    map(i, j) = max over channels of | d logit_c / d x(:, i, j) |

Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013 (arXiv 1312.6034).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._pixel_gradient import Reduce, check_reduce, pixel_gradients
from seewhy.models import GradientModel
from seewhy.targets import Request

__all__ = ["Gradient"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gradient(Explainer):
    """Sensitivity of the class's logit to each pixel (Simonyan 2013).

    Attributes:
        reduce: how the channels become one map: "max_abs", "sum" or "mean_abs".
    """

    reduce: Reduce = "max_abs"

    needs: ClassVar[type] = GradientModel
    pixelwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduce(self.reduce)

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        return pixel_gradients(model, inputs, request, self.reduce)

"""Deconvolution: the class's signal sent back through a network turned round.

    backward through a ReLU with input a:  g becomes g * [g > 0], whatever a was

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._pixel_gradient import Reduce, check_reduce, pixel_gradients
from seewhy.explainers._relu_rules import put_rule
from seewhy.models import GradientModel
from seewhy.targets import Request
from seewhy.types import Note

__all__ = ["Deconvolution"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Deconvolution(Explainer):
    """Signal sent back through ReLUs that pass what is positive on the way down (Zeiler and Fergus 2013).

    Attributes:
        reduce: how the channels become one map: "max_abs", "sum" or "mean_abs".
        allow_other_activations: differentiate activations without a ReLU rule as they are, instead of raising.
    """

    reduce: Reduce = "max_abs"
    allow_other_activations: bool = False

    needs: ClassVar[type] = GradientModel
    pixelwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduce(self.reduce)

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        def prepare(values: Tensor) -> list[Note]:
            return put_rule(values, "deconvolution", "Deconvolution", self.allow_other_activations)

        return pixel_gradients(model, inputs, request, self.reduce, prepare=prepare)

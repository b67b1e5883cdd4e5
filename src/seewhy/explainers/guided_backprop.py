"""Guided backpropagation: the gradient through paths that excite the class at every ReLU.

    backward through a ReLU with input a:  g becomes g * [a > 0] * [g > 0]

Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014 (arXiv 1412.6806).
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

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GuidedBackprop(Explainer):
    """Gradient that follows only exciting paths through the ReLUs (Springenberg 2014).

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
            return put_rule(values, "guided", "GuidedBackprop", self.allow_other_activations)

        return pixel_gradients(model, inputs, request, self.reduce, prepare=prepare)

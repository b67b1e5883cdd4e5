"""Deconvolution: the class's signal sent back through a network turned round.

    backward through a ReLU with input a:  g becomes g * [g > 0], whatever a was

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.explainers._relu_rules import ReLURule, Rule

__all__ = ["Deconvolution"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Deconvolution(ReLURule):
    """Signal sent back through ReLUs that pass what is positive on the way down (Zeiler and Fergus 2013).

    Example:
        >>> Deconvolution(network)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    rule: ClassVar[Rule] = "deconvolution"

"""Guided backpropagation: the gradient through paths that excite the class at every ReLU.

    backward through a ReLU with input a:  g becomes g * [a > 0] * [g > 0]

Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014 (arXiv 1412.6806).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.explainers._relu_rules import ReLURule, Rule

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GuidedBackprop(ReLURule):
    """Gradient that follows only exciting paths through the ReLUs (Springenberg 2014).

    Example:
        >>> GuidedBackprop(network)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    rule: ClassVar[Rule] = "guided"

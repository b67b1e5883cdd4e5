"""Backward rules for ReLU that differ from the derivative, put in place of it in the graph of one forward pass.

    derivative       g * [a > 0]
    guided           g * [a > 0] * [g > 0]      (Springenberg et al. 2014)
    deconvolution    g * [g > 0]                (Zeiler and Fergus 2013)

The rules hang on the nodes of the graph that a pass has left, not on modules: functional, in-place and shared ReLUs are
all covered, the network is not touched, and the rules go with the graph. The same search finds activations without
such a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from seewhy.errors import NoReLURule
from seewhy.explainers._pixel_gradient import PixelGradient
from seewhy.models import Activations, Gradients
from seewhy.types import Note

__all__ = ["ReLURule", "Rule", "put_rule"]

_NO_SWITCHES = (
    "The network has no max pooling, through which alone Deconvolution sees the picture (its rule ignores what the "
    "ReLUs let through): the map hardly depends on the picture, or not at all."
)
_OTHER = {
    "GeluBackward": "GELU", "SiluBackward": "SiLU", "HardswishBackward": "Hardswish", "MishBackward": "Mish",
    "EluBackward": "ELU", "LeakyReluBackward": "LeakyReLU", "PreluKernelBackward": "PReLU", "GluBackward": "GLU",
    "SoftplusBackward": "Softplus", "TanhBackward": "Tanh", "RreluWithNoiseBackward": "RReLU",
    "LogSigmoidBackward": "LogSigmoid", "ClampBackward": "clamp", "ClampMinBackward": "clamp",
    "MaximumBackward": "maximum", "SoftshrinkBackward": "Softshrink", "HardshrinkBackward": "Hardshrink",
    "HardtanhBackward": "Hardtanh", "ThresholdBackward": "Threshold",
}  # fmt: skip


Rule = Literal["guided", "deconvolution"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ReLURule(PixelGradient):
    """The gradient under another rule for the way back through ReLUs.

    A class names its rule (``rule``).

    Attributes:
        allow_other_activations: differentiate activations without a ReLU rule as they are, instead of raising.
    """

    allow_other_activations: bool = False

    rule: ClassVar[Rule]
    caution: ClassVar[str] = (
        "Follows the edges of the picture: hardly depends on the class or the weights (Adebayo 2018)."
    )

    def _prepare(self, found: Gradients) -> list[Note]:
        return put_rule(found, self.rule, type(self).__name__, self.allow_other_activations)


def put_rule(found: Gradients, rule: Rule, method: str, allow_other: bool) -> list[Note]:
    """Puts the rule on every ReLU and ReLU6 between the picture and the scores.

    Args:
        found: what will be differentiated.
        rule: "guided" or "deconvolution".
        method: the explainer's name, for messages.
        allow_other: differentiate activations without a rule as they are.

    Returns:
        What the reader of the map should know.

    Raises:
        NoReLURule: there are such activations and they are not allowed, or there is no ReLU at all.
    """
    seen = _hooked(found.values, rule) if found.rule is None else found.rule(rule)
    if not allow_other:
        _check(list(seen.others), seen.relu, method)
    blind = rule == "deconvolution" and not seen.pools
    return [Note(text=_NO_SWITCHES, kind="same for every picture")] if blind else []


def _hooked(values: Tensor, rule: Rule) -> Activations:
    """Puts the rule into torch's graph, which goes with it; says which activations are there."""
    nodes = list(_nodes(values))
    relus = [n for n in nodes if _is_relu(n)]
    for node in relus:
        node.register_hook(_guided if rule == "guided" else _deconvolution)
    others = tuple(sorted({title for n in nodes if (title := _other(n))}))
    return Activations(relu=bool(relus), others=others, pools=any("MaxPool" in n.name() for n in nodes))


def _guided(downward: tuple[Tensor, ...], _upward: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    downward[0].relu_()  # in place: nobody else holds what the node has just made, and memory is what the rule costs
    return downward


def _deconvolution(downward: tuple[Tensor, ...], upward: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    torch.clamp_min(upward[0], 0, out=downward[0])
    return downward


def _nodes(values: Tensor) -> Iterator[Any]:
    seen, waiting = set[Any](), [values.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(n for n, _ in node.next_functions)


def _is_relu(node: Any) -> bool:
    name = node.name()
    if name.startswith("HardtanhBackward"):
        return bool(node._saved_min_val == 0)  # ReLU6 and its kin; Hardtanh itself is no ReLU
    if name.startswith("ThresholdBackward"):
        return bool(node._saved_threshold == 0)
    return bool(name.startswith("ReluBackward"))


def _other(node: Any) -> str | None:
    """What people call an activation without a rule, or None for every other operation."""
    if _is_relu(node):
        return None
    if isinstance(node, BackwardCFunction):
        return f"the custom function {type(node).__name__.removesuffix('Backward')}"
    return next((title for prefix, title in _OTHER.items() if node.name().startswith(prefix)), None)


def _check(others: list[str], has_relu: bool, method: str) -> None:
    if others:
        raise NoReLURule(
            f"{method} is defined for ReLU; the network also has {', '.join(others)}. Use Gradient, GradCAM or "
            "ReciproCAM, or pass allow_other_activations=True to differentiate these as they are."
        )
    if not has_relu:
        raise NoReLURule(
            f"{method} is defined for ReLU, and the network has none. Use Gradient, GradCAM or ReciproCAM, or pass "
            "allow_other_activations=True for the plain gradient."
        )

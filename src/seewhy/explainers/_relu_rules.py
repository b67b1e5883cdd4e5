"""Backward rules for ReLU that differ from the derivative, put in place of it while a gradient runs.

    derivative       g * [a > 0]
    guided           g * [a > 0] * [g > 0]      (Springenberg et al. 2015)
    deconvolution    g * [g > 0]                (Zeiler and Fergus 2014)

A dispatch mode rewrites torch's own backward operations, so modules, functional calls, in-place and shared ReLUs are
all covered and the network is not touched. Before that, the graph is searched for activations without such a rule.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.errors import NoReLURule

__all__ = ["ReLURule", "check_activations"]

aten = torch.ops.aten
_RELU = {"ReluBackward", "HardtanhBackward", "ThresholdBackward", "Relu6Backward"}
_OTHER = {
    "GeluBackward": "GELU", "SiluBackward": "SiLU", "HardswishBackward": "Hardswish", "MishBackward": "Mish",
    "EluBackward": "ELU", "LeakyReluBackward": "LeakyReLU", "PreluKernelBackward": "PReLU", "GluBackward": "GLU",
    "SoftplusBackward": "Softplus", "TanhBackward": "Tanh", "RreluWithNoiseBackward": "RReLU",
    "LogSigmoidBackward": "LogSigmoid", "ClampBackward": "clamp", "ClampMinBackward": "clamp",
    "MaximumBackward": "maximum", "SoftshrinkBackward": "Softshrink", "HardshrinkBackward": "Hardshrink",
}  # fmt: skip


class ReLURule(TorchDispatchMode):
    """Applies a rule to every ReLU and ReLU6 that is differentiated inside the block."""

    def __init__(self, rule: Literal["guided", "deconvolution"]) -> None:
        super().__init__()
        self.guided = rule == "guided"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The rule in place of the derivative; everything else as it is."""
        if func is aten.threshold_backward.default or func is aten.hardtanh_backward.default:
            return self._apply(func, args)
        return func(*args, **(kwargs or {}))

    def _apply(self, func: Any, args: Any) -> Tensor:
        gradient: Tensor = args[0]
        return torch.relu(func(*args)) if self.guided else torch.relu(gradient)


def check_activations(values: Tensor, method: str, allow_other: bool) -> None:
    """Searches the graph above ``values`` for activations that have no rule.

    Raises:
        NoReLURule: one was found and is not allowed, or there is no ReLU at all.
    """
    names = _operations(values)
    others = sorted({title for prefix, title in _OTHER.items() if any(n.startswith(prefix) for n in names)})
    if allow_other:
        return
    if others:
        raise NoReLURule(
            f"{method} is defined for ReLU; the network also has {', '.join(others)}. Use Gradient, GradCAM or "
            f"ReciproCAM, or pass allow_other_activations=True to differentiate these as they are."
        )
    if not any(n.startswith(prefix) for n in names for prefix in _RELU):
        raise NoReLURule(
            f"{method} is defined for ReLU, and the network has none. Use Gradient, GradCAM or ReciproCAM, or pass "
            "allow_other_activations=True for the plain gradient."
        )


def _operations(values: Tensor) -> set[str]:
    seen, names, waiting = set[Any](), set[str](), [values.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.add(node.name())
        waiting.extend(n for n, _ in node.next_functions)
    return names

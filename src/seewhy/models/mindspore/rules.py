"""Other rules for the way back through ReLUs: the operations of a backward pass are run here one by one.

guided           g * [a > 0] * [g > 0]      what the derivative gives, without its negative part
deconvolution    g * [g > 0]                the incoming gradient, without its negative part
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from seewhy.models import Activations
from seewhy.models.mindspore.library import dispatched

__all__ = ["activations", "under"]

_RELUS = {"ReLU", "ReLU6"}
_BACK = {"ReluGrad", "ReLU6Grad"}  # (gradient of the output, what went in or came out)
_OTHERS = {
    "ClampScalar": "clamp", "ClampTensor": "clamp", "CeLU": "CELU", "Elu": "ELU", "EluExt": "ELU", "Erf": "GELU",
    "FastGeLU": "GELU", "GeLU": "GELU", "GeluExt": "GELU", "GLU": "GLU", "HShrink": "HShrink", "HSwish": "HSwish",
    "Hardtanh": "Hardtanh", "LeakyReLUExt": "LeakyReLU", "Log": "log", "LogSigmoid": "LogSigmoid",
    "Maximum": "maximum", "Minimum": "minimum", "Mish": "Mish", "MishExt": "Mish", "PReLU": "PReLU", "RReLU": "RReLU",
    "Select": "a choice by value", "SeLU": "SELU", "SeLUExt": "SELU", "SiLU": "SiLU", "SoftShrink": "SoftShrink",
    "Softplus": "Softplus", "SoftplusExt": "Softplus", "Softsign": "Softsign", "Swiglu": "SwiGLU", "Tanh": "Tanh",
    "Threshold": "Threshold",
}  # fmt: skip


def activations(operations: list[str]) -> Activations:
    """Which kinds of activations are among a cell's operations."""
    return Activations(
        relu=any(op in _RELUS for op in operations),
        others=tuple(sorted({_OTHERS[op] for op in operations if op in _OTHERS})),
        pools=any(op.startswith("MaxPool") for op in operations),
    )


def under(rule: str) -> AbstractContextManager[None]:
    """Lets the ReLUs of a backward pass follow the rule, for a block."""

    def handle(name: str, run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name not in _BACK:
            return run(*args)
        from mindspore import ops

        return ops.relu(run(*args) if rule == "guided" else args[0])

    return dispatched(handle)

"""Records what a network does after a layer, to see whether its head is a mean over positions and a linear layer.

The record is made by a dispatch mode in the same forward pass, so it costs nothing extra and says what really ran on
this input, functional code included.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.models import PooledLinear
from seewhy.models.torch.parts import tensors_in

__all__ = ["Tape"]

aten = torch.ops.aten
_SAME = {aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.clone.default, aten.detach.default,
         aten.alias.default, aten.squeeze.dims, aten.squeeze.dim, aten.flatten.using_ints}  # fmt: skip
_WHOLE = {aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default}


@dataclass
class Tape(TorchDispatchMode):
    """A dispatch mode that follows one tensor through mean, reshape and linear, and gives up at anything else.

    Attributes:
        spatial: the dimensions of the positions in the followed tensor.
    """

    spatial: tuple[int, ...] = (2, 3)
    linear: PooledLinear | None = field(default=None, init=False)
    _pooled: list[Tensor] = field(default_factory=list, init=False)
    _logits: list[Tensor] = field(default_factory=list, init=False)
    _maps: Tensor | None = field(default=None, init=False)
    _broken: bool = field(default=False, init=False)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler for the first pass (three seconds), which has nothing to say here."""
        return "torch._dynamo" in sys.modules

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def follow(self, maps: Tensor) -> None:
        """Starts (again) at the layer's output."""
        self._maps, self._pooled, self._logits = maps, [], []
        self.linear, self._broken = None, False

    def head(self, scores: Tensor) -> PooledLinear | None:
        """The head, if everything from the followed tensor to ``scores`` (N, K) was a mean and one linear layer."""
        reached = any(scores is t or _same_memory(scores, t) for t in self._logits)
        return self.linear if reached and not self._broken else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes what it did to the followed tensor."""
        result = func(*args, **(kwargs or {}))
        if not self._broken and self._maps is not None:
            self._note(func, args, kwargs or {}, result)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        touched = tensors_in(args, kwargs)  # lists of tensors, too
        if any(a is self._maps for a in touched):
            self._pool(func, args, result)
        elif any(_is_in(a, self._pooled) for a in touched):
            self._after_pool(func, args, kwargs, result)
        elif any(_is_in(a, self._logits) for a in touched):
            self._keep(func, args, result, self._logits)

    def _pool(self, func: Any, args: Any, result: Any) -> None:
        assert self._maps is not None
        if func is aten.detach.default or func is aten.alias.default:
            return
        rank = self._maps.ndim
        dims = {d % rank for d in args[1]} if func is aten.mean.dim and args[1] else set()
        first = self.spatial == tuple(range(2, rank))
        whole = first and func in _WHOLE and set(args[1]) == {1}
        if dims == set(self.spatial) or whole:
            self._pooled.append(result)
        else:
            self._broken = True

    def _after_pool(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        if func is aten.addmm.default and not kwargs and _is_in(args[1], self._pooled):
            self._found(args[2].t(), args[0], result)
        elif func is aten.mm.default and _is_in(args[0], self._pooled):
            self._found(args[1].t(), None, result)
        elif func is aten.linear.default and _is_in(args[0], self._pooled):
            self._found(args[1], args[2] if len(args) > 2 else None, result)
        else:
            self._keep(func, args, result, self._pooled)

    def _keep(self, func: Any, args: Any, result: Any, into: list[Tensor]) -> None:
        if func in _SAME and result.numel() == args[0].numel() and result.shape[0] == args[0].shape[0]:
            into.append(result)
        else:
            self._broken = True

    def _found(self, weight: Tensor, bias: Tensor | None, result: Tensor) -> None:
        if self.linear is not None or (bias is not None and bias.ndim != 1):
            self._broken = True
            return
        self.linear = PooledLinear(weight=weight.detach(), bias=None if bias is None else bias.detach())
        self._logits.append(result)


def _is_in(tensor: Any, group: list[Tensor]) -> bool:
    return any(tensor is t for t in group)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.stride() == b.stride() and a.data_ptr() == b.data_ptr()

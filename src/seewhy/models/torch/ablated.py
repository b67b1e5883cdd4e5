"""Feature maps of which one channel is set to 0, for many channels at once, without being written out.

    head(A with A_k = 0) begins with  W (A - A_k) + b = (W A + b) - W_k A_k

Where what follows a layer begins with linear operations (a mean over positions, flattening, a linear layer, a
convolution with kernels of one pixel), these are run once for the maps as they are, and what each channel adds is taken
away. `Ablated` stands in the maps' place and does so with the operations that it knows; at any other operation it
becomes the maps written out, as they are at that point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Ablated"]


class _Source:
    """Maps of N images, and what operations made of them; shared by all rows.

    Attributes:
        maps: (N, C, ...) as they are.
        made: results by operation, so that they are worked out once.
    """

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self.made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns what was made for the key, or is made now."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


class Ablated(Tensor):
    """R copies of maps, row r that of image ``rows[r]`` without channel ``channels[r]``.

    Attributes:
        source: the maps.
        rows: (R,).
        channels: (R,).
        flat: whether it stands for rows of numbers, (R, C h w), instead of maps.
    """

    source: _Source
    rows: Tensor
    channels: Tensor
    flat: bool

    @staticmethod
    def of(maps: Tensor, rows: Tensor, channels: Tensor, known: dict[int, Any]) -> Ablated:
        """Returns the stand-in for maps (N, C, h, w).

        Args:
            maps: as they are.
            rows: (R,).
            channels: (R,).
            known: keeps what is worked out, as long as the caller keeps it and the maps.
        """
        source = known.setdefault(id(maps), _Source(maps))
        return _ablated(source, rows, channels, False)

    def written(self) -> Tensor:
        """Returns the maps, written out."""
        found = self.source.maps[self.rows]
        found[torch.arange(len(self.rows), device=found.device), self.channels] = 0
        return found.flatten(1) if self.flat else found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operations that it knows on the maps as they are, all others on what it stands for."""
        kwargs = kwargs or {}
        if func in _ASKED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        own = args[0] if args else None
        handler = _KNOWN.get(func)
        if handler is not None and isinstance(own, Ablated):
            found = handler(own, *args[1:], **kwargs)
            if found is not NotImplemented:
                return found
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Runs an operation on what it stands for."""
        plain, named = pytree.tree_map_only(Ablated, Ablated.written, (args, kwargs or {}))
        return func(*plain, **named)


def _ablated(source: _Source, rows: Tensor, channels: Tensor, flat: bool) -> Ablated:
    size = (len(rows), *source.maps.shape[1:])
    shape = (size[0], source.maps[0].numel()) if flat else size
    found: Ablated = Tensor._make_wrapper_subclass(Ablated, shape, dtype=source.maps.dtype, device=source.maps.device)
    found.source, found.rows, found.channels, found.flat = source, rows, channels, flat
    return found


def _same(own: Ablated, *_args: Any, **_kwargs: Any) -> Any:
    return own


def _dropout(own: Ablated, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return own if not training else NotImplemented


def _flatten(own: Ablated, start_dim: int = 0, end_dim: int = -1) -> Any:
    if own.flat or start_dim != 1 or end_dim not in (-1, own.ndim - 1):
        return NotImplemented
    return _ablated(own.source, own.rows, own.channels, True)


def _view(own: Ablated, *shape: Any) -> Any:
    wanted = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else list(shape)
    numbers = own.source.maps[0].numel()
    if own.flat or len(wanted) != 2 or wanted[0] != len(own.rows) or wanted[1] not in (-1, numbers):
        return NotImplemented
    return _ablated(own.source, own.rows, own.channels, True)


def _pooled(own: Ablated, size: Any) -> Any:
    sides = size if isinstance(size, list | tuple) else (size, size)
    if own.flat or own.ndim != 4 or any(side != 1 for side in sides):
        return NotImplemented
    source = own.source.once("pooled", lambda: _Source(F.adaptive_avg_pool2d(own.source.maps, 1)))
    return _ablated(source, own.rows, own.channels, False)


def _mean(own: Ablated, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    dims = sorted(d % own.ndim for d in (dim if isinstance(dim, list | tuple) else (dim,))) if dim is not None else []
    if own.flat or own.ndim != 4 or dims != [2, 3] or kwargs:
        return NotImplemented
    pooled = _pooled(own, 1)
    return pooled if keepdim else _ablated(pooled.source, own.rows, own.channels, True)


def _linear(own: Ablated, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not own.flat or type(weight) not in (Tensor, torch.nn.Parameter):
        return NotImplemented
    maps = own.source.maps.flatten(2)

    def make() -> tuple[Tensor, Tensor]:
        parts = weight.view(len(weight), maps.shape[1], -1)
        each = torch.stack([torch.einsum("okp,kp->ko", parts, one) for one in maps])
        return F.linear(maps.flatten(1), weight, bias), each

    whole, each = own.source.once(("linear", id(weight), id(bias)), make)
    return whole[own.rows] - each[own.rows, own.channels]


def _conv(
    own: Ablated, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    plain = tuple(weight.shape[2:]) == (1, 1) and groups == 1 and not isinstance(padding, str)
    if own.flat or own.ndim != 4 or not plain or {*_pair(stride)} != {1} or {*_pair(padding)} != {0}:
        return NotImplemented
    whole = own.source.once(("conv", id(weight), id(bias)), lambda: F.conv2d(own.source.maps, weight, bias))
    kernels, taken = weight[:, :, 0, 0].t()[own.channels], own.source.maps[own.rows, own.channels]
    base = whole if len(whole) == 1 else whole[own.rows]
    return torch.addcmul(base, kernels[:, :, None, None], taken.unsqueeze(1), value=-1)


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_ASKED = {
    Tensor.shape.__get__, Tensor.ndim.__get__, Tensor.dtype.__get__, Tensor.device.__get__, Tensor.size, Tensor.dim,  # type: ignore[attr-defined]
    Tensor.is_floating_point, torch.is_floating_point, Tensor.requires_grad.__get__, Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
    Tensor.numel, Tensor.__len__, Tensor.is_inference, Tensor.layout.__get__, Tensor.is_sparse.__get__,  # type: ignore[attr-defined]
}  # fmt: skip
_KNOWN: dict[Any, Callable[..., Any]] = {
    F.dropout: _dropout, Tensor.contiguous: _same, Tensor.detach: _same,
    torch.flatten: _flatten, Tensor.flatten: _flatten, Tensor.view: _view, Tensor.reshape: _view,
    F.adaptive_avg_pool2d: _pooled, torch.mean: _mean, Tensor.mean: _mean, F.linear: _linear,
    torch.conv2d: _conv, F.conv2d: _conv,
}  # fmt: skip

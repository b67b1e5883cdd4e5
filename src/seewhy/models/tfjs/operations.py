"""TensorFlow's operations as torch modules, as far as image networks exported to TensorFlow.js use them.

Images are (N, h, w, C) as in TensorFlow. Padding "SAME" puts the odd pixel at the end: with n pixels, window k
(dilated) and stride s it adds max((ceil(n / s) - 1) s + k - n, 0) pixels, half of them, rounded down, before.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidInput

__all__ = ["KNOWN", "Node", "operation", "static_inputs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """A node of a GraphDef.

    Attributes:
        name: unique in the graph.
        op: TensorFlow's name of the operation.
        inputs: (node, output number) pairs.
        attributes: as the JSON has them.
        batched: whether the first dimension of its first input counts images.
    """

    name: str
    op: str
    inputs: tuple[tuple[str, int], ...]
    attributes: Mapping[str, Any]
    batched: bool = True

    def whole(self, name: str) -> list[int]:
        """Returns a list of whole numbers."""
        return [int(v) for v in self.attributes.get(name, {}).get("list", {}).get("i", [])]

    def number(self, name: str, default: float) -> float:
        """Reads one number."""
        return float(self.attributes.get(name, {}).get("f", default))

    def flag(self, name: str) -> bool:
        """Says whether it is set."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def text(self, name: str, default: str) -> str:
        """Returns a string, which GraphDefs keep as base64."""
        found = self.attributes.get(name, {}).get("s")
        return default if found is None else base64.b64decode(found).decode()

    def texts(self, name: str) -> list[str]:
        """Returns a list of strings."""
        return [base64.b64decode(s).decode() for s in self.attributes.get(name, {}).get("list", {}).get("s", [])]

    def refuse(self, what: str) -> InvalidInput:
        """Returns the error for something that is not read."""
        return InvalidInput(f"Node {self.name!r} of the graph ({self.op}) has {what}, which seewhy does not read.")


def static_inputs(node: Node) -> tuple[int, ...]:
    """Which of a node's inputs must be constants: weights, sizes, axes."""
    places = _OPERATIONS[node.op][1]
    return tuple(sorted(p % len(node.inputs) for p in places if -len(node.inputs) <= p < len(node.inputs)))


def operation(node: Node, statics: list[Tensor]) -> nn.Module:
    """Returns the module that takes the node's other inputs.

    Raises:
        InvalidInput: a variant of the operation that is not read.
    """
    if node.text("data_format", "NHWC") not in ("NHWC", ""):
        raise node.refuse(f"data_format {node.text('data_format', '')}")
    return _OPERATIONS[node.op][0](node, *statics)


class _Apply(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Any) -> Any:
        return self.function(*values)


def _apply(function: Callable[..., Any]) -> Callable[..., nn.Module]:
    return lambda _node: _Apply(function)


def _ints(values: Tensor) -> list[int]:
    return [int(v) for v in values.flatten().tolist()]


# ------------------------------------------------------------------------------------------------- windows


def _beside(size: int, window: int, stride: int) -> tuple[int, int]:
    """Pixels that "SAME" adds before and after."""
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _margins(x: Tensor, window: list[int], stride: list[int]) -> tuple[int, int, int, int]:
    """Returns the margins of images (N, C, h, w) as F.pad takes them."""
    above, below = _beside(x.shape[2], window[0], stride[0])
    left, right = _beside(x.shape[3], window[1], stride[1])
    return left, right, above, below


def _padding(node: Node) -> bool:
    padding = node.text("padding", "VALID")
    if padding not in ("SAME", "VALID"):
        raise node.refuse(f"padding {padding}")
    return padding == "SAME"


class _Convolution(nn.Module):
    """(N, h, w, C) -> (N, h', w', C'); the convolution itself is `conv`, on (N, C, h, w)."""

    def __init__(self, node: Node, weight: Tensor, bias: Tensor | None, groups: int, after: nn.Module | None) -> None:
        super().__init__()
        out, own, *window = weight.shape
        stride, dilation = node.whole("strides")[1:3], (node.whole("dilations") or [1, 1, 1, 1])[1:3]
        self.same, self.stride = _padding(node), stride
        self.window = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
        self.conv = nn.Conv2d(
            own * groups, out, (window[0], window[1]), (stride[0], stride[1]), dilation=(dilation[0], dilation[1]),
            groups=groups, bias=bias is not None,
        )  # fmt: skip
        self.conv.weight = nn.Parameter(weight.contiguous())
        if bias is not None:
            self.conv.bias = nn.Parameter(bias)
        self.after = after if after is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        x = F.pad(x, _margins(x, self.window, self.stride)) if self.same else x
        found: Tensor = self.after(self.conv(x))
        return found.permute(0, 2, 3, 1)


def _convolution(node: Node, weight: Tensor, *fused: Tensor) -> nn.Module:
    """Weights (h, w, C, C'); for the depthwise ones (h, w, C, multiplier)."""
    depthwise = "Depthwise" in node.op
    groups = weight.shape[2] if depthwise else 1
    own = weight.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else weight.permute(3, 2, 0, 1)
    steps = node.texts("fused_ops")
    if len(fused) != len(steps[:1]) or steps[:1] not in ([], ["BiasAdd"]) or len(steps) > 2:
        raise node.refuse(f"fused_ops {' '.join(steps)}")
    if steps[1:] and steps[1] not in _ACTIVATIONS:
        raise node.refuse(f"fused_ops {' '.join(steps)}")
    after = _activation(node, steps[1]) if steps[1:] else None
    return _Convolution(node, own, fused[0] if fused else None, groups, after)


class _Pool(nn.Module):
    """Maximum or mean over windows; margins are no values."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.largest, self.same = node.op == "MaxPool", _padding(node)
        self.window, self.stride = node.whole("ksize")[1:3], node.whole("strides")[1:3]

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        margins = _margins(x, self.window, self.stride) if self.same else (0, 0, 0, 0)
        if self.largest:
            found = F.max_pool2d(F.pad(x, margins, value=-math.inf), self.window, self.stride)
        else:
            mean = partial(F.avg_pool2d, kernel_size=self.window, stride=self.stride)
            found = mean(F.pad(x, margins)) / mean(F.pad(torch.ones_like(x[:1, :1]), margins))
        return found.permute(0, 2, 3, 1)


# ------------------------------------------------------------------------------------------------- sizes


def _resize(node: Node, size: Tensor) -> nn.Module:
    height, width = _ints(size)
    corners, centres = node.flag("align_corners"), node.flag("half_pixel_centers")
    if node.op == "ResizeBilinear":
        function = (
            partial(F.interpolate, size=(height, width), mode="bilinear", align_corners=corners)
            if corners or centres
            else partial(_resize_from_corner, size=(height, width))
        )
    elif corners:
        raise node.refuse("align_corners")
    else:
        function = partial(F.interpolate, size=(height, width), mode="nearest-exact" if centres else "nearest")
    return _Apply(partial(_channels_first, function=function))


def _channels_first(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _resize_from_corner(x: Tensor, size: tuple[int, int]) -> Tensor:
    """TensorFlow 1's bilinear: output pixel i lies at i n / m, not at the centres' place."""
    rows, columns = (_weights(n, m).to(x) for n, m in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def _weights(n: int, m: int) -> Tensor:
    """(m, n) matrix that interpolates n pixels at the places 0, n / m, 2 n / m, ..."""
    places = torch.arange(m, dtype=torch.float64) * n / m
    low = places.floor().long()
    share = (places - low)[:, None]
    eye = torch.eye(n, dtype=torch.float64)
    return (1 - share) * eye[low] + share * eye[(low + 1).clamp(max=n - 1)]


def _pad(_node: Node, paddings: Tensor, value: Tensor | None = None) -> nn.Module:
    margins = [side for pair in reversed(paddings.reshape(-1, 2).tolist()) for side in pair]
    return _Apply(partial(F.pad, pad=margins, value=0.0 if value is None else float(value)))


def _reshape(node: Node, shape: Tensor) -> nn.Module:
    wanted = _ints(shape)
    return _Apply(partial(_reshaped, shape=wanted, keep=node.batched and wanted[:1] == [1]))


def _reshaped(x: Tensor, shape: list[int], keep: bool) -> Tensor:
    return x.reshape([x.shape[0], *shape[1:]] if keep else shape)  # a traced network keeps the size


def _transpose(_node: Node, order: Tensor) -> nn.Module:
    return _Apply(partial(torch.permute, dims=_ints(order)))


def _concat(_node: Node, axis: Tensor) -> nn.Module:
    return _Apply(partial(_joined, axis=int(axis)))


def _joined(*values: Tensor, axis: int) -> Tensor:
    return torch.cat(values, axis)


def _split(_node: Node, sizes: Tensor, axis: Tensor) -> nn.Module:
    return _Apply(partial(torch.split, split_size_or_sections=_ints(sizes), dim=int(axis)))


def _mean(node: Node, axes: Tensor) -> nn.Module:
    return _Apply(partial(torch.mean, dim=_ints(axes), keepdim=node.flag("keep_dims")))


def _sparse_to_dense(indices: Tensor, shape: Tensor, values: Tensor, default: Tensor) -> Tensor:
    dense = default.expand(_ints(shape)).clone()
    dense[tuple(indices.long().reshape(-1, dense.ndim).T)] = values
    return dense


# ------------------------------------------------------------------------------------------------- the table

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Elu": nn.ELU, "Relu": nn.ReLU, "Relu6": nn.ReLU6, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh,
    "LeakyRelu": nn.LeakyReLU,
}  # fmt: skip


def _activation(node: Node, name: str = "") -> nn.Module:
    if (name or node.op) == "LeakyRelu":
        return nn.LeakyReLU(node.number("leakyrelu_alpha" if name else "alpha", 0.2))
    return _ACTIVATIONS[name or node.op]()


_Builder = Callable[..., nn.Module]
_OPERATIONS: dict[str, tuple[_Builder, tuple[int, ...]]] = {
    **dict.fromkeys(_ACTIVATIONS, (_activation, ())),
    **dict.fromkeys(("Add", "AddV2", "BiasAdd"), (_apply(torch.add), ())),
    **dict.fromkeys(("Conv2D", "DepthwiseConv2dNative"), (_convolution, (1,))),
    **dict.fromkeys(("_FusedConv2D", "FusedDepthwiseConv2dNative"), (_convolution, (1, 2))),
    **dict.fromkeys(("MaxPool", "AvgPool"), (_Pool, ())),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), (_resize, (1,))),
    "ConcatV2": (_concat, (-1,)),
    "Identity": (lambda _node: nn.Identity(), ()),
    "Maximum": (_apply(torch.maximum), ()),
    "Mean": (_mean, (1,)),
    "Minimum": (_apply(torch.minimum), ()),
    "Mul": (_apply(torch.mul), ()),
    "Pad": (_pad, (1,)),
    "PadV2": (_pad, (1, 2)),
    "RealDiv": (_apply(torch.div), ()),
    "Reshape": (_reshape, (1,)),
    "Softmax": (lambda _node: nn.Softmax(-1), ()),
    "SparseToDense": (_apply(_sparse_to_dense), ()),
    "SplitV": (_split, (1, 2)),
    "Sub": (_apply(torch.sub), ()),
    "Transpose": (_transpose, (1,)),
}
KNOWN = tuple(sorted(_OPERATIONS))

"""What an exported graph's scores are, seen from its operations, which get torch's names here; see `models.ending`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seewhy.models.ending import EMBEDDINGS, Ending, read
from seewhy.models.graph import Graph, Node

__all__ = ["ending"]

Shapes = Callable[[str], tuple[int | None, ...]]

# In the words of ONNX and of OpenVINO.
_NAMES = {
    **dict.fromkeys(
        ("BatchToSpace", "Broadcast", "Cast", "Convert", "DequantizeLinear", "Dropout", "Expand", "FakeQuantize",
         "Flatten", "Gather", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice",
         "Transpose", "Unsqueeze", "VariadicSplit"), "view"
    ),
    **dict.fromkeys(("Softmax", "SoftMax"), "softmax"), "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid",
    **dict.fromkeys(("HardSigmoid", "HSigmoid"), "hardsigmoid"),
    **dict.fromkeys(("Conv", "Convolution", "GroupConvolution"), "convolution"), "Gemm": "addmm", "Einsum": "bmm",
    **dict.fromkeys(("LayerNormalization", "MVN", "RMSNormalization", "RMS", "SimplifiedLayerNormalization",
                     "SkipLayerNormalization", "GroupNormalization", "InstanceNormalization"), "layer_norm"),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool", "AveragePool", "AvgPool"), "mean"),
    **dict.fromkeys(("ReduceMax", "MaxPool", "GlobalMaxPool", "AdaptiveMaxPool"), "amax"), "ReduceSum": "sum",
    "AdaptiveAvgPool": "mean", "Tanh": "tanh", "Gelu": "gelu", "Swish": "silu", "Elu": "elu",
    **dict.fromkeys(("HSwish", "HardSwish"), "hardswish"),
    **dict.fromkeys(("Resize", "Interpolate", "Upsample"), "upsample_bilinear2d"),
    **dict.fromkeys(("Relu", "ReLU"), "relu"), **dict.fromkeys(("Concat", "Concatenation"), "cat"),
    **dict.fromkeys(("Clip", "Clamp"), "hardtanh"), **dict.fromkeys(("Max", "Maximum"), "maximum"), "Sqrt": "sqrt",
    **dict.fromkeys(("Mul", "Multiply"), "mul"), "Add": "add", **dict.fromkeys(("Sub", "Subtract"), "sub"),
    **dict.fromkeys(("Div", "Divide"), "div"), **dict.fromkeys(("ReduceL2", "LpNormalization"), "norm"),
}  # fmt: skip
_PLAIN = ("Convert", "Cast", "Identity", "DequantizeLinear", "Transpose")


def ending(graph: Graph, key: str, name: str, scores: Tensor, shapes: Shapes) -> Ending:
    """What scores (N, K) of an output are.

    Args:
        graph: the operations.
        key: of the output.
        name: what people call it.
        scores: what it gave.
        shapes: of tensors, as far as they are known without a pass; None for sizes that are not.
    """
    if name in EMBEDDINGS:
        return Ending("embedding", f"the network gives them as {name!r}", scores.shape[1])
    node = graph.producer.get(key)
    return read(None if node is None else _Step(graph, node, key, shapes), scores)


@dataclass(frozen=True, eq=False)
class _Step:
    """An operation of a graph; see `seewhy.models.ending.Step`."""

    graph: Graph
    node: Node
    key: str
    shapes: Shapes
    folded: bool = True

    @property
    def name(self) -> str:
        """Torch's own name."""
        op = self.node.op
        if op == "MatMul":
            return "bmm" if len(self._live) > 1 else "linear"
        if op in ("Div", "Divide") and self._divides_by_deviation():
            return "layer_norm"
        if op == "NormalizeL2":
            return "div"
        return _NAMES.get(op, op)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the operation's result, with -1 for what is not known."""
        return tuple(-1 if size is None else size for size in self.shapes(self.key))

    @property
    def sources(self) -> list[_Step]:
        """The operations that it takes from and that the picture moves."""
        found = [_Step(self.graph, self.graph.producer[key], key, self.shapes) for key in self._live]
        if self.node.op == "NormalizeL2":
            length = Node(name=self.node.name, op="ReduceL2", inputs=self.node.inputs, outputs=(self.key,))
            found.append(_Step(self.graph, length, self.key, lambda _: ()))
        return found

    @property
    def _live(self) -> list[str]:
        return [key for key in self.node.inputs if key in self.graph.live and key in self.graph.producer]

    def _divides_by_deviation(self) -> bool:
        """Returns a LayerNorm that is written out: what is divided by is the root of a mean of squares."""
        if len(self._live) < 2:
            return False
        node = self.graph.producer[self._live[1]]
        seen: list[str] = []
        while len(seen) < 5:
            seen.append(node.op)
            inner = [key for key in node.inputs if key in self.graph.live and key in self.graph.producer]
            if not inner:
                break
            node = self.graph.producer[inner[0]]
        return "ReduceMean" in seen and any(op in seen for op in ("Sqrt", "Power", "Pow"))

    def weights(self) -> list[str]:
        """Returns the layer that it is by its own name, and the names of the constants that it takes."""
        parts = [part for part in re.split(r"[/.]", self.node.name) if part and "::" not in part]
        parts = [part for part in parts if part not in ("__module", self.node.op)]
        own = [".".join([*parts, "weight"])] if parts else []
        return own + [key for key in self.node.inputs if key not in self.graph.live and "::" not in key]

    def kernel(self) -> tuple[int, ...]:
        """Height and width of a convolution's; (1, 1) for other linear layers, () where it is not known."""
        if self.name != "convolution":
            return (1, 1)
        array = self._constant(self.node.inputs[1])
        return () if array is None else tuple(array.shape[-2:])

    def _constant(self, key: str) -> Any:
        """Returns a constant, also where its type is changed first."""
        found = self.graph.constant(key)
        while found is None and key in self.graph.producer and self.graph.producer[key].op in _PLAIN:
            key = self.graph.producer[key].inputs[0]
            found = self.graph.constant(key)
        return found

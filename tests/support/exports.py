"""Networks written to files of every kind that a backend reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from seewhy.models.exported.features import CutModel
from seewhy.models.exported.onnx import ONNXModel
from seewhy.models.exported.openvino import OpenVINOModel, converted
from support import token_networks
from support.networks import Pooled, pictures

X = pictures(3, height=32, width=48)


def close(a: Tensor, b: Tensor) -> None:
    """As near as a backend that computes in float32 comes to torch."""
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


class Tokens(token_networks.Pooled):
    """A vision transformer whose number of images stays open when it is traced."""

    def features(self, x: Tensor) -> Tensor:
        maps = 2 * self.conv2(self.act1(self.bn1(self.conv1(x))))
        tokens = torch.cat([self.first.expand(maps.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Normalised(Pooled):
    """Its last map comes out of a LayerNorm, whose channels have the same mean everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(super().features(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


BACKENDS = ("xml", "onnx in openvino", "onnx in onnxruntime")


def to_xml(network: nn.Module, path: Path, x: Tensor, *, batch: int = -1, fused: bool = False) -> Path:
    """OpenVINO's own format, in full precision; ``fused`` as its converter writes it, else as it is."""
    if fused:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = ov.convert_model(network, example_input=x, input=[batch, *x.shape[1:]])
    else:
        graph = converted(network, x)
        graph.reshape([batch, *x.shape[1:]])
    ov.save_model(graph, path, compress_to_fp16=False)
    return path


def to_onnx(network: nn.Module, path: Path, x: Tensor, *, free: bool = True, **options: Any) -> Path:
    """Written by torch's tracing exporter, which is the quick one."""
    axes = {"input": {0: "batch"}, "scores": {0: "batch"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (x,), path, dynamo=False, input_names=["input"], dynamic_axes=axes,
            **{"output_names": ["scores"], **options},
        )  # fmt: skip
    return path


def exported(network: nn.Module, backend: str, folder: Path, x: Tensor, *, free: bool = True) -> CutModel:
    """The network behind a backend."""
    if backend == "xml":
        return OpenVINOModel(to_xml(network, folder / "net.xml", x, batch=-1 if free else len(x)))
    path = to_onnx(network, folder / "net.onnx", x, free=free)
    return OpenVINOModel(path) if backend == "onnx in openvino" else ONNXModel(path)


def graph(
    nodes: list[Any], path: Path, *, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]],
    weights: dict[str, Any] | None = None, kind: int = TensorProto.FLOAT, **metadata: str,
) -> Path:  # fmt: skip
    """An ONNX file written node by node."""
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in (weights or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    for name, value in metadata.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = name.replace("__", " "), value
    onnx.save(made, path)
    return path

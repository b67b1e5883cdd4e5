"""ONNX Runtime: which backend is chosen, graphs written node by node, what is missing, damaged files."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch.testing import assert_close

import seewhy
from seewhy.errors import CheckpointError, InvalidInput, MissingCapability, MissingDependency
from seewhy.explainers import RISE, ReciproCAM
from seewhy.models import FeatureModel
from seewhy.models.exported.model import ExportedModel
from seewhy.models.exported.onnx import ONNXModel, ONNXScores
from seewhy.models.exported.openvino import OpenVINOModel
from support.exports import X, close, graph, to_onnx
from support.networks import Pooled, build
from support.typed import loaded, unchecked

pytestmark = pytest.mark.slow


@pytest.fixture
def file(network: Pooled, tmp_path: Path) -> Path:
    return to_onnx(network, tmp_path / "net.onnx", X)


def test_which_backend_runs_it(file: Path, network: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(seewhy.load(file), ONNXModel)
    assert isinstance(seewhy.load(str(file), backend="onnxruntime"), ONNXModel)
    assert isinstance(seewhy.load(file, backend="openvino"), OpenVINOModel)
    with pytest.raises(
        InvalidInput, match=re.escape("backend must be 'auto', 'onnxruntime', 'openvino' or 'torch', got 'ort'.")
    ):
        seewhy.load(file, backend="ort")
    (file.parent / "a.xml").touch()
    with pytest.raises(InvalidInput, match=re.escape("ONNX Runtime does not read .xml files")):
        seewhy.load(file.parent / "a.xml", backend="onnxruntime")
    _hide(monkeypatch, "onnxruntime")
    found = seewhy.load(file)
    assert isinstance(found, OpenVINOModel)
    close(found(X).classes, network(X).detach())
    with pytest.raises(MissingDependency, match=re.escape("ONNX files need onnxruntime (or openvino, with backend=")):
        seewhy.load(file, backend="onnxruntime")
    _hide(monkeypatch, "openvino")
    with pytest.raises(MissingDependency, match=re.escape("ONNX files need onnxruntime (or openvino). Install it")):
        seewhy.load(file)


def _hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """As if it were not installed."""
    real = importlib.util.find_spec
    hidden = {library, *(n for n in ("onnxruntime", "openvino", "onnx") if sys.modules.get(n, 0) is None)}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name in hidden else real(name, *a))
    for place in (
        "seewhy.models.backends.onnxruntime.find_spec",
        "seewhy.models.backends.openvino.find_spec",
        "seewhy.models.exported.onnx.find_spec",
    ):
        monkeypatch.setattr(place, lambda name: None if name in hidden else real(name))
    monkeypatch.setitem(sys.modules, library, None)


def test_without_the_library_that_cuts(file: Path, network: Pooled, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = seewhy.load(file)
    _hide(monkeypatch, "onnx")
    model = seewhy.load(file)
    assert isinstance(model, ONNXScores)
    assert not isinstance(model, FeatureModel)
    assert model.notes == (
        "Scores only: the graph cannot be cut without the onnx package. Install it: pip install 'seewhy[onnx]'.",
    )
    close(model(X).classes, network(X).detach())
    close(RISE(model, num_masks=10).attribute(X), RISE(with_it, num_masks=10).attribute(X))
    said = "ReciproCAM needs features; 'net.onnx' gives scores only. Try RISE or Occlusion."
    with pytest.raises(MissingCapability, match=re.escape(said)):
        ReciproCAM(model)(X)
    with pytest.raises(MissingDependency, match=re.escape("Features of ONNX files need onnx. Install it")):
        ONNXModel(file)
    with pytest.raises(MissingDependency, match=re.escape("forward_kwargs of ONNX files need onnx.")):
        seewhy.load(file, forward_kwargs={"a": 1})


@pytest.mark.parametrize("pool", ["ReduceMean", "GlobalAveragePool", "AveragePool"])
@pytest.mark.parametrize("layer", ["Gemm", "Gemm, transposed", "MatMul and Add", "Conv"])
def test_every_way_to_write_a_pooled_linear_head(pool: str, layer: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stem, weight, bias = rng.normal(size=(4, 3, 2, 2)), rng.normal(size=(5, 4)), rng.normal(size=5)
    pooled = {
        "ReduceMean": helper.make_node("ReduceMean", ["maps"], ["pooled"], axes=[-1, 2], keepdims=1),
        "GlobalAveragePool": helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        "AveragePool": helper.make_node("AveragePool", ["maps"], ["pooled"], kernel_shape=[4, 6]),
    }
    flat = helper.make_node("Flatten", ["pooled"], ["flat"])
    ends = {
        "Gemm": [flat, helper.make_node("Gemm", ["flat", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        "Gemm, transposed": [flat, helper.make_node("Gemm", ["flat", "w", "b"], ["y"])],
        "MatMul and Add": [
            flat, helper.make_node("MatMul", ["flat", "w"], ["m"]), helper.make_node("Add", ["b", "m"], ["y"])
        ],
        "Conv": [helper.make_node("Conv", ["pooled", "w", "b"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])],
    }  # fmt: skip
    shaped = {"Gemm": weight, "Conv": weight[:, :, None, None]}.get(layer, weight.T)
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["conv"], strides=[8, 8]),
        helper.make_node("Relu", ["conv"], ["maps"], name="last"),
    ]
    path = graph(
        [*nodes, pooled[pool], *ends[layer]], tmp_path / "head.onnx", inputs={"x": ["n", 3, 32, 48]},
        outputs={"y": ["n", 5]}, weights={"stem": stem, "w": shaped, "b": bias},
    )  # fmt: skip
    for backend in ("onnxruntime", "openvino"):
        model = unchecked(seewhy.load(path, backend=backend))
        with model.opened():
            found = model.features(X)
        assert found.layer == "last"
        assert found.linear is not None
        scale = (0.5, 2.0) if layer == "Gemm" else (1, 1)
        assert_close(found.linear.weight, torch.from_numpy(weight * scale[0]).float())
        assert_close(found.linear.bias, torch.from_numpy(bias * scale[1]).float())
        want = torch.einsum("kc,nchw->nkhw", found.linear.weight, found.maps) / 24 + found.linear.bias.view(-1, 1, 1)
        close(ReciproCAM(model).attribute(X, "all", native=True), want)


def test_newer_exporter_with_weights_in_a_file_of_their_own(network: Pooled, tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            network, (X,), path, dynamo=True, dynamic_shapes=({0: batch},), external_data=True, verbose=False
        )
    assert Path(f"{path}.data").is_file()
    for backend in ("onnxruntime", "openvino"):
        model = loaded(ExportedModel, path, backend=backend)
        close(model(X).classes, network(X).detach())
        close(ReciproCAM(model).attribute(X), ReciproCAM(network).attribute(X))
        before = model.content
        weights = bytearray(Path(f"{path}.data").read_bytes())
        weights[-1] ^= 1
        Path(f"{path}.data").write_bytes(weights)
        assert loaded(ExportedModel, path, backend=backend).content != before
        weights[-1] ^= 1
        Path(f"{path}.data").write_bytes(weights)


class _Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"input": X[i : i + 1].numpy()} for i in range(3)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def test_an_eight_bit_network(file: Path, network: Pooled, tmp_path: Path) -> None:
    small = tmp_path / "int8.onnx"
    quantize_static(file, small, _Calibration(), quant_format=QuantFormat.QDQ)
    model = loaded(ONNXModel, small)
    assert not model.engine.exact
    with model.opened():
        found = model.features(X)
        assert found.maps.dtype == torch.float32
        rows = torch.tensor([2, 0, 1, 1])
        again = model.from_features(found, found.maps[rows], rows)
    assert_close(again.classes, found.outputs.classes[rows], atol=0.02, rtol=0.02)
    gap = (model(X).classes - network(X).detach()).abs().max() / network(X).detach().abs().max()
    assert 1e-4 < float(gap) < 0.1


def test_a_graph_in_memory(file: Path, network: Pooled) -> None:
    model = seewhy.load(onnx.load(file))
    assert isinstance(model, ONNXModel)
    close(model(X).classes, network(X).detach())
    other = onnx.load(to_onnx(build(Pooled, seed=1), file.parent / "b.onnx", X))
    assert model.content != loaded(ONNXModel, other).content


def test_what_the_file_says(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    forms: dict[str, Any] = {"inputs": {"x": ["n", 3, 32, 48]}, "outputs": {"y": ["n", 3]}}
    told = graph(
        nodes, tmp_path / "told.onnx", **forms, model_info__mean_values="0 0 0", model_info__scale_values="255 255 255",
        model_info__labels="red green blue",
    )  # fmt: skip
    for backend in ("onnxruntime", "openvino"):
        model = loaded(ExportedModel, told, backend=backend)
        assert model.labels == ("red", "green", "blue")
        assert str(model.preprocessing) == "32x48 RGB, squashed, bilinear; values 0..1, mean 0, deviation 1"
    yolo = graph(nodes, tmp_path / "yolo.onnx", **forms, names="{0: 'person', 1: 'fire hydrant', 2: 'dog'}")
    assert loaded(ONNXModel, yolo).labels == ("person", "fire hydrant", "dog")
    assert loaded(ONNXModel, yolo).preprocessing is None


def test_damaged_files(file: Path) -> None:
    whole = file.read_bytes()
    for damage in (b"", b"not a model", whole[: len(whole) // 2]):
        file.write_bytes(damage)
        with pytest.raises(
            CheckpointError, match=re.escape(f"{str(file)!r} is not a model that ONNX Runtime can read: ")
        ):
            seewhy.load(file)


def test_a_graph_that_is_in_training_mode(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["bn", "m2", "v2"], training_mode=1),
        helper.make_node("GlobalAveragePool", ["bn"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    weights = {name: np.ones(3) for name in "sbmv"}
    path = graph(
        nodes, tmp_path / "train.onnx", inputs={"x": ["n", 3, 32, 48]}, outputs={"y": ["n", 3]}, weights=weights
    )
    with pytest.raises(InvalidInput, match=re.escape("train.onnx was exported in training mode (BatchNormalization)")):
        seewhy.load(path)

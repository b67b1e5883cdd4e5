"""OpenVINO: precision, inputs of other kinds, quantised graphs, objects in memory, damaged files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from onnx import TensorProto, helper
from openvino import opset13 as ops
from torch.testing import assert_close

import seewhy
from seewhy.errors import BadOutput, CheckpointError, InvalidInput, InvalidType, MissingDependency
from seewhy.explainers import RISE, ReciproCAM
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.function import FunctionModel
from support.exports import X, close, graph, to_xml
from support.networks import Pooled, Wrapped, build
from support.typed import loaded, present, unchecked

pytestmark = pytest.mark.slow


@pytest.fixture
def file(network: Pooled, tmp_path: Path) -> Path:
    return to_xml(network, tmp_path / "net.xml", X)


def test_float32_unless_another_precision_is_asked_for(file: Path, network: Pooled) -> None:
    exact, rounded = OpenVINOModel(file), OpenVINOModel(file, precision="bf16")
    assert exact.engine.exact
    assert not rounded.engine.exact
    assert exact.content != rounded.content
    want = network(X).detach()
    close(exact(X).classes, want)
    gap = (rounded(X).classes - want).abs().amax() / want.abs().amax()
    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert 1e-4 < float(gap) < 0.05
        saliency = ReciproCAM(rounded).attribute(X)  # the cut is checked against scores of the same precision
        assert_close(saliency, ReciproCAM(network).attribute(X), atol=0.05, rtol=0.05)
    with pytest.raises(InvalidInput, match=re.escape("precision must be 'f32', 'bf16' or 'f16', got 'int8'.")):
        OpenVINOModel(file, precision=unchecked("int8"))


def test_channels_last_and_eight_bit_pixels(file: Path, network: Pooled, tmp_path: Path) -> None:
    steps = ov.preprocess.PrePostProcessor(ov.Core().read_model(file))
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean([100.0, 110.0, 120.0]).scale([50.0, 60.0, 70.0])
    ov.save_model(steps.build(), tmp_path / "pixels.xml", compress_to_fp16=False)
    model = loaded(OpenVINOModel, tmp_path / "pixels.xml")
    assert model.size == (32, 48)
    assert str(model.preprocessing) == "32x48 RGB, centre crop, bilinear; values 0..255, mean 0, deviation 1"
    assert "The graph takes 8-bit pixels" in model.notes[-1]
    pixels = torch.randint(0, 256, (2, 3, 32, 48), generator=torch.Generator().manual_seed(0)).float()
    mean, scale = (torch.tensor(v).view(3, 1, 1) for v in ([100.0, 110.0, 120.0], [50.0, 60.0, 70.0]))
    with torch.no_grad():
        close(model(pixels).classes, network((pixels - mean) / scale))
    with model.opened():
        found = model.features(pixels)
        close(found.maps, network.features((pixels - mean) / scale))
        rows = torch.tensor([1, 0, 1])
        close(model.from_features(found, found.maps[rows], rows).classes, found.outputs.classes[rows])
    with pytest.raises(InvalidInput, match=re.escape("pixels.xml takes 8-bit pixels in 0..255, got -")):
        RISE(model)(X)


def test_the_layout_can_be_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["t"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    path = graph(nodes, tmp_path / "n.onnx", inputs={"x": ["n", "h", "w", "c"]}, outputs={"y": ["n", "c"]})
    model = OpenVINOModel(path, layout="NHWC")
    assert model.size is None
    close(model(X).classes, X.mean((2, 3)))
    close(model(X[:, :, :20]).classes, X[:, :, :20].mean((2, 3)))
    with pytest.raises(InvalidInput, match=re.escape("layout must be 'NCHW', 'NHWC' or None, got 'CHW'.")):
        OpenVINOModel(path, layout=unchecked("CHW"))


def test_an_eight_bit_network(network: Pooled, file: Path, tmp_path: Path) -> None:
    """FakeQuantize after each ReLU: what quantisers write. The cut must give the graph's own scores, not float ones."""
    model = ov.Core().read_model(file)
    for relu in [op for op in model.get_ordered_ops() if op.get_type_name() == "Relu"]:
        users = relu.output(0).get_target_inputs()
        ends = [ops.constant(np.float32(v)) for v in (0, 3)]
        coarse = ops.fake_quantize(relu.output(0), *ends, *ends, 16)
        for user in users:
            user.replace_source_output(coarse.output(0))
    ov.save_model(model, tmp_path / "int8.xml", compress_to_fp16=False)
    found = OpenVINOModel(tmp_path / "int8.xml")
    assert not found.engine.exact
    with found.opened():
        features = found.features(X)
        levels = features.maps * 5
        assert_close(levels, levels.round(), atol=1e-3, rtol=0)  # it is the quantised map that the head sees
        rows = torch.tensor([2, 0, 1, 1])
        again = found.from_features(features, features.maps[rows], rows)
        assert_close(again.classes, features.outputs.classes[rows], atol=1e-4, rtol=1e-3)
    assert float((found(X).classes - network(X).detach()).abs().max()) > 1e-3


def test_several_outputs(tmp_path: Path) -> None:
    network = build(Wrapped, "dict")
    path = to_xml(network, tmp_path / "two.xml", X)
    want = network(X)["logits"].detach()
    close(OpenVINOModel(path)(X).classes, want)  # "logits" is known
    close(OpenVINOModel(path, output="logits")(X).classes, want)
    close(OpenVINOModel(path, output="aux")(X).classes, X.mean((2, 3)))
    close(OpenVINOModel(path, output=1)(X).classes, X.mean((2, 3)))
    both = OpenVINOModel(path, output=lambda raw: torch.cat([raw["logits"], raw["aux"]], 1))
    close(both(X).classes, torch.cat([want, X.mean((2, 3))], 1))
    with both.opened():
        assert both.features(X, OpenVINOModel(path, output="logits").auto_layer(X)).linear is None
    with pytest.raises(BadOutput, match=re.escape("The network's output has no 'scores': it is a dict with ")):
        OpenVINOModel(path, output="scores")(X)


def test_several_inputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    path = graph(
        nodes, tmp_path / "gain.onnx", inputs={"x": ["n", 3, 32, 48], "gain": [1]}, outputs={"y": ["n", 3]}
    )  # fmt: skip
    said = "gain.onnx has 2 inputs: 'x' (? x 3 x 32 x 48, float32), 'gain' (1, float32). Expected one, for the pictures"
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(InvalidInput, match=re.escape(said)):
            seewhy.load(path, backend=backend)
        model = seewhy.load(path, backend=backend, forward_kwargs={"gain": [2.0]})
        close(model(X).classes, 2 * X.mean((2, 3)))
        with pytest.raises(InvalidInput, match=re.escape("The graph has no input 'gian'. Did you mean 'gain'?")):
            seewhy.load(path, backend=backend, forward_kwargs={"gian": [2.0]})


def test_inputs_that_are_no_pictures(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    words = graph(
        nodes, tmp_path / "words.onnx", inputs={"x": ["n", 7]}, outputs={"y": ["n", 7]}, kind=TensorProto.INT64
    )
    with pytest.raises(InvalidInput, match=re.escape("words.onnx takes 'x' (? x 7, int64). Expected an input of four")):
        OpenVINOModel(words)


def test_objects_in_memory(file: Path, network: Pooled) -> None:
    graph_ = ov.Core().read_model(file)
    model = seewhy.load(graph_)
    assert isinstance(model, OpenVINOModel)
    want = network(X).detach()
    close(model(X).classes, want)
    close(ReciproCAM(graph_).attribute(X), ReciproCAM(network).attribute(X))
    assert [str(i.get_partial_shape()) for i in graph_.inputs] == ["[?,3,32,48]"]  # left as it was
    with pytest.raises(InvalidType, match="was made from an object in memory and cannot be sent to another process"):
        model.__getstate__()
    compiled = ov.Core().compile_model(graph_, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert isinstance(seewhy.load(compiled), FunctionModel)
    close(seewhy.load(compiled)(X).classes, want)


def test_damaged_and_missing_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"There is no model file {str(tmp_path / 'no.xml')!r}.")):
        seewhy.load(tmp_path / "no.xml")
    whole = file.read_bytes()
    for damage in (b"", b"not a model", whole[: len(whole) // 2]):
        file.write_bytes(damage)
        with pytest.raises(CheckpointError, match=re.escape(f"{str(file)!r} is not a model that OpenVINO can read: ")):
            seewhy.load(file)
    file.write_bytes(whole)
    weights = file.with_suffix(".bin").read_bytes()
    file.with_suffix(".bin").write_bytes(weights[:40])
    with pytest.raises(CheckpointError, match="is not a model that OpenVINO can read: "):
        seewhy.load(file)
    file.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=re.escape("has no weights: 'net.bin' must lie beside it.")):
        seewhy.load(file)
    (tmp_path / "bad.tflite").write_bytes(b"TFL3 nonsense")
    with pytest.raises(CheckpointError, match="is not a model that OpenVINO can read: "):
        seewhy.load(tmp_path / "bad.tflite")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingDependency, match=re.escape("need openvino. Install it: pip install 'seewhy[openvino]'.")
    ):
        seewhy.load(file)


def test_what_the_file_says_about_pictures_and_classes(file: Path, tmp_path: Path) -> None:
    def said(**info: object) -> OpenVINOModel:
        model = ov.Core().read_model(file)
        for name, value in info.items():
            model.set_rt_info(value, ["model_info", name])
        ov.save_model(model, tmp_path / "told.xml", compress_to_fp16=False)
        return loaded(OpenVINOModel, tmp_path / "told.xml")

    constants = {"mean_values": "123.675 116.28 103.53", "scale_values": "58.395 57.12 57.375"}
    model = said(**constants, resize_type="standard", labels="cat dog big_cat cup tea", reverse_input_channels="False")
    assert model.labels == ("cat", "dog", "big_cat", "cup", "tea")
    assert model.preprocessing.fit == "squash"
    assert model.preprocessing.channels == "RGB"
    assert model.preprocessing.size == (32, 48)
    assert_close(torch.tensor(model.preprocessing.mean), torch.tensor([0.485, 0.456, 0.406]))
    assert_close(torch.tensor(model.preprocessing.std), torch.tensor([0.229, 0.224, 0.225]))
    assert model.notes == ()
    names = '{"label_names": ["a b", "c"]}'
    turned = said(
        mean_values="103.53 116.28 123.675", scale_values="1 1 1", resize_type="fit_to_window_letterbox",
        pad_value="114", reverse_input_channels="True", label_info=names,
    )  # fmt: skip
    assert turned.preprocessing.channels == "BGR"
    assert turned.preprocessing.fit == "letterbox"
    assert turned.preprocessing.pad == 114 / 255
    assert turned.labels == ("a b", "c")
    raw = {"mean_values": "0 0 0", "scale_values": "1 1 1"}
    old, new = said(**raw, reverse_input_channels="True"), said(**raw, reverse_input_channels="True", otx_version="2.2")
    assert (old.preprocessing.channels, new.preprocessing.channels) == ("RGB", "BGR")
    assert old.preprocessing.value_range == 255
    assert "reverse_input_channels is True in the file, which exporters mean differently" in old.notes[0]
    many = said(multilabel="True")
    assert many.preprocessing is None
    assert many.notes == ("The file is of a multi-label network: use activation_fn='sigmoid' (--activation sigmoid).",)
    assert said(mean_values="nonsense", scale_values="1 2").preprocessing is None
    whole = loaded(OpenVINOModel, file, changes={"mean": (0.5,) * 3, "std": (0.5,) * 3})
    assert present(whole.preprocessing).size == (32, 48)  # the only size that the graph takes

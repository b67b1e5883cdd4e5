"""TensorFlow.js graphs: each operation against the formula, written as loops; reading, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.errors import CheckpointError, InvalidInput
from seewhy.explainers.grad_cam import GradCAM
from seewhy.explainers.recipro_cam import ReciproCAM
from seewhy.models.tfjs.graph import read
from support.tfjs_graphs import Graph

RNG = np.random.default_rng(5)


def random(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal(shape).astype(np.float32)


def run(folder: Path, graph: Graph, x: Any, *outputs: str) -> Any:
    with torch.no_grad():
        return read(graph.write(folder, *outputs))(torch.as_tensor(x))


# ------------------------------------------------------------------------------------------------- windows


def places(n: int, k: int, stride: int, dilation: int, padding: str) -> list[list[int]]:
    """For each output position the input positions of its window; those outside of 0..n-1 are margins."""
    reach = (k - 1) * dilation + 1
    count = math.ceil(n / stride) if padding == "SAME" else (n - reach) // stride + 1
    before = max((count - 1) * stride + reach - n, 0) // 2 if padding == "SAME" else 0
    return [[i * stride - before + j * dilation for j in range(k)] for i in range(count)]


def slow_windows(
    x: np.ndarray[Any, Any], k: tuple[int, int], stride: int, dilation: int, padding: str, take: Callable[..., Any]
) -> np.ndarray[Any, Any]:
    """``take(values, offsets)`` of each window: a list of pixels (C,) and of their places in the window."""
    rows = places(x.shape[1], k[0], stride, dilation, padding)
    columns = places(x.shape[2], k[1], stride, dilation, padding)
    made = []
    for image in x:
        for row in rows:
            for column in columns:
                inside = [
                    ((a, b), image[y, z])
                    for a, y in enumerate(row)
                    for b, z in enumerate(column)
                    if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
                ]
                made.append(take([v for _, v in inside], [o for o, _ in inside]))
    return np.array(made).reshape(len(x), len(rows), len(columns), -1)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(tmp_path: Path, padding: str, stride: int, dilation: int, depthwise: bool) -> None:
    x, weight = random(2, 8, 11, 3), random(3, 2, 3, 2)
    graph = Graph(1, 8, 11, 3)
    graph.node(
        "DepthwiseConv2dNative" if depthwise else "Conv2D", "x", weight, padding=padding,
        strides=[1, stride, stride, 1], dilations=[1, dilation, dilation, 1],
    )  # fmt: skip

    def take(values: list[Any], offsets: list[tuple[int, int]]) -> Any:
        if depthwise:
            return sum(v[:, None] * weight[o] for v, o in zip(values, offsets, strict=True)).reshape(-1)
        return sum(v @ weight[o] for v, o in zip(values, offsets, strict=True))

    want = slow_windows(x, (3, 2), stride, dilation, padding, take)
    np.testing.assert_allclose(run(tmp_path, graph, x), want, atol=1e-5)


@pytest.mark.parametrize("op", ["_FusedConv2D", "FusedDepthwiseConv2dNative"])
@pytest.mark.parametrize(("after", "slope"), [((), None), (("Relu",), 0.0), (("LeakyRelu",), 0.3)])
def test_fused_convolution(tmp_path: Path, op: str, after: tuple[str, ...], slope: float | None) -> None:
    x, weight = random(2, 4, 5, 3), random(1, 1, 3, 1 if "Depth" in op else 4)
    bias = random(3 if "Depth" in op else 4)
    graph = Graph(1, 4, 5, 3)
    fused = ["BiasAdd", *after]
    graph.node(op, "x", weight, bias, padding="SAME", strides=[1] * 4, fused_ops=fused, leakyrelu_alpha=0.3)
    want = (x * weight[0, 0, :, 0] if "Depth" in op else x @ weight[0, 0]) + bias
    want = want if slope is None else np.where(want > 0, want, slope * want)
    np.testing.assert_allclose(run(tmp_path, graph, x), want, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("op", "take"), [("MaxPool", np.max), ("AvgPool", np.mean)])
def test_pools_ignore_their_margins(tmp_path: Path, op: str, take: Any, stride: int, padding: str) -> None:
    x = random(2, 7, 8, 3) - 5  # below zero: a margin of zeros would show
    graph = Graph(1, 7, 8, 3)
    graph.node(op, "x", ksize=[1, 3, 2, 1], strides=[1, stride, stride, 1], padding=padding)
    want = slow_windows(x, (3, 2), stride, 1, padding, lambda values, _: take(values, axis=0))
    np.testing.assert_allclose(run(tmp_path, graph, x), want, atol=1e-5)


# ------------------------------------------------------------------------------------------------- sizes


def place(i: int, n: int, m: int, corners: bool, centres: bool) -> float:
    """Where output pixel i of m lies among n."""
    if corners:
        return i * (n - 1) / max(m - 1, 1)
    return (i + 0.5) * n / m - 0.5 if centres else i * n / m


@pytest.mark.parametrize(("corners", "centres"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("size", [(9, 12), (4, 3), (5, 7)])
def test_bilinear_resize(tmp_path: Path, size: tuple[int, int], corners: bool, centres: bool) -> None:
    x = random(2, 5, 6, 3)
    graph = Graph(1, 5, 6, 3)
    graph.node("ResizeBilinear", "x", np.array(size), align_corners=corners, half_pixel_centers=centres)
    want = np.zeros((2, *size, 3))
    for i in range(size[0]):
        for j in range(size[1]):
            y, z = (
                min(max(place(p, n, m, corners, centres), 0), n - 1) for p, n, m in ((i, 5, size[0]), (j, 6, size[1]))
            )
            for a, share in ((int(y), 1 - y % 1), (min(int(y) + 1, 4), y % 1)):
                for b, part in ((int(z), 1 - z % 1), (min(int(z) + 1, 5), z % 1)):
                    want[:, i, j] += share * part * x[:, a, b]
    np.testing.assert_allclose(run(tmp_path, graph, x), want, atol=1e-5)


@pytest.mark.parametrize("centres", [True, False])
def test_nearest_resize(tmp_path: Path, centres: bool) -> None:
    x = random(1, 5, 6, 2)
    graph = Graph(1, 5, 6, 2)
    graph.node("ResizeNearestNeighbor", "x", np.array([7, 4]), half_pixel_centers=centres)
    half = 0.5 if centres else 0.0
    rows = [math.floor((i + half) * 5 / 7) for i in range(7)]
    columns = [math.floor((j + half) * 6 / 4) for j in range(4)]
    np.testing.assert_array_equal(run(tmp_path, graph, x), x[:, rows][:, :, columns])


def test_shapes(tmp_path: Path) -> None:
    x = random(2, 4, 6)
    graph = Graph(1, 4, 6)
    turned = graph.node("Transpose", "x", np.array([0, 2, 1]))
    graph.node("Pad", turned, np.array([[0, 0], [1, 2], [0, 3]]), name="pad")
    graph.node("PadV2", turned, np.array([[0, 0], [0, 1], [2, 0]]), np.float32(-7), name="padded")
    graph.node("ConcatV2", "x", "x", "x", np.int32(-1), name="joined")
    split = graph.node("SplitV", "x", np.array([1, 5]), np.int32(2))
    graph.node("Identity", f"{split}:1", name="second")
    graph.node("Mean", "x", np.array([1]), keep_dims=True, name="mean")
    found = run(tmp_path, graph, x, "pad", "padded", "joined", "second", "mean")
    found = {name.partition(":")[0]: value.numpy() for name, value in found.items()}
    across = x.transpose(0, 2, 1)
    np.testing.assert_array_equal(found["pad"], np.pad(across, ((0, 0), (1, 2), (0, 3))))
    np.testing.assert_array_equal(found["padded"], np.pad(across, ((0, 0), (0, 1), (2, 0)), constant_values=-7))
    np.testing.assert_array_equal(found["joined"], np.concatenate([x, x, x], -1))
    np.testing.assert_array_equal(found["second"], x[..., 1:])
    np.testing.assert_allclose(found["mean"], x.mean(1, keepdims=True), atol=1e-6)


FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": lambda x: x.clamp_min(0), "Relu6": lambda x: x.clamp(0, 6), "Sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "Elu": lambda x: torch.where(x > 0, x, x.exp() - 1), "Tanh": torch.tanh, "Identity": lambda x: x,
    "Softmax": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
}  # fmt: skip


@pytest.mark.parametrize("op", FORMULAS)
def test_activations(tmp_path: Path, op: str) -> None:
    x = torch.linspace(-3, 9, 24).reshape(2, 12)
    graph = Graph(1, 12)
    graph.node(op, "x")
    torch.testing.assert_close(run(tmp_path, graph, x), FORMULAS[op](x))


@pytest.mark.parametrize(("attributes", "slope"), [({"alpha": 0.1}, 0.1), ({}, 0.2)])
def test_leaky_relu(tmp_path: Path, attributes: dict[str, Any], slope: float) -> None:
    graph = Graph(1, 2)
    graph.node("LeakyRelu", "x", **attributes)
    assert run(tmp_path, graph, [[-1.0, 2.0]]).tolist() == [[pytest.approx(-slope), 2.0]]


@pytest.mark.parametrize(
    ("op", "want"),
    [("Add", 8.0), ("AddV2", 8.0), ("BiasAdd", 8.0), ("Sub", 4.0), ("Mul", 12.0), ("RealDiv", 3.0), ("Maximum", 6.0),
     ("Minimum", 2.0)],
)  # fmt: skip
def test_two_operands(tmp_path: Path, op: str, want: float) -> None:
    graph = Graph(1, 1)
    graph.node(op, "x", np.array([2.0], np.float32))
    assert run(tmp_path, graph, [[6.0]]).tolist() == [[want]]


def test_shapes_are_computed_from_constants(tmp_path: Path) -> None:
    graph = Graph(1, 2, 3)
    dense = graph.node("SparseToDense", np.array([[1]]), np.array([3]), np.array([4]), np.int32(1))
    shape = graph.node("AddV2", dense, np.array([0, -2, 2]))  # [1, 4, 1] + [0, -2, 2]
    graph.node("Reshape", "x", shape)
    network = read(graph.write(tmp_path))
    assert [name for name, _ in network.named_children()] == [graph.nodes[-1]["name"]]
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert network(x).tolist() == x.tolist()


# ------------------------------------------------------------------------------------------------- the whole


def classifier(folder: Path) -> Path:
    """12 x 10 pixels: two convolutions, the mean, three classes."""
    graph = Graph(1, 3, 12, 10)
    images = graph.node("Transpose", "x", np.array([0, 2, 3, 1]))
    first = graph.node("Conv2D", images, random(3, 3, 3, 8), padding="SAME", strides=[1, 2, 2, 1], name="stem/conv")
    active = graph.node("Relu", first)
    second = graph.node("Conv2D", active, random(3, 3, 8, 3), padding="SAME", strides=[1] * 4, name="top")
    graph.node("Mean", second, np.array([1, 2]), name="scores")
    graph.node("Add", second, np.array([1.0], np.float32), name="unused")
    return graph.write(folder, "scores", shards=3)


def test_images_do_not_see_each_other_and_unused_nodes_are_gone(tmp_path: Path) -> None:
    network = read(classifier(tmp_path))
    assert "unused" not in dict(network.named_children())
    x = torch.from_numpy(random(3, 3, 12, 10))
    torch.testing.assert_close(network(x), torch.cat([network(one[None]) for one in x]), atol=1e-5, rtol=0)


def test_every_rung(tmp_path: Path) -> None:
    network = read(classifier(tmp_path))
    assert not network.training
    x = torch.from_numpy(random(2, 3, 12, 10))
    reciprocal = ReciproCAM(network, layer="stem/conv.conv").attribute(x, [0, 1], native=True)
    assert reciprocal.shape == (2, 1, 6, 5)
    # The top layer is linear and pooled: a position's share of the class is the map itself.
    cam = GradCAM(network, layer="top.conv").attribute(x, [0, 1], native=True)
    kept: list[Tensor] = []
    network.get_submodule("top.conv").register_forward_hook(lambda module, args, output: kept.append(output))
    network(x)
    want = torch.stack([kept[0][i, i] for i in (0, 1)]).clamp_min(0) / 30
    torch.testing.assert_close(cam[:, 0], want, atol=1e-6, rtol=1e-4)


def test_exported_to_torch_export(tmp_path: Path) -> None:
    network = read(classifier(tmp_path))
    x = torch.from_numpy(random(2, 3, 12, 10))
    batch = torch.export.Dim("batch")
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: batch},)).module()
    more = torch.from_numpy(random(5, 3, 12, 10))
    torch.testing.assert_close(exported(more), network(more), atol=1e-5, rtol=0)


def test_traced_for_one_image_takes_more(tmp_path: Path) -> None:
    graph = Graph(1, 2, 3)
    graph.node("Reshape", "x", np.array([1, 3, -1]))
    traced = torch.jit.trace(read(graph.write(tmp_path)), torch.zeros(1, 2, 3))
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert traced(x).tolist() == x.reshape(2, 3, 2).tolist()


def test_pickled(tmp_path: Path) -> None:
    network = read(classifier(tmp_path))
    x = torch.from_numpy(random(1, 3, 12, 10))
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(x), network(x))


@pytest.mark.parametrize(
    ("codes", "tolerance"),
    [({"dtype": "float16"}, 1e-3), ({"dtype": "uint8", "scale": 0.02, "min": -2.0}, 0.0101),
     ({"dtype": "uint16", "scale": 0.0001, "min": -2.0}, 6e-5)],
)  # fmt: skip
def test_weights_in_codes(tmp_path: Path, codes: dict[str, Any], tolerance: float) -> None:
    values = np.array([-1.999, -0.5, 0.25, 2.0])
    stored = np.rint((values - codes["min"]) / codes["scale"]) if "scale" in codes else values
    graph = Graph(1, 4)
    name = graph.constant(stored, codes, dtype="float32")
    graph.node("Add", "x", name)
    np.testing.assert_allclose(run(tmp_path, graph, torch.zeros(1, 4))[0], values, atol=tolerance, rtol=0)


# ------------------------------------------------------------------------------------------------- refused


def refused(folder: Path, graph: Graph, *outputs: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(graph.write(folder, *outputs))
    return str(caught.value)


def test_an_unknown_operation(tmp_path: Path) -> None:
    graph = Graph(1, 4)
    graph.node("TopKV2", "x", np.int32(2), name="best")
    message = refused(tmp_path, graph)
    assert message.startswith(
        "The graph uses TopKV2, which seewhy does not read. Take the outputs before these (outputs=NAMES), or convert "
        "the model to ONNX. Read are: Add, AddV2, AvgPool,"
    )


@pytest.mark.parametrize(
    ("op", "attributes", "what"),
    [("Conv2D", {"padding": "EXPLICIT"}, "padding EXPLICIT"), ("Conv2D", {"data_format": "NCHW"}, "data_format NCHW"),
     ("_FusedConv2D", {"fused_ops": ["FusedBatchNorm"]}, "fused_ops FusedBatchNorm"),
     ("_FusedConv2D", {"fused_ops": ["BiasAdd", "Prelu"]}, "fused_ops BiasAdd Prelu"),
     ("ResizeNearestNeighbor", {"align_corners": True}, "align_corners")],
)  # fmt: skip
def test_variants_that_are_not_read(tmp_path: Path, op: str, attributes: dict[str, Any], what: str) -> None:
    graph = Graph(1, 4, 4, 3)
    inputs = [np.array([2, 2])] if op.startswith("Resize") else [random(1, 1, 3, 2)] + [random(2)] * (op[0] == "_")
    graph.node(op, "x", *inputs, name="it", **{"strides": [1] * 4, "padding": "SAME"} | attributes)
    assert refused(tmp_path, graph) == f"Node 'it' of the graph ({op}) has {what}, which seewhy does not read."


def test_weights_that_depend_on_the_picture(tmp_path: Path) -> None:
    graph = Graph(1, 1, 1, 1)
    graph.node("Conv2D", "x", "x", padding="SAME", strides=[1] * 4, name="it")
    want = "Node 'it' of the graph (Conv2D) has an input that is not constant (x), which seewhy does not read."
    assert refused(tmp_path, graph) == want


def test_other_sizes_and_lost_batches(tmp_path: Path) -> None:
    graph = Graph(1, 2, 3)
    graph.node("Reshape", "x", np.array([-1, 3]), name="rows")
    network = read(graph.write(tmp_path))
    with pytest.raises(InvalidInput, match=r"^The graph takes inputs of shape \(N, 2, 3\), got \(2, 2, 4\)\.$"):
        network(torch.zeros(2, 2, 4))
    with pytest.raises(InvalidInput) as caught:
        network(torch.zeros(2, 2, 3))
    assert str(caught.value) == (
        "Output 'rows' of the graph has 4 rows for 2 images: the graph is made for one image at a time."
    )
    with pytest.raises(seewhy.errors.InvalidInput):
        seewhy.load(network, output=lambda raw: raw)(torch.zeros(2, 2, 4))


def test_names(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    assert read(path, ["top"])(torch.zeros(1, 3, 12, 10)).shape == (1, 6, 5, 3)
    with pytest.raises(InvalidInput) as caught:
        read(path, ["score"])
    assert str(caught.value).startswith("The graph 'model.json' has no node 'score'. Did you mean 'scores'")
    with pytest.raises(InvalidInput, match=r"^Node 'top' of the graph has one output, but more are asked for\.$"):
        read(path, ["top:1"])
    with pytest.raises(InvalidInput, match=r"^There is no TensorFlow\.js model '.*nothing\.json'\.$"):
        read(tmp_path / "nothing.json")


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    last = tmp_path / "group1-shard3of3.bin"
    data = last.read_bytes()
    last.write_bytes(data[:-5])
    with pytest.raises(CheckpointError, match=r"^The weights have \d+ bytes; 'c\d' would end at \d+\.$"):
        read(path)
    last.write_bytes(data + b"more")
    with pytest.raises(CheckpointError, match=r"^The weights of 'model\.json' have \d+ bytes, expected \d+\.$"):
        read(path)
    last.unlink()
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert str(caught.value) == "The weights of 'model.json' are not complete: 'group1-shard3of3.bin' is not beside it."


def test_other_json(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"format": "layers-model", "modelTopology": {}}))
    want = r"^'model\.json' is no TensorFlow\.js graph model: it has no modelTopology\.node\.$"
    with pytest.raises(InvalidInput, match=want):
        read(path)
    path.write_text("{")
    with pytest.raises(InvalidInput, match=r"^'model\.json' is no TensorFlow\.js model: "):
        read(path)

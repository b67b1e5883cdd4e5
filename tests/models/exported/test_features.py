"""Exported graphs behind every backend: the numbers of the torch network, cut anywhere, in batches of any size."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InvalidInput, InvalidType, MissingCapability, NoSpatialOutput, UnknownLayer
from seewhy.explainers import RISE, ActivationMap, GradCAM, LeGrad, ReciproCAM, ViTReciproCAM
from seewhy.models import FeatureModel, GradientModel, TokenModel
from seewhy.models.exported.onnx import ONNXModel
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.torch.model import TorchModel
from support.exports import BACKENDS, Normalised, Tokens, X, close, exported, to_onnx, to_xml
from support.networks import ChannelsLast, Deep, Functional, Pooled, Residual, Wrapped, build, pictures

pytestmark = pytest.mark.slow

NETWORKS: dict[str, Any] = {
    "pooled": Pooled, "functional": Functional, "residual": Residual, "deep": Deep,
    "tokens": partial(Tokens, prefix=2), "tokens, pooled": partial(Tokens, prefix=1, mean=True),
    "channels last": ChannelsLast, "channels last, pooled": lambda: ChannelsLast(pooled=True),
}  # fmt: skip
FUNCTIONAL = ("functional", "residual", "channels last")  # the last map is no module's output, which torch cannot see


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(
    ("name", "backend"),
    [(n, b) for n in NETWORKS for b in BACKENDS if b != "onnx in openvino" or n in ("deep", "tokens")],
)
def test_scores_and_the_automatic_layer_are_those_of_torch(name: str, backend: str, tmp_path: Path) -> None:
    network = build(NETWORKS[name])
    model, own = exported(network, backend, tmp_path, X), TorchModel(network)
    assert isinstance(model, FeatureModel)
    assert isinstance(model, TokenModel)
    assert not isinstance(model, GradientModel)
    with own.opened(), model.opened():
        found, want = model.features(X), own.features(X)
        close(model(X).scores, own(X).scores)
        close(found.outputs.scores, want.outputs.scores)
        rows = torch.tensor([2, 0, 0, 1])
        close(model.from_features(found, found.maps[rows], rows).scores, found.outputs.scores[rows])
        if name not in FUNCTIONAL:
            close(found.maps, want.maps)
            assert found.prefix == want.prefix
            assert (found.linear is None) == (want.linear is None)
            changed = found.maps[rows] * torch.linspace(0, 1, found.maps.shape[-1])
            close(model.from_features(found, changed, rows).scores, own.from_features(want, changed, rows).scores)
        assert found.warnings == []


@pytest.mark.parametrize(
    ("name", "backend"),
    [("residual", "xml"), ("deep", "xml"), ("residual", "onnx in onnxruntime"), ("tokens", "onnx in onnxruntime")],
)
def test_it_can_be_cut_at_every_layer_that_has_a_map(name: str, backend: str, tmp_path: Path) -> None:
    network = build(NETWORKS[name])
    model = exported(network, backend, tmp_path, X)
    cuts = 0
    with model.opened():
        for layer in model.layers():
            try:
                found = model.features(X, layer)
            except (NoSpatialOutput, InvalidInput):
                continue
            rows = torch.tensor([1, 2, 2, 0, 1])
            close(model.from_features(found, found.maps[rows], rows).scores, found.outputs.scores[rows])
            cuts += not any("could not be cut" in said for said in found.warnings)
    assert cuts >= 4


def test_the_closed_form_is_the_rerun(backend: str, tmp_path: Path) -> None:
    model = exported(build(Pooled), backend, tmp_path, X)
    with model.opened():
        found = model.features(X)
        assert found.linear is not None
        n, c, h, w = found.maps.shape
        alone = torch.zeros(h * w, c, h * w)
        alone[torch.arange(h * w), :, torch.arange(h * w)] = found.maps[1].flatten(1).T
        rerun = model.from_features(found, alone.view(-1, c, h, w), torch.ones(h * w, dtype=torch.long)).classes
    raw = ReciproCAM(model).attribute(X, "all", native=True)
    assert tuple(raw.shape) == (n, 5, h, w)
    close(raw[1], rerun.T.view(-1, h, w))


def test_a_head_that_only_looks_linear_here_is_run_again(backend: str, tmp_path: Path) -> None:
    class Rectified(Pooled):
        """A ReLU after the mean: on activations that are positive anyway nobody sees it."""

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.pool(self.features(x)).flatten(1).relu())

    model = exported(build(Rectified), backend, tmp_path, X)
    with model.opened():
        assert model.features(X).linear is None


@pytest.mark.parametrize("opset", [13, 17])  # written out, and in one operation
def test_activations_are_not_looked_at_behind_a_layer_norm(opset: int, tmp_path: Path) -> None:
    network = build(Normalised)
    want = ActivationMap(network).attribute(X)
    path = to_onnx(network, tmp_path / "norm.onnx", X, opset_version=opset)
    fused = OpenVINOModel(to_xml(network, tmp_path / "fused.xml", X, fused=True))
    for model in (ONNXModel(path), OpenVINOModel(path), fused, exported(network, "xml", tmp_path, X)):
        close(ActivationMap(model).attribute(X), want)


def test_a_transformer_that_reads_its_class_token(backend: str, tmp_path: Path) -> None:
    network = build(NETWORKS["tokens"])
    model, own = exported(network, backend, tmp_path, X), TorchModel(network)
    got, want = (ViTReciproCAM(m).run(X, [0, 3, 4]) for m in (model, own))
    close(got.raw, want.raw)
    with model.opened(), pytest.raises(NoSpatialOutput, match=r"gives tokens\. Use ViTReciproCAM"):
        ReciproCAM(model)(X)
    with pytest.raises(NoSpatialOutput, match=re.escape("The graph has no transformer's blocks")):
        ViTReciproCAM(exported(build(Pooled), backend, tmp_path, X))(X)


@pytest.mark.parametrize("free", [True, False])
def test_batches(free: bool, backend: str, tmp_path: Path) -> None:
    network = build(Pooled)
    model = exported(network, backend, tmp_path, X[:2], free=free)
    with model.opened(), torch.no_grad():
        for n in (1, 2, 3, 5):
            x = pictures(n, height=32, width=48, seed=n)
            close(model(x).classes, network(x))
            found = model.features(x)
            close(model.from_features(found, found.maps.flip(0), torch.arange(n).flip(0)).classes, network(x).flip(0))


class Baked(Pooled):
    """Its exported graph takes two images and no other number: images would see each other."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        return self.fc(maps.reshape(2, 16, -1).mean(2))


def test_a_batch_that_is_written_into_the_graph(backend: str, tmp_path: Path) -> None:
    network, x = build(Baked), pictures(5, height=32, width=48)
    model = exported(network, backend, tmp_path, x[:2], free=False)
    want = torch.cat([network(x[i : i + 2])[: 5 - i] for i in (0, 2)] + [network(x[[4, 4]])[:1]])
    with model.opened():
        close(model(x).classes, want.detach())
        found = model.features(x)
        close(
            model.from_features(found, found.maps[[4, 0, 1]], torch.tensor([4, 0, 1])).classes, want[[4, 0, 1]].detach()
        )
    close(RISE(model, num_masks=10).attribute(x), RISE(model, num_masks=10, perturbation_per_eval=3).attribute(x))


@pytest.mark.parametrize("form", ["dict", "only"])
def test_outputs_with_names(form: str, tmp_path: Path) -> None:
    network = build(Wrapped, form)
    model = exported(network, "xml", tmp_path, X)
    with model.opened():
        close(model(X).classes, torch.as_tensor(next(iter(network(X).values()))).detach())


def test_errors_name_what_came_and_what_to_do(backend: str, tmp_path: Path) -> None:
    model = exported(build(Pooled), backend, tmp_path, X)
    name = model.name
    assert name in ("net.xml", "net.onnx")
    said = f"GradCAM needs gradients; {name!r} gives scores and features. Try ReciproCAM, RISE or Occlusion."
    with pytest.raises(MissingCapability, match=re.escape(said)):
        GradCAM(model)(X)
    with pytest.raises(MissingCapability, match=re.escape(f"LeGrad needs gradients; {name!r}")):
        LeGrad(model)(X)
    with pytest.raises(UnknownLayer, match=re.escape(f"{name} has no layer 'conv9'.")):
        ReciproCAM(model, layer="conv9")(X)
    with pytest.raises(InvalidType, match="layer is the name of a layer, a string, got int"):
        ReciproCAM(model, layer=3)(X)
    with pytest.raises(InvalidInput, match=re.escape(f"{name} takes float32, the input is float64.")):
        RISE(model)(X.double())
    with pytest.raises(
        InvalidInput,
        match=re.escape(f"{name} takes images of 3 x 32 x 48 (channels x height x width), got 3 x 48 x 32."),
    ):
        RISE(model)(X.transpose(2, 3))
    last = model.layers()[-1]
    with pytest.raises(NoSpatialOutput, match=re.escape(f"Layer {last!r} has no spatial map: it gives (3, 5)")):
        ReciproCAM(model, layer=last)(X)


def test_it_goes_to_another_process_by_its_path(backend: str, tmp_path: Path) -> None:
    model = exported(build(Pooled), backend, tmp_path, X)
    again = pickle.loads(pickle.dumps(model))
    assert again.content == model.content
    with again.opened():
        assert torch.equal(again(X).scores, model(X).scores)
    other = exported(build(Pooled, seed=1), backend, tmp_path, X)
    assert other.content != model.content


def test_threads_do_not_disturb_each_other(backend: str, tmp_path: Path) -> None:
    model = exported(build(Pooled), backend, tmp_path, X)
    batches = [pictures(2, height=32, width=48, seed=i) for i in range(16)]
    with model.opened():
        want = [model(x).scores for x in batches]
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda x: model(x).scores, batches * 4))
    assert all(torch.equal(a, b) for a, b in zip(got, want * 4, strict=True))


def test_inputs_and_stored_maps_are_left_alone(backend: str, tmp_path: Path) -> None:
    model, x = exported(build(Pooled), backend, tmp_path, X), X.clone()
    with model.opened():
        first = model.features(x)
        kept = first.maps.clone(), first.outputs.scores.clone()
        model(pictures(3, height=32, width=48, seed=9))
        model.features(pictures(3, height=32, width=48, seed=8))
    assert torch.equal(x, X)
    assert torch.equal(first.maps, kept[0])
    assert torch.equal(first.outputs.scores, kept[1])


def test_probabilities_are_not_activated_again(backend: str, tmp_path: Path) -> None:
    network = nn.Sequential(build(Pooled), nn.Softmax(1)).eval()
    model = exported(network, backend, tmp_path, X)
    with model.opened():
        assert model(X).activated
        assert model.features(X).linear is None
    close(RISE(model, num_masks=20).attribute(X), RISE(network[0], num_masks=20).attribute(X))


class Counted(Pooled):
    """Reads len(x), which a tracer takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.zeros(len(x), 5)


def test_a_file_that_is_wrong_about_its_batch(backend: str, tmp_path: Path) -> None:
    """It says that it takes any number of images; the number that it was exported with is written into it."""
    network = build(Counted)
    model = exported(network, backend, tmp_path, X[:1])
    with model.opened(), torch.no_grad():
        close(model(X).classes, network(X))
    name = "net.xml" if backend == "xml" else "net.onnx"
    with pytest.raises(InvalidInput, match=re.escape(f"{name} ")):
        exported(network, backend, tmp_path, X)(X[:2])


class Informed(Pooled):
    """Takes four numbers an image besides."""

    def __init__(self, add: bool) -> None:
        super().__init__()
        self.add, self.more = add, nn.Linear(4, 16)
        self.last = nn.Linear(16 if add else 32, 5)

    def forward(self, x: Tensor, meta: Tensor | None = None) -> Tensor:
        assert meta is not None
        maps, more = self.features(x).mean((2, 3)), self.more(meta)
        return self.last(maps + more if self.add else torch.cat([maps, more], 1))


@pytest.mark.parametrize("runs", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("add", [True, False])
def test_one_row_of_a_further_input_is_for_all_images_and_several_are_blamed(
    add: bool, runs: str, tmp_path: Path
) -> None:
    network, meta = build(Informed, add), torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "net.onnx"
    torch.onnx.export(network, (X, meta), path, dynamo=False, input_names=["x", "meta"], output_names=["scores"],
                      dynamic_axes={"x": {0: "n"}, "meta": {0: "n"}})  # fmt: skip
    one = seewhy.load(path, backend=runs, forward_kwargs={"meta": meta[:1]})
    with one.opened(), torch.no_grad():
        close(one(X).classes, network(X, meta[:1].expand(3, -1)))
    said = (
        r"Of its further inputs 'meta' has 3 rows: a graph is given values that are the same for all images, one row "
        r"of them\. Explain the images one by one, each with a model that has its own row, or load the network that"
    )
    with pytest.raises(InvalidInput, match=said):
        ReciproCAM(seewhy.load(path, backend=runs, forward_kwargs={"meta": meta}))(X)

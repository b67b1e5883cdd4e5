"""layer="auto" on exported graphs: the layer that the same rule finds on the torch network, and the same map."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import NoSpatialOutput
from seewhy.explainers import ActivationMap, ReciproCAM, ViTReciproCAM
from seewhy.models.exported.onnx import ONNXModel
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.torch.model import TorchModel
from support import branching_networks as own
from support.exports import to_onnx, to_xml
from support.networks import CLASSES, build, pictures

pytestmark = pytest.mark.slow

close = torch.testing.assert_close
X = pictures(2, height=64, width=64)
OUTPUT: dict[str, int] = {"Auxiliary": 0, "Two": 1}
OWN = [
    own.Siamese, own.Gated, own.Auxiliary, own.Pyramid, own.Positions, own.Turned, own.Mirrored, own.Mixed, own.Asked,
    own.Queries, own.Two,
]  # fmt: skip


def save(network: nn.Module, kind: str, folder: Path, x: Tensor, output: int | None = None) -> Any:
    """The network behind a file."""
    if kind == "onnx":
        return ONNXModel(to_onnx(network, folder / "net.onnx", x, output_names=None), output=output)
    if kind == "xml":
        return OpenVINOModel(to_xml(network, folder / "net.xml", x, fused=True), output=output)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, folder / "net.pt2")
    return seewhy.load(folder / "net.pt2", output=output)


@pytest.mark.parametrize("kind", ["onnx", "xml"])
@pytest.mark.parametrize("network", OWN)
def test_the_last_map_that_carries_everything(network: Any, kind: str, tmp_path: Path) -> None:
    made, output = build(network), OUTPUT.get(network.__name__)
    model = save(made, kind, tmp_path, X, output)
    with model.opened(), torch.no_grad():
        found = model.features(X)
        close(found.maps, made.map(X), atol=1e-5, rtol=1e-4)
        assert model.active_layer(X) == found.layer


@pytest.mark.parametrize("network", OWN)
def test_the_same_rule_chooses_the_last_module_on_torch(network: Any) -> None:
    """A module before the ReLU or the gate that no module gives."""
    model = TorchModel(build(network), output=OUTPUT.get(network.__name__))
    assert model.auto_layer(X) == ("c" if network in (own.Auxiliary, own.Two) else "b")


def _timm(name: str, **options: Any) -> Any:
    timm = pytest.importorskip("timm")
    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


def _region(where: str, name: str) -> nn.Module:
    if where == "torchvision":
        tv = pytest.importorskip("torchvision")
        options = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
        return own.Region(tv.models.get_model(name, **options), "out")
    hf = pytest.importorskip("transformers")
    config = hf.SegformerConfig(
        hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], num_labels=CLASSES,
        decoder_hidden_size=16,
    )  # fmt: skip
    return own.Region(getattr(hf, name)(config), "logits")


VIT = {"img_size": 64, "depth": 2, "embed_dim": 48}
LIBRARIES = {
    "resnet": partial(_timm, "test_resnet"),
    "mobilenet": partial(_timm, "mobilenetv3_small_050"),
    "efficientnet": partial(_timm, "test_efficientnet"),
    "convnext": partial(_timm, "test_convnext"),
    "vit": partial(_timm, "vit_tiny_patch16_224", **VIT),
    "vit, pooled": partial(_timm, "vit_tiny_patch16_224", global_pool="avg", **VIT),
    "deit": partial(_timm, "deit_tiny_distilled_patch16_224", **VIT),
    "swin": partial(
        _timm, "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=24, depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 2),
    ),
    "lraspp": partial(_region, "torchvision", "lraspp_mobilenet_v3_large"),
    "segformer": partial(_region, "transformers", "SegformerForSemanticSegmentation"),
}  # fmt: skip


def _compare(name: str, kind: str, folder: Path) -> None:
    network = build(LIBRARIES[name])
    model, torch_model = save(network, kind, folder, X), TorchModel(network)
    for choose in ("auto_layer", "active_layer"):
        with model.opened(), torch_model.opened():
            got, want = (m.features(X, getattr(m, choose)(X)) for m in (model, torch_model))
            close(got.maps, want.maps, atol=1e-4 * float(want.maps.abs().amax()), rtol=0)
            assert got.prefix == want.prefix
    method: Any = (ViTReciproCAM if name in ("vit", "deit") else ReciproCAM) if want.prefix is None else ActivationMap
    got_map, want_map = (method(m).attribute(X, 1) for m in (model, torch_model))
    close(got_map, want_map, atol=2e-4 * float(want_map.abs().amax()), rtol=0)


@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_libraries_as_onnx(name: str, tmp_path: Path) -> None:
    _compare(name, "onnx", tmp_path)


@pytest.mark.parametrize("name", ["resnet", "convnext", "deit", "segformer"])
def test_networks_of_libraries_for_openvino(name: str, tmp_path: Path) -> None:
    _compare(name, "xml", tmp_path)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_networks_of_libraries_as_programs(name: str, tmp_path: Path) -> None:
    network = build(LIBRARIES[name])
    model, torch_model = save(network, "pt2", tmp_path, X), TorchModel(network)
    with model.opened(), torch_model.opened():
        got, want = model.features(X), torch_model.features(X)
    close(got.maps, want.maps, atol=1e-4 * float(want.maps.abs().amax()), rtol=0)


class Beside(own.Trunk):
    """Two convolutions beside each other, of different sizes, of which each has a part of the picture's influence."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 16, 5, 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(x).mean((2, 3)) + self.other(x).mean((2, 3)))


def test_without_such_a_layer_the_message_names_those_beside_each_other(tmp_path: Path) -> None:
    network = build(Beside)
    said = (
        r"^No layer with a spatial map carries all of the picture's influence on the scores: it passes through several "
        r"beside each other\. Layers that come into question: '(.+)', '(.+)'\. Name one, layer='(.+)' for example, or "
        r"use RISE or Occlusion\.$"
    )
    for model, names in ((TorchModel(network), {"b", "other"}), (save(network, "onnx", tmp_path, X), None)):
        with pytest.raises(NoSpatialOutput, match=said) as raised:
            ReciproCAM(model)(X)
        named = str(raised.value).split("question: ")[1].split(". Name")[0].replace("'", "").split(", ")
        assert names is None or set(named) == names
        for name in named:
            assert ReciproCAM(model, layer=name)(X).shape == (2, 1, 64, 64)


class Reversed(own.Trunk):
    """Mirrors the picture before it looks at it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(x.flip(3)).mean((2, 3)))


@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_where_a_graph_mirrors_the_picture_itself_no_layer_is_named(kind: str, tmp_path: Path) -> None:
    said = r"^All of the picture's influence on the scores passes layer '.+', but its positions do not lie where the "
    with pytest.raises(NoSpatialOutput, match=said):
        ReciproCAM(save(build(Reversed), kind, tmp_path, X))(X)

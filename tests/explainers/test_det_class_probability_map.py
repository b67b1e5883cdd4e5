"""DetClassProbabilityMap against its formula written out slowly, on heads whose answer is known."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import BadOutput, InvalidInput, InvalidTarget, MissingCapability, NoSpatialOutput, UnknownLayer
from seewhy.explainers import DetClassProbabilityMap
from seewhy.models.adapters import as_model
from seewhy.models.torch.model import TorchModel
from seewhy.targets import BoxTarget
from seewhy.types import Grid, Outputs
from support import detector_networks, networks
from support.detector_networks import ANCHORS
from support.networks import CLASSES, build, pictures
from support.typed import of_kind


def close(a: Tensor, b: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), atol=atol, rtol=0)


class Heads(nn.Module):
    """Gives the heads it is made with; in ``outputs`` they are candidates, position by position."""

    def __init__(
        self, *heads: Tensor, classes: int = CLASSES, anchors_first: bool = False, reach: Any = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.heads = nn.ParameterList(heads)
        self.classes, self.anchors_first, self.reach = classes, anchors_first, reach

    def forward(self, x: Tensor) -> Outputs:
        rows, grids = [], []
        for head in self.heads:
            h, w = head.shape[2:]
            anchors = head.shape[1] // self.classes
            split = head.expand(len(x), -1, -1, -1).reshape(len(x), anchors, self.classes, h, w)
            order = (0, 1, 3, 4, 2) if self.anchors_first else (0, 3, 4, 1, 2)
            rows.append(split.permute(order).reshape(len(x), -1, self.classes).sigmoid())
            grids.append(Grid(h, w, anchors, self.anchors_first, self.reach))
        return Outputs(scores=torch.cat(rows, 1), activated=True, grids=tuple(grids))


def slow(heads: list[Tensor], anchors: tuple[int, ...], label: int, function: Any) -> Tensor:
    """One image's map: the definition, anchor by anchor and position by position."""
    size = heads[len(heads) // 2].shape[1:]
    total = torch.zeros(size)
    for head, count in zip(heads, anchors, strict=True):
        classes, level = len(head) // count, torch.zeros(head.shape[1:])
        for i in range(head.shape[1]):
            for j in range(head.shape[2]):
                each = [head[a * classes : (a + 1) * classes, i, j] for a in range(count)]
                level[i, j] = max(float(function(scores)[label]) for scores in each)
        total += F.interpolate(level[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return total / len(heads)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


THREE = (noise(1, 2 * CLASSES, 8, 12), noise(1, CLASSES, 4, 6, seed=1), noise(1, 3 * CLASSES, 2, 3, seed=2))


@pytest.mark.parametrize("anchors_first", [False, True])
def test_the_candidates_of_the_outputs_are_the_levels(anchors_first: bool) -> None:
    network = Heads(*THREE, anchors_first=anchors_first)
    found = DetClassProbabilityMap(network).run(torch.zeros(2, 3, 32, 48), "all")
    assert found.raw.shape == (2, CLASSES, 4, 6)
    assert found.passes.forward == 2
    for label in range(CLASSES):
        want = slow([h[0] for h in THREE], (2, 1, 3), label, torch.sigmoid)
        close(found.raw[0, label], want)
        close(found.raw[1, label], want)


class Wired(Heads):
    """The heads as the outputs of layers, for methods that look at layers."""

    def __init__(self, *heads: Tensor, classes: int = CLASSES, shared: bool = False) -> None:
        super().__init__(*heads, classes=classes)
        self.shared = shared
        self.layers = nn.ModuleList(nn.Identity() for _ in heads)

    def forward(self, x: Tensor) -> Outputs:
        for head, layer in zip(self.heads, self.layers, strict=True):
            (self.layers[0] if self.shared else layer)(head.expand(len(x), -1, -1, -1))
        return super().forward(x)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", None])
def test_listed_layers_are_the_levels_in_their_order(function: str | None) -> None:
    network, x = Wired(*THREE), torch.zeros(1, 3, 32, 48)
    put = {"softmax": lambda s: s.softmax(0), "sigmoid": torch.sigmoid, None: lambda s: s}[function]
    for order in ((0, 1, 2), (1, 0, 2), (2, 0)):
        layers, anchors = tuple(f"layers.{k}" for k in order), tuple((2, 1, 3)[k] for k in order)
        explainer = DetClassProbabilityMap(network, layers=layers, num_anchors=anchors, activation_fn=function)
        found = explainer.run(x, 2)
        want = slow([THREE[k][0] for k in order], anchors, 2, put)
        close(found.raw[0, 0], want)
        assert found.layer == ", ".join(layers)
        assert found.passes.forward == 1


def test_a_module_that_levels_share_is_listed_once() -> None:
    network, x = Wired(*THREE, shared=True), torch.zeros(1, 3, 32, 48)
    explainer = DetClassProbabilityMap(network, layers=["layers.0"], num_anchors=(2, 1, 3), activation_fn="sigmoid")
    close(explainer.run(x, 2).raw, DetClassProbabilityMap(network).run(x, 2).raw)
    assert explainer.layers == ("layers.0",)


def test_a_single_class_has_no_softmax() -> None:
    heads = (noise(1, 2, 4, 4), noise(1, 1, 2, 2, seed=1))
    network, layers = Wired(*heads, classes=1), ("layers.0", "layers.1")
    found = DetClassProbabilityMap(network, layers=layers, num_anchors=(2, 1)).run(torch.zeros(1, 3, 16, 16))
    close(found.raw[0, 0], slow([h[0] for h in heads], (2, 1), 0, lambda s: s))
    assert float(found.raw.std()) > 0.1


def test_any_backend_that_can_be_cut_will_do() -> None:
    """The same through the protocol alone, a layer at a time."""
    inner = of_kind(TorchModel, as_model(build(detector_networks.Pooled)))

    class Cut:
        name, passes = "cut", inner.passes
        opened, check, layers, auto_layer = inner.opened, inner.check, inner.layers, inner.auto_layer
        features, from_features = inner.features, inner.from_features

        def __call__(self, x: Tensor) -> Outputs:
            return inner(x)

    parameters: dict[str, Any] = {"layers": ("cls1", "cls2"), "num_anchors": ANCHORS, "activation_fn": "sigmoid"}
    x = pictures(2)
    whole, cut = (DetClassProbabilityMap(m, **parameters).run(x, [1, 2]) for m in (inner, Cut()))
    close(cut.raw, whole.raw, 1e-6)
    close(whole.raw, DetClassProbabilityMap(inner).run(x, [1, 2]).raw, 1e-6)
    assert (whole.passes.forward, cut.passes.forward) == (2, 4)


def test_a_background_is_never_seen() -> None:
    network = Wired(*THREE)
    explainer = DetClassProbabilityMap(
        network, layers=("layers.0", "layers.1", "layers.2"), num_anchors=(2, 1, 3), background=1
    )
    raw = explainer.run(torch.zeros(1, 3, 32, 48), "all").raw
    assert not bool(raw[0, 1].any())
    assert bool(raw[0, [0, 2, 3, 4]].amin((1, 2)).gt(0).all())


def peak(height: int, width: int, i: int, j: int) -> Tensor:
    head = torch.full((1, CLASSES, height, width), -9.0)
    head[0, 2, i, j] = 9.0
    return head


def test_padding_of_the_network_is_cut_off() -> None:
    """The last column stands for what lies beyond the picture: 8 x 12 positions of which 8 x 9 are the picture's."""
    heads = (peak(8, 12, 3, 8), peak(8, 12, 3, 8))
    plain, padded = (DetClassProbabilityMap(Heads(*heads, reach=r)).run(torch.zeros(1, 3, 32, 36), 2).raw
                     for r in ((1.0, 1.0), (1.0, 12 / 9)))  # fmt: skip
    assert plain.shape == (1, 1, 8, 12)
    assert padded.shape == (1, 1, 8, 9)
    close(padded[0, 0], plain[0, 0, :, :9], 1e-4)
    smooth = DetClassProbabilityMap(Heads(*heads, reach=(1.0, 12 / 9)), antialias=True).run(
        torch.zeros(1, 3, 32, 36), 2
    )
    close(smooth.raw, padded, 1e-4)


def test_positions_that_are_skipped_are_told_and_can_be_looked_at() -> None:
    heads = (peak(16, 16, 6, 6), torch.full((1, CLASSES, 2, 2), -9.0))
    plain, smooth = (
        DetClassProbabilityMap(Heads(*heads), antialias=a).run(torch.zeros(1, 3, 32, 32), 2) for a in (False, True)
    )
    assert float(plain.raw.max()) < 1e-3 < float(smooth.raw[0, 0, 0, 0])
    said = (
        "The map has the middle level's 2 x 2 positions; of the 16 x 16 of the finest level it samples some. Use "
        "antialias=True to look at all."
    )
    assert said in plain.warnings
    assert said not in smooth.warnings


def test_the_map_shows_where_the_class_is_seen() -> None:
    saliency = DetClassProbabilityMap(Heads(peak(8, 8, 6, 1), peak(8, 8, 6, 1)))(torch.zeros(1, 3, 64, 64), 2)
    i, j = divmod(int(saliency.flatten().argmax()), 64)
    assert 48 <= i < 56
    assert 8 <= j < 16


def test_torchvisions_heads_give_the_same_by_name() -> None:
    """The shared class head of RetinaNet, listed, is what the adapter found."""
    zoo = pytest.importorskip("torchvision.models.detection")
    bones = pytest.importorskip("torchvision.models.detection.backbone_utils")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = zoo.RetinaNet(
            bones.resnet_fpn_backbone(backbone_name="resnet18", weights=None), num_classes=4, min_size=64, max_size=96
        ).eval()
        nn.init.normal_(network.head.classification_head.cls_logits.weight, 0, 0.5)
    x = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    layers = ("head.classification_head.cls_logits",)
    named = DetClassProbabilityMap(network, layers=layers, num_anchors=9, activation_fn="sigmoid").run(x, "all")
    own = DetClassProbabilityMap(network).run(x, "all")
    close(named.raw, own.raw)
    assert float(own.raw.std()) > 0.01
    assert own.passes.forward == 1


WRONG: list[tuple[type[Exception], Any, dict[str, Any], str]] = [
    (InvalidInput, None, {"layers": "layers.0", "num_anchors": 1},
     "layers must be names of layers in a tuple, one a level, got 'layers.0'."),
    (InvalidInput, None, {"layers": ("layers.0",)}, "layers and num_anchors belong together: pass both, or neither."),
    (InvalidInput, None, {"num_anchors": 3}, "layers and num_anchors belong together: pass both, or neither."),
    (InvalidInput, None, {"layers": ("layers.0",), "num_anchors": 0}, "num_anchors must be positive integers, got 0."),
    (InvalidInput, None, {"layers": ("layers.0",), "num_anchors": (2, 1)},
     "num_anchors has 2 numbers, the layers give 1 levels."),
    (BadOutput, None, {"layers": ("layers.0",), "num_anchors": 3},
     "A class head of 3 anchors and 5 classes has 15 channels, got 10. Check num_anchors and layers."),
    (NoSpatialOutput, networks.Pooled, {},
     "It is not known how the candidates of Pooled lie in the picture. Pass layers=(its class heads) and "
     "num_anchors=..., or load it with an adapter of seewhy.heads that knows its grids."),
    (NoSpatialOutput, networks.Pooled, {"layers": ("fc",), "num_anchors": 1},
     "Layer 'fc' gives no map (N, C, h, w), but shape (1, 5)."),
    (UnknownLayer, networks.Pooled, {"layers": ("clss1",), "num_anchors": 1},
     "The network has no layer 'clss1'. Known: 'conv1', 'bn1', 'act1', 'conv2', 'bn2', 'act2', 'pool', 'fc'."),
    (MissingCapability, "function", {"layers": ("fc",), "num_anchors": 1},
     "layers can be given for a model with features; 'detector' gives scores only."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "network", "parameters", "message"), WRONG)
def test_what_cannot_be_done_is_said(kind: Any, network: Any, parameters: dict[str, Any], message: str) -> None:
    made = networks.detector if network == "function" else Wired(*THREE) if network is None else build(network)
    with pytest.raises(kind, match="^" + re.escape(message) + "$"):
        DetClassProbabilityMap(made, **parameters).run(torch.zeros(1, 3, 32, 48), 0)


def test_boxes_are_not_its_business() -> None:
    with pytest.raises(InvalidTarget) as said:
        DetClassProbabilityMap(Heads(*THREE)).run(torch.zeros(1, 3, 32, 48), BoxTarget(box=(0, 0, 8, 8), label=1))
    assert str(said.value) == (
        "DetClassProbabilityMap explains classes. For a box, a mask or another target use RISE or Occlusion."
    )

"""InstanceMaps against its formula: sums of score times mask over the objects of a class."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import BadOutput, InvalidInput, InvalidTarget
from seewhy.explainers import InstanceMaps
from seewhy.targets import MaskTarget
from seewhy.types import Outputs
from support import networks
from support.detector_networks import Slope
from support.networks import build


def close(a: Tensor, b: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), atol=atol, rtol=0)


class Things(nn.Module):
    """Candidates that it is made with: (label, score, box, columns of the mask that are on)."""

    def __init__(self, *things: Any, activated: bool = True) -> None:
        super().__init__()
        self.things, self.activated = things, activated

    def forward(self, x: Tensor) -> Outputs:
        n, q = len(x), len(self.things)
        scores, masks = torch.zeros(n, q, 3), torch.full((n, q, 4, 8), 0.1)
        boxes = torch.tensor([box for _, _, box, _ in self.things]).float()
        for i, (label, score, _, columns) in enumerate(self.things):
            scores[:, i, label] = score
            masks[:, i, :, columns] = 0.9
        return Outputs(scores=scores, boxes=boxes.expand(n, -1, -1), masks=masks, activated=self.activated)


LEFT, RIGHT, ABOVE = (0, 0, 16, 16), (16, 0, 32, 16), (0, 0, 16, 14)
X = torch.zeros(2, 3, 16, 32)


def columns(**values: float) -> Tensor:
    """(4, 8) with a value in each named column; c0 is the first."""
    found = torch.zeros(4, 8)
    for name, value in values.items():
        found[:, int(name[1:])] = value
    return found


def test_score_weighted_masks_over_the_number_of_objects() -> None:
    network = Things((1, 0.8, LEFT, [0, 1]), (1, 0.6, RIGHT, [1, 4]), (2, 0.9, LEFT, [2]))
    found = InstanceMaps(network).run(X, "all")
    assert found.raw.shape == (2, 3, 4, 8)
    assert found.passes.forward == 2
    for i in range(2):
        close(found.raw[i, 1], columns(c0=0.8 / 2, c1=(0.8 + 0.6) / 2, c4=0.6 / 2))
        close(found.raw[i, 2], columns(c2=0.9))
        assert not bool(found.raw[i, 0].any())


def test_a_faint_object_does_not_look_like_a_certain_one() -> None:
    faint, certain = (InstanceMaps(Things((1, score, LEFT, [0, 1, 2])))(X, 1) for score in (0.06, 0.99))
    assert float(faint.max()) == pytest.approx(0.06)
    assert float(certain.max()) == pytest.approx(0.99)
    shown = seewhy.explain(Things((1, 0.06, LEFT, [0, 1, 2])), X, 1, "instance_maps", progress=False)
    assert float(shown.saliency.max()) == pytest.approx(0.06)
    bright = [float(torch.as_tensor(list(shown.heatmap().convert("L").getdata())).float().max())]
    full = seewhy.explain(Things((1, 0.99, LEFT, [0, 1, 2])), X, 1, "instance_maps", progress=False)
    bright.append(float(torch.as_tensor(list(full.heatmap().convert("L").getdata())).float().max()))
    assert bright[0] < 40 < 200 < bright[1]


def test_thresholds() -> None:
    network = Things((1, 0.8, LEFT, [0]), (1, 0.04, RIGHT, [4]), (1, 0.7, ABOVE, [2]))
    close(InstanceMaps(network).run(X, 1).raw[0, 0], columns(c0=0.8))  # one is too faint, one is the same object
    close(InstanceMaps(network, score_threshold=0.03).run(X, 1).raw[0, 0], columns(c0=0.4, c4=0.02))
    close(InstanceMaps(network, nms_threshold=0.95).run(X, 1).raw[0, 0], columns(c0=0.4, c2=0.35))
    assert float(InstanceMaps(network, mask_threshold=0.05).run(X, 1).raw.amin()) == pytest.approx(0.8)
    assert not bool(InstanceMaps(network, mask_threshold=0.95).run(X, 1).raw.any())


def test_a_class_without_an_object_says_so() -> None:
    found = InstanceMaps(Things((1, 0.8, LEFT, [0, 1]))).run(X[:1], [[1, 2]])
    assert "Image 0, class 2: no object has a score above 0.05." in found.warnings
    assert not any("class 1: no object" in warning for warning in found.warnings)
    assert not any(
        "no object" in warning for warning in InstanceMaps(Things((1, 0.8, LEFT, [0]))).run(X, "all").warnings
    )


WRONG = [
    (build(networks.Pooled), InvalidTarget,
     "InstanceMaps needs instance masks with boxes: Pooled gives no instance masks."),
    (Things((1, 0.8, LEFT, [0]), activated=False), BadOutput,
     "InstanceMaps needs probabilities: Things must return Outputs(activated=True, ...)."),
]  # fmt: skip


@pytest.mark.parametrize(("network", "kind", "message"), WRONG)
def test_networks_without_what_it_needs(network: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match="^" + re.escape(message) + "$"):
        InstanceMaps(network).run(torch.rand(1, 3, 16, 32), 1)


@pytest.mark.parametrize("name", ["score_threshold", "mask_threshold", "nms_threshold"])
def test_thresholds_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^{name} must be a number from 0 to 1, got -1\.$"):
        InstanceMaps(build(networks.Pooled), **{name: -1})


def test_masks_are_not_its_targets() -> None:
    with pytest.raises(
        InvalidTarget, match=r"^InstanceMaps explains classes\. For a box, a mask or another target use"
    ):
        InstanceMaps(Things((1, 0.8, LEFT, [0]))).run(X[:1], MaskTarget(mask=torch.ones(4, 8), label=1))


def test_mask_rcnn_gives_its_masks() -> None:
    """Random boxes, with masks of a known shape: those of a class, each times its score, add up to the map."""
    zoo = pytest.importorskip("torchvision.models.detection")
    bones = pytest.importorskip("torchvision.models.detection.backbone_utils")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = zoo.MaskRCNN(
            bones.resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=[3, 4]), num_classes=3,
            rpn_anchor_generator=zoo.rpn.AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3), min_size=64,
            max_size=96, box_score_thresh=0.2, box_detections_per_img=30, box_nms_thresh=0.5,
        ).eval()  # fmt: skip
    network.roi_heads.mask_predictor = Slope()
    x = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = network(list(x))[0]
    found = InstanceMaps(network, score_threshold=0.2, mask_threshold=0.5).run(x, "all").raw
    assert found.shape == (1, 3, 64, 96)
    for label in (1, 2):
        own = [i for i, one in enumerate(want["labels"].tolist()) if one == label]
        total = torch.zeros(64, 96)
        for i in own:
            total += want["scores"][i] * (want["masks"][i, 0] > 0.5)
        assert len(own) > 0
        correlation = torch.corrcoef(torch.stack([found[0, label].flatten(), (total / len(own)).flatten()]))[0, 1]
        assert float(correlation) > 0.9  # torchvision pastes in whole pixels

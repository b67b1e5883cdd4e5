"""Torchvision's segmentation networks and SqueezeNet: a map of class scores is not explained by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seewhy.explainers import GradCAM, HiResCAM
from seewhy.models.torch.model import TorchModel
from support.networks import pictures
from support.volumes_by_hand import hires

tv = pytest.importorskip("torchvision")
PLAIN = {"weights": None, "weights_backbone": None, "num_classes": 6}


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}, "classifier.3"),
        ("lraspp_mobilenet_v3_large", {}, "backbone.4"),  # its two branches come together in the scores alone
    ],
)
def test_segmentation(name: str, options: dict[str, Any], layer: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tv.models.get_model(name, **PLAIN, **options).eval()
    model = TorchModel(network, output=lambda raw: raw["out"][:, :, :8, :8].mean((2, 3)))
    assert model.auto_layer(pictures(1, height=64, width=64)) == layer


def test_squeezenet_ends_in_a_map_of_class_scores() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tv.models.squeezenet1_1(num_classes=7).eval()
    assert GradCAM(network).run(pictures(1, height=64, width=64), 1).layer == "classifier.0"


CLIPS = [("r3d_18", (8, 48, 48), "layer4", (1, 3, 3)), ("mc3_18", (8, 48, 48), "layer4", (8, 3, 3)),
         ("s3d", (16, 224, 224), "features", (2, 7, 7)), ("swin3d_t", (4, 64, 64), "norm", (2, 2, 2))]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "layer", "grid"), CLIPS, ids=[name for name, *_ in CLIPS])
def test_networks_of_clips(name: str, size: tuple[int, ...], layer: str, grid: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tv.models.get_model(name, weights=None, num_classes=5).eval()
        clip = torch.rand(1, 3, *size)
    found = HiResCAM(network).run(clip, 1)
    assert (found.layer, found.raw.shape[2:]) == (layer, grid)
    torch.testing.assert_close(found.raw[:, 0], hires(network, layer, clip, 1, last=layer == "norm"))

"""segmentation-models-pytorch: a region's score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.models.loading import load
from support.slow_twins import Client, check

smp = pytest.importorskip("segmentation_models_pytorch")


def corner(raw: Tensor) -> Tensor:
    return raw[:, :, :16, :16].mean((2, 3))


def client(name: str, grid: int, **more: Any) -> Client:
    """The decoder gives the last map before the class scores."""
    return Client(
        name=name, make=lambda: getattr(smp, name)("resnet18", encoder_weights=None, classes=3), layer="decoder",
        grid=grid, say=lambda network, x: corner(network(x)), options={"output": corner}, **more,
    )  # fmt: skip


NETWORKS = [
    client("FPN", 16, placed=False),
    client("PSPNet", 8),
    client("DeepLabV3Plus", 16, placed=False),
    client("Linknet", 64, placed=False),
    client("Segformer", 16),
    client("UPerNet", 16, placed=False),
    client("Unet", 64, placed=False),
]


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)


def test_the_class_of_the_whole_picture_has_a_layer_of_its_own() -> None:
    """After the segmentation of the same network was explained: its decoder has no part in the second answer."""
    network = smp.Unet("resnet18", encoder_weights=None, classes=4, aux_params={"classes": 5, "pooling": "avg"}).eval()
    x = torch.rand(1, 3, 64, 96)
    assert seewhy.explain(network, x, progress=False).layer == "decoder"
    found = seewhy.explain(load(network, output=1), x, 2, "grad_cam", progress=False)
    assert found.layer == "encoder.layer4"
    maps = network.encoder(x)[-1].detach().requires_grad_()
    score = network.classification_head(maps)[0, 2]
    (slope,) = torch.autograd.grad(score, maps)
    want = (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu()[0].detach()
    torch.testing.assert_close(found.raw[0, 0], want)

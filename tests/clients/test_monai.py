"""MONAI's networks for pictures of one channel, and for volumes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.explainers import RISE, HiResCAM
from support.networks import build
from support.slow_twins import Client, check
from support.volumes_by_hand import hires

monai = pytest.importorskip("monai.networks.nets")
pytest.importorskip("einops")
close = torch.testing.assert_close
DENSE = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2, 2)}
VIT = {"img_size": 64, "patch_size": 16, "hidden_size": 32, "mlp_dim": 64, "num_layers": 2, "num_heads": 2}
CLASSIFIER = {**VIT, "classification": True, "num_classes": 5, "post_activation": None}


def first(network: Any, x: Tensor) -> Tensor:
    return network(x)[0]


def corner(raw: Tensor) -> Tensor:
    return raw[:, :, :16, :16].mean((2, 3))


def client(name: str, given: dict[str, Any], layer: str, grid: int, **more: Any) -> Client:
    return Client(
        name=more.pop("title", name), make=lambda: getattr(monai, name)(spatial_dims=2, in_channels=1, **given),
        channels=1, layer=layer, grid=grid, **more,
    )  # fmt: skip


NETWORKS = [
    client("DenseNet", {"out_channels": 5, **DENSE}, "class_layers.relu", 4),
    client("DenseNet", {"out_channels": 1, **DENSE}, "class_layers.relu", 4, title="DenseNet, one logit",
           activate=torch.sigmoid),
    client("SENet", {
        "block": "se_resnet_bottleneck", "layers": (1, 1, 1, 1), "groups": 1, "reduction": 16, "num_classes": 5,
        "inplanes": 16,
    }, "layer4", 2),
    client("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": False, "num_classes": 5}, "_swish", 2),
    client("ViT", CLASSIFIER, "blocks.1.norm1", 4, prefix=1, carries=False, say=first, options={"output": 0},
           block=("blocks.1", "blocks.1.norm1")),
    client("UNet", {"out_channels": 3, "channels": (8, 16, 32), "strides": (2, 2)}, "model.1", 32,
           say=lambda network, x: corner(network(x)), options={"output": corner}, title="UNet, a region"),
]  # fmt: skip


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)


def region(raw: Tensor) -> Tensor:
    return raw[:, :, 4:12, :8, :8].mean((2, 3, 4))


VOLUMES = [
    ("DenseNet", {"in_channels": 1, "out_channels": 5, **DENSE}, "class_layers.relu", (1, 2, 2), None),
    ("resnet10", {"n_input_channels": 1, "num_classes": 5}, "layer4", (2, 2, 3), None),
    ("UNet", {"in_channels": 1, "out_channels": 3, "channels": (8, 16, 32), "strides": (2, 2)}, "model.1", (12, 16, 20),
     region),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "layer", "grid", "say"), VOLUMES, ids=[name for name, *_ in VOLUMES])
def test_networks_of_volumes(name: str, given: dict[str, Any], layer: str, grid: tuple[int, ...], say: Any) -> None:
    network, x = build(lambda: getattr(monai, name)(spatial_dims=3, **given)), torch.rand(1, 1, 24, 32, 40)
    found = HiResCAM(seewhy.load(network, output=say)).run(x, 1)
    assert (found.layer, found.raw.shape[2:]) == (layer, grid)
    close(found.raw[:, 0], hires(network, layer, x, 1, say=say or (lambda raw: raw)))
    black = RISE(lambda volumes: (say or (lambda raw: raw))(network(volumes)), num_masks=8, grid=2)
    assert black(x, 1).shape == (1, 1, 24, 32, 40)

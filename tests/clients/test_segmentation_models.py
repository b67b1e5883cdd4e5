"""segmentation-models-pytorch: a region's score."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

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

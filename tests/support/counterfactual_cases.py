"""Networks and helpers for the tests of HierarchicalOcclusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.counterfactuals import EditTree, HierarchicalOcclusion
from support import networks
from support.networks import build

close = torch.testing.assert_close
HAND: dict[str, Any] = {"activation_fn": None, "fill": 0.0, "window": (4, 2), "stride": (4, 2)}


def linear(weights: dict[tuple[int, int], float], height: int = 8, width: int = 8, channels: int = 1) -> Any:
    """Class 0's score is the sum of these weights (x, y) over the pixels of value 1; class 1's the opposite."""
    network = build(networks.Linear, channels, height, width)
    with torch.no_grad():
        network.weight.zero_()
        for (x, y), value in weights.items():
            network.weight[0, 0, y, x] = value
            network.weight[1, 0, y, x] = -value
    return network


QUARTERS = {(1, 1): 3.0, (3, 3): 1.0, (5, 3): 2.0, (6, 6): -1.0}  # windows of 4: 4, 0, 2 and -1
ONES = torch.ones(1, 1, 8, 8)


def needing(context: bool) -> Any:
    """A quarter of the first window is worth 0.3; one of the second 0.4 beside the whole first window, or always."""

    def network(x: Tensor) -> Tensor:
        first, second = x[:, 0, ::2, ::2][:, :2, :2].flatten(1), x[:, 0, ::2, ::2][:, :2, 2:].flatten(1)
        beside = first.amin(1) if context else first.amax(1)
        return torch.stack([0.3 * first.amax(1) + 0.4 * second.amax(1) * beside, torch.zeros(len(x))], 1)

    return network


class Times(nn.Module):
    """Brings scores to where probabilities move."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def searching(**parameters: Any) -> HierarchicalOcclusion:
    network = nn.Sequential(build(networks.Linear, 3, 24, 30), Times(0.1))
    return HierarchicalOcclusion(
        network, **{"threshold": 0.6, "fill": 0.0, "window": (12, 6), "stride": (6, 3), **parameters}
    )


def told(trees: list[list[EditTree]]) -> list[list[Any]]:
    """Everything but the pixels, with probabilities rounded: batches of another size round otherwise."""

    def coarse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: coarse(item) for key, item in value.items()}
        if isinstance(value, list):
            return [coarse(item) for item in value]
        return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value

    return [[coarse(tree.as_dict() | {"reason": tree.found}) for tree in row] for row in trees]


def raw(trees: list[list[EditTree]]) -> list[list[Any]]:
    return [[tree.as_dict() | {"reason": tree.found} for tree in row] for row in trees]

"""Networks and helpers for the tests of OoDNet."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import networks
from support.networks import CLASSES
from support.typed import unchecked

close = torch.testing.assert_close


class Asked(networks.Pooled):
    """The documented protocol."""

    def __init__(self, width: Any = 16, channels: int = 3) -> None:
        super().__init__(channels=channels)
        self.num_features, self.output_features = width, False

    def forward(self, x: Tensor) -> Tensor:
        vector = self.pool(self.features(x)).flatten(1)
        return vector if self.output_features else self.fc(vector)


class Headless(Asked):
    """The same without a linear layer that gives the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fc = self.fc.weight, unchecked(nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        vector = super().forward(x)
        return vector if self.output_features else vector @ self.weight.T


def vector(network: networks.Pooled, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network.pool(network.features(x)).flatten(1)


def patches(n: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures in which the brightest of five stripes tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    x = torch.randn((n, 3, 10, 10), generator=generator) * 0.1
    for i, label in enumerate(labels):
        x[i, :, :, 2 * label : 2 * label + 2] += 1
    return x, labels


def refuses(error: type[Exception], said: str) -> Any:
    return pytest.raises(error, match="^" + re.escape(said) + "$")

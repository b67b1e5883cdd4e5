"""Networks and helpers for the tests of EpistemicUncertainty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty, Uncertainty
from support import networks

close = torch.testing.assert_close


class Head(networks.Pooled):
    """Dropout of rate ``p`` as a module before the last linear layer; counts what its first convolution sees."""

    def __init__(self, p: float = 0.4, kind: type[nn.Module] = nn.Dropout, **options: Any) -> None:
        super().__init__()
        self.drop, self.images = kind(p, **options), 0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.vector(x)))

    def vector(self, x: Tensor) -> Tensor:
        return self.pool(self.features(x)).flatten(1)


class Early(networks.Pooled):
    """Drops whole channels, and units within a map."""

    def __init__(self, kind: type[nn.Module] = nn.Dropout2d) -> None:
        super().__init__()
        self.drop = kind(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.drop(self.features(x))).flatten(1))


def ask(network: Any, x: Tensor, **options: Any) -> Uncertainty:
    return EpistemicUncertainty(network, **options)(x)

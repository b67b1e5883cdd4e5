"""Cases for metrics: a network without structure, a patch that is all that matters, and their scores found slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.metrics import Case
from seewhy.models.adapters import as_model
from support.networks import pictures
from support.typed import of_kind

PATCH = (slice(2, 4), slice(4, 9))  # 10 of 8 x 10 = 80 pixels: 1/8


class Rough(nn.Module):
    """The weight of every pixel differs from its neighbours'; any size, any number of channels, 5 classes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ rough_weight(*x.shape[1:]).to(x).flatten(1).T / 12


def rough_weight(channels: int, height: int, width: int) -> Tensor:
    """(5, C, H, W)."""
    return torch.sin(torch.arange(5 * channels * height * width).view(5, channels, height, width) ** 1.5)


def case(network: Any, saliency: Tensor, image: Tensor | None = None, target: Any = 0) -> Case:
    """One map to be judged, of a white image unless another is given."""
    given = torch.ones(1, *saliency.shape) if image is None else image
    return Case(model=as_model(network), image=given, target=target, saliency=saliency)


def rough(height: int, width: int, channels: int = 3, target: Any = 2) -> Case:
    """A random map of a random image, without ties."""
    saliency = torch.randn((height, width), generator=torch.Generator().manual_seed(9))
    return case(Rough(), saliency, pictures(1, channels, height, width)[0], target)


def slow_score(one: Case, image: Any) -> float:
    """The probability of the case's class for a changed image."""
    with torch.no_grad():
        probabilities = one.model(torch.as_tensor(np.asarray(image)).float()[None]).classes[0].softmax(0)
        return float(probabilities[of_kind(int, one.target)])


def patch() -> Tensor:
    """(8, 10): 1 where the networks below look."""
    found = torch.zeros(8, 10)
    found[PATCH] = 1
    return found


def mean_network(x: Tensor) -> Tensor:
    """The score of class 0 is the mean brightness of the patch, that of class 1 the rest to 1."""
    score = x[:, :, PATCH[0], PATCH[1]].mean((1, 2, 3))
    return torch.stack([score, 1 - score], 1)


def all_network(x: Tensor) -> Tensor:
    """0.6 as long as the whole patch is bright, and 0 as soon as one of its pixels is not."""
    score = 0.6 * (x[:, :, PATCH[0], PATCH[1]].amin((1, 2, 3)) > 0.5).float()
    return torch.stack([score, 1 - score], 1)


def any_network(x: Tensor) -> Tensor:
    """0.6 as soon as one pixel of the patch is bright."""
    score = 0.6 * (x[:, :, PATCH[0], PATCH[1]].amax((1, 2, 3)) > 0.5).float()
    return torch.stack([score, 1 - score], 1)


def blind_network(x: Tensor) -> Tensor:
    """0.3 whatever it sees."""
    return torch.full((len(x), 2), 0.3)

"""EigenCAM: what a layer's channels have in common, whatever the class.

    A (h w x C) = U S V^T,   map = A v_1

The first singular vector is known up to its sign only. Here the sign is the one that gives the light side of the map
more energy than the dark side, sum_ij map |map| >= 0; after a ReLU all of the map is then light. As in the paper the
mean is not subtracted first.

Source: Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", 2020 (arXiv 2008.00299).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.explainers._cam import ActivationsAlone
from seewhy.explainers._checks import at_places
from seewhy.maps import full_precision, over
from seewhy.types import Note

__all__ = ["EigenCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EigenCAM(ActivationsAlone):
    """First principal component of a layer's channels, the same for every class (Muhammad 2020).

    Example:
        >>> EigenCAM(network, layer="act2")(inputs).shape
        torch.Size([2, 1, 32, 32])
    """

    @staticmethod
    def _map(maps: Tensor) -> tuple[Tensor, list[Note]]:
        return _signed(_first_component(maps.double()))


def _first_component(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h, w): A v_1, from the eigenvectors of A^T A or A A^T, whichever is smaller."""
    flat = maps.flatten(2)
    _, c, positions = flat.shape
    with full_precision(maps):
        gram = flat @ flat.mT if c <= positions else flat.mT @ flat
        vector = torch.linalg.eigh(gram.nan_to_num(0.0, 0.0, 0.0)).eigenvectors[..., -1:]
        direction = vector if c <= positions else torch.nn.functional.normalize(flat @ vector, dim=1)
        return (flat.mT @ direction).view(len(maps), *maps.shape[2:])


def _signed(maps: Tensor) -> tuple[Tensor, list[Note]]:
    """Returns the maps with the sign that makes more of their energy light, and a note where both sides are alike."""
    lean, energy = (maps * maps.abs()).flatten(1).sum(1), maps.square().flatten(1).sum(1)
    unsure = (lean.abs() < 0.1 * energy) & (energy > 0)
    text = "the light and the dark side of its map are equally strong, so which is light means nothing."
    return torch.where(over(lean < 0, maps), -maps, maps), at_places(unsure, "sign that means nothing", text)

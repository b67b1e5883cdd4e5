"""CentreMap, a baseline: a Gaussian around the middle of the image, which looks at nothing.

    map(y, x) = exp(-(u^2 + v^2) / (2 sigma^2)),   u = (y + 1/2) / H - 1/2,   v = (x + 1/2) / W - 1/2

People put what they photograph in the middle, so this map does well in many a comparison. A method that is no better
has shown nothing. Source: Judd, Durand and Torralba, "A Benchmark of Computational Models of Saliency to Predict Human
Fixations", 2012, whose centre baseline is a Gaussian stretched to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from seewhy.checks import check_number
from seewhy.explainers import Baseline
from seewhy.maps import size_of

__all__ = ["CentreMap"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CentreMap(Baseline):
    """A baseline for comparisons: a Gaussian around the middle, whatever the image shows (Judd 2012).

    Attributes:
        sigma: standard deviation as a share of each side.

    Example:
        >>> CentreMap(network)(inputs, 1)[0, 0, 16, 16] > CentreMap(network)(inputs, 1)[0, 0, 0, 0]
        tensor(True)
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        value = self.sigma
        check_number("sigma", value)

    def drawn(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H, W) the maps, without a network."""
        profiles = [self._profile(length, inputs.device) for length in size_of(inputs)]
        one = reduce(lambda known, profile: known.unsqueeze(-1) * profile, profiles)
        return one.expand(len(inputs), *one.shape)

    def _profile(self, length: int, device: torch.device) -> Tensor:
        """(length,): the Gaussian along one axis."""
        away = (torch.arange(length, dtype=torch.float32, device=device) + 0.5) / length - 0.5
        return torch.exp(-0.5 * (away / self.sigma).square())

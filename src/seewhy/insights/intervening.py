"""Cause, not coincidence: evidence is taken away from images that have it, and put into images that have not.

Both are compared with as much of a change that has nothing to do with it, image by image: the same form taken away at a
random place; the same place filled from another image without it. What matters is by how much more the score moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from seewhy.maps import upsample
from seewhy.statistics import interval

__all__ = ["Effect", "evidence", "put_in", "taken_away"]

PART = 0.3  # of a map's largest value, from which on a place is evidence
Bools = NDArray[np.bool_]
Scores = Callable[[Tensor], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """By how much more a score moves than by a like change without the evidence.

    Attributes:
        change: the mean, in the unit of the score; above 0 the evidence speaks for the class.
        low: of its 95 % interval; NaN where too few images tell none.
        high: the same.
        images: how many.
        alone: the mean change of the score itself, without comparison.
    """

    change: float
    low: float
    high: float
    images: int
    alone: float

    def __str__(self) -> str:
        return f"{self.change:+.3f} [{self.low:+.3f}, {self.high:+.3f}] in {self.images} images"


def evidence(raw: NDArray[np.float32], size: tuple[int, int]) -> Bools:
    """Returns (H, W), the places where a map (h, w) is at least 0.3 of its largest value; none of a map without any."""
    large = upsample(torch.from_numpy(np.array(raw))[None, None], size)[0, 0].numpy()
    most = float(large.max())
    return np.asarray(large >= PART * most) if most > 0 else np.zeros(size, dtype=bool)


def taken_away(scores: Scores, images: Tensor, where: Sequence[Bools], seed: int = 0) -> Effect:
    """Fills the evidence with what lies around it.

    Args:
        scores: images (N, C, H, W) -> (N,) the score of the class.
        images: (N, C, H, W), of the pattern.
        where: for each of them (H, W), its evidence.
        seed: of the random places.
    """
    rng = np.random.default_rng(seed)
    before = scores(images)
    without = scores(torch.stack([_filled(one, place) for one, place in zip(images, where, strict=True)]))
    elsewhere = scores(
        torch.stack([_filled(one, _moved(rng, place)) for one, place in zip(images, where, strict=True)])
    )
    return _effect(elsewhere - without, before - without)


def put_in(scores: Scores, sources: Tensor, where: Sequence[Bools], others: Tensor, seed: int = 0) -> Effect:
    """Copies the evidence of images of the pattern into others, at its own place, against that of another of these.

    Args:
        scores: images (N, C, H, W) -> (N,) the score of the class.
        sources: (N, C, H, W), of the pattern.
        where: for each of them (H, W), its evidence.
        others: (M, C, H, W) images without it.
        seed: of the pairs.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(sources), size=len(others))
    with_it, with_another = [], []
    for one, n in zip(others, chosen, strict=True):
        place = torch.from_numpy(where[n])
        with_it.append(torch.where(place, sources[n], one))
        with_another.append(torch.where(place, others[int(rng.integers(len(others)))], one))
    before, after = scores(others), scores(torch.stack(with_it))
    return _effect(after - scores(torch.stack(with_another)), after - before)


def _filled(image: Tensor, place: Bools) -> Tensor:
    """Returns the image with a place filled by a wide blur of everything else."""
    keep = (~place).astype(np.float64)
    if not keep.any():
        return image.mean((1, 2), keepdim=True).expand_as(image)
    sigma = max(place.shape) / 12
    weight = gaussian_filter(keep, sigma, mode="constant") + 1e-9
    pixels = image.double().cpu().numpy()
    blurred = np.stack([gaussian_filter(one * keep, sigma, mode="constant") / weight for one in pixels])
    far = (keep * pixels).sum((1, 2)) / keep.sum()  # what lies too far from anything has the mean
    blurred = np.where(weight > 1e-4, blurred, far[:, None, None])
    return torch.from_numpy(np.where(place, blurred, pixels)).to(image.dtype)


def _moved(rng: np.random.Generator, place: Bools) -> Bools:
    """Returns the same form at a random other place, around the edges."""
    shift = (int(rng.integers(place.shape[0])), int(rng.integers(1, place.shape[1])))
    return np.roll(place, shift, (0, 1))


def _effect(more: NDArray[np.float64], alone: NDArray[np.float64]) -> Effect:
    told = interval(more)
    low, high = (told.mean, told.mean) if np.ptp(more) == 0 and len(more) > 5 else (told.low, told.high)
    return Effect(change=told.mean, low=low, high=high, images=len(more), alone=float(alone.mean()))

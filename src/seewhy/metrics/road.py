"""ROAD: how does the score change when the most, or the least, salient pixels are replaced by what surrounds them?

A removed pixel becomes the weighted mean of its eight neighbours, 1/6 for those at its sides and 1/12 for those at its
corners, and a little noise. Its neighbours may be removed as well, so that all removed pixels together solve a sparse
linear system, (D - W) x = W known, D the sums of the weights of the neighbours inside the image. With M_q and L_q the
image without the q percent most and least salient pixels, and means over q:

    MoRF        mean p(image) - p(M_q)
    LeRF        mean p(L_q) - p(image)
    combined    (MoRF + LeRF) / 2 = mean (p(L_q) - p(M_q)) / 2

Source: Rong, Leemann, Borisov, Kasneci and Kasneci, "A Consistent and Efficient Evaluation Strategy for Attribution
Methods", 2022 (arXiv 2202.00449), which averages accuracies over a data set where this averages one image's scores.
The systems of a batch are solved together where the image is, by conjugate gradients with a multigrid cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.checks import check_choice, check_seed, is_number
from seewhy.errors import BadOutput, InvalidInput
from seewhy.metrics import Case, Cost, scores
from seewhy.metrics._chance import normal, seeds
from seewhy.metrics._curves import PerturbationMetric, places, relevance

__all__ = ["ROAD"]

Levels = list[tuple[Tensor, Tensor]]

TINY = 1e-30  # stands for 0 where it would divide


@dataclass(frozen=True, kw_only=True, eq=False)
class ROAD(PerturbationMetric):
    """Change of the score when the most or least salient pixels are replaced by their surroundings (Rong 2022).

    Within -1 and 1 for probabilities, -1/2 and 1/2 when combined; anywhere for logits.

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        percentiles: percentages of pixels removed, each above 0 and below 100.
        order: "MoRF" (most relevant first), "LeRF" (least relevant first) or "combined"; higher is better in each.
        noise: standard deviation of the noise on replaced pixels, in network space.
        seed: of the noise and of the order of equal pixels.

    Example:
        >>> ROAD().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))

    percentiles: tuple[float, ...] = (10, 20, 30, 40, 50, 60, 70, 80, 90)
    order: Literal["MoRF", "LeRF", "combined"] = "combined"
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "percentiles", _percentiles(self.percentiles))
        check_choice("order", self.order, ("MoRF", "LeRF", "combined"))
        if not is_number(self.noise) or self.noise < 0:
            raise InvalidInput(f"noise must be a number of at least 0, got {self.noise!r}.")
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each percentile and one for the image; combined, two for each percentile."""
        count = len(self.percentiles)
        return Cost(forward=2 * count if self.order == "combined" else count + 1)

    def _judge(self, case: Case) -> float:
        pixels = case.saliency.numel()
        amounts = [min(round(pixels * q / 100), pixels - 1) for q in self.percentiles]
        if self.order == "combined":
            most, least = self._removed(case, [*amounts, *(-n for n in amounts)]).chunk(2)
            return float((least - most).mean()) / 2
        if self.order == "MoRF":
            found = self._removed(case, [0, *amounts])
            return float((found[0] - found[1:]).mean())
        found = self._removed(case, [0, *(-n for n in amounts)])
        return float((found[1:] - found[0]).mean())

    def _removed(self, case: Case, amounts: list[int]) -> Tensor:
        """(R,) float64 on the host: the scores without the n most salient pixels, or without the -n least salient."""
        image, device = case.image, case.image.device
        count = torch.tensor(amounts, device=device).view(-1, 1, 1, 1)
        place = places(relevance(case), self.seed).to(device)
        noise = self.noise * normal(seeds(self.seed, 1), image.shape).to(image)

        def change(index: Tensor) -> Tensor:
            removed = (place < count[index]) | (place >= place.numel() + count[index].clamp_max(0))
            return torch.where(removed, impute(image.expand(len(index), *image.shape), removed) + noise, image)

        found = scores(
            case, change, len(amounts), activation_fn=self.activation_fn, per_eval=self.perturbation_per_eval
        )
        return found.cpu().double()


def impute(images: Tensor, removed: Tensor, most: int = 200) -> Tensor:
    """Replaces removed pixels by the weighted mean of their neighbours, removed ones included.

    Args:
        images: (B, C, H, W).
        removed: (B, 1, H, W) bool, in no image all of it.
        most: conjugate gradient steps; about 15 are needed.

    Raises:
        BadOutput: the steps were not enough.
    """
    levels = _levels(removed.float())
    known = images.float().masked_fill(removed, 0)
    found = _solve(levels, _around(known) * levels[0][0], most)
    return torch.where(removed, found.to(images.dtype), images)


def _levels(free: Tensor) -> Levels:
    """(unknown pixels, sum of the weights of their neighbours) of the image and of ever coarser ones.

    A coarse pixel is unknown where all of its four are; pixels outside of the image count as unknown.
    """
    degree = _around(torch.ones_like(free[:1]))
    if max(free.shape[2:]) <= 2:
        return [(free, degree)]
    return [(free, degree), *_levels(-F.max_pool2d(-free, 2, ceil_mode=True))]


def _around(values: Tensor) -> Tensor:
    """Returns the weighted sum of the neighbours of each pixel; in place, because memory is what takes the time."""
    rows = 2 * values
    rows[..., 1:] += values[..., :-1]
    rows[..., :-1] += values[..., 1:]
    total = 2 * rows
    total[..., 1:, :] += rows[..., :-1, :]
    total[..., :-1, :] += rows[..., 1:, :]
    return total.sub_(values, alpha=4).div_(12)


def _apply(level: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    free, degree = level
    return _around(x).sub_(degree * x).mul_(-free)


def _solve(levels: Levels, right: Tensor, most: int) -> Tensor:
    """Conjugate gradients, each channel of each image for itself until its residual is small."""
    x, residual, direction = torch.zeros_like(right), right, torch.zeros_like(right)
    goal = 1e-10 * _dot(right, right)
    before = torch.full_like(goal, torch.inf)
    for _ in range(most):
        open_ = _dot(residual, residual) > goal
        if not bool(open_.any()):
            return x
        step = _cycle(levels, residual)
        now = _dot(residual, step)
        direction = step + now / before.clamp_min(TINY) * direction
        applied = _apply(levels[0], direction)
        size = torch.where(open_, now / _dot(direction, applied).clamp_min(TINY), torch.zeros_like(now))
        x, residual, before = x + size * direction, residual - size * applied, now
    raise BadOutput(f"ROAD: the removed pixels could not be solved for in {most} steps.")


def _cycle(levels: Levels, right: Tensor) -> Tensor:
    """One multigrid cycle: smoothed here, corrected by the solution on the coarser image, smoothed again."""
    free, degree = levels[0]
    x = 0.8 * right / degree
    if len(levels) > 1:
        rest = F.avg_pool2d(right - _apply(levels[0], x), 2, ceil_mode=True, divisor_override=1)
        coarse = _cycle(levels[1:], rest * levels[1][0])
        x = x + F.interpolate(coarse, scale_factor=2)[..., : x.shape[2], : x.shape[3]] * free
    return x + 0.8 * (right - _apply(levels[0], x)) / degree


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, C, 1, 1)."""
    return (a * b).sum((2, 3), keepdim=True)


def _percentiles(values: Any) -> tuple[float, ...]:
    good = isinstance(values, tuple | list) and len(values) > 0
    if not good or not all(is_number(v) and 0 < v < 100 for v in values):
        raise InvalidInput(f"percentiles must be numbers above 0 and below 100, got {values!r}.")
    return tuple(values)

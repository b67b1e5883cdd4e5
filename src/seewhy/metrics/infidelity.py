"""Infidelity: how far the map is from foretelling what the score loses when the image is changed.

    mean over I of ( b <I, S> - (f(x) - f(x - I)) )^2        b = mean(<I, S> drop) / mean(<I, S>^2), at least 0

f is the probability of the class asked for. The factor b is the one that suits the map best, so that the map's own unit
does not matter; it is not let below 0, or a map and its negative would score the same. A map that foretells nothing
scores the mean of the squared drops. Two kinds of change:

    square    a random square is replaced by the baseline; <I, S> is the sum of the map over it. For maps that say what
              a pixel contributes (Occlusion, RISE, CAMs, gradient times input).
    noise     the image is replaced by the baseline plus normal noise; <I, S> is the sum over pixels and channels of
              what was taken away times the map. For maps that say how steep the score is (gradients).

A score that no change moves is no data.

Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", 2019 (arXiv 1901.09392).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.checks import check_choice, check_count, check_number, check_seed
from seewhy.errors import InvalidInput
from seewhy.metrics import Case, Cost, Metric, scores
from seewhy.metrics._chance import normal, seeds
from seewhy.perturbation import batch_size
from seewhy.types import Activation, check_activation

__all__ = ["Infidelity"]

Change = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Numbers of changes (R,) -> changed images (R, C, H, W) and <I, S> (R,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Infidelity(Metric):
    """Mean squared error with which the scaled map foretells what changes of the image cost the score (Yeh 2019).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed images a forward pass, or "auto".
        perturbation: "square" or "noise".
        samples: how many changes there are.
        window: longest side of a square in pixels; each from 1 to it is as likely. By default 10/28 of the image's
            short side, as published.
        sigma: deviation of the noise, in the network's input space.
        baseline: what a square shows, and what the noise is put on: a number, "mean", "blur" or a tensor that
            broadcasts to the image.
        seed: of the changes; the global random state is neither read nor changed.

    Example:
        >>> Infidelity().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    perturbation: Literal["square", "noise"] = "square"
    samples: int = 200
    window: int | None = None
    sigma: float = 0.2
    baseline: float | str | Tensor = 0.0
    seed: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        check_choice("perturbation", self.perturbation, ("square", "noise"))
        check_count("samples", self.samples)
        if self.window is not None:
            check_count("window", self.window)
        check_number("sigma", self.sigma)
        baselines.check(self.baseline)
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """Returns the image and its changed copies go through the network."""
        return Cost(forward=self.samples + 1)

    def _judge(self, case: Case) -> float:
        change = self._squares(case) if self.perturbation == "square" else self._noise(case)
        told = torch.zeros(self.samples + 1, dtype=torch.float64, device=case.image.device)

        def changed(numbers: Tensor) -> Tensor:
            images, told[numbers] = change(numbers)
            return images

        found = scores(
            case, changed, self.samples + 1, activation_fn=self.activation_fn, per_eval=self.perturbation_per_eval
        ).double()
        return _error(told[1:], found[0] - found[1:])

    def _squares(self, case: Case) -> Change:
        cover, saliency = self._cover(case), case.saliency.double()
        top, left, side = (part.to(case.image.device) for part in self._draw(*case.saliency.shape))
        rows, columns = (torch.arange(length, device=case.image.device) for length in case.saliency.shape)

        def change(numbers: Tensor) -> tuple[Tensor, Tensor]:
            y, x, s = (part[numbers].unsqueeze(1) for part in (top, left, side))
            down, across = (rows >= y) & (rows < y + s), (columns >= x) & (columns < x + s)
            hidden = down.unsqueeze(2) & across.unsqueeze(1)
            return torch.where(hidden.unsqueeze(1), cover, case.image), (hidden * saliency).sum((1, 2))

        return change

    def _draw(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """(samples + 1,) top, left and side of the squares; the first has side 0, which leaves the image as it is."""
        longest = self.window or max(1, round(min(height, width) * 10 / 28))
        if longest > min(height, width):
            raise InvalidInput(f"window {longest} is larger than the picture, {(height, width)}.")
        generator = torch.Generator("cpu").manual_seed(self.seed)
        chance = torch.rand((3, self.samples + 1), generator=generator, dtype=torch.float64, device="cpu")
        side = 1 + (chance[0] * longest).long()
        side[0] = 0
        return (chance[1] * (height - side + 1)).long(), (chance[2] * (width - side + 1)).long(), side

    def _noise(self, case: Case) -> Change:
        cover, saliency = self._cover(case), case.saliency.double()
        sources = seeds(self.seed, self.samples + 1)

        def change(numbers: Tensor) -> tuple[Tensor, Tensor]:
            noise = self.sigma * normal([sources[n] for n in numbers.tolist()], case.image.shape)
            images = torch.where((numbers == 0).view(-1, 1, 1, 1), case.image, cover + noise.to(case.image))
            taken = (case.image.double() - images.double()).sum(1)
            return images, (taken * saliency).sum((1, 2))

        return change

    def _cover(self, case: Case) -> Tensor:
        return baselines.make(self.baseline, case.image.unsqueeze(0))


def _error(told: Tensor, drops: Tensor) -> float:
    """Mean squared error of the scaled ``told`` against the drops; NaN where no score fell or rose."""
    if not bool(drops.any()):
        return float("nan")
    size = told.square().mean()
    factor = ((told * drops).mean() / size).clamp_min(0) if float(size) > 0 else size
    return float((factor * told - drops).square().mean())

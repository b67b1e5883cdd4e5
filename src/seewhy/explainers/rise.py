"""RISE: which pixels were shown when the class's probability was high, over many random masks.

A mask is a grid of s x s cells, each shown with probability p, enlarged bilinearly to (s+1) x (s+1) cells and moved by
a random offset of less than a cell. With f_i the probability under mask M_i, for each pixel:

    plain      sum_i f_i M_i / (N p)                      (the paper)
    centred    cov(f, M) / var(M)                         (the same signal without the noise of the mean score;
                                                          the variance of a mask is known in closed form)

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling
for Explanation of Black-box Models", 2018 (arXiv 1806.07421); with a BoxTarget it is D-RISE, Petsiuk et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.explainers._masks import Masks
from seewhy.maps import full_precision
from seewhy.models import Model
from seewhy.perturbation import batch_size, check_activation, perturbed_scores
from seewhy.targets import Request
from seewhy.types import Activation, Attribution, activation

__all__ = ["RISE"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISE(Explainer):
    """Covariance of the class's probability with random masks, for any black box (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "softmax", "sigmoid", None or a callable.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image; all images and targets share them.
        grid: cells along each side, or (down, across).
        p: probability that a cell is shown.
        estimator: "centred" or "plain".
        seed: of the masks; the global random state is neither read nor changed.
    """

    activation_fn: str | Activation | None = "softmax"
    perturbation_per_eval: int | str = 32
    num_masks: int = 4000
    grid: int | tuple[int, int] = 7
    p: float = 0.5
    estimator: Literal["centred", "plain"] = "centred"
    seed: int = 0

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        if not _is_count(self.num_masks) or (self.num_masks < 2 and self.estimator == "centred"):
            raise InvalidInput(f"num_masks must be an integer of at least 2, got {self.num_masks!r}.")
        if not all(_is_count(side) for side in _sides(self.grid)):
            raise InvalidInput(f"grid must be a positive integer or a pair (down, across) of them, got {self.grid!r}.")
        if not isinstance(self.p, int | float) or not 0 < self.p < 1:
            raise InvalidInput(f"p must lie between 0 and 1, both excluded, got {self.p!r}.")
        if self.estimator not in ("centred", "plain"):
            raise InvalidInput(f"estimator must be 'centred' or 'plain', got {self.estimator!r}.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise InvalidInput(f"seed must be an integer, got {self.seed!r}.")

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        height, width = inputs.shape[2:]
        masks = Masks.draw(self.num_masks, _sides(self.grid), self.p, self.seed, (height, width)).to(inputs.device)
        outputs = model(inputs)
        check_activation(outputs, self.activation_fn)
        targets = request.resolve(outputs)

        def perturb(images: Tensor, index: Tensor) -> Tensor:
            return inputs[images] * masks.at(index).unsqueeze(1).to(inputs.dtype)

        scores = perturbed_scores(
            model, inputs, perturb, self.num_masks, targets=targets, activate=activation(self.activation_fn),
            per_eval=self.perturbation_per_eval,
        ).transpose(1, 2)  # fmt: skip
        moved = scores - scores[..., :1]  # exactly zero where no mask changes the score
        centred = moved - moved.mean(2, keepdim=True)
        raw = self._estimate(masks, (centred if self.estimator == "centred" else scores).flatten(0, 1))
        return Attribution(
            raw=raw.view(*scores.shape[:2], height, width),
            outputs=outputs,
            targets=targets.classes,
            warnings=unmoved(centred, "mask", targets),
        )

    def _estimate(self, masks: Masks, scores: Tensor) -> Tensor:
        """(R, masks) -> (R, H, W); in place, because maps of all classes fill hundreds of megabytes."""
        with full_precision(scores):
            total = masks.weighted_sum(scores)
        if self.estimator == "plain":
            return total.mul_(1 / (self.num_masks * self.p))
        return total.div_(self.num_masks * masks.variance())


def _sides(grid: Any) -> tuple[Any, Any]:
    if isinstance(grid, tuple | list):
        return (grid[0], grid[1]) if len(grid) == 2 else (None, None)
    return grid, grid


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

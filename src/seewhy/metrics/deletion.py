"""Deletion: the area under the score while pixels are removed by falling saliency, by the protocol of RISE.

    area under p_k over the share of pixels removed;  224 pixels a step, each set to 0 in network space

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421). Steps are weighted by their pixels, which matters for the last one only, where the image's pixels are no
multiple of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seewhy import baseline as baselines
from seewhy.metrics import Case
from seewhy.metrics._curves import RiseMetric, background, named

__all__ = ["Deletion"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Deletion(RiseMetric):
    """Area under the score while pixels are removed by falling saliency, as RISE is judged (Petsiuk 2018).

    Within 0 and 1 for probabilities; anywhere for logits.

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        pixels_per_step: pixels removed from one image to the next.
        seed: of the order of equal pixels.
        baseline: what replaces pixels: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).

    Example:
        >>> Deletion().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))

    baseline: float | str | Tensor = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        baselines.check(self.baseline)

    def describe(self) -> str:
        """Returns the protocol in words, to be printed with every number."""
        return self._protocol(f"pixels replaced by {named(self.baseline)}")

    def _judge(self, case: Case) -> float:
        return self._area(case, case.image, background(self.baseline, case))

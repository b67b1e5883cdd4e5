"""Insertion AUC: how soon does the score come when pixels are shown by falling saliency?

With p_k the class's probability when the first k of S slabs of pixels are shown on a blurred (or constant) image:

    area under min(p_k / p_S, 1) over the share of pixels shown,    p_S: the whole image

`Insertion` is the published form, not divided by p_S.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.metrics import Case
from seewhy.metrics._curves import StepMetric, insertion_auc

__all__ = ["InsertionAUC"]


@dataclass(frozen=True, kw_only=True, eq=False)
class InsertionAUC(StepMetric):
    """Share of the score that is reached, on average, while pixels are shown by falling saliency (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        baseline: what pixels are shown on: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        steps: slabs of pixels; the last image is whole.
        seed: of the order of equal pixels.

    Example:
        >>> InsertionAUC(steps=10).evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    baseline: float | str | Tensor = "blur"

    def _judge(self, case: Case) -> float:
        return insertion_auc(self, case)

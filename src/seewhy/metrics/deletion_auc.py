"""Deletion AUC: how soon does the score go when pixels are removed by falling saliency?

With p_k the class's probability after the first k of S slabs of pixels were replaced by the baseline:

    1 - area under min(p_k / p_0, 1) over the share of pixels removed

A map whose first pixels take the whole score away comes close to 1; one whose pixels take nothing away comes to 0,
whatever the probability of the untouched image is. `Deletion` is the published form: the area itself, not divided by
p_0, lower is better.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421).
"""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.metrics import Case
from seewhy.metrics._curves import StepMetric, deletion_auc

__all__ = ["DeletionAUC"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DeletionAUC(StepMetric):
    """Share of the score that is lost, on average, while pixels are removed by falling saliency (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        baseline: what replaces pixels: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        steps: slabs of pixels; the last image has none left.
        seed: of the order of equal pixels.

    Example:
        >>> DeletionAUC(steps=10).evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    def _judge(self, case: Case) -> float:
        return deletion_auc(self, case)

"""Naive faithfulness: do slabs of salient pixels matter more to the score than slabs of others?

The pixels, by falling saliency, are cut in S slabs of equal size. With m_k the mean saliency of slab k and d_k the fall
of the class's probability when that slab alone is replaced by the baseline:

    (r + 1) / 2,    r = Pearson correlation of m and d;  0.5 where either is constant

Source: the correlation of attributions and drops of Alvarez-Melis and Jaakkola, "Towards Robust Interpretability with
Self-Explaining Neural Networks", 2018 (arXiv 1806.07538), on slabs of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.metrics import Case
from seewhy.metrics._curves import StepMetric, naive_faithfulness

__all__ = ["NaiveFaithfulness"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NaiveFaithfulness(StepMetric):
    """Correlation of the saliency of pixels with the drop when they are removed (Alvarez-Melis and Jaakkola 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        baseline: what replaces pixels: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        steps: slabs.
        seed: of the order of equal pixels.

    Example:
        >>> NaiveFaithfulness().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    def _judge(self, case: Case) -> float:
        return naive_faithfulness(self, case)

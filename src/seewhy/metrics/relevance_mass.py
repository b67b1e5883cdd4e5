"""Relevance mass: the share of the positive relevance that lies on the object.

    sum of max(S, 0) over the object / sum of max(S, 0) over the image

Source: Arras, Osman and Samek, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
explanations", 2022 (arXiv 2003.07258).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.metrics import Case, Metric

__all__ = ["RelevanceMass"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevanceMass(Metric):
    """Share of the positive relevance that lies on the object (Arras 2022); no data where none is positive.

    Example:
        >>> RelevanceMass().evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    needs_truth: ClassVar[bool] = True

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        positive = case.saliency.double().clamp_min(0)
        total = float(positive.sum())
        return float(positive[case.truth].sum()) / total if total > 0 else float("nan")

"""Relevance rank: the share of the K highest pixels that lie on the object, K being the object's size.

    |top-K pixels and object| / K

Pixels that are equal to the K-th highest fill the places left in the mean over all their orders, so a flat map scores
the object's share of the image.

Source: Arras, Osman and Samek, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
explanations", 2022 (arXiv 2003.07258).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.maps import scale
from seewhy.metrics import Case, Metric

__all__ = ["RelevanceRank"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevanceRank(Metric):
    """Share of the highest pixels, as many as the object has, that lie on it (Arras 2022).

    Example:
        >>> RelevanceRank().evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    needs_truth: ClassVar[bool] = True

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        levels, inside = scale(case.saliency.double()).flatten(), case.truth.flatten()
        size = int(inside.sum())
        last = levels.topk(size).values[-1]
        above, tied = levels > last, levels == last
        places = size - above.sum()
        hits = (above & inside).sum() + places * (tied & inside).sum() / tied.sum()
        return float(hits) / size

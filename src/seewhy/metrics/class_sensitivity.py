"""Class sensitivity: does the map of the likeliest class differ from that of the least likely one?

    (1 - r) / 2        r = Pearson's correlation of the two raw maps over the pixels

1 where one map is the other's negative, 0 where they are the same but for scale. A flat map has no correlation with
the other: r = 0. Two flat maps, a network with one class, or one whose scores are all equal give no data. Both maps are
made for the image, each for its own class; the case's own target and map are not looked at. Softmax and sigmoid keep
the order of the scores, so none is needed to find the two classes.

Source: the benchmark of this name in MindSpore XAI, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from seewhy.metrics import Case, Cost
from seewhy.metrics._correlation import is_flat, pearson
from seewhy.metrics._labelled import LabelledMetric

__all__ = ["ClassSensitivity"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSensitivity(LabelledMetric):
    """How little the maps of the likeliest and the least likely class agree, averaged by label (MindSpore XAI 2021).

    Attributes:
        num_labels: number of labels; None lets the averages grow with the labels that come.

    Example:
        >>> ClassSensitivity().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    needs_explainer: ClassVar[bool] = True

    def cost(self, height: int, width: int) -> Cost:
        """One pass to find the two classes, and a map for each."""
        return Cost(forward=1, explanations=2)

    def _judge(self, case: Case) -> float:
        assert case.explain is not None
        scores = case.model(case.image.unsqueeze(0)).classes[0]
        ends = torch.stack([scores.argmax(), scores.argmin()])
        if bool(ends[0] == ends[1]):
            return float("nan")
        first, last = case.explain(case.image.expand(2, -1, -1, -1), ends)
        if is_flat(first) and is_flat(last):
            return float("nan")
        r = pearson(first, last)
        return (1 - r) / 2 if r == r else 0.5

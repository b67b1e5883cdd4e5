"""Sparseness: the Gini index of the map's absolute values, high where few pixels carry everything.

    1 - 2 sum_k (v_k / sum v) (P - k + 1/2) / P        v_1 <= ... <= v_P the absolute values of the P pixels

0 where all are equal, 1 - 1/P where one pixel has all. Raw values are meant: a map scaled to [0, 1] has another zero.

Source: Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training", 2020
(arXiv 1810.06583).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from seewhy.metrics import Case, Metric

__all__ = ["Sparseness"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparseness(Metric):
    """Gini index of the map's absolute values (Chalasani 2020); no data where all are zero.

    Example:
        >>> Sparseness().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    concision: ClassVar[bool] = True

    def _judge(self, case: Case) -> float:
        values = case.saliency.double().abs().flatten().sort().values
        total = values.sum()
        if float(total) == 0:
            return float("nan")
        size = len(values)
        above = size - torch.arange(1, size + 1, device=values.device) + 0.5
        return float(1 - 2 * (values / total * above / size).sum())

"""Complexity: the entropy of the pixels' shares of the map's absolute values, low where few pixels carry everything.

    - sum_i p_i log p_i        p_i = |S_i| / sum_j |S_j|, natural logarithm

0 where one pixel has all, log(H W) where all are equal. Raw values are meant: a map scaled to [0, 1] has another zero.

Source: Bhatt, Weller and Moura, "Evaluating and Aggregating Feature-based Model Explanations", 2020 (arXiv 2005.00631).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from seewhy.metrics import Case, Metric

__all__ = ["Complexity"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Complexity(Metric):
    """Entropy of the pixels' shares of the map in nats (Bhatt 2020); no data where all are zero.

    Example:
        >>> Complexity().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    concision: ClassVar[bool] = True

    def _judge(self, case: Case) -> float:
        values = case.saliency.double().abs()
        return float(torch.special.entr(values / values.sum()).sum())  # NaN where all are zero

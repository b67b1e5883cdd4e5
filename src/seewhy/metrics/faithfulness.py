"""Faithfulness: does the score follow the pixels that a map calls important? With averages for each label.

    NaiveFaithfulness    (r + 1) / 2, r the correlation of the saliency of slabs of pixels with the drop of the
                         probability when each alone is replaced
    DeletionAUC          1 - area under the share of the probability that is left while slabs are replaced
    InsertionAUC         area under the share of the probability that is reached while slabs are shown

Slabs go by falling saliency and hold all pixels; the baseline is 0 in network space in all three. Values above 1 of the
shares count as 1.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421), and Alvarez-Melis and Jaakkola, "Towards Robust Interpretability with Self-Explaining Neural Networks",
2018 (arXiv 1806.07538).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.metrics import Case, Cost
from seewhy.metrics._curves import StepMetric, deletion_auc, insertion_auc, naive_faithfulness
from seewhy.metrics._labelled import LabelledMetric
from seewhy.types import Activation

__all__ = ["Faithfulness"]

_FORMS: dict[str, Callable[[StepMetric, Case], float]] = {
    "NaiveFaithfulness": naive_faithfulness,
    "DeletionAUC": deletion_auc,
    "InsertionAUC": insertion_auc,
}


@dataclass(frozen=True, eq=False)
class Faithfulness(LabelledMetric):
    """How well the score follows the pixels that a map calls important (Petsiuk 2018).

    Attributes:
        num_labels: number of labels; None lets the tally grow with the labels that come.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        metric: "NaiveFaithfulness", "DeletionAUC" or "InsertionAUC".
        perturbation_per_eval: changed copies a forward pass, or "auto".
        baseline: what replaces pixels: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        steps: slabs of pixels.
        seed: of the order of equal pixels.

    Example:
        >>> Faithfulness().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    activation_fn: str | Activation | None = "auto"
    metric: str = "NaiveFaithfulness"
    _: KW_ONLY
    perturbation_per_eval: int | str = 32
    baseline: float | str | Tensor = 0.0
    steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in _FORMS:
            known = "'NaiveFaithfulness', 'DeletionAUC' or 'InsertionAUC'"
            raise InvalidInput(f"metric must be {known}, got {self.metric!r}.")
        self._how()

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each slab and one for the image as it is."""
        return self._how().cost(height, width)

    def _judge(self, case: Case) -> float:
        return _FORMS[self.metric](self._how(), case)

    def _how(self) -> StepMetric:
        return StepMetric(
            activation_fn=self.activation_fn, perturbation_per_eval=self.perturbation_per_eval,
            baseline=self.baseline, steps=self.steps, seed=self.seed,
        )  # fmt: skip

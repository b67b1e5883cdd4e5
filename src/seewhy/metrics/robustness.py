"""Robustness: does the map stay the same when noise too weak to matter is put on the image?

    exp( - max over d of  |S(x + d) - S(x)| / |S(x)| )        d uniform within +-radius

S is the raw map of the class that was asked for on the clean image, so that a map twice as loud moves as far. With
``scaled`` all maps are first scaled to [0, 1]; whoever judges maps that are scaled already has to say so. The norm is
Euclidean over the pixels. A map that is zero everywhere is no data.

Source: the benchmark of this name in MindSpore XAI, 2021, after Yeh et al., "On the (In)fidelity and Sensitivity of
Explanations", 2019 (arXiv 1901.09392).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from seewhy.metrics import Case, Cost, _sensitivity
from seewhy.metrics._labelled import LabelledMetric
from seewhy.types import Activation, check_activation

__all__ = ["Robustness"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Robustness(LabelledMetric):
    """How little the map changes under noise on the image, averaged by label (MindSpore XAI 2021).

    Attributes:
        num_labels: number of labels; None lets the averages grow with the labels that come.
        activation_fn: taken because it is documented, and checked; the class is fixed, so no probability is needed.
        perturbation_per_eval: noisy images that are explained together, or "auto".
        radius: the noise is uniform within +-radius, in the network's input space.
        samples: noisy images, each of which is explained.
        seed: of the noise; the global random state is neither read nor changed.
        scaled: scales all maps to [0, 1] first; needed where the map that is judged is not the explainer's raw one.

    Example:
        >>> Robustness().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    radius: float = 0.2
    samples: int = 10
    seed: int = 0
    scaled: bool = False

    needs_explainer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation(self.activation_fn)
        _sensitivity.check(self)

    def cost(self, height: int, width: int) -> Cost:
        """One further map for each noisy image."""
        return Cost(explanations=self.samples)

    def _judge(self, case: Case) -> float:
        return math.exp(-_sensitivity.largest_change(self, case))

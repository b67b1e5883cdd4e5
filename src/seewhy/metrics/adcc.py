"""ADCC: one number for three wishes, that a map find itself again, be small, and keep the class's probability.

With m the map scaled to [0, 1], x the image, c the class asked for and y_c(x) its probability:

    coherency       (1 + r) / 2        r = Pearson's correlation of m and the map of x m
    complexity      mean of m over the pixels
    average drop    max(0, y_c(x) - y_c(x m)) / y_c(x)
    ADCC            3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))

For each image by itself, then averaged. `ADCC.overall` also gives the other order on request: the harmonic mean of
the three averages. A part at its worst makes the whole 0; the coherency of a flat map is 0. The probability of a class
that has none cannot drop: no data.

Source: Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability: A Novel Metric and
Experimental Analysis", 2021 (arXiv 2104.10252).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.checks import check_choice
from seewhy.errors import InvalidInput
from seewhy.maps import scale
from seewhy.metrics import Case, Cost, Metric, scores
from seewhy.metrics._correlation import pearson
from seewhy.perturbation import batch_size
from seewhy.types import Activation, check_activation

__all__ = ["ADCC", "Parts"]


class Parts(NamedTuple):
    """The three parts of one ADCC, each in [0, 1].

    Attributes:
        coherency: higher is better.
        complexity: lower is better.
        drop: lower is better; NaN where the class has no probability that could fall.
    """

    coherency: float
    complexity: float
    drop: float

    @property
    def score(self) -> float:
        """Their harmonic mean; 0 where one part is at its worst."""
        wishes = (self.coherency, 1 - self.complexity, 1 - self.drop)
        return 0.0 if any(wish <= 0 for wish in wishes) else 3 / sum(1 / wish for wish in wishes)


@dataclass(frozen=True, kw_only=True, eq=False)
class ADCC(Metric):
    """Harmonic mean of a map's coherency, simplicity and kept probability (Poppi 2021).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: images a forward pass, or "auto".
        baseline: what the image fades to where the map is low: a number, "mean", "blur" or a tensor that broadcasts
            to it.

    Example:
        >>> ADCC().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    baseline: float | str | Tensor = 0.0

    needs_explainer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        baselines.check(self.baseline)

    def cost(self, height: int, width: int) -> Cost:
        """Puts the image and its masked copy through the network, and explains the copy."""
        return Cost(forward=2, explanations=1)

    def parts(self, case: Case) -> Parts:
        """Coherency, complexity and drop of one map.

        Raises:
            InvalidInput: the case cannot explain other images.
        """
        if case.explain is None:
            raise InvalidInput("ADCC explains other images too. Pass the explainer.")
        image, shown = case.image.unsqueeze(0), scale(case.saliency)
        cover = baselines.make(self.baseline, image)
        weight = shown.to(image.dtype)
        both = torch.cat([image, weight * image + (1 - weight) * cover])
        with case.model.opened():
            before, after = scores(
                case, lambda numbers: both[numbers], 2, activation_fn=self.activation_fn,
                per_eval=self.perturbation_per_eval,
            ).tolist()  # fmt: skip
            r = pearson(case.explain(both[1:], case.target)[0], shown)
        drop = min(max(0.0, (before - after) / before), 1.0) if before > 0 else float("nan")
        return Parts((1 + r) / 2 if r == r else 0.0, float(shown.double().mean()), drop)

    def overall(self, found: Iterable[Case], average: Literal["images", "parts"] = "images") -> float:
        """One number for many maps, those without data left out; NaN where none has any.

        Args:
            found: the cases, as `seewhy.metrics.cases` makes them.
            average: "images": the mean of the images' ADCC. "parts": the harmonic mean of the parts' means.

        Raises:
            InvalidInput: ``average`` is something else, or a case cannot explain other images.
        """
        check_choice("average", average, ("images", "parts"))
        known = [parts for parts in map(self.parts, found) if parts.drop == parts.drop]
        if not known:
            return float("nan")
        if average == "images":
            return sum(parts.score for parts in known) / len(known)
        return Parts(*(sum(values) / len(known) for values in zip(*known, strict=True))).score

    def _judge(self, case: Case) -> float:
        return self.parts(case).score

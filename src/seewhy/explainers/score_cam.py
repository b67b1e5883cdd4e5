"""ScoreCAM: a layer's channels, weighted by the class's logit when each alone says which pixels are shown.

    M_k = A_k enlarged to the image and scaled to [0, 1],   alpha = softmax over k of logit_c(x * M_k)
    map = ReLU( sum_k alpha_k A_k )

The paper subtracts the logit of a black image first; the softmax over the channels takes that away again, so no pass
is made for it. A flat channel cannot be scaled to [0, 1] and says nothing about places: its weight is 0 and it costs
no pass. Logits are used, as in the paper: the softmax over channels of probabilities would be nearly the same weight
for every channel.

Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", 2020 (arXiv
1910.01279), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._cam import channel_scores, combine, rectified
from seewhy.explainers._checks import at_places
from seewhy.maps import FLAT, places, scale, size_of, upsample
from seewhy.models import FeatureModel, at
from seewhy.perturbation import batch_size
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Note, Outputs

__all__ = ["ScoreCAM"]

_ALIKE = 0.1  # weights exp(score) that differ by less than this share are as good as equal


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScoreCAM(Explainer):
    """Feature maps of a layer, weighted by the logit of the image seen through each of them (Wang 2020).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
        perturbation_per_eval: masked images a forward pass, or "auto"; there is one for each channel.

    Example:
        >>> ScoreCAM(network)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    layer: str = "auto"
    perturbation_per_eval: int | str = 32

    needs: ClassVar[type] = FeatureModel
    volumes: ClassVar[bool] = True
    values: ClassVar[Meaning] = "size"

    def __post_init__(self) -> None:
        batch_size(self.perturbation_per_eval)

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        found = model.features(inputs, self.layer)
        targets = request.resolve(found.outputs)
        maps, size = found.maps.float(), size_of(inputs)
        live = _varies(maps)

        def run(rows: Tensor, channels: Tensor) -> Outputs:
            masks = scale(upsample(maps[rows, channels].unsqueeze(1), size))
            return at(model, rows)(inputs[rows] * masks.to(inputs.dtype))

        scores = channel_scores(targets, live, run, self.perturbation_per_eval)
        shown = live.unsqueeze(1)
        weights = torch.where(shown, scores.masked_fill(~shown, -torch.inf).softmax(2), 0.0)
        return rectified(combine(weights, maps), found, targets, _alike(scores, live))


def _varies(maps: Tensor) -> Tensor:
    """(N, C) bool: the channels that are not flat but for rounding."""
    low, high = maps.amin(places(maps)), maps.amax(places(maps))
    return (high - low) > FLAT * torch.maximum(high.abs(), low.abs())


def _alike(scores: Tensor, live: Tensor) -> list[Note]:
    """Says where all channels have the same weight."""
    gone = ~live.unsqueeze(1)
    spread = scores.masked_fill(gone, -torch.inf).amax(2) - scores.masked_fill(gone, torch.inf).amin(2)

    def text(i: int, t: int) -> str:
        return (
            f"its score is the same under all channels to within {float(spread[i, t]):.2g}, so they weigh alike and "
            "the map hardly depends on the target."
        )

    return at_places((spread < _ALIKE) & (live.sum(1, keepdim=True) > 1), "equal weights", text)

"""AblationCAM: a layer's channels, weighted by how far the class's logit falls when each is set to 0.

    w_k = (y - y_k) / |y|,   map = ReLU( sum_k w_k A_k )

y is the class's logit and y_k the logit with channel k set to 0. Both are exact: with a head that is a mean over
positions and a linear layer W, y - y_k is W_ck mean(A_k) and nothing is run; any other head is run again for each
channel that is not 0 everywhere, without the trunk.

The paper divides by y and takes it to be positive. For a negative y that would turn the sign of the map, so its size
is taken; near 0 it counts as at least a millionth of the largest fall. Either way all weights of a map are divided
by one positive number, so that the image is the same.

Source: Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
Localization", 2020 (WACV).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._cam import channel_scores, combine, rectified
from seewhy.explainers._checks import unmoved
from seewhy.maps import FLAT, places
from seewhy.models import FeatureModel, Features, without
from seewhy.perturbation import batch_size
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Outputs

__all__ = ["AblationCAM"]

_ROUNDING = 8  # units in the last place of the largest score; on ResNets channels without any effect came to 4


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AblationCAM(Explainer):
    """Feature maps of a layer, weighted by the fall of the logit without each of them (Desai and Ramaswamy 2020).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
        perturbation_per_eval: channels a pass of the head, or "auto".

    Example:
        >>> AblationCAM(network)(inputs, 1).shape
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
        before = targets.values(found.outputs)
        closed = found.linear is not None and targets.classes is not None
        falls = (
            closed_form(found, targets) if closed else rerun(model, found, targets, before, self.perturbation_per_eval)
        )
        weights = falls / _size(before, falls).unsqueeze(2)
        notes = unmoved(falls, "channel set to 0")
        return rectified(combine(weights, found.maps.float()), found, targets, notes)


def closed_form(found: Features, targets: TargetSet) -> Tensor:
    """(N, T, C) fall of the logits for a pooled linear head."""
    assert found.linear is not None
    assert targets.classes is not None
    return found.linear.weight.float()[targets.classes] * found.maps.float().mean(places(found.maps)).unsqueeze(1)


def rerun(model: FeatureModel, found: Features, targets: TargetSet, before: Tensor, per_eval: int | str) -> Tensor:
    """(N, T, C) fall of the scores for any head: it is fed with the maps, one channel set to 0."""
    live = (found.maps != 0).flatten(2).any(2)

    def run(rows: Tensor, channels: Tensor) -> Outputs:
        return without(model, found, rows, channels)

    after = channel_scores(targets, live, run, per_eval)
    falls = torch.where(live.unsqueeze(1), before.unsqueeze(2) - after, 0.0)
    return without_rounding(falls, found.outputs.scores, found.maps.dtype)


def without_rounding(falls: Tensor, scores: Tensor, dtype: torch.dtype) -> Tensor:
    """The falls (N, T, C), all 0 for a target where none is larger than the rounding of a head that was run again."""
    noise = _ROUNDING * torch.finfo(dtype).eps * scores.abs().amax((1, 2))
    return torch.where(falls.abs().amax(2, keepdim=True) > noise.view(-1, 1, 1), falls, 0.0)


def _size(before: Tensor, falls: Tensor) -> Tensor:
    """(N, T) positive: the size of the logit, kept away from 0."""
    size = torch.maximum(before.abs(), FLAT * falls.abs().amax(2))
    return size.where(size > 0, torch.ones_like(size))

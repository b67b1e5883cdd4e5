"""What the class activation maps have in common: a layer's channels, weighted and added up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution, about_all
from seewhy.explainers import Explainer
from seewhy.explainers._checks import at_places
from seewhy.explainers._pixel_gradient import pick
from seewhy.maps import full_precision, over, places
from seewhy.models import FeatureModel, Features, GradientModel, Gradients, TokenModel, TransformerModel
from seewhy.perturbation import chunked
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Note, Outputs

__all__ = [
    "ActivationsAlone",
    "GradientCAM",
    "Weigh",
    "active_layer",
    "attribution",
    "channel_scores",
    "combine",
    "gradient_cam",
    "rectified",
]

Weigh = Callable[[Tensor, Tensor], Tensor]
"""(gradients (N,T,C,h,w), maps (N,1,C,h,w)) -> weights (N,T,C,h,w), or (N,T,C,1,1) for one weight a channel.

Positions of volumes have a third axis. Where the gradient is the same at all positions it comes as (N,T,C,1,1): a
weight may be made of it by means over positions, never by sums.
"""


def active_layer(model: FeatureModel, inputs: Tensor, layer: str) -> str:
    """Returns the layer of a method that looks at activations alone, where it is to be chosen.

    It is no LayerNorm, whose channels have the same mean at every position: the output of a transformer's last block
    whose tokens of the image matter.
    """
    if layer == "auto" and isinstance(model, TransformerModel | TokenModel):
        return model.active_layer(inputs)
    return layer


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradientCAM(Explainer):
    """A layer's channels, each weighted by what a method makes of its gradient, and added up.

    A class says whether the sum is cut off below 0 (``positive``).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = GradientModel
    volumes: ClassVar[bool] = True
    positive: ClassVar[bool] = True

    @staticmethod
    @abstractmethod
    def _weigh(gradients: Tensor, maps: Tensor) -> Tensor:
        """See `Weigh`."""

    def _remarks(self, found: Gradients) -> list[Note]:
        """What the reader should know of the layer, besides what is said of every CAM."""
        return []

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        chosen: list[TargetSet] = []
        found = model.gradients(inputs, pick(request, chosen), self.layer)
        finish = rectified if self.positive else attribution
        return finish(gradient_cam(found, chosen[0], self._weigh), found, chosen[0], self._remarks(found))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ActivationsAlone(Explainer):
    """One map of a layer's activations, whatever the target.

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map or tokens (before a LayerNorm), "" for the
            input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = FeatureModel
    class_agnostic: ClassVar[bool] = True
    volumes: ClassVar[bool] = True
    values: ClassVar[Meaning] = "size"

    @staticmethod
    @abstractmethod
    def _map(maps: Tensor) -> tuple[Tensor, list[Note]]:
        """Feature maps (N, C, h, w) -> one map an image (N, h, w), and notes about them."""

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        found = model.features(inputs, active_layer(model, inputs, self.layer))
        targets = request.resolve(found.outputs)
        one, notes = self._map(found.maps)
        raw = torch.stack([one.float()] * targets.count, 1)
        return attribution(raw, found, targets, notes)


def gradient_cam(found: Gradients, targets: TargetSet, weigh: Weigh) -> Tensor:
    """(N, T, h, w): the channels, weighted by what ``weigh`` makes of each target's gradient, added up.

    Where the rest of the network is a mean over h x w positions and a linear layer W the gradient is W_ck / (h w), and
    nothing is differentiated. Maps of volumes are (N, T, d, h, w).
    """
    maps = found.maps.float()
    if found.linear is not None and targets.classes is not None:
        gradients = found.linear.weight.float()[targets.classes] / maps.shape[2:].numel()
        return combine(weigh(over(gradients, maps.unsqueeze(1)), maps.unsqueeze(1)), maps)
    each = (weigh(found.of(t).unsqueeze(1), maps.unsqueeze(1)) for t in range(targets.count))
    return torch.cat([combine(weights, maps) for weights in each], 1)


def combine(weights: Tensor, maps: Tensor) -> Tensor:
    """(N, T, h, w): the sum over channels of weights (N,T,C,1,1), (N,T,C) or (N,T,C,h,w) times maps (N,C,h,w)."""
    if weights.shape[3:].numel() != 1:
        return (weights * maps.unsqueeze(1)).sum(2)
    with full_precision(maps):
        return (weights.flatten(2) @ maps.flatten(2)).view(*weights.shape[:2], *maps.shape[2:])


def channel_scores(
    targets: TargetSet, live: Tensor, run: Callable[[Tensor, Tensor], Outputs], per_eval: int | str
) -> Tensor:
    """(N, T, C) float32: the targets' scores when one channel is changed; 0 for channels that are not live.

    Args:
        targets: what is scored.
        live: (N, C) bool, the channels that are changed; no pass is made for the others.
        run: (rows (R,): which image, channels (R,): which channel) -> outputs.
        per_eval: changes a pass, or "auto".
    """
    rows, channels = live.nonzero(as_tuple=True)
    scores = torch.zeros((*live.shape, targets.count), dtype=torch.float32, device=live.device)

    def work(start: int, stop: int) -> None:
        images, which = rows[start:stop], channels[start:stop]
        scores[images, which] = targets.values(run(images, which), images)

    chunked(work, len(rows), per_eval)
    return scores.transpose(1, 2)


def rectified(cam: Tensor, found: Features | Gradients, targets: TargetSet, notes: Iterable[Note] = ()) -> Attribution:
    """ReLU(cam) with everything about it; says where nothing was left."""
    nothing = (cam.amax(places(cam)) <= 0) & (cam.amin(places(cam)) < 0)
    text = f"its CAM is negative everywhere at layer {found.layer!r}, so the map is empty."
    return attribution(cam.relu(), found, targets, [*notes, *at_places(nothing, "CAM negative everywhere", text)])


def attribution(
    raw: Tensor, found: Features | Gradients, targets: TargetSet, notes: Iterable[Note] = ()
) -> Attribution:
    """Returns the maps of a layer with what is known about the pass that made them."""
    return Attribution(
        raw=raw,
        outputs=found.outputs,
        targets=targets,
        layer=found.layer,
        notes=(*about_all(found.warnings), *notes),
    )

"""DetClassProbabilityMap: where a detector's class heads see a class.

    map_c(i, j) = mean over levels of the bilinear resize to the middle level of  max over anchors of p_c(i, j, anchor)

p is the softmax or the sigmoid of the class head, as it was trained; a single class has no softmax. Levels come in the
order in which they are listed, and of L levels the middle one is number L // 2, counted from 0. A resize that shrinks a
level by more than two skips positions between its samples; ``antialias`` takes them all.

It costs one forward pass and no gradients. Source: documented as DetClassProbabilityMap of OpenVINO Training
Extensions (2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import is_count
from seewhy.errors import BadOutput, InvalidInput, MissingCapability, NoSpatialOutput
from seewhy.explainers import Explainer
from seewhy.models import FeatureModel, Model
from seewhy.models.torch.levels import levels
from seewhy.perturbation import settle
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Activation, Grid, Note, Outputs, activation, check_activation

__all__ = ["DetClassProbabilityMap"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DetClassProbabilityMap(Explainer):
    """A detector's class probabilities where its heads see them, in one pass (OTX 2022).

    Attributes:
        layers: the class heads, one a level, each giving (N, anchors x K, h, w) scores; a module that all levels share
            is listed once. None takes the levels of the model's own outputs, which the adapters of `seewhy.heads` and
            of torchvision's detectors know.
        num_anchors: candidates a position: one number, or one for each level. Needed with layers.
        activation_fn: scores -> probabilities, for scores that are none yet: "softmax", "sigmoid", None or a callable.
        background: of heads given by layers, the index of the class that means "nothing here".
        antialias: whether the resize to the middle level looks at every position.

    Example:
        >>> DetClassProbabilityMap(detector)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    layers: tuple[str, ...] | None = None
    num_anchors: int | tuple[int, ...] | None = None
    activation_fn: str | Activation | None = "auto"
    background: int | None = None
    antialias: bool = False

    needs: ClassVar[type] = Model
    classes_only: ClassVar[bool] = True
    values: ClassVar[Meaning] = "level"

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        if isinstance(self.layers, str) or not all(isinstance(name, str) for name in self.layers or ()):
            raise InvalidInput(f"layers must be names of layers in a tuple, one a level, got {self.layers!r}.")
        if (self.layers is None) != (self.num_anchors is None):
            raise InvalidInput("layers and num_anchors belong together: pass both, or neither.")
        if self.num_anchors is not None and not all(is_count(a) for a in self._anchors(1)):
            raise InvalidInput(f"num_anchors must be positive integers, got {self.num_anchors!r}.")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        outputs, found, reach = self._own(model, inputs) if self.layers is None else self._listed(model, inputs)
        targets = request.classes_only(outputs, type(self).__name__)
        assert targets.classes is not None
        wanted = targets.classes[..., None, None]
        picked = [level.gather(1, wanted.expand(-1, -1, *level.shape[2:])) for level in found]
        size = picked[len(picked) // 2].shape[2:]
        shown = (max(1, round(size[0] / reach[0])), max(1, round(size[1] / reach[1])))
        return Attribution(
            raw=torch.stack([_resized(level, shown, reach, self.antialias) for level in picked]).mean(0),
            outputs=outputs,
            targets=targets,
            quantity="probability",
            layer=None if self.layers is None else ", ".join(self.layers),
            notes=() if self.antialias else _skipped(picked, shown),
        )

    def _own(self, model: Model, inputs: Tensor) -> tuple[Outputs, list[Tensor], tuple[float, float]]:
        """Returns the levels (N, K, h, w) that the model's outputs are made of, and how far they reach."""
        outputs = model(inputs)
        if outputs.grids is None:
            raise NoSpatialOutput(
                f"It is not known how the candidates of {model.name} lie in the picture. Pass layers=(its class heads) "
                "and num_anchors=..., or load it with an adapter of seewhy.heads that knows its grids."
            )
        scores = outputs.activate(settle(model, inputs, outputs, self.activation_fn).put).scores
        parts = scores.split([grid.count for grid in outputs.grids], 1)
        found = [_laid(part, grid) for part, grid in zip(parts, outputs.grids, strict=True)]
        return outputs, found, outputs.grids[0].reach

    def _listed(self, model: Model, inputs: Tensor) -> tuple[Outputs, list[Tensor], tuple[float, float]]:
        """Returns the levels (N, K, h, w) that the listed layers give."""
        assert self.layers is not None
        if not isinstance(model, FeatureModel):
            raise MissingCapability(f"layers can be given for a model with features; {model.name!r} gives scores only.")
        outputs, maps = levels(model, inputs, self.layers)
        anchors = self._anchors(len(maps))
        if len(anchors) != len(maps):
            raise InvalidInput(f"num_anchors has {len(anchors)} numbers, the layers give {len(maps)} levels.")
        found = [self._likely(m, a, outputs.num_classes) for m, a in zip(maps, anchors, strict=True)]
        return outputs, found, (1.0, 1.0)

    def _anchors(self, count: int) -> tuple[int, ...]:
        return self.num_anchors if isinstance(self.num_anchors, tuple) else (self.num_anchors or 0,) * count

    def _likely(self, maps: Tensor, anchors: int, classes: int) -> Tensor:
        """(N, anchors x K, h, w) scores -> (N, K, h, w), the best anchor's probabilities."""
        n, c, h, w = maps.shape
        if c != anchors * classes:
            raise BadOutput(
                f"A class head of {anchors} anchors and {classes} classes has {anchors * classes} channels, got {c}. "
                "Check num_anchors and layers."
            )
        rows = maps.float().view(n, anchors, classes, h, w).movedim(2, -1)
        put = activation("softmax" if self.activation_fn == "auto" else self.activation_fn)
        if put is not None and not (classes == 1 and self.activation_fn in ("auto", "softmax")):
            rows = put(rows.reshape(-1, classes)).view_as(rows)
        best = rows.amax(1).movedim(-1, 1)
        if self.background is not None:
            best = best.index_fill(1, torch.tensor([self.background], device=best.device), 0)
        return best


def _laid(scores: Tensor, grid: Grid) -> Tensor:
    """(N, h w anchors, K) in the grid's order -> (N, K, h, w), the best anchor's."""
    n, _, k = scores.shape
    if grid.anchors_first:
        return scores.view(n, grid.anchors, grid.height, grid.width, k).amax(1).movedim(-1, 1)
    return scores.view(n, grid.height, grid.width, grid.anchors, k).amax(3).movedim(-1, 1)


def _resized(level: Tensor, size: tuple[int, int], reach: tuple[float, float], antialias: bool) -> Tensor:
    """A level at ``size`` positions, without the part of it that lies beyond the input's lower and right border."""
    if reach == (1.0, 1.0):
        return F.interpolate(level, size, mode="bilinear", align_corners=False, antialias=antialias)
    if antialias:
        whole = [round(s * r) for s, r in zip(size, reach, strict=True)]
        level = F.interpolate(level, whole, mode="bilinear", align_corners=False, antialias=True)
    down, across = (
        2 * (torch.arange(s, device=level.device) + 0.5) / (s * r) - 1 for s, r in zip(size, reach, strict=True)
    )
    y, x = torch.meshgrid(down, across, indexing="ij")
    places = torch.stack([x, y], -1).expand(len(level), -1, -1, -1)
    return F.grid_sample(level, places, padding_mode="border", align_corners=False)


def _skipped(found: list[Tensor], size: tuple[int, int]) -> tuple[Note, ...]:
    """Says where the resize does not look at every position."""
    largest = max((tuple(level.shape[2:]) for level in found), key=lambda s: s[0] * s[1])
    if largest[0] <= 2 * size[0] and largest[1] <= 2 * size[1]:
        return ()
    shown, wide = (f"{s[0]} x {s[1]}" for s in (size, largest))
    text = (
        f"The map has the middle level's {shown} positions; of the {wide} of the finest level it samples some. Use "
        "antialias=True to look at all."
    )
    return (Note(text=text, kind="positions that are skipped"),)

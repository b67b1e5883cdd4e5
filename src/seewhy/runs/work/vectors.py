"""Vectors of a picture for questions about a whole data set: what a layer sees in all of it, and where a map points.

For each picture the mean of the automatic layer's features over all places; for each map the mean of a middle layer's
features with the map's positive part as weights, at a third, half and two thirds of the way to the automatic layer: in
the last layers pictures of one class look alike whatever made the network say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import InvalidInput, MissingCapability
from seewhy.maps import upsample
from seewhy.models import FeatureModel, Model
from seewhy.models.depth import at_depths

__all__ = ["DEPTHS", "Layers", "Vector", "Vectors", "chosen", "layers", "of"]

DEPTHS = (1 / 3, 1 / 2, 2 / 3)  # of the way to the automatic layer


class Vector(NamedTuple):
    """Features of a layer: their plain mean (label None), or the mean weighted by the map of a label."""

    label: int | None
    layer: str
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What is kept of layers' features.

    Attributes:
        explainer: label of the explainer whose maps are the weights; None where the run has none that is kept.
        depths: places of the middle layers, as shares of the way to the automatic layer.
    """

    explainer: str | None
    depths: tuple[float, ...] = DEPTHS


def chosen(
    asked: Mapping[str, Any] | None, model: Model | None, explainers: Mapping[str, Any], known: Mapping[str, Any]
) -> Vectors | None:
    """Returns what the run keeps; None where nothing was asked for. A run goes on as it began.

    Raises:
        InvalidInput: a parameter is wrong.
        MissingCapability: the model gives no features.
    """
    if asked is None:
        return None
    if wrong := set(asked) - {"explainer"}:
        raise InvalidInput(f"features has no parameter {min(wrong)!r}. It takes explainer, a label of the run.")
    if model is not None and not isinstance(model, FeatureModel):
        raise MissingCapability(f"{model.name} gives scores only, so no features can be kept. Leave them out.")
    before = (known.get("features") or {}).get("parameters", {})
    label = asked.get("explainer", before.get("explainer", next(iter(explainers), None)))
    if label is not None and model is not None and label not in explainers:
        raise InvalidInput(
            f"features are weighted by the maps of {label!r}, which is none of the explainers asked for: "
            f"{', '.join(map(repr, explainers)) or 'there are none'}."
        )
    return Vectors(explainer=label)


class Layers(NamedTuple):
    """The automatic layer, and the middle ones."""

    last: str
    middle: tuple[str, ...]


def layers(model: FeatureModel, asked: Vectors, inputs: Tensor) -> Layers:
    """Returns the layers whose features are kept, the same for all inputs of one size; costs a pass for each.

    Raises:
        NoSpatialOutput: the network has no layer with a map.
    """
    with model.opened():
        middle = at_depths(model, inputs, asked.depths) if asked.explainer is not None else ()
        return Layers(model.auto_layer(inputs), middle)


def of(
    model: FeatureModel, seen: Layers, inputs: Tensor, maps: Sequence[Mapping[int, NDArray[np.float32]]]
) -> list[list[Vector]]:
    """Returns the vectors of each image.

    Args:
        model: the network.
        seen: whose features are kept.
        inputs: (N, C, H, W).
        maps: for each image its maps, by label.
    """
    found: list[list[Vector]] = [[] for _ in maps]
    last, middle = seen
    with model.opened():
        for name in dict.fromkeys([last, *middle]):
            features = model.features(inputs, name).maps.float().cpu()
            for one, own, mine in zip(found, features, maps, strict=True):
                if name == last:
                    one.append(Vector(None, name, own.mean((1, 2)).numpy()))
                if name in middle:
                    one.extend(_weighted(mine, name, own))
    return found


def _weighted(maps: Mapping[int, NDArray[np.float32]], name: str, features: Tensor) -> list[Vector]:
    """Returns a vector for each label whose map has a positive part; ``features`` is (C, h, w)."""
    found, size = [], (features.shape[1], features.shape[2])
    for label, raw in maps.items():
        positive = torch.from_numpy(raw).clamp_min(0)[None, None]
        larger = positive.shape[2] >= size[0] and positive.shape[3] >= size[1]
        weights = F.adaptive_avg_pool2d(positive, size) if larger else upsample(positive, size)
        if (total := float(weights.sum())) > 0:
            found.append(Vector(label, name, (features * (weights[0] / total)).sum((1, 2)).numpy()))
    return found

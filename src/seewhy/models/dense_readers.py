"""What networks return that answer at every place -> `Outputs` with one candidate for each place of their map.

Each reader is given to `seewhy.load` as ``output=``. Torchvision's, Hugging Face's and segmentation_models_pytorch's
networks for semantic segmentation are known and need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.errors import BadOutput
from seewhy.models.reading import select
from seewhy.types import Grid, Outputs, activation

__all__ = ["Heatmaps", "MaskQueries", "Segmentation"]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Semantic segmentation: a map of scores for each class, (N, K, h, w).

    Attributes:
        scores: where the map is in what the network returns: a name, an index; None looks for it.
        activation_fn: "softmax" or "sigmoid" where the scores are to be read as probabilities at once; None leaves
            them as they are, for the method's ``activation_fn`` (each place has its own softmax).
    """

    scores: str | int | None = None
    activation_fn: Literal["softmax", "sigmoid"] | None = None

    def __post_init__(self) -> None:
        activation(self.activation_fn)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where there is no such map."""
        put = activation(self.activation_fn)
        found = _candidates(_map(raw, self.scores))
        return _outputs(raw, self.scores, found if put is None else put(found), activated=put is not None)


@dataclass(frozen=True, kw_only=True)
class Heatmaps:
    """Key points: a map of scores for each of them, (N, J, h, w), as they are (no probabilities).

    Attributes:
        scores: where the maps are in what the network returns; None looks for them.
    """

    scores: str | int | None = None

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where there are no such maps."""
        return _outputs(raw, self.scores, _candidates(_map(raw, self.scores)), meaning="values")


@dataclass(frozen=True, kw_only=True)
class MaskQueries:
    """MaskFormer, Mask2Former, EoMT: queries with a class (N, Q, K + 1) and a mask (N, Q, h, w) each.

    The score of a class at a place is the sum over queries of class probability (softmax without "no object") times
    the sigmoid of the mask (Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
    2021, arXiv 2107.06278). It is no probability: the scores of a place need not sum to 1.

    Attributes:
        classes: where the classes' logits are.
        masks: where the masks' logits are.
    """

    classes: str | int = "class_queries_logits"
    masks: str | int = "masks_queries_logits"

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes are others."""
        likely, masks = select(raw, self.classes), select(raw, self.masks)
        fit = isinstance(likely, Tensor) and isinstance(masks, Tensor) and likely.ndim == 3 and masks.ndim == 4
        if not fit or likely.shape[:2] != masks.shape[:2]:
            raise BadOutput(
                f"Expected classes (N, Q, K + 1) at {self.classes!r} and masks (N, Q, h, w) at {self.masks!r}, got "
                f"{_shape(likely)} and {_shape(masks)}."
            )
        summed = torch.einsum("nqk,nqhw->nkhw", likely.float().softmax(-1)[..., :-1], masks.float().sigmoid())
        return _outputs(summed, None, _candidates(summed), meaning="values")


def _map(raw: Any, place: str | int | None) -> Tensor:
    """(N, K, h, w)."""
    found = select(raw, place) if place is not None else _looked_for(raw)
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise BadOutput(f"Expected a map of scores (N, K, h, w), got {_shape(found)}. Say where it is: scores=.")
    return found


def _looked_for(raw: Any) -> Any:
    """Returns the map in what is usually returned: itself, "logits", "out", the first of a list."""
    if isinstance(raw, Tensor):
        return raw
    for name in ("logits", "out", "heatmaps"):
        held = raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)
        if isinstance(held, Tensor):
            return held
    return raw[0] if isinstance(raw, tuple | list) and raw else raw


def _candidates(maps: Tensor) -> Tensor:
    """(N, K, h, w) -> (N, h * w, K) float32."""
    return maps.float().flatten(2).transpose(1, 2)


def _outputs(raw: Any, place: str | int | None, scores: Tensor, **known: Any) -> Outputs:
    maps = _map(raw, place)
    size = (maps.shape[2], maps.shape[3])
    return Outputs(scores=scores, dense=size, grids=(Grid(*size),), **known)


def _shape(found: Any) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"

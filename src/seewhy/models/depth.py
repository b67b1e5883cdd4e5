"""Layers on the way from the picture to the scores, by how deep they lie.

Only layers through which everything passes that the scores know of the picture come into question, up to the automatic
one: what passes beside a layer it says nothing of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from seewhy.errors import NoSpatialOutput
from seewhy.models import FeatureModel

__all__ = ["Staged", "at_depths"]


@runtime_checkable
class Staged(Protocol):
    """Knows its layers in the order of execution."""

    def stages(self, inputs: Tensor) -> list[str]:
        """Returns the layers that carry everything, first to last, each tensor once."""
        ...


def at_depths(model: FeatureModel, inputs: Tensor, shares: Sequence[float]) -> tuple[str, ...]:
    """Returns the layers with a map that lie nearest to these shares of the way to the automatic layer.

    Args:
        model: its layers are looked at.
        inputs: (N, C, H, W); the first picture is used, in a pass for each layer that is tried.
        shares: of the way, 0 to 1; 1 is the automatic layer itself.

    Returns:
        Names, each once; the automatic layer alone where nothing is known of the others.

    Raises:
        NoSpatialOutput: there is no automatic layer.

    Example:
        >>> from seewhy.models.torch.model import TorchModel
        >>> with (model := TorchModel(network)).opened():
        ...     at_depths(model, inputs, (0.5, 1.0))
        ('act1', 'act2')
    """
    last = model.auto_layer(inputs)
    known = model.stages(inputs) if isinstance(model, Staged) else [last]
    way = known[: known.index(last) + 1] if last in known else [*known, last]
    found = [_nearest(model, inputs[:1], way, round(share * (len(way) - 1))) for share in shares]
    return tuple(dict.fromkeys(name or last for name in found))


def _nearest(model: FeatureModel, inputs: Tensor, way: Sequence[str], place: int) -> str | None:
    """Returns the layer with a map of more than one place and channel that is nearest to a place on the way."""
    for name in sorted(way, key=lambda one: abs(way.index(one) - place)):
        try:
            maps = model.features(inputs, name).maps
        except NoSpatialOutput:
            continue
        if maps.shape[1] > 1 and maps.shape[2] * maps.shape[3] > 1:
            return name
    return None

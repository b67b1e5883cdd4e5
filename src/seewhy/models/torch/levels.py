"""The outputs of several layers, of a detector's class heads for example."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from seewhy.errors import NoSpatialOutput, UnknownLayer
from seewhy.models import FeatureModel
from seewhy.models.layout import check_name
from seewhy.models.torch.state import hooked
from seewhy.types import Outputs

__all__ = ["levels"]


def levels(model: FeatureModel, inputs: Tensor, layers: Sequence[str]) -> tuple[Outputs, list[Tensor]]:
    """Returns the outputs and (N, C, h, w) of each layer, in the order of ``layers``.

    A torch module that several levels share is listed once and gives one map for each time that it runs. A torch
    network is run once, any other model once for each layer.

    Raises:
        UnknownLayer: there is no such layer, or it did not run.
        NoSpatialOutput: a layer gives something else.
    """
    module = getattr(model, "module", None)
    if isinstance(module, nn.Module):
        return _hooked(model, module, inputs, layers)
    found = [model.features(inputs, layer) for layer in layers]
    return found[0].outputs, [f.maps for f in found]


def _hooked(
    model: FeatureModel, module: nn.Module, inputs: Tensor, layers: Sequence[str]
) -> tuple[Outputs, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def note(layer: str) -> Any:
        return lambda _module, _args, output: seen[layer].append(_map(output, layer, inputs))

    with ExitStack() as stack:
        for layer in seen:
            check_name(module, layer)
            stack.enter_context(hooked(module, layer, note(layer)))
        outputs = model(inputs)
    for layer, maps in seen.items():
        if not maps:
            raise UnknownLayer(f"Layer {layer!r} did not run in the forward pass. Choose one that does.")
    return outputs, [one for layer in layers for one in seen[layer]]


def _map(output: Any, layer: str, inputs: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != len(inputs):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise NoSpatialOutput(f"Layer {layer!r} gives no map (N, C, h, w), but {got}.")
    return output.clone()  # an in-place operation may follow

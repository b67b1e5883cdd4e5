"""What may be asked of a model: a ladder of protocols.

    Model  scores  <  FeatureModel  + features, from_features  <  GradientModel  + gradients

A method states the rung it needs; a backend stands on the highest rung it can. Asking too much of a backend is one
clear error. The gradient-free methods therefore work alike on a torch module, an exported file and a callable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from seewhy.errors import InvalidType
from seewhy.types import Outputs, Passes

__all__ = ["FeatureModel", "Features", "GradientModel", "Gradients", "Model", "PooledLinear", "as_model"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledLinear:
    """A head that is nothing but a mean over positions and a linear layer.

    Attributes:
        weight: (K, C).
        bias: (K,) or None.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """A layer's output on a batch, and what came out at the end of the same pass.

    Attributes:
        maps: (N, C, h, w), whatever the layer's own order of dimensions.
        outputs: of the same forward pass.
        layer: the layer's name.
        inputs: (N, C, H, W) the batch.
        linear: set when the rest of the network is a mean over positions and a linear layer.
        warnings: what was decided that the reader should know; running the head may add to it.
        state: the backend's own.
    """

    maps: Tensor
    outputs: Outputs
    layer: str
    inputs: Tensor
    linear: PooledLinear | None = None
    warnings: list[str] = field(default_factory=list)
    state: Any = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """One forward pass, ready to be differentiated once for each target.

    Attributes:
        maps: (N, C, h, w) the layer's output (the input itself for layer "").
        outputs: of the forward pass.
        values: (N, T) the numbers that are differentiated, attached to their graph.
        of: t -> (N, C, h, w) float32 gradient of values[:, t] with respect to maps; to be called once for each t, in
            order, because the last one frees the graph.
        layer: the layer's name.
        linear: set when the scores are a mean over positions of the maps and a linear layer.
        warnings: what was decided that the reader should know.
    """

    maps: Tensor
    outputs: Outputs
    values: Tensor
    of: Callable[[int], Tensor]
    layer: str
    linear: PooledLinear | None = None
    warnings: list[str] = field(default_factory=list)


@runtime_checkable
class Model(Protocol):
    """Gives scores."""

    @property
    def name(self) -> str:
        """How the model is called in messages and reports."""
        ...

    @property
    def passes(self) -> Passes:
        """Counts the images that went through, since the model was made."""
        ...

    def opened(self) -> AbstractContextManager[None]:
        """For the time of a call: in evaluation mode, without a graph; afterwards everything as it was."""
        ...

    def check(self, inputs: Tensor) -> None:
        """Raises where the input's type or device is not the model's."""
        ...

    def __call__(self, inputs: Tensor) -> Outputs:
        """(N, C, H, W) -> outputs, without gradients."""
        ...


@runtime_checkable
class FeatureModel(Model, Protocol):
    """Can also be cut in two at a layer."""

    def layers(self) -> list[str]:
        """The names that ``features`` takes."""
        ...

    def auto_layer(self, inputs: Tensor) -> str:
        """The layer that "auto" stands for; raises NoSpatialOutput where there is none."""
        ...

    def features(self, inputs: Tensor, layer: str) -> Features:
        """One forward pass; ``layer`` may be "auto" (the last one with a spatial map) and "" (the input)."""
        ...

    def from_features(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """The outputs if the layer had given ``maps`` (R, C, h, w); row r belongs to image ``rows[r]``."""
        ...


@runtime_checkable
class GradientModel(FeatureModel, Protocol):
    """Can also be differentiated."""

    def gradients(self, inputs: Tensor, pick: Callable[[Outputs], Tensor], layer: str) -> Gradients:
        """One forward pass with a graph from ``layer`` upwards only; ``pick`` turns outputs into (N, T) numbers."""
        ...


def as_model(network: Any) -> Model:
    """A seewhy model for whatever the caller has: a torch module, a callable (N,C,H,W) -> (N,K), or a model.

    Raises:
        InvalidType: for anything else.
    """
    if isinstance(network, Model):
        return network
    if isinstance(network, nn.Module):
        from seewhy.models.torch import TorchModel

        return TorchModel(network)
    if callable(network):
        from seewhy.models.function import FunctionModel

        return FunctionModel(network)
    raise InvalidType(
        "A network is a torch.nn.Module, a seewhy model or a callable (N,C,H,W) -> (N,K), got "
        f"{type(network).__name__}."
    )

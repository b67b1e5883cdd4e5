"""What may be asked of a model: a ladder of protocols.

    Model  scores  <  FeatureModel  + features, from_features  <  GradientModel  + gradients

A method states the rung it needs; a backend stands on the highest rung it can. Asking too much of a backend is one
clear error. The gradient-free methods therefore work alike on a torch module, an exported file and a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, arange, cat

from seewhy.types import Outputs, Passes

__all__ = [
    "Activations",
    "Attentions",
    "Blocks",
    "FeatureModel",
    "Features",
    "GradientModel",
    "Gradients",
    "Model",
    "Noticing",
    "PooledLinear",
    "TokenModel",
    "Transformer",
    "TransformerModel",
    "WeightedBlock",
    "Weightings",
    "at",
    "bound",
    "paired",
    "varies",
    "without",
]

M = TypeVar("M")


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledLinear:
    """A head that is nothing but a mean over positions and a linear layer.

    Attributes:
        weight: (K, C).
        bias: (K,) or None.
    """

    weight: Tensor
    bias: Tensor | None


def paired(linear: PooledLinear | None, labels: Sequence[str] | None) -> PooledLinear | None:
    """Returns the head for two classes, where one score stands for both: class 0 is the other one's complement."""
    if linear is None or labels is None or len(labels) != 2 or len(linear.weight) != 1:
        return linear
    bias = None if linear.bias is None else cat([-linear.bias, linear.bias])
    return PooledLinear(weight=cat([-linear.weight, linear.weight]), bias=bias)


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
        prefix: where the layer gives tokens, how many stand before those of the picture and are kept as they are;
            None for a layer with a spatial map.
        keep: whether the head sees those as they are; otherwise it sees zeros.
    """

    maps: Tensor
    outputs: Outputs
    layer: str
    inputs: Tensor
    linear: PooledLinear | None = None
    warnings: list[str] = field(default_factory=list)
    state: Any = field(default=None, repr=False)
    prefix: int | None = None
    keep: bool = True


@dataclass(frozen=True, kw_only=True)
class Activations:
    """The kinds of activations on the way from the picture to the scores.

    Attributes:
        relu: whether there are ReLUs.
        others: those for which no other rule than the derivative is defined, by the names that people know.
        pools: whether there is max pooling.
    """

    relu: bool
    others: tuple[str, ...] = ()
    pools: bool = False


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
        rule: puts another rule ("guided", "deconvolution") on the way back through ReLUs, and says which activations
            there are; None where the graph of ``values`` is torch's down to the maps, so that hooks can do it.
    """

    maps: Tensor
    outputs: Outputs
    values: Tensor
    of: Callable[[int], Tensor]
    layer: str
    linear: PooledLinear | None = None
    warnings: list[str] = field(default_factory=list)
    rule: Callable[[str], Activations] | None = None


@runtime_checkable
class Model(Protocol):
    """A network that gives scores."""

    @property
    def name(self) -> str:
        """How the model is called in messages and reports."""
        ...

    @property
    def passes(self) -> Passes:
        """Counts the images that went through, since the model was made."""
        ...

    def opened(self) -> AbstractContextManager[None]:
        """Puts the network into evaluation mode, without a graph, for a block; afterwards everything is as it was."""
        ...

    def check(self, inputs: Tensor) -> None:
        """Raises where the input's type or device is not the model's."""
        ...

    def __call__(self, inputs: Tensor) -> Outputs:
        """(N, C, H, W) -> outputs, without gradients."""
        ...


@runtime_checkable
class Noticing(Protocol):
    """Looks at what a network does besides giving scores."""

    def listening(self, inputs: Tensor) -> AbstractContextManager[None]:
        """Listens to the first pass in a block, where nothing is known yet of inputs of this size."""
        ...

    def noticed(self, inputs: Tensor) -> tuple[str, ...]:
        """What the reader of any map should know, of what was seen so far."""
        ...


@runtime_checkable
class FeatureModel(Model, Protocol):
    """Can also be cut in two at a layer."""

    def layers(self) -> list[str]:
        """Returns the names that ``features`` takes."""
        ...

    def auto_layer(self, inputs: Tensor) -> str:
        """Returns the layer that "auto" stands for; raises NoSpatialOutput where there is none."""
        ...

    def features(self, inputs: Tensor, layer: str) -> Features:
        """One forward pass; ``layer`` may be "auto" (the last one with a spatial map) and "" (the input)."""
        ...

    def from_features(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the outputs if the layer had given ``maps`` (R, C, h, w); row r belongs to image ``rows[r]``."""
        ...


@runtime_checkable
class TokenModel(FeatureModel, Protocol):
    """Knows which of its layers have tokens, if it is a transformer."""

    def active_layer(self, inputs: Tensor) -> str:
        """The automatic layer of methods that look at activations alone; raises NoSpatialOutput where there is none."""
        ...

    def blocks(self, inputs: Tensor) -> Blocks:
        """Its last block; raises NoSpatialOutput where it is no transformer whose tokens lie in the picture."""
        ...


@runtime_checkable
class GradientModel(FeatureModel, Protocol):
    """Can also be differentiated."""

    def gradients(self, inputs: Tensor, pick: Callable[[Outputs], Tensor], layer: str) -> Gradients:
        """One forward pass with a graph from ``layer`` upwards only; ``pick`` turns outputs into (N, T) numbers."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Weightings:
    """P weightings of a picture's tokens.

    Attributes:
        levels: (V,) the weights that come up.
        index: (P, h w) which of them each token has.
        keep: whether the tokens before those of the picture stay as they are; otherwise they are set to 0.
    """

    levels: Tensor
    index: Tensor
    keep: bool = True

    def __len__(self) -> int:
        """Returns P, how many weightings there are."""
        return len(self.index)


@runtime_checkable
class WeightedBlock(Protocol):
    """A transformer's block and what follows it, shown a picture's tokens weighted: its residual and its norm's output.

    Attributes:
        warnings: what the reader should know.
    """

    warnings: list[str]

    def all(self) -> tuple[Outputs, Outputs] | None:
        """The outputs, and those of all weightings (N P rows, a picture's together); None where that takes more."""
        ...

    def some(self, rows: Tensor, which: Tensor) -> Outputs:
        """Returns the outputs (R rows) of the pictures ``rows`` (R,), each under the weighting ``which`` (R,)."""
        ...


@runtime_checkable
class Blocks(Protocol):
    """The last block of a transformer, for one size of input."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the picture's tokens."""
        ...

    @property
    def last(self) -> str:
        """The layer from which the last block is run: its first norm."""
        ...

    def weighted(self, inputs: Tensor, layer: str, weightings: Weightings) -> WeightedBlock | None:
        """Returns the block that is run from ``layer`` on, ready to be shown its tokens weighted; None where none is.

        Raises:
            NoSpatialOutput: a block's residual is added outside of it.
        """
        ...

    @property
    def entered(self) -> tuple[str | None, ...]:
        """The layers whose outputs enter blocks, before any norm."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Attentions:
    """One forward pass of a transformer, ready to be differentiated once for each target.

    Attributes:
        outputs: of the forward pass.
        weights: for each block (N, heads, L, L), the attention of token i to token j.
        count: T, how many values can be differentiated.
        of: t -> for each block the float32 gradient of value t with respect to its attention; to be called once for
            each t, in order, because the last one frees the graph.
    """

    outputs: Outputs
    weights: list[Tensor]
    count: int
    of: Callable[[int], list[Tensor]]


@runtime_checkable
class Transformer(Blocks, Protocol):
    """The blocks and tokens of a model, for one size of input."""

    @property
    def prefix(self) -> int:
        """How many tokens (class tokens, registers) stand before those of the picture."""
        ...

    @property
    def reads(self) -> Tensor:
        """(L,) bool, on which of the last block's tokens the scores depend."""
        ...

    def attentions(self, inputs: Tensor, pick: Callable[[Outputs, Outputs], Tensor], alone: bool) -> Attentions:
        """One forward pass that keeps the attention of every block.

        Args:
            inputs: (N, C, H, W).
            pick: (the outputs, the outputs in a graph: N rows, or with ``alone`` N for each block) -> (rows, T) numbers
                that are differentiated.
            alone: puts the head on every block's tokens, and differentiates each result by that block's own attention.
        """
        ...

    def streams(self, inputs: Tensor) -> tuple[Outputs, Tensor]:
        """Returns the outputs, and the picture's tokens after every block as maps (N, blocks, C, h, w) in float32."""
        ...

    def sampled(self, inputs: Tensor, kept: Tensor, rows: Tensor | None = None) -> Outputs:
        """The outputs when each input (R, C, H, W) enters the first block with the tokens ``kept`` (R, k) alone.

        ``rows`` (R,) says of which image of the batch each is; by default they are the batch.
        """
        ...


@runtime_checkable
class TransformerModel(GradientModel, Protocol):
    """Can also be asked about its attention and tokens."""

    def active_layer(self, inputs: Tensor) -> str:
        """The automatic layer of methods that look at activations alone; raises NoSpatialOutput where there is none."""
        ...

    def transformer(self, inputs: Tensor) -> Transformer:
        """Raises NoSpatialOutput where the network is no transformer whose tokens lie in the picture."""
        ...


def bound(model: M, inputs: Tensor, total: int = 0) -> M:
    """The model for a batch of images, where it has further inputs that may go with them; else the model itself.

    Args:
        model: what is asked.
        inputs: (N, C, H, W).
        total: how many images the further inputs are for, where they will come one by one.

    Raises:
        InvalidInput: the further inputs do not fit.
    """
    bind = getattr(model, "bound", None)
    found: M = bind(inputs, total) if callable(bind) else model
    return found


def without(model: FeatureModel, features: Features, rows: Tensor, channels: Tensor) -> Outputs:
    """What the model says when one channel of a layer is set to 0, from the layer on.

    Args:
        model: which gave the features.
        features: of a layer.
        rows: (R,) images.
        channels: (R,) which channel of each.
    """
    make = getattr(features.state, "without", None)  # a backend may know a shorter way
    if callable(make):
        found: Outputs = make(features, rows, channels)
        return found
    maps = features.maps[rows]
    maps[arange(len(rows), device=maps.device), channels] = 0
    return model.from_features(features, maps, rows)


def at(model: M, rows: Tensor) -> M:
    """Returns the model for changed copies of the images it is bound to: row r of a batch belongs to image ``rows[r]``.

    Whoever gives a model other rows than the images themselves calls it so, because further inputs (metadata, a
    question) go with their images.
    """
    place = getattr(model, "at", None)
    found: M = place(rows) if callable(place) else model
    return found


def varies(model: Model) -> bool:
    """Whether the network may say something else of the same picture in the place of another image of the batch."""
    return bool(getattr(getattr(model, "forward_kwargs", None), "varies", False))

"""An exported graph that is cut in two at a layer: features, the rest of the graph, tokens, the automatic layer.

The part above a layer is a graph of its own with an input in the place of the layer's output. What else it needs of the
part below (a skip connection around the layer) is taken from there once. Each such part is tried on the layer's own
output before it is used: it must give the scores of the pass that made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InvalidType, UnknownLayer, nearest
from seewhy.models import Features, PooledLinear, Weightings, paired
from seewhy.models.exported.layers import Anatomy
from seewhy.models.exported.looking import Known, Look
from seewhy.models.exported.model import ExportedModel
from seewhy.models.exported.parts import Above
from seewhy.models.exported.pooled_head import pooled_linear
from seewhy.models.layout import Layout
from seewhy.models.sharing import Signature, shared
from seewhy.models.torch.reweighing import spread
from seewhy.types import Outputs

__all__ = ["CutModel"]

_SOME = 3  # images for which shapes are worked out: a first dimension of three counts images


@dataclass(frozen=True, eq=False)
class CutModel(ExportedModel):
    """A graph that can also be cut at a layer."""

    def layers(self) -> list[str]:
        """Returns the operations on which the picture has an influence."""
        graph = self.engine.graph
        return [node.name for node in graph.nodes if graph.live.intersection(node.outputs)]

    def auto_layer(self, inputs: Tensor) -> str:
        """Returns the layer that "auto" means for these inputs; see `Look.auto_layer`."""
        return self.look(inputs).auto_layer()

    def stages(self, inputs: Tensor) -> list[str]:
        """Returns the operations that carry everything and may give a map, first to last."""
        anatomy = self.look(inputs).anatomy
        spatial = {key for key, _, shape in anatomy.steps if len(shape) in (3, 4)}
        return [anatomy.name(key) for key in reversed(anatomy.dominators) if key in spatial]

    def active_layer(self, inputs: Tensor) -> str:
        """Returns the automatic layer of methods that look at activations alone."""
        return self.look(inputs).active_layer()

    def blocks(self, inputs: Tensor) -> GraphBlocks:
        """Its last block; see `Blocks`.

        Raises:
            NoSpatialOutput: it is no transformer whose tokens lie in the picture.
        """
        look = self.look(inputs)
        entered, normed = look.block()
        found = self.features(inputs[:1], entered)
        return GraphBlocks(self, (found.maps.shape[2], found.maps.shape[3]), entered, normed)

    def features(self, inputs: Tensor, layer: str = "auto") -> Features:
        """One forward pass; see `FeatureModel`.

        Raises:
            UnknownLayer: there is no such layer.
            NoSpatialOutput: the layer has no spatial map.
        """
        name = self.auto_layer(inputs) if layer == "auto" else layer
        if name == "":
            return Features(maps=inputs, outputs=self(inputs), layer="", inputs=inputs)
        return shared(lambda: self._features(inputs, name), self._signature, inputs, name, self.passes)

    def _signature(self) -> Signature | None:
        return None if self.forward_kwargs else (id(self.engine), self.output, self.labels)

    def _features(self, inputs: Tensor, name: str) -> Features:
        key = self._key(name)
        ports = [port.key for port in self.engine.outputs]
        *raw, own = self._run({self._port.key: inputs}, [*ports, key], tuple(inputs.shape[1:]))
        self.passes.forward += len(inputs)
        layout, warnings = self.look(inputs).layout(own, name)
        outputs = self._read(raw, len(inputs))
        prefix = own[:, : layout.prefix] if layout.kind == "tokens" else None
        maps = layout.to_maps(own).float()
        return Features(
            maps=maps,
            outputs=outputs,
            layer=name,
            inputs=inputs,
            linear=paired(self._linear(key, maps, layout, outputs, tuple(inputs.shape[1:])), self.labels),
            warnings=list(warnings),
            state=_Head(self, key, own.dtype, layout, prefix),
            prefix=layout.prefix if layout.kind == "tokens" else None,
        )

    def from_features(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the rest of the graph from the layer on; see `FeatureModel`."""
        found: Outputs = self(maps) if features.layer == "" else features.state(features, maps, rows)
        return found

    # -------------------------------------------------------------------------------------------------- which layer

    def _key(self, layer: str) -> str:
        """Returns the tensor that a layer's name stands for."""
        if not isinstance(layer, str):
            raise InvalidType(f"layer is the name of a layer, a string, got {type(layer).__name__}.")
        graph = self.engine.graph
        key = graph.names.get(layer)
        if key is None or key not in graph.live:
            raise UnknownLayer(f"{self.name} has no layer {layer!r}. {nearest(layer, self.layers())}")
        found: str = key
        return found

    def look(self, inputs: Tensor) -> Look:
        """What is known, or can be found out, about the graph for inputs of this size."""
        size = (tuple(inputs.shape[1:]), self._ends(), self.output if callable(self.output) else None)
        looks = self._kept.setdefault("looks", {})
        if size not in looks:
            batch = self._step(size[0]) or _SOME
            blank = self._encoded(torch.zeros((batch, *size[0])))
            sizes = self._sizes(tuple(blank.shape))
            looks[size] = Known(Anatomy(self.engine.graph, sizes, batch, (size[0][1], size[0][2]), self._ends()))
        return Look(self, inputs, looks[size])

    def _ends(self) -> tuple[str, ...]:
        """Returns the tensors that hold the scores; all outputs where the caller picks among them."""
        ports = self.engine.outputs
        if isinstance(self.output, str):
            return tuple(port.key for port in ports if port.name == self.output) or tuple(p.key for p in ports)
        if isinstance(self.output, int) and -len(ports) <= self.output < len(ports):
            return (ports[self.output].key,)
        if self.output is None and len(ports) > 1:
            named = [port.key for port in ports if port.name == "logits"]
            matrices = [port.key for port in ports if port.shape is not None and len(port.shape) == 2]
            return tuple(named or matrices or [port.key for port in ports])
        return tuple(port.key for port in ports)

    # --------------------------------------------------------------------------------------------------- the head

    def _linear(
        self, key: str, maps: Tensor, layout: Layout, outputs: Outputs, size: tuple[int, ...]
    ) -> PooledLinear | None:
        """Returns the head, where it is a mean over positions and a linear layer, and gives what the graph gave."""
        ends = self._ends()
        if callable(self.output) or len(ends) != 1 or layout.prefix or outputs.activated:
            return None
        known = self._kept.setdefault("linear", {})
        grid = (maps.shape[2], maps.shape[3])
        if (key, grid) not in known:
            known[key, grid] = pooled_linear(
                self.engine.graph, key, ends[0], grid, layout.positions(), partial(self._constant, size)
            )
        head: PooledLinear | None = known[key, grid]
        if head is None or outputs.scores.shape[1:] != (1, len(head.weight)):
            return None
        again = maps.mean((2, 3)) @ head.weight.t() + (0 if head.bias is None else head.bias)
        return head if self.same(again, outputs.classes) else None

    def _constant(self, size: tuple[int, ...], key: str) -> Any:
        """Returns the array that a tensor holds whatever the picture, or None."""
        graph = self.engine.graph
        if key in graph.live:
            return None
        found = graph.constant(key)
        if found is not None or key not in graph.producer:
            return found
        blank = self._encoded(torch.zeros((self._step(size) or _SOME, *size))).contiguous()
        run = self._compiled({self._port.key: tuple(blank.shape)}, [key])  # it may depend on the picture's size
        return run([blank.numpy()])[0]


@dataclass(frozen=True, eq=False)
class GraphBlocks:
    """The last block of a graph; see `Blocks`.

    Attributes:
        model: the graph.
        grid: (h, w) of the picture's tokens.
        before: the layer whose tokens enter the block.
        last: the block's first norm, or where it has none ``before``.
    """

    model: CutModel
    grid: tuple[int, int]
    before: str
    last: str

    @property
    def entered(self) -> tuple[str | None, ...]:
        """The layer whose tokens enter the block."""
        return (self.before,)

    def weighted(self, inputs: Tensor, layer: str, weightings: Weightings) -> GraphBlock | None:
        """See `Blocks`."""
        if self.model._key(layer) != self.model._key(self.last):
            return None
        names = dict.fromkeys([self.before, self.last])
        return GraphBlock(self.model, tuple(self.model._key(n) for n in names), layer, inputs, weightings)


@dataclass(eq=False)
class GraphBlock:
    """A graph's last block and what follows it, to be run on weighted tokens of pictures (N, C, H, W)."""

    model: CutModel
    keys: tuple[str, ...]
    layer: str
    inputs: Tensor
    weightings: Weightings
    warnings: list[str] = field(default_factory=list)

    def all(self) -> None:
        """There is no shortcut: a graph is run as it is."""

    def some(self, rows: Tensor, which: Tensor) -> Outputs:
        """Returns the outputs (R rows) of the pictures ``rows`` (R,), each under the weighting ``which`` (R,)."""
        head, own = self._head
        length = own[0].shape[1]
        weights = spread(self.weightings, which, length - self.weightings.index.shape[1])
        if head.part is not None and head.part.anew:
            self.model.passes.forward += len(rows)
        return head.run([one[rows] * weights.to(one) for one in own], rows)

    @cached_property
    def _head(self) -> tuple[Above, list[Tensor]]:
        ends = [port.key for port in self.model.engine.outputs]
        found = self.model._run({self.model._port.key: self.inputs}, [*ends, *self.keys], tuple(self.inputs.shape[1:]))
        self.model.passes.forward += len(self.inputs)
        outputs, own = self.model._read(found[: len(ends)], len(self.inputs)), found[len(ends) :]
        head = Above(self.model, self.model.look(self.inputs).anatomy, self.keys, self.layer)
        head.prepare(self.inputs, own, outputs, self.warnings)
        return head, own


class _Head:
    """What follows a layer, made ready at the first use."""

    def __init__(self, model: CutModel, key: str, dtype: Any, layout: Layout, prefix: Tensor | None) -> None:
        self.model, self.key, self.dtype, self.layout, self.prefix = model, key, dtype, layout, prefix
        self.rest: Above | None = None

    def anew(self) -> _Head:
        """The same, to be made ready once more."""
        return _Head(self.model, self.key, self.dtype, self.layout, self.prefix)

    def __call__(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the outputs for ``maps`` (R, C, h, w), row r in the place of image ``rows[r]``'s own map."""
        if self.rest is None:
            own = self._own(features.maps, torch.arange(len(features.maps)), True)
            anatomy = self.model.look(features.inputs).anatomy
            self.rest = Above(self.model, anatomy, (self.key,), features.layer)
            self.rest.prepare(features.inputs, [own], features.outputs, features.warnings)
        assert self.rest.part is not None
        if self.rest.part.anew:
            self.model.passes.forward += len(maps)
        return self.rest.run([self._own(maps, rows, features.keep)], rows)

    def _own(self, maps: Tensor, rows: Tensor, keep: bool) -> Tensor:
        first = None if self.prefix is None else self.prefix[rows] * (1 if keep else 0)
        return self.layout.to_output(maps.to(self.dtype), first)

"""An exported graph that is cut in two at a layer: features, the rest of the graph, tokens, the automatic layer.

The part above a layer is a graph of its own with an input in the place of the layer's output. What else it needs of the
part below (a skip connection around the layer) is taken from there once. Each such part is tried on the layer's own
output before it is used: it must give the scores of the pass that made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InputRefused, InvalidInput, InvalidType, NoSpatialOutput, UnknownLayer, nearest
from seewhy.models import Features, PooledLinear, Weightings, paired
from seewhy.models.exported.layers import Anatomy, frontier
from seewhy.models.exported.model import ExportedModel
from seewhy.models.exported.pooled_head import pooled_linear
from seewhy.models.layout import Layout, UnlocatedTokens, read_layout
from seewhy.models.places import changed, one_each, probes
from seewhy.models.tokens import MOST_PREFIX, candidates
from seewhy.models.torch.reweighing import spread
from seewhy.types import Outputs

__all__ = ["CutModel"]

_EXACT, _ROUNDED = 1e-4, 2e-2  # of the largest score, between two ways to the same scores
_ROUNDING = 5e-7  # of the largest score; where a token does not matter at all, rounding may move scores by so much
_SOME = 3  # images for which shapes are worked out: a first dimension of three counts images


@dataclass(eq=False)
class _Look:
    """What was found out about a graph for one size of picture."""

    anatomy: Anatomy
    tokens: dict[int, Layout] = field(default_factory=dict)
    matters: dict[str, bool] = field(default_factory=dict)
    answers: dict[str, bool] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CutModel(ExportedModel):
    """A graph that can also be cut at a layer."""

    def layers(self) -> list[str]:
        """The operations on which the picture has an influence."""
        graph = self.engine.graph
        return [node.name for node in graph.nodes if graph.live.intersection(node.outputs)]

    def auto_layer(self, inputs: Tensor) -> str:
        """The layer that "auto" means for these inputs; see `Anatomy.auto`."""
        return self._choice(inputs, "auto", self._auto(inputs))

    def active_layer(self, inputs: Tensor) -> str:
        """The automatic layer of methods that look at activations alone."""
        return self._choice(inputs, "active", self._auto(inputs, active=True))

    def blocks(self, inputs: Tensor) -> GraphBlocks:
        """Its last block; see `Blocks`.

        Raises:
            NoSpatialOutput: it is no transformer whose tokens lie in the picture.
        """
        entered = self._choice(inputs, "entered", lambda a: a.entered())
        found = self.features(inputs[:1], entered)
        normed = self._choice(inputs, "normed", lambda a: self._norm(inputs, a) or a.entered())
        return GraphBlocks(self, (found.maps.shape[2], found.maps.shape[3]), entered, normed)

    def _norm(self, inputs: Tensor, anatomy: Anatomy) -> str | None:
        """The output of the last block's first norm: tokens in which a factor of those that enter it is cancelled."""
        entered, normed = anatomy.entered(), anatomy.normed()
        if normed is None:
            return None
        part = _Part(self, inputs, (entered,), (normed,))
        own, *rest = part.below(inputs[:1])
        once, more = (part.above([factor * own], rest)[0] for factor in (1, 4))
        return normed if bool((more - once).norm() < once.norm()) else None

    def features(self, inputs: Tensor, layer: str = "auto") -> Features:
        """One forward pass; see `FeatureModel`.

        Raises:
            UnknownLayer: there is no such layer.
            NoSpatialOutput: the layer has no spatial map.
        """
        name = self.auto_layer(inputs) if layer == "auto" else layer
        if name == "":
            return Features(maps=inputs, outputs=self(inputs), layer="", inputs=inputs)
        key = self._key(name)
        ports = [port.key for port in self.engine.outputs]
        *raw, own = self._run({self._port.key: inputs}, [*ports, key], tuple(inputs.shape[1:]))
        self.passes.forward += len(inputs)
        layout, warnings = self._layout(own, inputs, name)
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
        """The rest of the graph from the layer on; see `FeatureModel`."""
        found: Outputs = self(maps) if features.layer == "" else features.state(features, maps, rows)
        return found

    # -------------------------------------------------------------------------------------------------- which layer

    def _key(self, layer: str) -> str:
        """The tensor that a layer's name stands for."""
        if not isinstance(layer, str):
            raise InvalidType(f"layer is the name of a layer, a string, got {type(layer).__name__}.")
        graph = self.engine.graph
        key = graph.names.get(layer)
        if key is None or key not in graph.live:
            raise UnknownLayer(f"{self.name} has no layer {layer!r}. {nearest(layer, self.layers())}")
        found: str = key
        return found

    def _look(self, inputs: Tensor) -> _Look:
        size = (tuple(inputs.shape[1:]), self._ends(), self.output if callable(self.output) else None)
        looks = self._kept.setdefault("looks", {})
        if size not in looks:
            batch = self._step(size[0]) or _SOME
            blank = self._encoded(torch.zeros((batch, *size[0])))
            sizes = self.engine.sizes({self._port.key: tuple(blank.shape)})
            looks[size] = _Look(Anatomy(self.engine.graph, sizes, batch, (size[0][1], size[0][2]), self._ends()))
        found: _Look = looks[size]
        return found

    def _ends(self) -> tuple[str, ...]:
        """The tensors that hold the scores; all outputs where the caller picks among them."""
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

    def _choice(self, inputs: Tensor, kind: str, choose: Callable[[Anatomy], str]) -> str:
        look = self._look(inputs)
        if kind not in look.chosen:
            key = choose(look.anatomy)
            look.chosen[kind] = self.engine.graph.producer[key].name
            if self.engine.graph.names[look.chosen[kind]] != key:
                look.chosen[kind] = key
        return look.chosen[kind]

    def _auto(self, inputs: Tensor, active: bool = False) -> Callable[[Anatomy], str]:
        def matters(key: str) -> bool:
            return self._matters(inputs, key)

        def fair(key: str) -> bool:
            return not self._answers(inputs, key)

        return lambda anatomy: (anatomy.active if active else anatomy.auto)(matters, fair)

    def _answers(self, inputs: Tensor, key: str) -> bool:
        """Whether a map is the scores themselves, a channel for each class: one changed alone moves one class."""
        look = self._look(inputs)
        if key not in look.answers:
            found = self.features(inputs[:1], key)
            channels, answer = found.maps.shape[1], False
            if channels == found.outputs.num_classes:
                which = sorted({0, channels // 2, channels - 1})
                maps = found.maps.repeat(1 + len(which), 1, 1, 1)
                maps[torch.arange(1, len(maps)), torch.tensor(which)] += 1 + found.maps.std()
                with contextlib.suppress(InvalidInput):  # a graph that cannot be cut there does not show it
                    scores = self.from_features(found, maps, torch.zeros(len(maps), dtype=torch.long)).scores
                    answer = one_each(scores.reshape(len(maps), -1, channels))
            look.answers[key] = answer
        return look.answers[key]

    def _matters(self, inputs: Tensor, key: str) -> bool:
        """Whether the scores depend on the picture's tokens in ``key``: several are changed, one at a time."""
        look = self._look(inputs)
        if key not in look.matters:
            found = self.features(inputs[:1], key)
            h, w = found.maps.shape[2:]
            places = torch.tensor([i * w + j for i, j in probes((h, w))])
            flat = found.maps.flatten(2).repeat(1 + len(places), 1, 1)
            noise = 3 * torch.randn(flat.shape[1], generator=torch.Generator().manual_seed(0)) * (1 + flat.std())
            flat[torch.arange(1, len(flat)), :, places] += noise
            rows = torch.zeros(len(flat), dtype=torch.long)
            scores = self.from_features(found, flat.unflatten(2, (h, w)), rows).scores.flatten(1)
            moved = (scores[1:] - scores[:1]).abs().amax(1)
            least = _ROUNDING if self.engine.exact else _EXACT
            look.matters[key] = bool((moved > least * scores.abs().amax()).all())
        return look.matters[key]

    # --------------------------------------------------------------------------------------------- where tokens lie

    def _layout(self, own: Tensor, inputs: Tensor, layer: str) -> tuple[Layout, tuple[str, ...]]:
        look = self._look(inputs)
        if own.ndim > 1 and len(own) != len(inputs):
            raise NoSpatialOutput(
                f"Layer {layer!r} has no row for each image: it gives {tuple(own.shape)} for {len(inputs)} images. "
                "Choose a layer with an output (N, C, h, w), or layer='auto'."
            )
        try:
            return read_layout(own, inputs, layer, lambda: look.tokens)
        except UnlocatedTokens as asked:
            look.tokens[asked.length] = self._locate(inputs[:1], asked.length)
        return read_layout(own, inputs, layer, lambda: look.tokens)

    def _locate(self, image: Tensor, length: int) -> Layout:
        """Where tokens lie in the picture, found by changing positions of an earlier map, or cells of the picture."""
        anatomy = self._look(image).anatomy
        key = anatomy.first_tokens(length)
        maps = anatomy.seen(key)
        tries = candidates(length, maps, image)[:6]
        for prefix, grid in tries:
            source = next((s for s in reversed(maps) if s.grid == grid), None)
            if source is not None and self._moves(image, key, grid, source.name) == _wanted(prefix, grid):
                return Layout("tokens", prefix, grid)
        for prefix, grid in sorted(tries, key=lambda found: found[0] > 0):
            if prefix and (image.shape[2] % grid[0] or image.shape[3] % grid[1] or prefix > MOST_PREFIX):
                continue
            if self._moves(image, key, grid, None) == _wanted(prefix, grid):
                return Layout("tokens", prefix, grid)
        raise NoSpatialOutput(
            f"The network's tokens ({length} of them from layer {key!r} on) do not lie in the picture row by row, so a "
            "map cannot be read from them. Use a method that needs scores only: Occlusion or RISE."
        )

    def _moves(self, image: Tensor, key: str, grid: tuple[int, int], source: str | None) -> list[int]:
        """For each changed place the token that changes most."""
        cells = probes(grid)
        if source is None:
            (tokens,) = self._run({self._port.key: changed(image, grid, cells)}, [key], tuple(image.shape[1:]))
        else:
            part = _Part(self, image, (source,), (key,))
            own, *rest = part.below(image)
            layout, _ = read_layout(own, image, source, dict)
            maps = layout.to_maps(own).repeat(1 + len(cells), 1, 1, 1)
            noise = torch.randn(maps.shape[1], generator=torch.Generator().manual_seed(0)) * (1 + maps.float().std())
            for row, (i, j) in zip(maps[1:], cells, strict=True):
                row[:, i, j] += noise.to(row.dtype)
            (tokens,) = part.above([layout.to_output(maps)], [r.expand(len(maps), *r.shape[1:]) for r in rest])
        self.passes.forward += 1 + len(cells)
        moved = (tokens[1:] - tokens[:1]).float().norm(dim=2)
        return moved.argmax(1).tolist() if bool((moved.amax(1) > 0).all()) else []

    # --------------------------------------------------------------------------------------------------- the head

    def _linear(
        self, key: str, maps: Tensor, layout: Layout, outputs: Outputs, size: tuple[int, ...]
    ) -> PooledLinear | None:
        """The head, where it is a mean over positions and a linear layer, and gives what the graph gave."""
        ends = self._ends()
        if callable(self.output) or len(ends) != 1 or layout.prefix or outputs.activated:
            return None
        known = self._kept.setdefault("linear", {})
        grid = (maps.shape[2], maps.shape[3])
        if (key, grid) not in known:
            known[key, grid] = pooled_linear(
                self.engine.graph, key, ends[0], grid, layout.positions, partial(self._constant, size)
            )
        head: PooledLinear | None = known[key, grid]
        if head is None or outputs.scores.shape[1:] != (1, len(head.weight)):
            return None
        again = maps.mean((2, 3)) @ head.weight.t() + (0 if head.bias is None else head.bias)
        return head if self._alike(again, outputs.classes) else None

    def _constant(self, size: tuple[int, ...], key: str) -> Any:
        """The array that a tensor holds whatever the picture, or None."""
        graph = self.engine.graph
        if key in graph.live:
            return None
        found = graph.constant(key)
        if found is not None or key not in graph.producer:
            return found
        blank = self._encoded(torch.zeros((self._step(size) or _SOME, *size))).contiguous()
        run = self._compiled({self._port.key: tuple(blank.shape)}, [key])  # it may depend on the picture's size
        return run([blank.numpy()])[0]

    def _alike(self, again: Tensor, wanted: Tensor) -> bool:
        tolerance = _EXACT if self.engine.exact else _ROUNDED
        return bool((again - wanted).abs().amax() <= tolerance * wanted.abs().amax().clamp_min(1e-6))


def _wanted(prefix: int, grid: tuple[int, int]) -> list[int]:
    return [prefix + i * grid[1] + j for i, j in probes(grid)]


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
        """The outputs (R rows) of the pictures ``rows`` (R,), each under the weighting ``which`` (R,)."""
        head, own = self._head
        length = own[0].shape[1]
        weights = spread(self.weightings, which, length - self.weightings.index.shape[1])
        if head.part is not None and head.part.anew:
            self.model.passes.forward += len(rows)
        return head.run([one[rows] * weights.to(one) for one in own], rows)

    @cached_property
    def _head(self) -> tuple[_Above, list[Tensor]]:
        ends = [port.key for port in self.model.engine.outputs]
        found = self.model._run({self.model._port.key: self.inputs}, [*ends, *self.keys], tuple(self.inputs.shape[1:]))
        self.model.passes.forward += len(self.inputs)
        outputs, own = self.model._read(found[: len(ends)], len(self.inputs)), found[len(ends) :]
        head = _Above(self.model, self.keys, self.layer)
        head.prepare(self.inputs, own, outputs, self.warnings)
        return head, own


class _Part:
    """The graph between tensors and others above them, with what it needs besides."""

    def __init__(
        self, model: CutModel, images: Tensor, keys: tuple[str, ...], ends: tuple[str, ...], *, whole: bool = False
    ) -> None:
        self.model, self.keys, self.ends = model, keys, ends
        self.picture, self.size = model._port.key, tuple(images.shape[1:])
        anatomy = model._look(images).anatomy
        self.rest: list[str] = [self.picture]
        self.anew = True
        if not whole:
            self.rest, self.anew = frontier(anatomy, keys, ends)

    def below(self, inputs: Tensor) -> list[Tensor]:
        """The tensors and what else is needed, for these images."""
        wanted = [key for key in self.rest if key != self.picture]
        found = self.model._run({self.picture: inputs}, [*self.keys, *wanted], self.size)
        own, others = found[: len(self.keys)], found[len(self.keys) :]
        named = dict(zip(wanted, others, strict=True)) | {self.picture: inputs}
        return [*own, *(named[key] for key in self.rest)]

    def above(self, own: list[Tensor], rest: list[Tensor]) -> list[Tensor]:
        """The ends, from the tensors and the rest, row by row."""
        feeds = dict(zip(self.keys, own, strict=True)) | dict(zip(self.rest, rest, strict=True))
        return self.model._run(feeds, self.ends, self.size)


class _Above:
    """What follows tensors of a graph, made ready for some images and tried on those tensors themselves."""

    def __init__(self, model: CutModel, keys: tuple[str, ...], layer: str) -> None:
        self.model, self.keys, self.layer = model, keys, layer
        self.part: _Part | None = None
        self.rest: list[Tensor] = []

    def run(self, own: list[Tensor], rows: Tensor) -> Outputs:
        """The outputs for tensors (R, ...), row r in the place of image ``rows[r]``'s own."""
        assert self.part is not None
        return self._scores(self.part, own, rows)

    def prepare(self, images: Tensor, own: list[Tensor], wanted: Outputs, warnings: list[str]) -> None:
        """Chooses the part of the graph that gives the wanted outputs from the images' own tensors.

        Raises:
            InvalidInput: none does.
        """
        ends = tuple(port.key for port in self.model.engine.outputs)
        for whole in (False, True):
            part = _Part(self.model, images, self.keys, ends, whole=whole)
            if self._agrees(part, images, own, wanted):
                self.part = part
                if part.anew:
                    warnings.append(
                        f"The network could not be cut at layer {self.layer!r}; the whole network was run for each "
                        "change."
                    )
                return
        raise InvalidInput(
            f"{self.model.name} cannot be cut at layer {self.layer!r}: the rest of it, run on the layer's own "
            "output, does not give the network's scores. Choose another layer, or use RISE or Occlusion."
        )

    def _scores(self, part: _Part, own: list[Tensor], rows: Tensor) -> Outputs:
        raw = part.above(own, [one[rows] for one in self.rest])
        return self.model._read(raw, len(rows))

    def _agrees(self, part: _Part, images: Tensor, own: list[Tensor], wanted: Outputs) -> bool:
        """Also with more rows than there are images, so that a number of images that the export fixed is noticed."""
        rows = torch.cat([torch.arange(len(images)), torch.zeros(2, dtype=torch.long)])
        try:
            self.rest = part.below(images)[len(self.keys) :] if part.rest else []
            if [key for key in part.rest if key != part.picture]:
                self.model.passes.forward += len(images)
            again = self._scores(part, [one[rows] for one in own], rows)
        except InputRefused:
            return False
        return self.model._alike(again.scores, wanted.scores[rows])


class _Head:
    """What follows a layer, made ready at the first use."""

    def __init__(self, model: CutModel, key: str, dtype: Any, layout: Layout, prefix: Tensor | None) -> None:
        self.model, self.key, self.dtype, self.layout, self.prefix = model, key, dtype, layout, prefix
        self.rest: _Above | None = None

    def __call__(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """The outputs for ``maps`` (R, C, h, w), row r in the place of image ``rows[r]``'s own map."""
        if self.rest is None:
            own = self._own(features.maps, torch.arange(len(features.maps)), True)
            self.rest = _Above(self.model, (self.key,), features.layer)
            self.rest.prepare(features.inputs, [own], features.outputs, features.warnings)
        assert self.rest.part is not None
        if self.rest.part.anew:
            self.model.passes.forward += len(maps)
        return self.rest.run([self._own(maps, rows, features.keep)], rows)

    def _own(self, maps: Tensor, rows: Tensor, keep: bool) -> Tensor:
        first = None if self.prefix is None else self.prefix[rows] * (1 if keep else 0)
        return self.layout.to_output(maps.to(self.dtype), first)

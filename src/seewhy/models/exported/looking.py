"""What is known about an exported graph and one size of input: its automatic layer, where its tokens lie, its blocks.

Everything is tried out once, on one picture, and kept with the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seewhy.errors import InvalidInput, NoSpatialOutput
from seewhy.models import FeatureModel
from seewhy.models.automatic import Maps, no_stream, nowhere
from seewhy.models.exported.layers import Anatomy
from seewhy.models.exported.model import ExportedModel
from seewhy.models.exported.parts import Part
from seewhy.models.layout import Layout, Seen, UnlocatedTokens, read_layout
from seewhy.models.places import answers, apart, changed, probes
from seewhy.models.tokens import MOST_PREFIX, astray, candidates

__all__ = ["Known", "Look"]

_ROUNDING = 5e-7  # of the largest score; where a token does not matter at all, rounding may move scores by so much
_ROUNDED = 1e-4  # the same where numbers are rounded on the way
_TRIES = 6


@dataclass(eq=False)
class Known:
    """What was found out so far.

    Attributes:
        anatomy: what follows from the shapes of all tensors.
        tokens: layouts by the length of the row of tokens.
        astray: why tokens of a length have no layout.
        matters: for each tensor of tokens whether the scores depend on all of them.
        maps: for each map (value, shape) why it is not the picture's, or "".
        stream: (L, C) of the tokens of a transformer; (0, 0) for other graphs; None before it was looked.
        chosen: layers, by what they were chosen for.
    """

    anatomy: Anatomy
    tokens: dict[int, Layout] = field(default_factory=dict)
    astray: dict[int, str] = field(default_factory=dict)
    matters: dict[str, bool] = field(default_factory=dict)
    maps: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    stream: tuple[int, int] | None = None
    chosen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Look:
    """Looks into a graph.

    Attributes:
        model: the graph, which can be cut.
        inputs: (N, C, H, W); the first picture is used.
        known: what is known already; it grows.
    """

    model: ExportedModel
    inputs: Tensor
    known: Known

    @property
    def anatomy(self) -> Anatomy:
        """What follows from the shapes of all tensors."""
        return self.known.anatomy

    # ------------------------------------------------------------------------------------------------- which layer

    def auto_layer(self) -> str:
        """Returns the last map through which everything passes; in a transformer the last tokens that matter.

        Raises:
            NoSpatialOutput: there is none.
        """
        if "auto" not in self.known.chosen:
            stream = self.stream()
            key = None if stream is None else self._tokens_of(stream)
            self.known.chosen["auto"] = self._last_map() if key is None else self.anatomy.name(key)
        return self.known.chosen["auto"]

    def active_layer(self) -> str:
        """The same for methods that look at activations alone: no LayerNorm's output, or the sum that ends a block."""
        if "active" not in self.known.chosen:
            stream = self.stream()
            key = None if stream is None else self._first(self.anatomy.sums(stream))
            self.known.chosen["active"] = self._last_map(plain=True) if key is None else self.anatomy.name(key)
        return self.known.chosen["active"]

    def block(self) -> tuple[str, str]:
        """The layers whose tokens enter the last block, and whose tokens its attention is given after its first norm.

        Where it has no norm both are the same.

        Raises:
            NoSpatialOutput: the graph is no transformer whose tokens lie in the picture.
        """
        if "entered" not in self.known.chosen:
            stream = self.stream()
            entered, normed = self.anatomy.block(stream)
            self.known.chosen["entered"] = self.anatomy.name(entered)
            self.known.chosen["normed"] = self.anatomy.name(self._norm(entered, normed) or entered)
        return self.known.chosen["entered"], self.known.chosen["normed"]

    def stream(self) -> tuple[int, int] | None:
        """(L, C) of the last tokens that are added to, stand for places and matter; None for a graph of maps.

        Raises:
            NoSpatialOutput: there are tokens and no maps, and the tokens do not lie in the picture or do not matter.
        """
        if self.known.stream is None:
            last = self._maps.last()
            found = self._stream_after(last)
            if found is None and last is None and self.anatomy.streams(None):
                raise NoSpatialOutput(self._no_tokens())
            self.known.stream = found or (0, 0)
        return self.known.stream if self.known.stream[0] else None

    def _stream_after(self, last: Seen | None) -> tuple[int, int] | None:
        for stream in self.anatomy.streams(None if last is None else last.value):
            length = stream[0]
            if length not in self.known.tokens and length not in self.known.astray:
                self._locate(length)
            if length in self.known.tokens and self._tokens_of(stream) is not None:
                return stream
        return None

    def _tokens_of(self, stream: tuple[int, int]) -> str | None:
        """Returns the last tensor of a stream's tokens, of which all matter to the scores."""
        anatomy = self.anatomy
        first, *others = [*anatomy.tokens(anatomy.dominators, stream)] or [""]
        inner = next(anatomy.tokens(anatomy.attended(stream), stream), None)
        return self._first(key for key in (first, inner, *others) if key)

    def _first(self, keys: Iterable[str]) -> str | None:
        return next((key for key in keys if self._matters(key)), None)

    def _no_tokens(self) -> str:
        for length, _ in self.anatomy.streams(None):
            if (layout := self.known.tokens.get(length)) is not None:
                return no_stream(length, layout.prefix)
        return next(iter(self.known.astray.values()))

    def _last_map(self, plain: bool = False) -> str:
        last = self._maps.last()
        if last is None:
            raise NoSpatialOutput(nowhere(self.anatomy.seen, self.anatomy.graph, self._maps.astray()))
        if plain:
            return (self._maps.last(lambda name: not self.anatomy.normalised(name)) or last).name
        return last.name

    # -------------------------------------------------------------------------------------------- maps are tried out

    @property
    def _maps(self) -> Maps:
        return Maps(self.anatomy.seen, self, self.known.maps)

    def keeps_places(self, one: Seen) -> bool:
        """See `Trials`."""
        return self.anatomy.keeps_places(one.value)

    def moves(self, one: Seen, source: Seen | None) -> bool:
        """See `Trials`."""
        grid = (one.grid[0], one.grid[1])
        cells = probes(grid)
        found = self._changed(one.value, grid, cells, source)
        return apart(found.permute(0, 3, 1, 2) if one.last else found, cells)

    def passed_by(self, one: Seen) -> bool:
        """See `Trials`; a graph has no layers that hand a map on."""
        return False

    def answers(self, one: Seen, channels: int) -> bool:
        """See `Trials`; only what has as many channels as the scores or a returned map is tried."""
        model, image, ends = self.model, self.inputs[:1], [port.key for port in self.model.engine.outputs]
        shapes = [self.anatomy.sizes[key].shape for key in ends if key in self.anatomy.sizes]
        returned = {shape[1] for shape in shapes if len(shape) == 4}
        if channels not in returned and channels != model(image).num_classes:
            return False
        which = sorted({0, channels // 2, channels - 1})
        part = Part(model, self.anatomy, image, (one.value,), tuple(ends))
        own, *rest = part.below(image)
        maps = (own.permute(0, 3, 1, 2) if one.last else own).repeat(1 + len(which), 1, 1, 1)
        maps[torch.arange(1, len(maps)), torch.tensor(which)] += 1 + maps.float().std().to(maps)
        raw = part.above([maps.permute(0, 2, 3, 1) if one.last else maps], _rows(rest, len(maps)))
        self.model.passes.forward += 1 + len(maps)
        try:
            scores = model._read(raw, len(maps)).scores
        except InvalidInput:  # what is not read does not show it
            return False
        return answers(raw, scores, channels)

    def _changed(self, key: str, grid: tuple[int, int], cells: list[tuple[int, ...]], source: Seen | None) -> Tensor:
        """(1 + cells, ...) of a tensor: as it is, and with each cell of the picture or of an earlier map changed."""
        model, image = self.model, self.inputs[:1]
        if source is None:
            (found,) = model._run({model._port.key: changed(image, grid, cells)}, [key], tuple(image.shape[1:]))
        else:
            part = Part(model, self.anatomy, image, (source.value,), (key,))
            own, *rest = part.below(image)
            maps = changed((own.permute(0, 3, 1, 2) if source.last else own).float(), grid, cells).to(own)
            maps = maps.permute(0, 2, 3, 1) if source.last else maps
            (found,) = part.above([maps], _rows(rest, len(maps)))
        model.passes.forward += 1 + len(cells)
        return found

    # ------------------------------------------------------------------------------------------- tokens are tried out

    def _matters(self, key: str) -> bool:
        """Says whether the scores depend on the picture's tokens in ``key``: several are changed, one at a time."""
        known, model = self.known.matters, self.model
        if key not in known:
            assert isinstance(model, FeatureModel)
            found = model.features(self.inputs[:1], key)
            h, w = found.maps.shape[2:]
            places = torch.tensor([i * w + j for i, j in probes((h, w))])
            flat = found.maps.flatten(2).repeat(1 + len(places), 1, 1)
            noise = 3 * torch.randn(flat.shape[1], generator=torch.Generator().manual_seed(0)) * (1 + flat.std())
            flat[torch.arange(1, len(flat)), :, places] += noise
            rows = torch.zeros(len(flat), dtype=torch.long)
            scores = model.from_features(found, flat.unflatten(2, (h, w)), rows).scores.flatten(1)
            moved = (scores[1:] - scores[:1]).abs().amax(1)
            least = _ROUNDED if not model.engine.exact else _ROUNDING
            known[key] = bool((moved > least * scores.abs().amax()).all())
        return known[key]

    def layout(self, own: Tensor, layer: str) -> tuple[Layout, tuple[str, ...]]:
        """How a layer's output (N, ...) lies in the picture, and a warning where that had to be guessed.

        Raises:
            NoSpatialOutput: it does not.
        """
        if own.ndim > 1 and len(own) != len(self.inputs):
            raise NoSpatialOutput(
                f"Layer {layer!r} has no row for each image: it gives {tuple(own.shape)} for {len(self.inputs)} "
                "images. Choose a layer with an output (N, C, h, w), or layer='auto'."
            )
        try:
            return read_layout(own, self.inputs, layer, lambda: self.known.tokens)
        except UnlocatedTokens as asked:
            if asked.length not in self.known.astray:
                self._locate(asked.length)
            if asked.length in self.known.astray:
                raise NoSpatialOutput(self.known.astray[asked.length]) from None
        return read_layout(own, self.inputs, layer, lambda: self.known.tokens)

    def _locate(self, length: int) -> None:
        """Where tokens lie in the picture, found by changing positions of an earlier map, or cells of the picture."""
        image, key = self.inputs[:1], self.anatomy.first_tokens(length)
        maps = self.anatomy.before(key)
        tries = candidates(length, maps, image)[:_TRIES]
        for prefix, grid in tries:
            source = next((s for s in reversed(maps) if s.grid == grid), None)
            if source is not None and self._stand(key, prefix, grid, source):
                self.known.tokens[length] = Layout("tokens", prefix, grid)
                return
        for prefix, grid in sorted(tries, key=lambda found: found[0] > 0):
            if prefix and (image.shape[2] % grid[0] or image.shape[3] % grid[1] or prefix > MOST_PREFIX):
                continue
            if self._stand(key, prefix, grid, None):
                self.known.tokens[length] = Layout("tokens", prefix, grid)
                return
        self.known.astray[length] = astray(length, key)

    def _stand(self, key: str, prefix: int, grid: tuple[int, int], source: Seen | None) -> bool:
        """Says whether each changed place moves the token that stands for it most."""
        cells = probes(grid)
        tokens = self._changed(key, grid, cells, source)
        moved = (tokens[1:] - tokens[:1]).float().norm(dim=2)
        most = moved.argmax(1).tolist() if bool((moved.amax(1) > 0).all()) else []
        return bool(most == [prefix + i * grid[1] + j for i, j in cells])

    def _norm(self, entered: str, normed: str | None) -> str | None:
        """The output of the last block's first norm: tokens in which a factor of those that enter it is cancelled."""
        if normed is None:
            return None
        part = Part(self.model, self.anatomy, self.inputs, (entered,), (normed,))
        own, *rest = part.below(self.inputs[:1])
        once, more = (part.above([factor * own], rest)[0] for factor in (1, 4))
        return normed if bool((more - once).norm() < once.norm()) else None


def _rows(rest: list[Tensor], count: int) -> list[Tensor]:
    return [one.expand(count, *one.shape[1:]) for one in rest]

"""Which tensors of an exported graph have a map, and which of them is meant by "auto".

The rules are those for torch modules. The last map is the last tensor whose height and width are the picture's divided
by one factor; one that dominates the scores goes before a later one of the same size that does not. Where rows of
tokens are added to after it, the graph is a transformer. Its residual stream is the tensors (N, L, C) that dominate the
scores, and its last block begins where the stream enters the last operation by which tokens see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from seewhy.errors import NoSpatialOutput
from seewhy.models.exported.graph import Graph, Node, Size
from seewhy.models.layout import Seen, fits

__all__ = ["Anatomy", "frontier"]

_PASSING = {"Add", "Mul", "Multiply", "Transpose", "Reshape", "Tile", "Identity", "Convert", "Cast"}
Matters = Callable[[str], bool]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What follows from the shapes of all tensors.

    Attributes:
        graph: the operations.
        sizes: of its tensors, as far as they are known.
        batch: how many images the sizes are for.
        picture: (height, width) of the input.
        ends: the tensors that hold the scores.
    """

    graph: Graph
    sizes: Mapping[str, Size]
    batch: int
    picture: tuple[int, int]
    ends: tuple[str, ...]

    @cached_property
    def steps(self) -> list[tuple[str, Node, tuple[int, ...]]]:
        """(tensor, operation, shape) for everything that has a row for each image and on which the scores depend."""
        wanted = self.graph.before(self.ends) & self.graph.live
        found = []
        for node in self.graph.nodes:
            for key in node.outputs:
                size = self.sizes.get(key)
                if key in wanted and size is not None and size.floating and size.shape[:1] == (self.batch,):
                    found.append((key, node, size.shape))
        return found

    @cached_property
    def maps(self) -> dict[str, tuple[int, int]]:
        """Tensor -> (h, w) of the map that it holds, in order."""
        rows = [shape for _, _, shape in self.steps if len(shape) == 3 and shape[1] > 1]
        lengths, widths = {shape[1] for shape in rows}, {shape[2] for shape in rows}
        found: dict[str, tuple[int, int]] = {}
        tokens = False
        for key, node, shape in self.steps:
            tokens = tokens or len(shape) == 3
            if len(shape) != 4 or node.op in ("Softmax", "SoftMax"):
                continue
            _, a, b, c = shape
            # Queries and keys (heads before or after positions), and what they say to each other.
            heads = b in {1, *lengths} and (c in lengths or a * c in widths)
            if tokens and (heads or {a, b} <= lengths):
                continue
            fair = [grid for grid in ((b, c), (a, b)) if fits(grid, self.picture)]
            if fair:  # where both orders fit, the one that divides the picture
                found[key] = next((grid for grid in fair if self._divides(grid)), fair[0])
        return found

    def _divides(self, grid: tuple[int, int]) -> bool:
        factor, rest = divmod(self.picture[0], grid[0])
        return rest == 0 and self.picture[1] == factor * grid[1]

    @cached_property
    def dominators(self) -> list[str]:
        """The tensors through which everything passes that the scores know of the picture, the last first."""
        chains = [self.graph.chain(end) for end in self.ends]
        return [key for key in chains[0] if all(key in chain for chain in chains[1:])]

    @cached_property
    def last_map(self) -> str | None:
        """The last map with several channels through which everything passes that the scores know of the picture."""
        return next((k for k in self.dominators if k in self.maps and self.channels(k) > 1), None)

    def channels(self, key: str) -> int:
        """Of a map."""
        shape, grid = self.sizes[key].shape, self.maps[key]
        return shape[3] if shape[1:3] == grid and shape[2:] != grid else shape[1]

    @cached_property
    def stream(self) -> tuple[int, int] | None:
        """(L, C) of the tokens that are added to after the last map; None for a network that ends in maps."""
        start = -1 if self.last_map is None else self.graph.place[self.last_map]
        sums = [s for key, node, s in self.steps if len(s) == 3 and self._adds(node) and self.graph.place[key] > start]
        several = [s for s in sums if s[1] > 1]  # class tokens may go on alone
        return (several[-1][1], several[-1][2]) if several else None

    def _adds(self, node: Node) -> bool:
        """Whether an operation adds two things that both depend on the picture."""
        return node.op in ("Add", "Sum") and sum(key in self.graph.live for key in node.inputs) > 1

    def tokens(self, keys: list[str]) -> Iterator[str]:
        """Those of ``keys`` that hold the stream's tokens."""
        wanted = (self.batch, *(self.stream or ()))
        return (key for key in keys if key in self.sizes and self.sizes[key].shape == wanted)

    @cached_property
    def mixing(self) -> str | None:
        """The last tensor in which all tokens of the stream have seen each other by attention."""
        length = None if self.stream is None else self.stream[0]
        found = [key for key, node, s in self.steps if self.graph.mixes(node) and len(s) > 2 and s[-2] == length]
        return found[-1] if found else None

    def auto(self, matters: Matters, fair: Matters) -> str:
        """The last map through which everything passes and that is fair; among tokens the last ones that matter.

        Raises:
            NoSpatialOutput: there is none.
        """
        if self.stream is None:
            return self._map(fair)
        first = next(self.tokens(self.dominators), None)
        if first is not None and matters(first):
            return first
        inner = next(self.tokens(self.graph.chain(self.mixing)[1:]), None) if self.mixing else None
        if inner is not None and matters(inner):
            return inner
        return self._first(self.tokens(self.dominators), matters)

    def active(self, matters: Matters, fair: Matters) -> str:
        """The same for methods that look at activations alone: no LayerNorm's output, or the sum that ends a block."""
        if self.stream is None:
            last = self._map(fair)
            maps = [key for key in self.dominators if key in self.maps and self.channels(key) > 1 and fair(key)]
            return next((key for key in maps if not self._normalised(key)), last)
        return self._first((k for k in self.tokens(self.dominators) if self._adds(self.graph.producer[k])), matters)

    def entered(self) -> str:
        """The tokens that enter the last block.

        Raises:
            NoSpatialOutput: there is no block with attention.
        """
        if self.stream is not None and self.mixing is not None:
            passed = set(self.graph.chain(self.mixing))
            if found := next(self.tokens([key for key in self.dominators if key in passed]), None):
                return found
        raise NoSpatialOutput(
            "The graph has no transformer's blocks through which all tokens pass. Use ReciproCAM, RISE or Occlusion."
        )

    def normed(self) -> str | None:
        """What the last block's attention is given: tokens that are made of those that enter the block, or None."""
        start = self.graph.place[self.entered()]
        inner = next(self.tokens(self.graph.chain(self.mixing)[1:]), None) if self.mixing else None
        return inner if inner is not None and self.graph.place[inner] > start else None

    def _normalised(self, key: str) -> bool:
        """Whether a LayerNorm gives it, in one operation or written out: its channels have the same mean everywhere."""
        graph = self.graph
        while (node := graph.producer.get(key)) is not None:
            live = [k for k in node.inputs if k in graph.live]
            if node.op in ("Sub", "Subtract") and len(live) > 1:
                mean = graph.producer.get(live[1])
                return mean is not None and mean.op == "ReduceMean"
            if node.op not in _PASSING or len(live) != 1:
                written_out = node.op in ("Div", "Divide") and len(live) > 1
                return written_out or node.op in ("MVN", "LayerNormalization")
            key = live[0]
        return False

    def _map(self, fair: Matters) -> str:
        chosen = (k for k in self.dominators if k in self.maps and self.channels(k) > 1)
        found = next((key for key in chosen if fair(key)), None)
        if found is not None:
            return found
        ends = self._ends()
        if not ends:
            raise NoSpatialOutput(
                "No layer of the network has a spatial map (N, C, h, w). Use a method that needs scores only: "
                "Occlusion or RISE."
            )
        names = [self.graph.producer[key].name for key in ends[:4]]
        raise NoSpatialOutput(
            "No layer with a spatial map carries all of the picture's influence on the scores: it passes through "
            f"several beside each other. Layers that come into question: {', '.join(map(repr, names))}. Name one, "
            f"layer={names[0]!r} for example, or use Occlusion or RISE."
        )

    def _ends(self) -> list[str]:
        """The maps of which no other is made, the last first: the ends of branches."""
        kept: list[str] = []
        for key in reversed(self.maps):
            if not self.graph.after([key]).intersection(kept):
                kept.append(key)
        return kept

    def _first(self, keys: Iterator[str], matters: Matters) -> str:
        found = next((key for key in keys if matters(key)), None)
        if found is None:
            raise NoSpatialOutput(
                "The network's scores do not depend on its tokens after any layer through which all of them pass. "
                "Name a layer, or use Occlusion or RISE."
            )
        return found

    def seen(self, before: str) -> list[Seen]:
        """The maps that are made before a tensor."""
        end = self.graph.place[before]
        shapes = {key: shape for key, _, shape in self.steps}
        return [Seen(k, "map", shapes[k], grid) for k, grid in self.maps.items() if self.graph.place[k] < end]

    def first_tokens(self, length: int) -> str:
        """The first tensor that holds tokens of this length."""
        return next(key for key, _, shape in self.steps if len(shape) == 3 and shape[1] == length)


def frontier(anatomy: Anatomy, taps: tuple[str, ...], ends: tuple[str, ...]) -> tuple[list[str], bool]:
    """What the part of the graph from ``taps`` to ``ends`` needs of the part before it, and whether it begins anew.

    Returns:
        Tensors with a row for each image; True where the picture itself must be computed with again.
    """
    graph = anatomy.graph
    above = graph.after(taps)
    rows = {key for key, _, shape in anatomy.steps if len(shape) > 1}
    needed = graph.before(ends, taps)
    waiting = [
        key for node in graph.nodes if needed.intersection(node.outputs) & above - set(taps) for key in node.inputs
    ]
    found: dict[str, bool] = {}
    done: set[str] = set()
    anew = False
    while waiting:
        key = waiting.pop()
        if key in done or key in above or not key:
            continue
        done.add(key)
        if key in rows or key in graph.inputs:
            found[key] = True
        elif key in graph.producer:
            waiting.extend(graph.producer[key].inputs)
    for key in graph.inputs:
        users = [n for n in graph.consumers.get(key, []) if (done | above | set(ends)).intersection(n.outputs)]
        anew = anew or (key in found and any(n.op not in ("Shape", "ShapeOf") for n in users))
    return list(found), anew

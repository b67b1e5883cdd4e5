"""Which tensors of an exported graph have the shape of a map or of tokens, and how they are connected.

A map's height and width are the picture's divided by one factor. Where rows of tokens are added to after the last map,
the graph is a transformer. Its residual stream is the tensors (N, L, C) that dominate the scores, and its last block
begins where the stream enters the last operation by which tokens see each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from seewhy.errors import NoSpatialOutput
from seewhy.models.graph import Graph, Node, Size
from seewhy.models.layout import Seen, fits
from seewhy.registry import instead

__all__ = ["Anatomy", "frontier"]

_PASSING = {"Add", "Mul", "Multiply", "Transpose", "Reshape", "Tile", "Identity", "Convert", "Cast"}
# What leaves places where they are, in the words of ONNX and of OpenVINO; a concatenation does along channels.
_LOCAL = {
    "Add", "AveragePool", "AvgPool", "BatchNormInference", "BatchNormalization", "Cast", "Clamp", "Clip", "Conv",
    "ConvTranspose", "Convert", "Convolution", "ConvolutionBackpropData", "DequantizeLinear", "Div", "Divide", "Elu",
    "Erf", "Exp", "FakeQuantize", "Gelu", "GlobalAveragePool", "GroupConvolution", "HSigmoid", "HSwish", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "LRN", "Max", "MaxPool", "Maximum", "Min", "Minimum", "Mish", "Mul",
    "Multiply", "Neg", "PRelu", "Pow", "Power", "QuantizeLinear", "ReLU", "ReduceMean", "Relu", "Selu",
    "Sigmoid", "SoftPlus", "Softplus", "Sqrt", "Sub", "Subtract", "Sum", "Swish", "Tanh",
}  # fmt: skip


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
    def _fitting(self) -> list[Seen]:
        """Returns the tensors that have the shape of a map, in the order in which they are made."""
        carrying = set(self.dominators)
        found = []
        for key, node, shape in self.steps:
            if len(shape) != 4 or node.op in ("Softmax", "SoftMax"):
                continue
            fair = [grid for grid in (shape[2:], shape[1:3]) if fits(grid, self.picture)]
            if fair:  # where both orders fit, the one that divides the picture
                grid = next((grid for grid in fair if self._divides(grid)), fair[0])
                found.append(Seen(self.name(key), "map", shape, grid, carries=key in carrying, value=key))
        return found

    @cached_property
    def seen(self) -> list[Seen]:
        """The maps: what fits, but for the queries, keys and tables of a transformer's attention."""
        rows = [shape for _, _, shape in self.steps if len(shape) == 3 and shape[1] > 1]
        lengths, widths = {1, *(shape[1] for shape in rows)}, {shape[2] for shape in rows}
        start = next((self.graph.place[key] for key, _, shape in self.steps if len(shape) == 3), len(self.graph.nodes))

        def heads(one: Seen) -> bool:
            _, a, b, c = one.shape  # heads stand before positions, or behind them
            if self.graph.place[one.value] < start:
                return False
            if one.carries:
                return self._attends(one.value)
            return (b in lengths and (c in lengths or a * c in widths)) or {a, b} <= lengths

        return [one for one in self._fitting if not heads(one)]

    def _attends(self, key: str) -> bool:
        """Says whether a tensor is what an attention gives, in another order of its dimensions."""
        node = self.graph.producer[key]
        while node.op in _PASSING and node.inputs[0] in self.graph.producer:
            node = self.graph.producer[node.inputs[0]]
        return self.graph.mixes(node)

    def name(self, key: str) -> str:
        """What people call a tensor: its operation, where that has one result."""
        name = self.graph.producer[key].name
        return name if self.graph.names[name] == key else key

    def keeps_places(self, key: str) -> bool:
        """Whether every operation from the picture to a tensor leaves places where they are, as a convolution does."""
        passed = self.graph.before([key]) & self.graph.live
        return all(_local(self.graph.producer[k]) for k in passed if k in self.graph.producer)

    def _divides(self, grid: tuple[int, int]) -> bool:
        factor, rest = divmod(self.picture[0], grid[0])
        return rest == 0 and self.picture[1] == factor * grid[1]

    @cached_property
    def dominators(self) -> list[str]:
        """The tensors through which everything passes that the scores know of the picture, the last first."""
        chains = [self.graph.chain(end) for end in self.ends]
        return [key for key in chains[0] if all(key in chain for chain in chains[1:])]

    def streams(self, after: str | None) -> list[tuple[int, int]]:
        """(L, C) of tokens that are added to after a tensor, the last first; none where only class tokens go on."""
        start = -1 if after is None else self.graph.place[after]
        sums = [s for key, node, s in self.steps if len(s) == 3 and self._adds(node) and self.graph.place[key] > start]
        return list(dict.fromkeys((s[1], s[2]) for s in reversed(sums) if s[1] > 1))

    def _adds(self, node: Node) -> bool:
        """Says whether an operation adds two things that both depend on the picture."""
        return node.op in ("Add", "Sum") and sum(key in self.graph.live for key in node.inputs) > 1

    def tokens(self, keys: Iterable[str], stream: tuple[int, int]) -> Iterator[str]:
        """Returns those of ``keys`` that hold the stream's tokens."""
        wanted = (self.batch, *stream)
        return (key for key in keys if key in self.sizes and self.sizes[key].shape == wanted)

    def sums(self, stream: tuple[int, int]) -> Iterator[str]:
        """The stream's tokens where something was added to them and everything passes through, the last first."""
        return (k for k in self.tokens(self.dominators, stream) if self._adds(self.graph.producer[k]))

    def attended(self, stream: tuple[int, int]) -> list[str]:
        """What lies on every way to the last tensor in which all tokens have seen each other, the nearest first."""
        found = [k for k, node, s in self.steps if self.graph.mixes(node) and len(s) > 2 and s[-2] == stream[0]]
        return self.graph.chain(found[-1])[1:] if found else []

    def block(self, stream: tuple[int, int] | None) -> tuple[str, str | None]:
        """The tokens that enter the last block, and those made of them that its attention is given, if there are any.

        Raises:
            NoSpatialOutput: there is no block with attention.
        """
        inner = [] if stream is None else self.attended(stream)
        if stream is not None and inner:
            passed = set(inner)
            if found := next(self.tokens([key for key in self.dominators if key in passed], stream), None):
                normed = next(self.tokens(inner, stream), None)
                later = normed is not None and self.graph.place[normed] > self.graph.place[found]
                return found, normed if later else None
        raise NoSpatialOutput(
            f"The graph has no transformer's blocks through which all tokens pass. Use {instead('features')}."
        )

    def normalised(self, layer: str) -> bool:
        """Whether a LayerNorm gives it, in one operation or written out: its channels have the same mean everywhere."""
        graph, key = self.graph, self.graph.names[layer]
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

    def before(self, key: str) -> list[Seen]:
        """Returns the maps that are made before a tensor."""
        end = self.graph.place[key]
        return [one for one in self.seen if self.graph.place[one.value] < end]

    def first_tokens(self, length: int) -> str:
        """Returns the first tensor that holds tokens of this length."""
        return next(key for key, _, shape in self.steps if len(shape) == 3 and shape[1] == length)


def _local(node: Node) -> bool:
    if node.op in ("Concat", "Concatenation"):
        return node.attributes.get("axis") == 1
    return node.op in _LOCAL


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

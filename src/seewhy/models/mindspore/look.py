"""What a cell does with a picture, recorded in one pass: operations as a graph, and what each of its layers gives.

Which layer "auto" means follows from that graph, as for exported ones (`seewhy.models.automatic`), and is tried out
before it is used: where the layer's outputs for two pictures are exchanged, their scores must be, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from seewhy.errors import InvalidInput, NoSpatialOutput
from seewhy.foreign import as_torch, to_mindspore
from seewhy.models.automatic import Maps, nowhere
from seewhy.models.graph import Graph, Node
from seewhy.models.layout import LAST, Layout, Seen, fits, read_layout
from seewhy.models.mindspore.library import dispatched, hooked, tensors
from seewhy.models.places import answers, apart, changed, probes
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = ["COPIES", "Change", "Known", "Look", "layout_of", "record"]

COPIES = 2  # images of the recorded pass: a first dimension of two counts images
_TRIED = 12  # maps
_CLOSE = 1e-4  # of the largest score, where passes are compared
_LOCAL = {  # operations that leave places where they are
    "AdaptiveAvgPool2D", "Add", "AddExt", "Adds", "AvgPool", "AvgPool2D", "BatchNorm", "BatchNormExt", "BiasAdd",
    "Cast", "ClampScalar", "Concat", "Conv2D", "Conv2DExt", "Conv2DPadding", "ConvolutionStr", "Div", "Divs", "Elu",
    "ExpandDims", "GeLU", "GeluExt", "HSigmoid", "HSwish", "LeakyReLUExt", "MaxPool", "MaxPool3DWithArgmax",
    "MaxPoolWithArgmaxV2", "MaxPoolWithIndices", "MaxPoolWithMask", "Maximum", "Minimum",
    "MeanExt", "Mish", "Mul", "Muls", "Neg", "Pad", "PReLU", "ReLU", "ReLU6", "ReduceMean", "SiLU", "Sigmoid",
    "Softplus", "Squeeze", "Sub", "SubExt", "Subs", "Tanh",
}  # fmt: skip

Change = tuple[str, int, Callable[[Any], Any]]
"""(layer, which of its calls, what is made of its output)."""


class Running(Protocol):
    """What a look asks of the model."""

    @property
    def cell(self) -> Any:
        """The cell of this name."""
        ...

    def ran(self, inputs: Tensor, *changes: Change) -> Any:
        """What the cell gives, as tensors of torch, with some layers' outputs changed."""
        ...

    def read(self, raw: Any, n: int) -> Outputs:
        """Returns the outputs for n pictures in that."""
        ...

    def scores_in(self, raw: Any) -> Any:
        """What is picked of it as the scores."""
        ...


@dataclass(eq=False)
class Known:
    """What was found out about a cell and one size of input.

    Attributes:
        graph: the operations; a tensor's key says when it was made.
        seen: every layer's single output, in the order in which they were given.
        calls: how often each layer ran.
        weights: key of a matrix product -> the name of the parameter in it; "" where the matrix is none.
        maps: for each map (value, shape) why it is not the picture's, or "".
        carries: whether all passes through a map, as it was tried out; by layer and call.
        linear: whether what follows is a mean over positions and a linear layer, likewise.
        auto: the chosen layer and its call.
    """

    graph: Graph
    seen: list[Seen]
    calls: Mapping[str, int]
    weights: Mapping[str, str]
    maps: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    carries: dict[tuple[str, int], bool] = field(default_factory=dict)
    linear: dict[tuple[str, int], bool] = field(default_factory=dict)
    auto: Seen | None = None

    @property
    def live(self) -> set[str]:
        """The tensors that depend on the picture, and on which the scores depend."""
        return self.graph.before(self.graph.outputs) & self.graph.live

    def operations(self) -> list[str]:
        """Returns the kinds of those that make such tensors."""
        live = self.live
        return [node.op for node in self.graph.nodes if live.intersection(node.outputs)]


class _Tape:
    """Follows tensors from operation to operation.

    MindSpore hands the same tensor out in several Python objects; its place in memory and shape identify it, and what
    is kept is kept alive, so that no place is used twice. Where a tensor with a row for each image comes from nowhere
    (a copy that no operation made), it counts as made of the picture itself: then less is believed, never more.
    """

    def __init__(self, cell: Any) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, str] = {}
        self.places: dict[tuple[int, tuple[int, ...]], str] = {}
        self.stored: dict[int, str] = {}
        self.kept: list[Any] = []
        self.parameters = {one.data_ptr(): name for name, one in cell.parameters_dict().items()}

    def start(self, picture: Any) -> None:
        self._put(picture, "picture")

    def __call__(self, name: str, run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        given = tensors(args)
        sources = [key for key in map(self.key, given) if key]
        result = run(*args)
        self.kept.append((args, result))
        made = tuple(f"{len(self.nodes)}.{i}" for i in range(len(tensors(result))))
        self.nodes.append(Node(made[0] if made else name, name, tuple(sources), made))
        matrices = [one for one in given if self.key(one) is None and one.ndim == 2]
        if name.startswith("MatMul") and len(matrices) == 1:
            self.weights[made[0]] = self.parameters.get(matrices[0].data_ptr(), "")
        for key, one in zip(made, tensors(result), strict=True):
            self._put(one, key)
        return result

    def key(self, one: Any) -> str | None:
        """What a tensor is known by; None for what does not depend on the picture."""
        place = one.data_ptr()
        if (place, tuple(one.shape)) in self.places:
            return self.places[place, tuple(one.shape)]
        if place in self.parameters:
            return None
        stored = self.stored.get(one.untyped_storage().data_ptr())
        return stored or ("picture" if tuple(one.shape[:1]) == (COPIES,) else None)

    def _put(self, one: Any, key: str) -> None:
        self.places[one.data_ptr(), tuple(one.shape)] = key
        self.stored[one.untyped_storage().data_ptr()] = key


def record(model: Running, inputs: Tensor) -> Known:
    """One pass of two copies of the first picture, with every operation and every layer watched."""
    cell, tape, calls, found = model.cell, _Tape(model.cell), dict[str, int](), list[tuple[str, int, Any]]()

    def note(name: str, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        given = tensors(output)
        if len(given) == 1:
            tape.kept.append(given)
            found.append((name, calls[name], given[0]))

    picture = to_mindspore(inputs[:1].expand(COPIES, -1, -1, -1))
    tape.start(picture)
    with ExitStack() as stack:
        for name, part in cell.cells_and_names():
            if name:
                stack.enter_context(hooked(part, partial(note, name)))
        stack.enter_context(dispatched(tape))
        raw = cell(picture)
    ends = _ends(model, raw, tape)
    graph = Graph(tape.nodes, ("picture",), ends, lambda _key: None)
    dominating = _dominators(graph, ends)
    live = graph.before(ends) & graph.live
    size = (inputs.shape[2], inputs.shape[3])
    seen = [_seen(name, call, tape.key(one) or "", one, size) for name, call, one in found]
    seen = [replace(s, live=s.value in live, carries=s.value in dominating) for s in seen if s.shape[:1] == (COPIES,)]
    return Known(graph, seen, calls, tape.weights)


def _ends(model: Running, raw: Any, tape: _Tape) -> tuple[str, ...]:
    """Returns the tensors that hold the scores; all where that cannot be told."""
    own = tensors(raw)
    ours = as_torch(raw)
    chosen = model.scores_in(ours)
    pairs = zip(_leaves(ours), own, strict=True)
    picked = [theirs for one, theirs in pairs if one is chosen]
    return tuple(key for key in map(tape.key, picked or own) if key)


def _leaves(value: Any) -> list[Tensor]:
    members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [value] if isinstance(value, Tensor) else [one for member in members for one in _leaves(member)]


def _dominators(graph: Graph, ends: Iterable[str]) -> set[str]:
    chains = [set(graph.chain(end)) for end in ends]
    return set.intersection(*chains) if chains else set()


def _seen(name: str, call: int, key: str, one: Any, picture: tuple[int, int]) -> Seen:
    shape, grid = tuple(one.shape), tuple[int, ...]()
    if len(shape) == 4:
        grid = next((g for g in (shape[2:], shape[1:3]) if fits(g, picture)), ())
    return Seen(name, "map" if grid else "other", shape, grid, call=call, value=key)


def layout_of(output: Any, inputs: Tensor, layer: str) -> tuple[Layout, tuple[str, ...]]:
    """How a layer's output lies in the picture, and a warning where that had to be guessed.

    Raises:
        NoSpatialOutput: it has no height and width.
    """

    def tokens() -> Any:
        raise NoSpatialOutput(
            f"Layer {layer!r} gives tokens {tuple(output.shape)}. Of MindSpore's cells seewhy explains layers with "
            f"maps (N, C, h, w) only: choose one, or use {instead('scores')}."
        )

    return read_layout(output, inputs, layer, tokens)


@dataclass(frozen=True, eq=False)
class Look:
    """Looks into a cell.

    Attributes:
        model: runs it.
        inputs: (N, C, H, W); the first picture is used.
        known: what is known already; it grows.
    """

    model: Running
    inputs: Tensor
    known: Known

    def auto(self) -> Seen:
        """Returns the last map through which everything passes.

        Raises:
            NoSpatialOutput: there is none.
        """
        if self.known.auto is None:
            maps = [one for one in self.known.seen if one.kind == "map"]
            seen = [one for one in maps if one.live]
            shown = self._last([one for one in seen if one.carries])
            # Where the graph has gaps (copies that no operation made) the trial alone decides.
            self.known.auto = shown or self._last([replace(one, carries=True) for one in seen[-_TRIED:]])
            if self.known.auto is None:
                raise NoSpatialOutput(nowhere(seen or maps, self.known.graph))
        return self.known.auto

    def _last(self, seen: list[Seen]) -> Seen | None:
        """The last of these maps that lies in the picture and through which, as a trial shows, everything passes."""
        while seen:
            last = Maps(seen, self, self.known.maps).last()
            if last is None or self._exchanged(last):
                return last
            seen = [one for one in seen if one.value != last.value]
        return None

    def call(self, layer: str) -> int:
        """Which call of a layer is explained: the last through which the picture reaches the scores."""
        live = [one.call for one in self.known.seen if one.name == layer and one.live and one.kind == "map"]
        return live[-1] if live else self.known.calls.get(layer, 0)

    def shape(self, layer: str, call: int) -> tuple[int, ...] | None:
        """(C, h, w) of the layer's output in a call, in its own order; None where it gives no single tensor."""
        return next((s.shape[1:] for s in self.known.seen if (s.name, s.call) == (layer, call)), None)

    # -------------------------------------------------------------------------------------------- maps are tried out

    def keeps_places(self, one: Seen) -> bool:
        """See `Trials`."""
        graph = self.known.graph
        passed = graph.before([one.value]) & graph.live - {"picture"}
        return all(graph.producer[key].op in _LOCAL for key in passed)

    def moves(self, one: Seen, source: Seen | None) -> bool:
        """See `Trials`."""
        grid = (one.grid[0], one.grid[1])
        cells, kept = probes(grid), list[Tensor]()
        keep: Change = (one.name, one.call, lambda output: kept.append(as_torch(output)))
        if source is None:
            self.model.ran(changed(self.inputs[:1], grid, cells), keep)
        else:
            maps = changed(_maps(self._own(source), source), grid, cells)
            self.model.ran(self.inputs[:1].expand(len(maps), -1, -1, -1), keep, _put(source, maps))
        return apart(_maps(kept[-1], one).float(), cells)

    def answers(self, one: Seen, channels: int) -> bool:
        """See `Trials`; only what has as many channels as there are scores is tried."""
        image = self.inputs[:1]
        if channels != self.model.read(self.model.ran(image), 1).scores.shape[-1]:
            return False
        which = sorted({0, channels // 2, channels - 1})
        maps = _maps(self._own(one), one).repeat(1 + len(which), 1, 1, 1)
        maps[torch.arange(1, len(maps)), torch.tensor(which)] += 1 + maps.float().std().to(maps)
        raw = self.model.ran(image.expand(len(maps), -1, -1, -1), _put(one, maps))
        try:
            scores = self.model.read(raw, len(maps)).scores
        except InvalidInput:  # what is not read does not show it
            return False
        return answers(raw, scores, channels)

    def passed_by(self, one: Seen) -> bool:
        """See `Trials`."""
        return not self._exchanged(one)

    def _exchanged(self, one: Seen) -> bool:
        """Says whether two pictures' scores are exchanged where the layer's outputs for them are."""
        key = (one.name, one.call)
        if key not in self.known.carries:
            image = self.inputs[:1]
            noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
            pair = torch.cat([image, image.mean() + (image.float().std() + 0.1).to(image) * noise])
            plain = self.model.read(self.model.ran(pair), 2).scores
            swap: Change = (*key, lambda output: output[::-1])
            swapped = self.model.read(self.model.ran(pair, swap), 2).scores
            close = _CLOSE * float(plain.abs().amax())
            self.known.carries[key] = bool((swapped.flip(0) - plain).abs().amax() <= close)
        return self.known.carries[key]

    def _own(self, one: Seen) -> Tensor:
        kept: list[Tensor] = []
        self.model.ran(self.inputs[:1], (one.name, one.call, lambda output: kept.append(as_torch(output))))
        return kept[-1]


def _maps(output: Tensor, one: Seen) -> Tensor:
    return LAST.to_maps(output) if one.last else output


def _put(one: Seen, maps: Tensor) -> Change:
    """Makes the layer give ``maps`` (N, C, h, w)."""
    own = to_mindspore(LAST.to_output(maps) if one.last else maps)
    return one.name, one.call, lambda _output: own

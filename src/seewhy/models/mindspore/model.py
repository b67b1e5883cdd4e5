"""A ``mindspore.nn.Cell`` as a model: scores, features at any layer with a map, gradients; left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seewhy.errors import (
    BadOutput,
    InputRefused,
    InvalidInput,
    InvalidType,
    NoSpatialOutput,
    SeewhyError,
    UnknownLayer,
    nearest,
    out_of_memory,
)
from seewhy.foreign import as_torch, to_mindspore
from seewhy.models import Activations, Features, Gradients, PooledLinear, paired
from seewhy.models.layout import Layout
from seewhy.models.mindspore import rules
from seewhy.models.mindspore.bridge import CellModule
from seewhy.models.mindspore.library import eager, hooked, pull_back, read_weights, tensors
from seewhy.models.mindspore.look import COPIES, Change, Known, Look, layout_of, record
from seewhy.models.reading import Selector, check_picture, check_size, select, to_outputs
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.state import kept_random
from seewhy.models.turns import alone
from seewhy.types import Outputs, Passes

__all__ = ["MindSporeModel"]

_DTYPES = (torch.float32, torch.float16, torch.float64)
_CLOSE = 1e-5  # of the largest score: how well a closed form must give what the network gives
_known: WeakKeyDictionary[Any, dict[Any, Known]] = WeakKeyDictionary()  # by cell


@dataclass(frozen=True, eq=False)
class MindSporeModel:
    """A cell of MindSpore as a model, on the device that MindSpore uses.

    Attributes:
        cell: (N, C, H, W) -> (N, K).
        output: where the scores are in what it returns (a name, an index, a callable), if that is not obvious.
        labels: class names.
        preprocessing: how a picture becomes its input.
        title: its name in reports; by default that of its class.
        notes: what was decided while it was loaded.
    """

    cell: Any
    output: Selector = field(default=None, kw_only=True)
    labels: tuple[str, ...] | None = field(default=None, kw_only=True, repr=False)
    preprocessing: Any = field(default=None, kw_only=True)
    title: str | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    passes: Passes = field(default_factory=Passes, kw_only=True, repr=False)

    @property
    def name(self) -> str:
        """The title, or the class of the cell."""
        return self.title or type(self.cell).__name__

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Evaluation mode, operation by operation; afterwards everything as it was. Other threads wait."""
        with alone(self.cell), kept_random(()), torch.no_grad(), eager(self.cell):
            yield

    def check(self, inputs: Tensor) -> None:
        """Raises where the input's type is not the cell's."""
        check_picture(inputs, self.name)
        check_size(inputs, self.output)
        own = next((str(one.dtype).lower() for one in self.cell.get_parameters() if "loat" in str(one.dtype)), None)
        given = str(inputs.dtype).removeprefix("torch.")
        if inputs.dtype not in _DTYPES:
            raise InvalidType(f"inputs must be float32, float16 or float64 for a cell of MindSpore, got {given}.")
        if own is not None and given not in own:
            raise InvalidInput(f"The network is {own}, the inputs are {given}. Use inputs.to(torch.{own}).")

    def __call__(self, inputs: Tensor) -> Outputs:
        """One forward pass."""
        return self.read(self.ran(inputs), len(inputs))

    def read(self, raw: Any, n: int) -> Outputs:
        """Returns the outputs for n pictures in what the cell returned, as tensors of torch."""
        return to_outputs(raw, n, self.output, self.labels)

    def scores_in(self, raw: Any) -> Any:
        """What is picked as the scores; None where that cannot be told."""
        try:
            return None if callable(self.output) else select(raw, self.output)
        except BadOutput:  # is said when the output is read
            return None

    def in_torch(self) -> TorchModel:
        """Returns a module of torch that runs the cell; see `CellModule`."""
        return TorchModel(CellModule(self.cell), output=self.output, labels=self.labels, title=self.name)

    def with_weights(self, path: Path) -> None:
        """Puts the weights of a checkpoint of MindSpore (.ckpt, .safetensors) into the cell.

        Raises:
            CheckpointError: see the message.
        """
        read_weights(self.cell, path)
        _known.pop(self.cell, None)

    def ran(self, inputs: Tensor, *changes: Change) -> Any:
        """What the cell gives for (N, C, H, W), as tensors of torch; some layers' outputs may be changed."""
        with self._refusing(inputs):
            raw = as_torch(self._run(to_mindspore(inputs), *changes))
        self.passes.forward += len(inputs)
        return raw

    def _run(self, picture: Any, *changes: Change) -> Any:
        with ExitStack() as stack:
            for layer, call, change in changes:
                stack.enter_context(hooked(self._part(layer), _Counted(call, change)))
            return self.cell(picture)

    @contextmanager
    def _refusing(self, inputs: Tensor) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            said = str(error).strip().split("\n")[0]
            raise InputRefused(f"{self.name} raised on an input of shape {tuple(inputs.shape)}: {said}") from error

    # -------------------------------------------------------------------------------------------------- its layers

    def layers(self) -> list[str]:
        """Returns the names of its cells."""
        return [name for name, _ in self.cell.cells_and_names() if name]

    def _part(self, layer: str) -> Any:
        if not isinstance(layer, str):
            raise InvalidType(f"layer is the name of a cell, a string, got {type(layer).__name__}.")
        found = dict(self.cell.cells_and_names()).get(layer) if layer else None
        if found is None:
            raise UnknownLayer(f"{self.name} has no layer {layer!r}. {nearest(layer, self.layers())}")
        return found

    def look(self, inputs: Tensor) -> Look:
        """What is known, or can be found out, about the cell for inputs of this size."""
        known = _known.setdefault(self.cell, {})
        own = self.output if isinstance(self.output, Hashable) else id(self.output)
        key = (tuple(inputs.shape[1:]), inputs.dtype, own, tuple(id(c) for _, c in self.cell.cells_and_names()))
        if key not in known:
            with self._refusing(inputs):
                known[key] = record(self, inputs)
            self.passes.forward += COPIES
        return Look(self, inputs, known[key])

    def auto_layer(self, inputs: Tensor) -> str:
        """Returns the last layer with a map through which everything passes; see `Look.auto`."""
        return self.look(inputs).auto().name

    def _place(self, inputs: Tensor, layer: str) -> tuple[str, int, list[str]]:
        """Returns a layer's name, which of its calls is meant, and what is to be said about that."""
        look = self.look(inputs)
        if layer == "auto":
            found = look.auto()
            return found.name, found.call, []
        self._part(layer)
        call, count = look.call(layer), look.known.calls.get(layer, 0)
        if not count:
            raise UnknownLayer(f"Layer {layer!r} did not run in the forward pass. Choose one that does.")
        said = [f"Layer {layer!r} ran {count} times in a pass; output {call} is explained."] if count > 1 else []
        return layer, call, said

    def features(self, inputs: Tensor, layer: str = "auto") -> Features:
        """One forward pass; see `FeatureModel`.

        Raises:
            UnknownLayer: there is no such layer, or it does not run.
            NoSpatialOutput: it has no map.
        """
        if layer == "":
            return Features(maps=inputs, outputs=self(inputs), layer="", inputs=inputs)
        name, call, said = self._place(inputs, layer)
        kept: list[Any] = []
        raw = self.ran(inputs, (name, call, lambda output: kept.append(as_torch(output))))
        outputs = self.read(raw, len(inputs))
        layout, warnings = layout_of(kept[-1], inputs, name)
        found = Features(
            maps=layout.to_maps(kept[-1]), outputs=outputs, layer=name, inputs=inputs, warnings=[*said, *warnings],
            state=partial(self._above, call, layout),
        )  # fmt: skip
        return replace(found, linear=paired(self._linear(found, call), self.labels))

    def from_features(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the outputs with ``maps`` in the layer's place; see `FeatureModel`.

        The cell is run as a whole: MindSpore cannot begin in its middle.
        """
        found: Outputs = self(maps) if features.layer == "" else features.state(features, maps, rows)
        return found

    def _above(self, call: int, layout: Layout, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        own = to_mindspore(layout.to_output(maps.to(features.maps.dtype)))
        return self.read(self.ran(features.inputs[rows], (features.layer, call, lambda _output: own)), len(maps))

    def _linear(self, features: Features, call: int) -> PooledLinear | None:
        """Returns the head, where it is a mean over positions and a linear layer.

        The matrix is found among the operations. That there is nothing else is tried out: with other maps in the
        layer's place the network must say what the closed form says.
        """
        look, maps = self.look(features.inputs), features.maps
        if callable(self.output) or features.outputs.scores.shape[1] != 1 or features.outputs.boxes is not None:
            return None
        wanted = (features.outputs.scores.shape[2], maps.shape[1])
        weight = self._matrix(look.known, features.layer, call, wanted)
        if weight is None:
            return None
        key = (features.layer, call)
        if key not in look.known.linear:
            look.known.linear[key] = self._is_linear(features, weight)
        if not look.known.linear[key]:
            return None
        biases = features.outputs.scores[:, 0] - maps.float().mean((2, 3)) @ weight.t()
        if not _agree(biases, features.outputs.scores):
            return None
        return PooledLinear(weight=weight, bias=None if float(biases[0].abs().amax()) < 1e-6 else biases[0])

    def _matrix(self, known: Known, layer: str, call: int, wanted: tuple[int, int]) -> Tensor | None:
        """Returns the only parameter (K, C) by which something is multiplied after a layer on the way to the scores."""
        key = next((one.value for one in known.seen if (one.name, one.call) == (layer, call)), None)
        if key is None:
            return None
        after = known.graph.after([key]) & known.live
        names = [known.weights[node] for node in known.weights if node in after]
        own = self.cell.parameters_dict()
        if len(names) != 1 or names[0] not in own:
            return None
        found: Tensor = as_torch(own[names[0]]).float()  # as it is now: it may have been trained since
        weight = found if tuple(found.shape) == wanted else found.t()
        return weight.contiguous() if tuple(weight.shape) == wanted else None

    def _is_linear(self, features: Features, weight: Tensor) -> bool:
        maps = features.maps[:1].float()
        noise = torch.randn((3, *maps.shape[1:]), generator=torch.Generator().manual_seed(0))
        tried = torch.cat([maps, maps.flip((2, 3)), (1 + maps.std()) * 3 * noise]).to(features.maps)
        found = features.state(features, tried, torch.zeros(len(tried), dtype=torch.long)).scores[:, 0]
        return _agree(found - tried.float().mean((2, 3)) @ weight.t(), found)

    # ------------------------------------------------------------------------------------------------- gradients

    def gradients(self, inputs: Tensor, pick: Callable[[Outputs], Tensor], layer: str = "auto") -> Gradients:
        """One forward pass with a graph from ``layer`` upwards only; see `GradientModel`."""
        said: list[str] = []
        if layer == "":
            name, start = "", to_mindspore(inputs)
            run: Callable[[Any], tuple[Any, Any]] = self._itself
        else:
            name, call, said = self._place(inputs, layer)
            start, run = self._inserted(inputs, name, call)
        own: list[Any] = [None, None]  # what the cell returned, the layer's output

        def forward(given: Any) -> tuple[Any, ...]:
            own[0], own[1] = run(given)
            return tuple(tensors(own[0]))

        with self._refusing(inputs):
            found, back = pull_back(forward, start)
        self.passes.forward += len(inputs)
        raw = as_torch(own[0])
        maps = inputs if name == "" else as_torch(own[1])
        layout, warnings = (Layout("first"), ()) if name == "" else layout_of(maps, inputs, name)
        with torch.enable_grad():
            leaves = [leaf.requires_grad_() for leaf in _floating(raw)]
            outputs = self.read(raw, len(inputs))
            values = pick(outputs)
        if not values.requires_grad:
            raise InvalidInput("The targets do not depend on the scores, so there is nothing to differentiate.")
        state = _Way(self, values, leaves, found, back, layout, len(inputs))
        return Gradients(
            maps=layout.to_maps(maps), outputs=replace(outputs, scores=outputs.scores.detach()), values=values,
            of=state, layer=name, linear=self._linear_of(inputs, layer), warnings=[*said, *warnings],
            rule=partial(self._rule, inputs, state),
        )  # fmt: skip

    def _linear_of(self, inputs: Tensor, layer: str) -> PooledLinear | None:
        """Returns the closed form of a head that was recognised before."""
        known = self.look(inputs).known.linear
        if layer == "" or not any(known.values()):
            return None
        name, call, _ = self._place(inputs, layer)
        return self.features(inputs[:1], layer).linear if known.get((name, call)) else None

    def _itself(self, picture: Any) -> tuple[Any, Any]:
        return self._run(picture), picture

    def _inserted(self, inputs: Tensor, name: str, call: int) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        """Zeros to be added to a layer's output, and what runs the cell with them: (its result, the layer's output)."""
        shape = self.look(inputs).shape(name, call)
        if shape is None:
            raise NoSpatialOutput(f"Layer {name!r} gives no single tensor. Choose one with a map (N, C, h, w).")
        picture, kept = to_mindspore(inputs), list[Any]()

        def run(given: Any) -> tuple[Any, Any]:
            def change(output: Any) -> Any:
                kept.append(output)
                return output + given

            return self._run(picture, (name, call, change)), kept[-1]

        return to_mindspore(torch.zeros((len(inputs), *shape), dtype=inputs.dtype)), run

    def _rule(self, inputs: Tensor, way: _Way, rule: str) -> Activations:
        way.rule = rule
        return rules.activations(self.look(inputs).known.operations())


class _Counted:
    """A hook that acts on one call of a layer."""

    def __init__(self, call: int, change: Callable[[Any], Any]) -> None:
        self.call, self.change, self.calls = call, change, 0

    def __call__(self, output: Any) -> Any:
        self.calls += 1
        return self.change(output) if self.calls == self.call else None


class _Way:
    """The way back from a target to a layer: t -> (N, C, h, w)."""

    def __init__(
        self, model: MindSporeModel, values: Tensor, leaves: list[Tensor], found: tuple[Any, ...],
        back: Callable[..., Any], layout: Layout, count: int,
    ) -> None:  # fmt: skip
        self.model, self.values, self.leaves, self.found = model, values, leaves, found
        self.back, self.layout, self.count = back, layout, count
        self.rule = ""

    def __call__(self, t: int) -> Tensor:
        with torch.enable_grad():
            value, more = self.values[:, t].sum(), t + 1 < self.values.shape[1]
        given = torch.autograd.grad(value, self.leaves, retain_graph=more, allow_unused=True)
        by_leaf = iter(
            torch.zeros_like(leaf) if one is None else one for leaf, one in zip(self.leaves, given, strict=True)
        )
        ways = [to_mindspore(next(by_leaf)) if one.is_floating_point() else one for one in self.found]
        with rules.under(self.rule) if self.rule else nullcontext():
            gradient = as_torch(self.back(*ways))
        self.model.passes.backward += self.count
        if t:
            self.model.passes.forward += self.count  # MindSpore runs the cell again for each further gradient
        return self.layout.to_maps(gradient).float()


def _floating(raw: Any) -> list[Tensor]:
    """Returns the floating-point tensors in what a cell returned, in order."""
    if isinstance(raw, Tensor):
        return [raw] if raw.dtype.is_floating_point else []
    members = list(raw.values()) if isinstance(raw, dict) else raw if isinstance(raw, tuple | list) else ()
    return [one for member in members for one in _floating(member)]


def _agree(biases: Tensor, scores: Tensor) -> bool:
    """Says whether what a closed form leaves over of the scores is the same for all images."""
    return bool((biases - biases[:1]).abs().amax() <= _CLOSE * max(1.0, float(scores.abs().amax())))

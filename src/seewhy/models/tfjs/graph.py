"""A TensorFlow.js graph model (``model.json`` and its weight files) as a torch module: every method works on it.

The file holds a TensorFlow GraphDef and a list of weights (also as half precision or 8 and 16 bit codes). Each node
becomes a submodule of the node's name; nodes that no output needs are dropped, constants are computed once. Tensors
keep TensorFlow's order of dimensions between nodes; a convolution holds an ``nn.Conv2d`` (``conv``) on (N, C, h, w).

Height and width are fixed in such a graph, its batch is not: where a graph for one image reshapes to (1, ...), the
first dimension is kept. An output that does not then count the images is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import CheckpointError, InvalidInput, SeewhyError, nearest
from seewhy.models.tfjs.operations import KNOWN, Node, operation, static_inputs

__all__ = ["TFJSGraph", "read"]

_Place = tuple[str, int]  # a node, and which of its outputs


class TFJSGraph(nn.Module):
    """A graph with one input: images -> {output: tensor}, or the tensor where the graph has one output."""

    def __init__(self, nodes: Mapping[str, Node], weights: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
        """Builds the part of the graph that the outputs need."""
        super().__init__()
        self.outputs = {name: _place(name) for name in outputs}
        order = _order(nodes, [node for node, _ in self.outputs.values()])
        _check(order, self.outputs.values())
        (source,) = (node for node in order if node.op == "Placeholder")
        self.source, self.shape = source.name, _shape(source)
        self.steps: list[tuple[str, str, tuple[_Place, ...]]] = []  # node, submodule, inputs
        self.kept: dict[str, str] = {}  # constant node -> buffer
        constants: dict[str, Any] = dict(weights)
        for node in order:
            if node.op not in ("Placeholder", "Const"):
                self._add(node, constants)
        last = {place: i for i, (_, _, inputs) in enumerate(self.steps) for place, _ in inputs}
        ends = {place for place, _ in self.outputs.values()} | set(self.kept)
        self.freed = [[n for n, at in last.items() if at == i and n not in ends] for i in range(len(self.steps))]

    def _add(self, node: Node, constants: dict[str, Any]) -> None:
        folded = all(place in constants for place, _ in node.inputs)
        static = static_inputs(node)
        if missing := [node.inputs[i][0] for i in static if node.inputs[i][0] not in constants]:
            raise node.refuse(f"an input that is not constant ({missing[0]})")
        module = operation(replace(node, batched=not folded), [_value(constants, node.inputs[i]) for i in static])
        inputs = tuple(place for i, place in enumerate(node.inputs) if i not in static)
        if folded:
            constants[node.name] = module(*(_value(constants, place) for place in inputs))
            return
        for place, _ in inputs:
            if place in constants and place not in self.kept:
                self.kept[place] = self._free(place)
                self.register_buffer(self.kept[place], constants[place])
        name = self._free(node.name)
        self.add_module(name, module)
        self.steps.append((node.name, name, inputs))

    def _free(self, name: str) -> str:
        """Returns an attribute's name that is not taken."""
        name = name.replace(".", "_")
        while hasattr(self, name):
            name += "_"
        return name

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Runs the graph.

        Raises:
            InvalidInput: images of another size than the graph's, or a graph whose outputs cannot have a batch.
        """
        fits = len(self.shape) == images.ndim
        if not fits or any(s not in (-1, n) for s, n in zip(self.shape, images.shape, strict=True)):
            want = ", ".join("N" if s == -1 else str(s) for s in self.shape)
            raise InvalidInput(f"The graph takes inputs of shape ({want}), got {tuple(images.shape)}.")
        values: dict[str, Any] = {self.source: images}
        values |= {place: getattr(self, name) for place, name in self.kept.items()}
        for (node, name, inputs), freed in zip(self.steps, self.freed, strict=True):
            values[node] = getattr(self, name)(*(_value(values, place) for place in inputs))
            for place in freed:
                del values[place]
        found = {name: _value(values, place) for name, place in self.outputs.items()}
        for name, value in found.items():
            if value.shape[0] != images.shape[0]:
                raise InvalidInput(
                    f"Output {name!r} of the graph has {value.shape[0]} rows for {images.shape[0]} images: the graph "
                    "is made for one image at a time."
                )
        return found if len(found) > 1 else next(iter(found.values()))


def read(path: str | Path, outputs: Sequence[str] | None = None) -> TFJSGraph:
    """Returns the network in a TensorFlow.js graph model.

    Args:
        path: of ``model.json``; the weight files lie beside it.
        outputs: which nodes to compute, as "name" or "name:1"; None for the outputs that the file declares.

    Raises:
        InvalidInput: no such file, not a graph model, or a graph that seewhy does not read, with the reason.
        CheckpointError: weight files that are missing or too short, or a damaged graph.
    """
    place = Path(path)
    if not place.is_file():
        raise InvalidInput(f"There is no TensorFlow.js model {str(path)!r}.")
    try:
        return _built(place, outputs)
    except SeewhyError:
        raise
    except Exception as error:  # a field that is missing or of another kind may be met anywhere
        raise CheckpointError(
            f"{place.name!r} is a damaged TensorFlow.js model: {type(error).__name__}: {error}."
        ) from error


def _built(place: Path, outputs: Sequence[str] | None) -> TFJSGraph:
    model = _parsed(place)
    nodes = {found.name: found for found in map(_node, model["modelTopology"]["node"])}
    wanted = [*outputs] if outputs is not None else _declared(model, nodes)
    for name in wanted:
        if _place(name)[0] not in nodes:
            raise InvalidInput(f"The graph {place.name!r} has no node {name!r}. {nearest(name, nodes)}")
    return TFJSGraph(nodes, _weights(place, model["weightsManifest"]), wanted).eval()


def _parsed(place: Path) -> dict[str, Any]:
    try:
        model = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{place.name!r} is no TensorFlow.js model: {error}.") from error
    graph = model.get("modelTopology") if isinstance(model, dict) else None
    if not isinstance(graph, dict) or "node" not in graph or "weightsManifest" not in model:
        raise InvalidInput(f"{place.name!r} is no TensorFlow.js graph model: it has no modelTopology.node.")
    return dict(model)


def _node(entry: Mapping[str, Any]) -> Node:
    inputs = tuple(_place(name) for name in entry.get("input", ()) if not name.startswith("^"))  # ^ only orders
    return Node(name=entry["name"], op=entry["op"], inputs=inputs, attributes=entry.get("attr", {}))


def _declared(model: Mapping[str, Any], nodes: Mapping[str, Node]) -> list[str]:
    signature = model.get("signature") or model.get("userDefinedMetadata", {}).get("signature") or {}
    if signature.get("outputs"):
        return [entry.get("name", name) for name, entry in signature["outputs"].items()]
    used = {place for node in nodes.values() for place, _ in node.inputs}
    return [name for name in nodes if name not in used]


def _place(name: str) -> _Place:
    node, _, number = name.partition(":")
    return node, int(number or 0)


def _value(values: Mapping[str, Any], place: _Place) -> Tensor:
    found = values[place[0]]
    chosen: Tensor = found[place[1]] if isinstance(found, tuple) else found
    return chosen


def _shape(source: Node) -> tuple[int, ...]:
    """Returns the input's shape; -1 where anything goes, as for the number of images."""
    sides = source.attributes.get("shape", {}).get("shape", {}).get("dim", [])
    return (-1, *(int(side.get("size", -1)) for side in sides[1:]))


def _order(nodes: Mapping[str, Node], wanted: Sequence[str]) -> list[Node]:
    """Returns the nodes that are needed, each after its inputs."""
    done: dict[str, Node] = {}
    waiting = [*reversed(wanted)]
    while waiting:
        name = waiting[-1]
        if name not in nodes:
            raise InvalidInput(f"The graph has no node {name!r}, which another one takes as its input.")
        missing = [place for place, _ in nodes[name].inputs if place not in done]
        if missing and name not in done:
            waiting.extend(missing)
        else:
            done.setdefault(waiting.pop(), nodes[name])
    return [*done.values()]


def _check(order: Sequence[Node], outputs: Any) -> None:
    if unknown := sorted({node.op for node in order} - {*KNOWN, "Const", "Placeholder"}):
        raise InvalidInput(
            f"The graph uses {', '.join(unknown)}, which seewhy does not read. Take the outputs before these "
            f"(outputs=NAMES), or convert the model to ONNX. Read are: {', '.join(KNOWN)}."
        )
    sources = [node.name for node in order if node.op == "Placeholder"]
    if len(sources) != 1:
        raise InvalidInput(f"The graph must have one input, got {len(sources)}: {', '.join(sources) or 'none'}.")
    split = {node.name for node in order if node.op == "SplitV"}
    places = [place for node in order for place in node.inputs] + [*outputs]
    if wrong := next((name for name, number in places if number and name not in split), None):
        raise InvalidInput(f"Node {wrong!r} of the graph has one output, but more are asked for.")


_DTYPES = {"float32": torch.float32, "int32": torch.int64, "bool": torch.bool}


def _beside(folder: Path, name: str) -> bool:
    """Says whether a file lies in the folder or below it, links followed."""
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _weights(place: Path, groups: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for group in groups:
        if strange := next((name for name in group["paths"] if not _beside(place.parent, name)), None):
            raise CheckpointError(f"The weights of {place.name!r} must lie in its folder, {strange!r} does not.")
        files = [place.parent / name for name in group["paths"]]
        if missing := next((file.name for file in files if not file.is_file()), None):
            raise CheckpointError(f"The weights of {place.name!r} are not complete: {missing!r} is not beside it.")
        data, start = b"".join(file.read_bytes() for file in files), 0
        for entry in group["weights"]:
            start = _weight(entry, data, start, found)
        if start != len(data):
            raise CheckpointError(f"The weights of {place.name!r} have {len(data)} bytes, expected {start}.")
    return found


def _weight(entry: Mapping[str, Any], data: bytes, start: int, found: dict[str, Tensor]) -> int:
    """Reads one weight; returns where the next begins."""
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(f"Weight {entry['name']!r} is of type {entry['dtype']}; read are {', '.join(_DTYPES)}.")
    codes: Mapping[str, Any] = entry.get("quantization", {})
    kind = np.dtype(codes.get("dtype", entry["dtype"]))
    end: int = start + math.prod(entry["shape"]) * kind.itemsize
    if end > len(data):
        raise CheckpointError(f"The weights have {len(data)} bytes; {entry['name']!r} would end at {end}.")
    values = np.frombuffer(data[start:end], kind).reshape(entry["shape"])
    if "scale" in codes:
        values = values.astype(np.float32) * codes["scale"] + codes["min"]
    found[entry["name"]] = torch.from_numpy(values.copy()).to(_DTYPES[entry["dtype"]])
    return end

"""ONNX Runtime as a backend: .onnx files. Scores need ``onnxruntime``; features also ``onnx``, which cuts the graph.

A part of the graph is a model of its own: the operations between two sets of tensors with their weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import CheckpointError, InvalidInput, MissingDependency, nearest, one_line
from seewhy.models.digest import digest
from seewhy.models.exported.features import CutModel
from seewhy.models.exported.model import Engine, ExportedModel, Port, Run, allowed_threads
from seewhy.models.graph import Graph, Node, Size

__all__ = ["ONNXModel", "ONNXScores", "can_cut", "make"]

_LARGEST = 2**31 - 2**20  # a graph is handed over as one message, which has no room for more
_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}


@dataclass(frozen=True, eq=False)
class ONNXScores(ExportedModel):
    """A graph that ONNX Runtime runs as a whole: scores only.

    Attributes:
        source: a file (.onnx).
        providers: ONNX Runtime's names of where it is computed.

    The other attributes are those of `ExportedModel`.
    """

    providers: tuple[str, ...] = field(default=("CPUExecutionProvider",), kw_only=True)

    def _settings(self) -> Any:
        return (
            self.source,
            self.providers,
            tuple((n, np.asarray(v).tobytes()) for n, v in self.forward_kwargs.items()),
        )

    def _open(self) -> Engine:
        if self.forward_kwargs:
            raise MissingDependency("forward_kwargs of ONNX files need onnx. Install it: pip install 'seewhy[onnx]'.")
        return _Session(_path(self.source), self._settings())


@dataclass(frozen=True, eq=False)
class ONNXModel(CutModel, ONNXScores):
    """A graph that ONNX Runtime runs as a whole and in parts.

    Attributes:
        source: a file (.onnx), or an ``onnx.ModelProto``.
        providers: ONNX Runtime's names of where it is computed.

    The other attributes are those of `ExportedModel`.
    """

    def _open(self) -> Engine:
        _onnx()
        return _Engine(self.source, self._settings(), self.forward_kwargs)


def can_cut() -> bool:
    """Says whether the library that cuts graphs is installed."""
    return find_spec("onnx") is not None


def make(source: Any, **fields: Any) -> ExportedModel:
    """The model for a file: with features where they can be had, else scores only and the reason among its notes."""
    if can_cut():
        return ONNXModel(source, **fields)
    return ONNXScores(
        source,
        **fields,
        notes=(
            "Scores only: the graph cannot be cut without the onnx package. Install it: pip install 'seewhy[onnx]'.",
        ),
    )


def _onnx() -> Any:
    try:
        import onnx
        import onnx.inliner
        import onnx.shape_inference
    except ImportError as error:
        raise MissingDependency("Features of ONNX files need onnx. Install it: pip install 'seewhy[onnx]'.") from error
    return onnx


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "ONNX files need onnxruntime (or openvino, with backend='openvino'). Install it: pip install "
            "'seewhy[onnx]'."
        ) from error
    return onnxruntime


def _path(source: Any) -> Path:
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"There is no model file {str(path)!r}.")
    return path


def _session(model: str | bytes, providers: Sequence[str]) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = allowed_threads()
    # Threads that wait by spinning would take the cores from torch, which makes the next masks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what the library writes beside its errors says nothing to people
    return runtime.InferenceSession(model, options, providers=list(providers))


def _run(session: Any, fed: Sequence[tuple[int, str]], fetches: Sequence[str]) -> Run:
    """Returns a function of arrays, of which ``fed`` says where each input of the session is."""

    def run(arrays: Sequence[Any]) -> list[Any]:
        found: list[Any] = session.run(list(fetches), {name: arrays[i] for i, name in fed})
        return found

    return run


class _Session:
    """A file in ONNX Runtime's hands: it can only be run as a whole."""

    exact = True

    def __init__(self, path: Path, settings: Any) -> None:
        """Raises CheckpointError where the file cannot be read."""
        self.path, self.settings = path, settings
        self.kept: dict[Any, Any] = {}
        try:
            self.session = _session(str(path), settings[1])
        except MissingDependency:
            raise
        except Exception as error:  # a damaged file ends in errors of many kinds
            raise _unreadable(path, error) from error
        self.inputs = tuple(_of_session(one) for one in self.session.get_inputs())
        self.outputs = tuple(_of_session(one) for one in self.session.get_outputs())
        self.metadata: Mapping[str, Any] = dict(self.session.get_modelmeta().custom_metadata_map)

    @property
    def digest(self) -> str:
        """Returns a digest of the file and its weights."""
        return digest([self.path, Path(f"{self.path}.data")])

    @property
    def graph(self) -> Graph:
        """Nothing is known of the operations."""
        return Graph([], tuple(p.key for p in self.inputs), tuple(p.key for p in self.outputs), lambda _: None)

    def compile(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        """See `Engine`: only from the input to outputs."""
        return _run(self.session, list(enumerate(feeds)), fetches)

    def shape(self, key: str) -> tuple[int | None, ...]:
        """Nothing is known of the operations."""
        return ()

    def sizes(self, feeds: Mapping[str, tuple[int, ...]]) -> Mapping[str, Size]:
        """Nothing is known of the operations."""
        return {}


class _Engine:
    """A graph that is cut by ``onnx`` and run by ONNX Runtime."""

    def __init__(self, source: Any, settings: Any, fixed: Mapping[str, Any]) -> None:
        """Reads the graph and writes the values of inputs that have one into it."""
        self.onnx, self.settings = _onnx(), settings
        self.kept: dict[Any, Any] = {}
        self.path = None if isinstance(source, self.onnx.ModelProto) else _path(source)
        self.model = self._read(source)
        graph = self.model.graph
        for node in graph.node:
            if any(a.name == "training_mode" and a.i for a in node.attribute):
                raise InvalidInput(
                    f"{self.path.name if self.path else 'The graph'} was exported in training mode ({node.op_type}), "
                    "so that its scores are not those of the network in use. Call network.eval() before the export."
                )
        self.arrays = {one.name: one for one in graph.initializer}
        self._fix(fixed)
        self.inputs = tuple(_of_proto(one, self.onnx) for one in graph.input if one.name not in self.arrays)
        self.outputs = tuple(_of_proto(one, self.onnx) for one in graph.output)
        self.metadata: Mapping[str, Any] = {one.key: one.value for one in self.model.metadata_props}
        kinds = {one.data_type for one in graph.initializer}
        rounded = {self.onnx.TensorProto.FLOAT16, self.onnx.TensorProto.BFLOAT16}
        self.exact = not kinds & rounded and not any(node.op_type in _QUANTISED for node in graph.node)
        self.compile({port.key: port.shape or (None,) * 4 for port in self.inputs}, [port.key for port in self.outputs])

    def _read(self, source: Any) -> Any:
        onnx = self.onnx
        if self.path is None:
            return onnx.inliner.inline_local_functions(source)
        try:
            read = onnx.load(str(self.path))
            self._check(read)
            return onnx.inliner.inline_local_functions(read)
        except Exception as error:  # a damaged file ends in errors of many kinds
            raise _unreadable(self.path, error) from error

    def _check(self, model: Any) -> None:
        """Raises where the file is no sound graph; one that the runtime takes all the same is taken, in its order."""
        try:
            self.onnx.checker.check_model(str(self.path))
        except self.onnx.checker.ValidationError as error:
            try:
                _session(str(self.path), self.settings[1])
            except MissingDependency:
                raise
            except Exception:  # the runtime's errors are of many kinds; the checker's says more
                raise error from None
            _sort(model.graph)

    def _fix(self, fixed: Mapping[str, Any]) -> None:
        helper = self.onnx.helper
        known = {one.name: one for one in self.model.graph.input if one.name not in self.arrays}
        for name, value in fixed.items():
            if name not in known:
                raise InvalidInput(f"The graph has no input {name!r}. {nearest(name, known)}")
            kind = helper.tensor_dtype_to_np_dtype(known[name].type.tensor_type.elem_type)
            self.arrays[name] = self.onnx.numpy_helper.from_array(np.asarray(value, dtype=kind), name)

    @cached_property
    def digest(self) -> str:
        """Returns a digest of the file and of all files of weights that it names."""
        if self.path is None:
            return digest([]) + str(hash(self.model.SerializeToString(deterministic=True)))
        bare = self.onnx.load(str(self.path), load_external_data=False)
        names = {e.value for one in bare.graph.initializer for e in one.external_data if e.key == "location"}
        return digest([self.path, *(self.path.parent / name for name in sorted(names))])

    @cached_property
    def graph(self) -> Graph:
        """The operations, constants left out."""
        nodes = [node for node in self.model.graph.node if node.op_type != "Constant"]
        names = [node.name for node in nodes]
        constants = {n.output[0]: n for n in self.model.graph.node if n.op_type == "Constant"}
        numpy_helper, helper = self.onnx.numpy_helper, self.onnx.helper

        def constant(key: str) -> Any:
            if key in self.arrays:
                return numpy_helper.to_array(self.arrays[key])
            if key not in constants:
                return None
            value = helper.get_attribute_value(constants[key].attribute[0])
            return numpy_helper.to_array(value) if isinstance(value, self.onnx.TensorProto) else np.asarray(value)

        return Graph(
            nodes=[self._node(node, names.count(node.name) == 1) for node in nodes],
            inputs=tuple(port.key for port in self.inputs),
            outputs=tuple(port.key for port in self.outputs),
            constant=constant,
        )

    def _node(self, node: Any, unique: bool) -> Node:
        plain = [a for a in node.attribute if a.type not in (a.GRAPH, a.GRAPHS, a.TENSOR)]
        return Node(
            name=node.name if node.name and unique else next(filter(None, node.output), ""),
            op=node.op_type,
            inputs=(*node.input, *dict.fromkeys(_captured(node))),
            outputs=tuple(filter(None, node.output)),
            attributes={a.name: self.onnx.helper.get_attribute_value(a) for a in plain},
        )

    @cached_property
    def inferred(self) -> dict[str, Any]:
        """Tensor -> its type and shape in ONNX's own form, as far as they can be inferred."""
        bare = self.onnx.ModelProto()
        bare.CopyFrom(self.model)
        try:
            found = self.onnx.shape_inference.infer_shapes(bare).graph
        except self.onnx.shape_inference.InferenceError:  # converters leave types behind that are no more true
            del bare.graph.value_info[:]
            found = self.onnx.shape_inference.infer_shapes(bare).graph
        return {one.name: one for one in [*found.value_info, *found.input, *found.output]}

    def shape(self, key: str) -> tuple[int | None, ...]:
        """See `Engine`."""
        return (_of_proto(self.inferred[key], self.onnx).shape or ()) if key in self.inferred else ()

    def compile(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        """See `Engine`."""
        graph = self.graph
        needed = graph.before(fetches, feeds)
        given = [(i, key) for i, key in enumerate(feeds) if key in needed]
        part = self._part({key: feeds[key] for _, key in given}, fetches, needed)
        if part.ByteSize() > _LARGEST:
            raise InvalidInput(
                f"The graph of {self.path} has more than 2 GB, which ONNX Runtime does not take in parts. Use "
                "backend='openvino'."
            )
        try:
            session = _session(part.SerializeToString(), self.settings[1])
        except MissingDependency:
            raise
        except Exception as error:
            if set(feeds) <= set(graph.inputs) and set(fetches) == set(graph.outputs):
                raise _unreadable(self.path or Path("the graph"), error) from error
            raise
        return _run(session, given, [f"{key}/out" for key in fetches])

    def _part(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str], needed: set[str]) -> Any:
        """Returns the operations between ``feeds`` and ``fetches`` as a model."""
        helper, whole = self.onnx.helper, self.model.graph
        used = [n for n in whole.node if needed.intersection(n.output) - set(feeds)]
        ends = [helper.make_node("Identity", [key], [f"{key}/out"]) for key in dict.fromkeys(fetches)]
        part = helper.make_graph(
            [*used, *ends],
            "part",
            [helper.make_tensor_value_info(key, self._kind(key), list(shape)) for key, shape in feeds.items()],
            [self.onnx.ValueInfoProto(name=f"{key}/out") for key in dict.fromkeys(fetches)],
            [array for name, array in self.arrays.items() if name in needed],
        )
        return helper.make_model(part, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)

    def _kind(self, key: str) -> int:
        known = self.inferred.get(key)
        found: int = known.type.tensor_type.elem_type if known is not None else 0
        return found or int(self.onnx.TensorProto.FLOAT)

    def sizes(self, feeds: Mapping[str, tuple[int, ...]]) -> Mapping[str, Size]:
        """See `Engine`: the graph is run once with all tensors as outputs."""
        keys = sorted(self.graph.live - set(self.graph.inputs))
        run = self.compile(dict(feeds), keys)
        blank = [np.zeros(shape, port.dtype) for shape, port in zip(feeds.values(), self.inputs, strict=True)]
        return {
            key: Size(tuple(array.shape), array.dtype.kind == "f")
            for key, array in zip(keys, run(blank), strict=True)
            if isinstance(array, np.ndarray)
        }


def _sort(graph: Any) -> None:
    """Puts each operation behind those whose results it takes, as converters to 16 bits do not always do."""
    made = {key for node in graph.node for key in node.output}
    waiting, done, ordered = list(graph.node), {""}, []
    while waiting:
        ready = [n for n in waiting if all(k in done or k not in made for k in (*n.input, *_captured(n)))]
        if not ready:
            raise ValueError("its operations go round in a circle")
        ordered += ready
        done.update(key for node in ready for key in node.output)
        waiting = [node for node in waiting if not done.issuperset(node.output)]
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _captured(node: Any) -> Iterator[str]:
    """Tensors of the graph that the bodies of a loop or a branch use."""
    for attribute in node.attribute:
        for body in [*([attribute.g] if attribute.type == attribute.GRAPH else []), *attribute.graphs]:
            own = {one.name for one in (*body.input, *body.initializer)} | {key for n in body.node for key in n.output}
            for inner in body.node:
                yield from (key for key in (*inner.input, *_captured(inner)) if key and key not in own)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{os.fspath(path)!r} is not a model that ONNX Runtime can read: {one_line(error)}")


def _of_session(one: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in one.shape)
    kind = one.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64"}
    return Port(one.name, one.name, shape, np.dtype(names.get(kind, kind if kind != "bfloat16" else "float32")))


def _of_proto(one: Any, onnx: Any) -> Port:
    kind = one.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    return Port(one.name, one.name, shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))

"""OpenVINO as a backend: IR (.xml), and .onnx and .tflite files, which OpenVINO reads too. CPU by default.

OpenVINO would compute in bfloat16 where a CPU offers it; here float32 is asked for unless another precision is. The
graph is cut in two at a layer by putting a new input in the place of the layer's output.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import CheckpointError, InvalidInput, MissingDependency, nearest, one_line
from seewhy.models.digest import digest
from seewhy.models.exported.features import CutModel
from seewhy.models.exported.model import Engine, Port, Run, allowed_threads
from seewhy.models.exported.signal_stack import kept_signal_stack
from seewhy.models.function import FunctionModel
from seewhy.models.graph import Graph, Node, Size
from seewhy.models.turns import alone, process

__all__ = ["OpenVINOModel", "capabilities", "compiled", "converted"]

_PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16"}


@dataclass(frozen=True, eq=False)
class OpenVINOModel(CutModel):
    """A graph that OpenVINO runs.

    Attributes:
        source: a file (.xml with its .bin, .onnx, .tflite), or an ``openvino.Model``.
        precision: of the computation: "f32", or "bf16" or "f16" where the device has it.
        device: OpenVINO's name of the device.

    The other attributes are those of `ExportedModel`.
    """

    precision: Literal["f32", "bf16", "f16"] = field(default="f32", kw_only=True)
    device: str = field(default="CPU", kw_only=True)

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InvalidInput(f"precision must be 'f32', 'bf16' or 'f16', got {self.precision!r}.")
        super().__post_init__()

    def _settings(self) -> Any:
        return (self.source, self.precision, self.device, _fingerprint(self.forward_kwargs))

    def _open(self) -> Engine:
        model = _read(self.source)
        try:
            return _Engine(model, self._settings(), self.forward_kwargs)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.source!s} is damaged: it has names that are no text ({error}).") from error


def compiled(network: Any) -> FunctionModel:
    """Returns a compiled model: scores only, in whatever precision it was compiled for."""

    def run(inputs: Tensor) -> Any:
        found = network.create_infer_request().infer([inputs.numpy()])
        outputs = [torch.from_numpy(np.array(found[i])) for i in range(len(network.outputs))]
        return outputs[0] if len(outputs) == 1 else outputs

    return FunctionModel(run)


def converted(network: nn.Module, example: Tensor) -> Any:
    """Returns the graph of a torch network for any number of images of the example's size.

    The frontend is called itself: ``openvino.convert_model`` would report each conversion to OpenVINO's makers.
    """
    ov = _library()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with alone(network), process(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what the tracer says of a network that is then compared with its graph
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(network.eval(), example_input=example, shared_memory=False)
        graph = frontend.convert(frontend.load(decoder))
    graph.inputs[0].get_node().set_element_type(ov.Type.f32)
    graph.inputs[0].get_node().set_partial_shape(ov.PartialShape([-1, *example.shape[1:]]))
    graph.validate_nodes_and_infer_types()
    return graph


def capabilities(device: str = "CPU") -> tuple[str, ...]:
    """What OpenVINO says that a device can do: "FP32", "BF16" and so on."""
    return tuple(_library().Core().get_property(device, "OPTIMIZATION_CAPABILITIES"))


def _fingerprint(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((name, np.asarray(value).tobytes()) for name, value in values.items())


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency(
            "Models for OpenVINO (.xml, .tflite) need openvino. Install it: pip install 'seewhy[openvino]'."
        ) from error
    return openvino


def _read(source: Any) -> Any:
    """Returns the graph in a file or object."""
    ov = _library()
    if isinstance(source, ov.Model):
        return source.clone()
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"There is no model file {str(path)!r}.")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{str(path)!r} has no weights: {path.with_suffix('.bin').name!r} must lie beside it.")
    try:
        return ov.Core().read_model(path)
    except Exception as error:  # a damaged file ends in errors of many kinds
        raise CheckpointError(f"{str(path)!r} is not a model that OpenVINO can read: {one_line(error)}") from error


class _Engine:
    """One graph in OpenVINO's hands."""

    def __init__(self, model: Any, settings: Any, fixed: Mapping[str, Any]) -> None:
        """Makes inputs with given values constants, and looks at the rest."""
        self.ov, self.settings, self.lock = _library(), settings, threading.RLock()
        self.kept: dict[Any, Any] = {}
        self.model = _fix(self.ov, model, fixed)
        self.core = self.ov.Core()
        self.inputs = tuple(_port(p.output(0), p.get_friendly_name()) for p in self.model.get_parameters())
        results = self.model.get_results()
        self.outputs = tuple(_port(r.input_value(0), f"output {i}") for i, r in enumerate(results))
        _check_names(self.outputs)
        self.metadata = _metadata(self.model)
        _, self.precision, self.device, _ = settings
        quantised = any(op.get_type_name() in ("FakeQuantize", "FakeConvert") for op in self.model.get_ops())
        self.exact = self.precision == "f32" and not quantised

    @cached_property
    def digest(self) -> str:
        """Returns a digest of structure and weights."""
        source = self.settings[0]
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            return digest([path, path.with_suffix(".bin") if path.suffix == ".xml" else Path(f"{path}.data")])
        into = hashlib.blake2b(digest_size=12)
        for op in self.model.get_ordered_ops():
            into.update(f"{op.get_type_name()}{op.get_attributes()}".encode())
            if op.get_type_name() == "Constant":
                into.update(np.ascontiguousarray(op.get_data()).tobytes())
        return into.hexdigest()

    @cached_property
    def graph(self) -> Graph:
        """The operations, constants left out."""
        ops = [
            op for op in self.model.get_ordered_ops() if op.get_type_name() not in ("Constant", "Parameter", "Result")
        ]
        arrays = {_key(op.output(0)): op for op in self.model.get_ops() if op.get_type_name() == "Constant"}
        return Graph(
            nodes=[_node(op) for op in ops],
            inputs=tuple(port.key for port in self.inputs),
            outputs=tuple(port.key for port in self.outputs),
            constant=lambda key: arrays[key].get_data() if key in arrays else None,
            aliases={name: _key(output) for op in ops for output in op.outputs() for name in output.get_names()},
        )

    def compile(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        """See `Engine`."""
        part, order = self._part(feeds, fetches)
        threads = {"INFERENCE_NUM_THREADS": allowed_threads()} if self.device == "CPU" else {}
        options = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY", **threads}
        with self.lock, kept_signal_stack():
            compiled = self.core.compile_model(part, self.device, options)
        kept = threading.local()  # a request computes one thing at a time

        def run(arrays: Sequence[Any]) -> list[Any]:
            if not hasattr(kept, "request"):
                kept.request = compiled.create_infer_request()
            found = kept.request.infer([arrays[i] for i in order], share_inputs=True)
            return [found[i] for i in range(len(fetches))]

        return run

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {_key(output): output for op in self.model.get_ordered_ops() for output in op.outputs()}

    def shape(self, key: str) -> tuple[int | None, ...]:
        """See `Engine`."""
        return (_port(self._tensors[key], key).shape or ()) if key in self._tensors else ()

    def sizes(self, feeds: Mapping[str, tuple[int, ...]]) -> Mapping[str, Size]:
        """See `Engine`: OpenVINO works the shapes out without a pass."""
        part, _ = self._part(feeds, [port.key for port in self.outputs])
        found: dict[str, Size] = {}
        for op in part.get_ordered_ops():
            for output in op.outputs():
                if output.get_partial_shape().is_static:
                    found[_key(output)] = Size(tuple(output.get_shape()), output.get_element_type().is_real())
        return found

    def _part(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> tuple[Any, list[int]]:
        """Returns the graph from ``feeds`` to ``fetches``, and which of the feeds it needs, in its order."""
        ov = self.ov
        with self.lock:
            whole = self.model.clone()
        tensors = {_key(output): output for op in whole.get_ordered_ops() for output in op.outputs()}
        own = {_key(p.output(0)): p for p in whole.get_parameters()}
        given: dict[str, Any] = {}
        for key, shape in feeds.items():
            sizes = ov.PartialShape([-1 if s is None else s for s in shape])
            if key in own:
                own[key].set_partial_shape(sizes)
                given[key] = own[key]
            else:
                given[key] = ov.opset13.parameter(sizes, tensors[key].get_element_type())
                for target in tensors[key].get_target_inputs():
                    target.replace_source_output(given[key].output(0))
        ends = [given[key].output(0) if key in given else tensors[key] for key in fetches]
        results = [ov.opset13.result(end) for end in ends]
        needed = self.graph.before(fetches, feeds)
        order = [i for i, key in enumerate(feeds) if key in needed]
        part = ov.Model(results, [given[key] for key in feeds if key in needed], "part")
        part.validate_nodes_and_infer_types()
        return part, order


def _fix(ov: Any, model: Any, fixed: Mapping[str, Any]) -> Any:
    """Returns the model with the values of some inputs written into it."""
    known = {name: p for p in model.get_parameters() for name in (*p.output(0).get_names(), p.get_friendly_name())}
    for name, value in fixed.items():
        if name not in known:
            raise InvalidInput(f"The graph has no input {name!r}. {nearest(name, known)}")
        kind = known[name].get_element_type()
        constant = ov.opset13.constant(np.asarray(value, dtype=kind.to_dtype()), kind)
        for target in known[name].output(0).get_target_inputs():
            target.replace_source_output(constant.output(0))
        model.remove_parameter(known[name])
    return model


def _key(output: Any) -> str:
    name = output.get_node().get_friendly_name()
    return f"{name}:{output.get_index()}" if output.get_index() else str(name)


def _port(output: Any, otherwise: str) -> Port:
    """Returns an input or output; sizes that are left open are None."""
    names = sorted(output.get_names(), key=lambda name: (len(name), name))
    shape = output.get_partial_shape()
    sizes = None if shape.rank.is_dynamic else tuple(None if d.is_dynamic else d.get_length() for d in shape)
    kind = output.get_element_type()
    return Port(_key(output), names[0] if names else otherwise, sizes, np.dtype(kind.to_dtype()))


def _check_names(ports: Sequence[Port]) -> None:
    names = [port.name for port in ports]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInput(f"The graph has two outputs of the name {twice!r}.")


def _node(op: Any) -> Node:
    return Node(
        name=op.get_friendly_name(),
        op=op.get_type_name(),
        inputs=tuple(_key(i.get_source_output()) for i in op.inputs()),
        outputs=tuple(_key(o) for o in op.outputs()),
        attributes=dict(op.get_attributes()),
    )


def _metadata(model: Any) -> dict[str, Any]:
    """What the file says of itself, as text: ``model_info`` of IR files, the metadata of ONNX files."""
    said: dict[str, Any] = {}
    for place in ("framework", "model_info"):
        if not model.has_rt_info(place):
            continue
        try:
            found = model.get_rt_info(place).astype(dict)
        except RuntimeError:  # it is no table
            continue
        said |= {str(name): value.value for name, value in found.items() if hasattr(value, "value")}
    return said

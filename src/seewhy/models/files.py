"""A model from a file: OpenVINO, ONNX, torch.export archives, TorchScript. What runs it, and what it says of itself.

An .onnx file is run by ONNX Runtime where that is installed, else by OpenVINO; ``backend`` chooses.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import CheckpointError, InvalidInput, MissingDependency
from seewhy.images.images import Preprocessing
from seewhy.models import Model, file_metadata
from seewhy.models.exported.model import ExportedModel
from seewhy.models.torch.script import ScriptModel
from seewhy.models.torch.script_file import read as read_script

__all__ = ["BACKENDS", "SUFFIXES", "is_model_file", "opened"]

BACKENDS = ("auto", "onnxruntime", "openvino")
_OPENVINO = (".xml", ".tflite")
_SCRIPT = (".pt", ".pth", ".torchscript", ".ts")
_WEIGHTS = (".safetensors", ".ckpt", ".bin")
SUFFIXES = (".onnx", *_OPENVINO, ".pt2", *_SCRIPT, *_WEIGHTS)


def is_model_file(path: Path) -> bool:
    """Whether a file holds a network and not only weights."""
    if path.suffix in _SCRIPT:
        return _is_script(path)
    return path.suffix in (".onnx", ".pt2", *_OPENVINO)


def opened(
    path: Path, backend: str = "auto", forward_kwargs: Mapping[str, Any] | None = None, trust: bool = False
) -> Model:
    """The model in a file.

    Args:
        path: the file.
        backend: what runs an .onnx file.
        forward_kwargs: values of a graph's other inputs.
        trust: read files that run code.

    Raises:
        CheckpointError: there is no such file, it cannot be read, holds weights only, or would run code.
        InvalidInput: the backend cannot run it.
        MissingDependency: the library that reads it is not installed.
    """
    if backend not in BACKENDS:
        raise InvalidInput(
            f"backend must be {', '.join(map(repr, BACKENDS[:-1]))} or {BACKENDS[-1]!r}, got {backend!r}."
        )
    if not path.is_file():
        raise CheckpointError(f"There is no model file {str(path)!r}.")
    if path.suffix == ".onnx" or path.suffix in _OPENVINO:
        return _graph(path, backend, forward_kwargs or {})
    if backend != "auto":
        raise InvalidInput(f"backend={backend!r} is for .onnx files; {path.name!r} is run by torch.")
    if path.suffix == ".pt2":
        from seewhy.models.exported.program_file import read as read_program
        from seewhy.models.exported.torch_export import as_network

        return as_network(read_program(path, trust), path, trust)
    if path.suffix in _SCRIPT and _is_script(path):
        return ScriptModel(read_script(path, trust), title=path.name)
    raise CheckpointError(
        f"{str(path)!r} holds weights only, without a network. Name the network and pass the file as checkpoint: "
        f"seewhy.load('timm:NAME', checkpoint={str(path)!r}) (--model timm:NAME --checkpoint {path})."
    )


def described(model: ExportedModel) -> ExportedModel:
    """The model with what its file says about pictures and classes, unless it has them already."""
    if model.preprocessing is not None or model.labels is not None:
        return model
    metadata = model.engine.metadata
    known = file_metadata.preprocessing(metadata, model.size)
    notes = (*model.notes, *file_metadata.notes(metadata))
    if known is None and model.size is not None and model.engine.inputs[0].dtype == np.uint8:
        zeros, ones = (0.0,) * model.channels, (1.0,) * model.channels
        known = Preprocessing(
            size=model.size, mean=zeros, std=ones, value_range=255.0, channels="L" if model.channels == 1 else "RGB"
        )
        notes += (
            "The graph takes 8-bit pixels; how pictures are fitted into it is not in the file: cut at the centre.",
        )
    return replace(model, preprocessing=known, labels=file_metadata.labels(metadata), notes=notes)


def _graph(path: Path, backend: str, forward_kwargs: Mapping[str, Any]) -> ExportedModel:
    if path.suffix == ".onnx" and backend != "openvino":
        if backend == "onnxruntime" or find_spec("onnxruntime") is not None:
            from seewhy.models.exported.onnx import make

            return make(path, forward_kwargs=forward_kwargs)
        if find_spec("openvino") is None:
            raise MissingDependency(
                "ONNX files need onnxruntime (or openvino). Install it: pip install 'seewhy[onnx]'."
            )
    if backend == "onnxruntime":
        raise InvalidInput(f"ONNX Runtime does not read {path.suffix} files; {path.name!r} is run by OpenVINO.")
    from seewhy.models.exported.openvino import OpenVINOModel

    return OpenVINOModel(path, forward_kwargs=forward_kwargs)


def of_object(network: Any) -> Model:
    """The model in an ``openvino.Model``, an ``openvino.CompiledModel`` or an ``onnx.ModelProto``."""
    if type(network).__name__ == "ModelProto":
        from seewhy.models.exported.onnx import ONNXModel

        return ONNXModel(network)
    from seewhy.models.exported.openvino import OpenVINOModel, compiled

    return compiled(network) if type(network).__name__ == "CompiledModel" else OpenVINOModel(network)


def _is_script(path: Path) -> bool:
    """A TorchScript archive has its code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())

"""A model from a file: which backend reads it, and what the file says of itself.

An .onnx file is run by ONNX Runtime where that is installed, else by OpenVINO; ``backend`` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seewhy import registry
from seewhy.checks import check_choice
from seewhy.errors import CheckpointError, InvalidInput, MissingDependency
from seewhy.images.preprocessing import Preprocessing
from seewhy.models import Model, file_metadata, yolo_file
from seewhy.models.backends import Backend
from seewhy.models.exported.model import ExportedModel

__all__ = ["check_backend", "described", "is_file", "opened"]

_WEIGHTS = (".safetensors", ".ckpt", ".bin")


def check_backend(backend: str) -> None:
    """Raises InvalidInput where there is no such backend."""
    check_choice("backend", backend, ["auto", *registry.names("backends")])


def is_file(path: Path) -> bool:
    """Says whether a path has the ending of a model file, or of weights."""
    return path.suffix.lower() in _WEIGHTS or bool(_readers(path))


def opened(
    path: Path, backend: str = "auto", forward_kwargs: Mapping[str, Any] | None = None, trust: bool = False
) -> Model:
    """Returns the model in a file.

    Args:
        path: the file.
        backend: what runs it, where several backends can.
        forward_kwargs: values of a graph's other inputs.
        trust: read files that run code.

    Raises:
        CheckpointError: there is no such file, it cannot be read, holds weights only, or would run code.
        InvalidInput: the backend cannot run it.
        MissingDependency: the library that reads it is not installed.
    """
    check_backend(backend)
    if not path.is_file():
        raise CheckpointError(f"There is no model file {str(path)!r}.")
    readers = _readers(path)
    if not any(one.holds(path) for one in readers.values()):
        raise CheckpointError(
            f"{str(path)!r} holds weights only, without a network. Name the network and pass the file as checkpoint: "
            f"seewhy.load('timm:NAME', checkpoint={str(path)!r}) (--model timm:NAME --checkpoint {path})."
        )
    return _chosen(path, backend, readers).open(path, forward_kwargs or {}, trust)


def _readers(path: Path) -> dict[str, Backend]:
    """The backends that read the path's ending; others than those here are asked only about files that are there."""
    for names in (registry.files("backends"), registry.outside("backends") if path.is_file() else []):
        made = {name: registry.load("backends", name)() for name in names}
        if found := {name: one for name, one in made.items() if path.suffix.lower() in one.suffixes}:
            return found
    return {}


def _chosen(path: Path, backend: str, readers: Mapping[str, Backend]) -> Backend:
    if backend in readers:
        return readers[backend]
    if backend != "auto":
        runs = " or ".join(one.title for one in readers.values())
        title = registry.load("backends", backend).title
        raise InvalidInput(f"{title} does not read {path.suffix} files; {path.name!r} is run by {runs}.")
    for one in readers.values():
        if one.installed():
            return one
    if path.suffix.lower() == ".onnx":
        raise MissingDependency("ONNX files need onnxruntime (or openvino). Install it: pip install 'seewhy[onnx]'.")
    return next(iter(readers.values()))  # which says what to install


def described(model: ExportedModel) -> ExportedModel:
    """Returns the model with what its file says about pictures and classes, unless it has them already."""
    if model.preprocessing is not None or model.labels is not None:
        return model
    metadata = model.engine.metadata
    known = file_metadata.preprocessing(metadata, model.size) or yolo_file.preprocessing(metadata, model.size)
    labels = file_metadata.labels(metadata)
    boxes = yolo_file.reader(metadata, model.size, len(labels or ())) if model.output is None else None
    notes = (*model.notes, *file_metadata.notes(metadata), *yolo_file.notes(boxes))
    if known is None and model.size is not None and model.engine.inputs[0].dtype == np.uint8:
        zeros, ones = (0.0,) * model.channels, (1.0,) * model.channels
        known = Preprocessing(
            size=model.size, mean=zeros, std=ones, value_range=255.0, channels="L" if model.channels == 1 else "RGB"
        )
        notes += (
            "The graph takes 8-bit pixels; how pictures are fitted into it is not in the file: cut at the centre.",
        )
    output = model.output if boxes is None else boxes
    return replace(model, preprocessing=known, labels=labels, output=output, notes=notes)

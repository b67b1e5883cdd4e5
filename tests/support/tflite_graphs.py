"""A small network as a .tflite file, put together field by field after TensorFlow Lite's published schema.

Convolution, mean over the places, fully connected: images (1, H, W, 3) -> (1, 5) scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # it has no types
import numpy as np

__all__ = ["classifier"]

_FLOAT, _INT = 0, 2  # TensorType
_CONV, _FULLY, _MEAN = 3, 9, 40  # BuiltinOperator
_CONV_OPTIONS, _FULLY_OPTIONS, _REDUCER_OPTIONS = 1, 8, 27  # BuiltinOptions
_RELU = 1


def classifier(path: Path, size: tuple[int, int] = (32, 48)) -> Path:
    """Writes the file."""
    draw, builder = np.random.default_rng(0), flatbuffers.Builder(4096)
    h, w = size
    values: list[Any] = [
        None, draw.normal(size=(8, 3, 3, 3)).astype(np.float32), draw.normal(size=8).astype(np.float32),
        None, np.array([1, 2], np.int32), None, draw.normal(size=(5, 8)).astype(np.float32),
        np.zeros(5, np.float32), None,
    ]  # fmt: skip
    shapes = [(1, h, w, 3), (8, 3, 3, 3), (8,), (1, h // 2, w // 2, 8), (2,), (1, 8), (5, 8), (5,), (1, 5)]
    buffers = [_table(builder, {})]  # the first one is empty by convention
    tensors = []
    for i, (value, shape) in enumerate(zip(values, shapes, strict=True)):
        if value is not None:
            data = builder.CreateByteVector(value.tobytes())
            buffers.append(_table(builder, {0: data}))
        name = builder.CreateString(f"tensor_{i}")
        kind = _INT if i == 4 else _FLOAT
        tensors.append(_table(builder, {
            0: _ints(builder, shape), 1: ("int8", kind), 2: ("uint32", len(buffers) - 1 if value is not None else 0),
            3: name,
        }))  # fmt: skip
    conv = _table(builder, {0: ("int8", 0), 1: ("int32", 2), 2: ("int32", 2), 3: ("int8", _RELU)})
    mean, fully = _table(builder, {0: ("bool", False)}), _table(builder, {0: ("int8", 0)})
    operators = [
        _operator(builder, 0, (0, 1, 2), (3,), (_CONV_OPTIONS, conv)),
        _operator(builder, 1, (3, 4), (5,), (_REDUCER_OPTIONS, mean)),
        _operator(builder, 2, (5, 6, 7), (8,), (_FULLY_OPTIONS, fully)),
    ]
    codes = [
        _table(builder, {0: ("int8", code), 2: ("int32", 1), 3: ("int32", code)}) for code in (_CONV, _MEAN, _FULLY)
    ]
    graph = _table(builder, {
        0: _tables(builder, tensors), 1: _ints(builder, (0,)), 2: _ints(builder, (8,)), 3: _tables(builder, operators),
        4: builder.CreateString("main"),
    })  # fmt: skip
    model = _table(builder, {
        0: ("uint32", 3), 1: _tables(builder, codes), 2: _tables(builder, [graph]),
        3: builder.CreateString("made by hand"), 4: _tables(builder, buffers),
    })  # fmt: skip
    builder.Finish(model, b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _operator(builder: Any, code: int, inputs: Sequence[int], outputs: Sequence[int], options: tuple[int, int]) -> int:
    return _table(builder, {
        0: ("uint32", code), 1: _ints(builder, inputs), 2: _ints(builder, outputs), 3: ("uint8", options[0]),
        4: options[1],
    })  # fmt: skip


def _table(builder: Any, fields: Mapping[int, Any]) -> int:
    """A table: number of a field -> an offset, or (kind, value)."""
    puts = {
        "int8": builder.PrependInt8Slot, "uint8": builder.PrependUint8Slot, "int32": builder.PrependInt32Slot,
        "uint32": builder.PrependUint32Slot, "bool": builder.PrependBoolSlot,
    }  # fmt: skip
    builder.StartObject(max(fields, default=-1) + 1)
    for number, value in fields.items():
        if isinstance(value, tuple):
            puts[value[0]](number, value[1], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
    return int(builder.EndObject())


def _ints(builder: Any, values: Sequence[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependInt32(value)
    return int(builder.EndVector())


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())

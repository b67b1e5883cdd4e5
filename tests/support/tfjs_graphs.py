"""Small TensorFlow.js graph models, written as the converter writes them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"float32": "DT_FLOAT", "int32": "DT_INT32", "bool": "DT_BOOL"}


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def attribute(value: Any) -> dict[str, Any]:
    """A Python value as GraphDefs have it in JSON."""
    match value:
        case bool():
            return {"b": value}
        case float():
            return {"f": value}
        case str():
            return {"s": text(value)}
        case [str(), *_]:
            return {"list": {"s": [text(one) for one in value]}}
        case _:
            return {"list": {"i": [str(one) for one in value]}}


class Graph:
    """Collects nodes and constants, and writes the two files."""

    def __init__(self, *shape: int) -> None:
        dims = [{"size": str(side)} for side in shape]
        self.nodes: list[dict[str, Any]] = [
            {"name": "x", "op": "Placeholder", "attr": {"shape": {"shape": {"dim": dims}}}}
        ]
        self.entries: list[dict[str, Any]] = []
        self.data = b""

    def constant(self, value: Any, quantization: dict[str, Any] | None = None, dtype: str | None = None) -> str:
        array = np.asarray(value)
        kind = dtype or ("int32" if array.dtype.kind in "iu" else "float32")
        stored = array.astype(quantization["dtype"] if quantization else kind)
        name = f"c{len(self.entries)}"
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": kind}
        self.entries.append(entry | ({"quantization": quantization} if quantization else {}))
        self.data += stored.tobytes()
        self.nodes.append({"name": name, "op": "Const", "attr": {"dtype": {"type": KINDS[kind]}}})
        return name

    def node(self, op: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Inputs are names, or values that become constants."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        name = name or f"n{len(self.nodes)}"
        found = {key: attribute(value) for key, value in attributes.items()}
        self.nodes.append({"name": name, "op": op, "input": names, "attr": found})
        return name

    def write(self, folder: Path, *outputs: str, shards: int = 1) -> Path:
        size = -(-len(self.data) // shards) or 1
        paths = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
        for i, path in enumerate(paths):
            (folder / path).write_bytes(self.data[i * size : (i + 1) * size])
        model = {
            "format": "graph-model",
            "modelTopology": {"node": self.nodes},
            "weightsManifest": [{"paths": paths, "weights": self.entries}],
        }
        if outputs:
            model["signature"] = {"outputs": {f"{name}:0": {"name": f"{name}:0"} for name in outputs}}
        (folder / "model.json").write_text(json.dumps(model))
        return folder / "model.json"

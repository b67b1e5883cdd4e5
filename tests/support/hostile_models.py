"""Model files that would run code: each makes a mark when it is believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from support.networks import Pooled, build, pictures

X = pictures(2, height=32, width=48)


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def program(path: Path, network: nn.Module | None = None) -> Path:
    shapes = ({0: torch.export.Dim("batch")},)
    made = torch.export.export(build(Pooled) if network is None else network, (X,), dynamic_shapes=shapes)
    torch.export.save(made, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    """Without the folder that torch puts round them."""
    with zipfile.ZipFile(path) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: Mapping[str, bytes], root: str = "net/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(root + name, data)
    return path


Document = Any
GRAPH = "models/model.json"


def in_graph(change: Callable[[Document, str], None]) -> Callable[[dict[str, bytes], Path], None]:
    """An attack in the text of the graph; it is given Python code that makes the mark."""

    def attack(parts: dict[str, bytes], mark: Path) -> None:
        document = json.loads(parts[GRAPH])
        change(document, f"__import__('os').mkdir({str(mark)!r})")
        parts[GRAPH] = json.dumps(document).encode()

    return attack


def _sizes(document: Document, code: str) -> None:
    for value in document["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = code


def _target(document: Document, code: str) -> None:
    document["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.os.mkdir"


def _file_operator(document: Document, code: str) -> None:
    document["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def _tree(document: Document, code: str) -> None:
    context = json.dumps({"__enum__": True, "fqn": "antigravity:X", "name": "x"})
    tree = [1, {"type": "builtins.tuple", "context": context, "children_spec": []}]
    _signatures(document)[0]["in_spec"] = json.dumps(tree)


def _factory(document: Document, code: str) -> None:
    context = {"default_factory_module": "antigravity", "default_factory_name": "fly", "dict_context": []}
    tree = [1, {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}]
    _signatures(document)[0]["out_spec"] = json.dumps(tree)


def _signatures(document: Document) -> list[Any]:
    return [entry["signature"] for entry in document["graph_module"]["module_call_graph"] if entry["signature"]]


def _guard(document: Document, code: str) -> None:
    document["guards_code"] = [f"{code} is None"]


def _name(document: Document, code: str) -> None:
    text = json.dumps(document).replace('"conv2d"', json.dumps(f"a={code}, b"))
    document.clear()
    document.update(json.loads(text))


def _weight_name(document: Document, code: str) -> None:
    document["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = f'a"), {code}, ("'


def _state_code(document: Document, code: str) -> None:
    document["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_string": f"'+str({code})+'"}


def _pickled_weight(parts: dict[str, bytes], mark: Path) -> None:
    name = next(name for name in parts if name.endswith("weights_config.json"))
    document = json.loads(parts[name])
    entry = next(iter(document["config"].values()))
    entry["use_pickle"] = True
    parts[f"data/weights/{entry['path_name']}"] = saved(Touch(mark))
    parts[name] = json.dumps(document).encode()


def _constant(prefix: str, data: Callable[[Path], bytes]) -> Callable[[dict[str, bytes], Path], None]:
    def attack(parts: dict[str, bytes], mark: Path) -> None:
        name = next(name for name in parts if name.endswith("constants_config.json"))
        document = json.loads(parts[name])
        document["config"]["x"] = {
            "path_name": f"{prefix}0", "is_param": False, "use_pickle": True, "tensor_meta": None,
        }  # fmt: skip
        parts[f"data/constants/{prefix}0"] = data(mark)
        parts[name] = json.dumps(document).encode()

    return attack


def _put(name: str) -> Callable[[dict[str, bytes], Path], None]:
    return lambda parts, mark: parts.__setitem__(name, saved(Touch(mark)))


PROGRAMS: dict[str, Callable[[dict[str, bytes], Path], None]] = {
    "sample inputs": _put("data/sample_inputs/model.pt"),
    "earlier weights": _put("data/weights/model.pt"),
    "earlier constants": _put("data/constants/model.pt"),
    "pickled weight": _pickled_weight,
    "pickled constant": _constant("tensor_", lambda mark: saved(Touch(mark))),
    "opaque object": _constant("opaque_obj_", lambda mark: pickle.dumps(Touch(mark))),
    "custom object": _constant("custom_obj_", lambda mark: saved(Touch(mark))),
    "compiled code": lambda parts, mark: parts.__setitem__("data/aotinductor/model/x.so", b"\x7fELF"),
    "size": in_graph(_sizes),
    "function": in_graph(_target),
    "operator with a file": in_graph(_file_operator),
    "enumeration": in_graph(_tree),
    "factory": in_graph(_factory),
    "check of sizes": in_graph(_guard),
    "name": in_graph(_name),
    "name of a weight": in_graph(_weight_name),
    "text": in_graph(_state_code),
}


def earlier(path: Path, mark: Path, bad: str) -> Path:
    """An archive in the layout of torch 2.7 with one hostile pickle."""
    parts = members(program(path))
    pickles = dict.fromkeys(("state_dict", "constants", "example_inputs"), saved({}))
    pickles |= {bad: saved(Touch(mark))} if bad else {}
    old = {"version": b"8.8", "serialized_exported_program.json": parts[GRAPH]}
    return write(path, old | {f"serialized_{name}.pt": data for name, data in pickles.items()}, root="")


# -------------------------------------------------------------------------------------------------- TorchScript

SCRIPTS = {
    "save": "def forward(self, x):\n    torch.save(x, MARK)\n    return x.mean((2, 3))\n",
    "save through a name": "def forward(self, x):\n    s = torch.save\n    s(x, MARK)\n    return x.mean((2, 3))\n",
    "save in a branch": (
        "def forward(self, x):\n    if x.size(0) > 99:\n        torch.save(x, MARK)\n    return x.mean((2, 3))\n"
    ),
    "from_file": (
        "def forward(self, x):\n    y = torch.from_file(MARK, True, 10)\n    return x.mean((2, 3)) + y.sum()\n"
    ),
    "print": 'def forward(self, x):\n    print("hello")\n    return x.mean((2, 3))\n',
}


def script(path: Path, mark: Path, source: str, *, inner: bool = False) -> Path:
    network = _scripted(source.replace("MARK", json.dumps(str(mark))))
    if inner:
        network = torch.jit.script(nn.Sequential(nn.Identity(), network))
    network.save(str(path))
    return path


def _scripted(source: str) -> Any:
    network = type("Scripted", (torch.jit.ScriptModule,), {})()  # a class of its own, which takes methods once
    network.define(source)
    return network


def with_state(path: Path, mark: Path) -> Path:
    """A script that writes while it is loaded."""
    network = _scripted(
        "def forward(self, x):\n    return x.mean((2, 3))\n"
        "def __getstate__(self):\n    return (1, self.training)\n"
        "def __setstate__(self, state: Tuple[int, bool]):\n    self.training = state[1]\n"
        f"    torch.save(state[0], {json.dumps(str(mark))})\n"
    )
    network.save(str(path))
    return path

"""A TorchScript network from a file, looked at before torch reads it and again before it runs.

A TorchScript file is a program: it can write files (``torch.save``, ``torch.from_file``), reach other machines and use
every operator of the libraries that are loaded. Its text is read before torch compiles it, because methods such as
``__setstate__`` run while it is loaded; then all its graphs are.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from seewhy.errors import CheckpointError
from seewhy.models.archives import check_archive, needs_trust, reading, records

__all__ = ["read"]

_REFUSED = "save|from_file|_print|rpc_async|rpc_sync|rpc_remote|read_file|write_file"
_NAMESPACES = (
    "aten|prim|prims|quantized|torchvision|mkldnn|mkldnn_prepacked|prepacked|onednn|sparse|_quantized|xnnpack|metal"
)
_QUALIFIED = re.compile(r"\b__torch__(?:\s*\.\s*\w+)+")
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"')  # as TorchScript reads one
_STRANGE = re.compile(r"""\"\"\"|\b[rRbBuUfF]{1,2}\"|['#\\]""")  # what its writer never writes, and could hide code
_CALLS = re.compile(rf"\.\s*(?:{_REFUSED})\b|\bprint\b")
_LIBRARIES = re.compile(rf"\bops\b(?!\s*\.\s*(?:{_NAMESPACES})\b)\s*\.?\s*\w*|\bclasses\b(?!\s*\.\s*quantized\b)[.\w]*")
_GETATTR = re.compile(rf'\bgetattr\b(?!\([\w.()\s]+,\s*"(?!(?:{_REFUSED})")[\w.\-/]+"\s*\))[^\n]{{0,40}}')
_KINDS = re.compile(rf"({_NAMESPACES})::(?!({_REFUSED}|Print)$)\w+")


def read(path: Path, trust: bool = False) -> Any:
    """Returns the script in a file, in evaluation mode.

    Args:
        path: the archive.
        trust: read archives that may write files or reach other machines.

    Raises:
        CheckpointError: it cannot be read, or would do more than compute.
    """
    with reading(path, "a TorchScript file that torch can read"):
        check_archive(path, trust)
        if not trust:
            _inspect(path)
        network = torch.jit.load(path, map_location="cpu")
    if not trust and (kind := next(_foreign(network), None)):
        raise needs_trust(path, f"the operator {kind!r} in its program")
    return network.eval()


def _inspect(path: Path) -> None:
    """Raises CheckpointError where the text or the objects of the archive do more than compute."""
    with path.open("rb") as file:
        parts = records(path) if file.read(4) == b"PK\x03\x04" else None
    if parts is None:
        raise CheckpointError(f"{str(path)!r} is not a TorchScript file that torch can read: it is no such archive.")
    if "model.json" in parts:
        raise needs_trust(path, "the form of TorchScript before torch 1.2, which cannot be looked into")
    for name in parts:
        if name.startswith("code/") and not name.endswith(".debug_pkl"):
            if (found := suspect(parts[name].decode("utf-8", "replace"))) is not None:
                raise needs_trust(path, f"{found!r} in its program ({name})")
        elif name in ("data.pkl", "constants.pkl") and (found := _foreign_class(parts[name])) is not None:
            raise needs_trust(path, f"an object of {found!r} in its part {name!r}")


def suspect(text: str) -> str | None:
    """What in a script's text does more than compute; None where nothing does."""
    if '"""' in text:
        return '"""'
    named = _TEXT.sub(lambda m: m[0] if re.fullmatch(r'"[\w.\-/]+"', m[0]) else '""', text)
    own = "\n".join(m[0] for m in _QUALIFIED.finditer(named) if re.search(r"torch\s*\.\s*classes\b", m[0]))
    bare = _TEXT.sub('""', _QUALIFIED.sub("__torch__", named)) + own
    for pattern, form in ((_STRANGE, bare), (_CALLS, bare), (_LIBRARIES, bare), (_GETATTR, named)):
        if (match := pattern.search(form)) is not None:
            return match[0].strip()
    return None


def _foreign_class(data: bytes) -> str | None:
    """The first class of a library in a pickle that torch would build, other than those of quantised weights."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "GLOBAL":
            name = ".".join(str(argument).split(" "))
            if "torch.classes." in name and "torch.classes.quantized." not in name:
                return name
        elif operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            return operation.name
    return None


def _foreign(network: Any) -> Iterator[str]:
    """Kinds of operators in all methods of all modules that do more than compute."""
    for module in network.modules():
        for name in module._c._method_names():
            method = module._c._get_method(name)
            yield from _in_block(method.inlined_graph if module is network else method.graph)


def _in_block(block: Any) -> Iterator[str]:
    for node in block.nodes():
        if not _KINDS.fullmatch(node.kind()):
            yield node.kind()
        for inner in node.blocks():
            yield from _in_block(inner)

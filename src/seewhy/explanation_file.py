"""The file of an explanation: a .npz with the maps and originals bit for bit, and the rest as JSON beside them.

    raw, probabilities, targets, error      as in `Explanation`
    picture0, picture1, ...         the originals' pixels
    stack0, stack1, ...             of volumes and clips (D, H, W, 3), the slices' pixels
    parameter:NAME                  a parameter that is a tensor
    about                           everything else, JSON in UTF-8 bytes

Nothing in it is run: a parameter that is an object of Python is kept as its name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.images.view import View
from seewhy.types import Note, Passes

__all__ = ["VERSION", "plain", "read", "write"]

VERSION = 1
_MOST = 1 << 32  # bytes that a file holds
_TENSORS = ("raw", "probabilities", "targets", "error")
_SAME = ("labels", "method", "model", "layer", "seconds", "preprocessing", "names", "quantity", "values")


def write(path: Path, fields: Mapping[str, Any]) -> Path:
    """Writes the fields of an explanation."""
    arrays = {name: fields[name].detach().cpu().numpy() for name in _TENSORS if fields[name] is not None}
    arrays |= {f"picture{i}": np.asarray(picture) for i, picture in enumerate(fields["pictures"])}
    arrays |= {f"stack{i}": np.stack([np.asarray(one) for one in some]) for i, some in enumerate(fields["stacks"])}
    kept = fields["parameters"]
    arrays |= {f"parameter:{n}": v.detach().cpu().numpy() for n, v in kept.items() if isinstance(v, Tensor)}
    about = {
        "version": VERSION, **{name: fields[name] for name in _SAME}, "size": list(fields["size"]),
        "predicted": fields["predicted"], "boxes": fields["boxes"],
        "passes": [fields["passes"].forward, fields["passes"].backward],
        "notes": [asdict(note) for note in fields["notes"]], "views": [asdict(view) for view in fields["views"]],
        "modes": [picture.mode for picture in fields["pictures"]],
        "parameters": {name: _marked(value) for name, value in kept.items() if not isinstance(value, Tensor)},
    }  # fmt: skip
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def read(path: Path) -> dict[str, Any]:
    """Returns the fields that `write` wrote.

    Raises:
        InvalidInput: there is no such file, or it is no explanation.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        return _fields(found, json.loads(bytes(found["about"])))
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
        MemoryError,
    ) as error:
        raise InvalidInput(
            f"{str(path)!r} holds no explanation as Explanation.save writes it to a .npz file "
            f"({type(error).__name__}: {error})."
        ) from error


def _check_size(path: Path) -> None:
    """Raises ValueError for what would fill the memory: a small file may hold much."""
    with zipfile.ZipFile(path) as archive:
        held = sum(one.file_size for one in archive.infolist())
    if held > _MOST:
        raise ValueError(f"it holds {held >> 20} MB, and up to {_MOST >> 20} MB are read")


def _fields(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    if about["version"] != VERSION:
        raise ValueError(f"version {about['version']}, expected {VERSION}")
    tensors = {name: torch.from_numpy(arrays[name]) if name in arrays else None for name in _TENSORS}
    parameters = {name: _unmarked(value) for name, value in about["parameters"].items()}
    given = {name.partition(":")[2]: value for name, value in arrays.items() if name.startswith("parameter:")}
    views = [View(original=(v["original"][0], v["original"][1]), box=tuple(v["box"])) for v in about["views"]]
    return {
        **tensors, **{name: about[name] for name in _SAME}, "size": tuple(about["size"]),
        "predicted": [None if one is None else (one[0], one[1]) for one in about["predicted"]],
        "boxes": [[None if box is None else tuple(box) for box in row] for row in about["boxes"]],
        "passes": Passes(*about["passes"]), "notes": tuple(Note(**note) for note in about["notes"]), "views": views,
        "pictures": [_picture(arrays[f"picture{i}"], mode) for i, mode in enumerate(about["modes"])],
        "stacks": [
            [_picture(one, "RGB") for one in arrays[f"stack{i}"]] for i in range(len(arrays)) if f"stack{i}" in arrays
        ],
        "parameters": parameters | {name: torch.from_numpy(value) for name, value in given.items()},
    }  # fmt: skip


def _picture(pixels: Any, mode: str) -> Image.Image:
    found = Image.fromarray(pixels)
    if found.mode != mode:
        raise ValueError(f"a picture of mode {mode!r}, whose pixels are {found.mode!r}")
    return found


def _marked(value: Any) -> Any:
    """JSON of a parameter, in which a tuple is told from a list."""
    if isinstance(value, tuple):
        return {"tuple": [_marked(one) for one in value]}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return plain(value)


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_unmarked(one) for one in value["tuple"])
    return [_unmarked(one) for one in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Returns a value as JSON has it; an object as its name."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return getattr(value, "__name__", repr(value))

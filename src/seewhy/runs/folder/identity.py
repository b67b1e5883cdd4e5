"""Identities: twelve hexadecimal digits computed from a thing's content; equal things get equal digits everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["identity", "model_digest", "plain"]


def identity(*values: Any) -> str:
    """Returns the identity of plain values, tensors, arrays, networks, dataclasses and functions (by name)."""
    into = hashlib.blake2b(digest_size=6)
    for value in values:
        _add(value, into.update)
    return into.hexdigest()


def model_digest(model: Any) -> str:
    """Returns the identity of a model's weights, structure and preprocessing, or for another callable of its name.

    For a model that was loaded from a file, the digest of that file (``content``) stands for all that is in it.
    """
    about = [getattr(model, name, None) for name in ("preprocessing", "output", "forward_kwargs")]
    about += [own] if (own := getattr(model, "input_name", None)) else []
    return identity(getattr(model, "module", None) or getattr(model, "content", None) or model.name, *about)


def plain(value: Any) -> Any:
    """Returns a parameter as the plain value that is written to run.json."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}, {identity(value)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "network"}
        return {"class": type(value).__name__, **own}
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}, {identity(value)}"
    return str(value) if isinstance(value, Path) else _named(value)


def _add(value: Any, update: Callable[[bytes], object]) -> None:
    update(type(value).__name__.encode() + b":")
    if isinstance(value, nn.Module):
        update(f"{type(value).__module__}.{type(value).__qualname__}\n{value}".encode())
        for name, one in value.state_dict().items():
            _add((name, one), update)
    elif isinstance(value, Tensor):
        bits = value.detach().cpu().contiguous()
        update(f"{bits.dtype}{tuple(bits.shape)}".encode())
        update(bits.reshape(-1).view(torch.uint8).numpy().tobytes() if bits.numel() else b"")
    elif isinstance(value, np.ndarray):
        update(f"{value.dtype}{value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, list | tuple):
        for one in value:
            _add(one, update)
            update(b",")
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            _add((str(name), value[name]), update)
            update(b";")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = [f for f in dataclasses.fields(value) if f.name != "network" and f.compare]
        _add({f.name: getattr(value, f.name) for f in own}, update)
    else:
        update(value if isinstance(value, bytes) else _text(value).encode())


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None) else _named(value)


def _named(value: Any) -> str:
    """Returns a function's or class's name; an object is known by its class."""
    if isinstance(value, partial):
        return f"{_named(value.func)}{plain(value.args)}{plain(value.keywords)}"
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"

"""Weights from a file into a network: read without running code, fitted by name or, with a note, by order."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seewhy.errors import CheckpointError
from seewhy.models.archives import check_archive, said

__all__ = ["fit", "read"]

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "_orig_mod.", "network.", "net.")


def read(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """Returns the tensors of a ``.safetensors`` file or of a torch checkpoint, by name.

    Args:
        path: the file.
        trust: read pickles that run code; only for files from people you trust.

    Raises:
        CheckpointError: missing, unreadable, needs trust, or holds no tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {str(path)!r}.")
    check_archive(path, trust)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as weights alone: {said(error)}. Reading it would run code from the file. "
            "If you trust where it comes from, pass trust=True (--trust); better, save its state_dict."
        ) from error
    except Exception as error:  # torch and safetensors raise many types on damaged files
        raise CheckpointError(f"{str(path)!r} is not a checkpoint that torch can read: {said(error)}.") from error
    return _tensors(found, path)


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(3):
        if isinstance(found, nn.Module):
            found = found.state_dict()
        if not isinstance(found, Mapping):
            break
        if tensors := {str(k): v for k, v in found.items() if isinstance(v, Tensor)}:
            return tensors
        found = next((found[name] for name in _CONTAINERS if name in found), None)
    raise CheckpointError(f"{str(path)!r} holds no weights: expected a state_dict, name -> tensor.")


def fit(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Loads the weights into the network and says how, when it was not by name.

    Raises:
        CheckpointError: they do not fit; names what is missing, left over or of another shape.
    """
    own = network.state_dict()
    for name, value in weights.items():
        _check_whole(name, value, source)
    for prefix in ("", *_PREFIXES):
        named = {name.removeprefix(prefix): value for name, value in weights.items()}
        if named.keys() == own.keys():
            _check_shapes(own, named, source)
            _put(network, own, named, source)
            return ()
    if not _same_order(own, weights):
        raise CheckpointError(f"{source} does not fit {type(network).__name__}: {_difference(own, weights)}")
    _put(network, own, dict(zip(own, weights.values(), strict=True)), source)
    return (
        f"The names in {source} are not those of {type(network).__name__}; its {len(own)} of {len(own)} tensors were "
        "fitted by order, kind and shape.",
    )


def _put(network: nn.Module, own: Mapping[str, Tensor], named: Mapping[str, Tensor], source: str) -> None:
    for name, value in named.items():
        _check_kind(name, own[name], value, source)
    try:
        network.load_state_dict(dict(named))
    except Exception as error:  # a network may have its own way of taking weights
        raise CheckpointError(f"{source} does not fit {type(network).__name__}: {said(error)}.") from error


def _check_whole(name: str, value: Tensor, source: str) -> None:
    """Raises CheckpointError for what is no array of numbers: no values at all, some of them, or codes."""
    kinds = {
        "without values (saved on the meta device)": value.is_meta,
        "a nested or sparse tensor": value.is_nested or value.layout != torch.strided,
    }
    if (what := next((what for what, found in kinds.items() if found), None)) is not None:
        raise CheckpointError(f"{source}: {name!r} is {what}, expected an ordinary tensor. Save it as one.")


def _check_kind(name: str, own: Tensor, value: Tensor, source: str) -> None:
    """Raises CheckpointError where torch would take the values for others: codes, or without a part of them."""
    if value.is_quantized != own.is_quantized or _kind(value) > _kind(own):
        got = f"quantised {value.dtype}" if value.is_quantized else str(value.dtype)
        raise CheckpointError(
            f"{source}: {name!r} has values of type {got}, which {own.dtype} cannot hold as they are. Save the "
            "weights in the type that the network has."
        )
    if _kind(value) < 2 <= _kind(own):
        raise CheckpointError(
            f"{source}: {name!r} holds whole numbers ({value.dtype}), the network expects {own.dtype}: they may be the "
            "codes of quantised weights. Save the weights in the type that the network has."
        )


def _kind(tensor: Tensor) -> int:
    """0: true or false, 1: whole numbers, 2: floating, 3: complex."""
    return 3 if tensor.is_complex() else 2 if tensor.is_floating_point() else int(tensor.dtype != torch.bool)


def _same_order(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Order is trusted only where every single tensor agrees in kind (weight, bias, running_mean ...) and shape."""
    if len(own) != len(weights):
        return False
    pairs = zip(own.items(), weights.items(), strict=True)
    return all(a.rpartition(".")[2] == b.rpartition(".")[2] and x.shape == y.shape for (a, x), (b, y) in pairs)


def _check_shapes(own: Mapping[str, Tensor], named: Mapping[str, Tensor], source: str) -> None:
    for name, value in own.items():
        if named[name].shape != value.shape:
            got, want = tuple(named[name].shape), tuple(value.shape)
            hint = f" If it was trained for {got[0]} classes pass num_classes={got[0]}." if got[1:] == want[1:] else ""
            raise CheckpointError(f"{source}: {name!r} has shape {got}, the network expects {want}.{hint}")


def _difference(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    missing, extra = [n for n in own if n not in weights], [n for n in weights if n not in own]

    def some(names: list[str]) -> str:
        return f"{', '.join(map(repr, names[:3]))}{', ...' if len(names) > 3 else ''}"

    parts = [f"{len(missing)} of {len(own)} tensors are missing ({some(missing)})"] if missing else []
    parts += [f"{len(extra)} are left over ({some(extra)})"] if extra else []
    return " and ".join(parts) + "."

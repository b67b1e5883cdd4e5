"""A torch.export archive from a file, looked at part by part before torch reads it.

Two layouts are known: the one of torch 2.8 and later (``models/model.json``, ``data/weights``, ``data/constants``,
``data/sample_inputs``) and the earlier one (``serialized_exported_program.json`` and three pickles).
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seewhy.models.archives import check_archive, check_pickle, needs_trust, reading, records
from seewhy.models.exported.program_text import Suspect, check
from seewhy.models.turns import process

__all__ = ["read"]

_TEXT = re.compile(r"models/[^/]+\.json|data/(weights|constants)/[^/]+_config\.json|serialized_exported_program\.json")
_PICKLE = re.compile(r"data/\w+/[^/]+\.pt|serialized_\w+\.(pt|json)")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MARKS = re.compile(
    r"(archive_)?version|archive_format|byteorder|\.format_version|\.storage_alignment|\.?data/(version|"
    r"serialization_id)|extra(_files)?/.*"
)


def read(path: Path, trust: bool = False) -> Any:
    """Returns the program in an archive.

    Args:
        path: the file (.pt2).
        trust: read archives that run code.

    Raises:
        CheckpointError: it cannot be read, or would run code from the file.
    """
    with reading(path, "an archive that torch.export can read"):
        check_archive(path, trust)
        if not trust:
            _inspect(path)
        # torch puts its own things in the place of a module's while it makes one
        with process(), _unlogged("torch.export"):
            return torch.export.load(path)


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """Keeps what a library logs off the terminal: a stack trace beside an error that says the same."""
    logger, before = logging.getLogger(name), logging.getLogger(name).level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _inspect(path: Path) -> None:
    found = records(path)
    if found is not None:
        _inspect_parts(path, found)
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:  # as torch reads the earlier layout, when its own reader gives up
        earlier = {name: archive.read(name) for name in archive.namelist() if "/" not in name}
    if earlier or found is None:
        _inspect_parts(path, earlier)


def _inspect_parts(path: Path, parts: Mapping[str, bytes]) -> None:
    try:
        _inspect_each(path, parts)
    except Suspect as error:
        raise needs_trust(path, str(error)) from error


def _inspect_each(path: Path, parts: Mapping[str, bytes]) -> None:
    pickled = set[str]()
    for name in parts:
        if _TEXT.fullmatch(name):
            _note_pickles(check(parts[name]), name, pickled)
    for name in parts:
        if (_PICKLE.fullmatch(name) and not _TEXT.fullmatch(name)) or name in pickled:
            check_pickle(path, name, parts[name])
        elif not any(kind.fullmatch(name) for kind in (_TEXT, _TENSOR, _MARKS)):
            raise Suspect(f"a part that is not known to be harmless, {name!r}")


def _note_pickles(found: Any, name: str, pickled: set[str]) -> None:
    """Adds the parts that a list of tensors says to be pickles."""
    folder = name.rpartition("/")[0]
    config = found.get("config") if isinstance(found, dict) else None
    for entry in config.values() if isinstance(config, dict) else ():
        if isinstance(entry, dict) and entry.get("use_pickle"):
            pickled.add(f"{folder}/{entry.get('path_name')}")

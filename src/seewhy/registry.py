"""Finds explainers (later metrics and engines) by name: a scan of the folder, then entry points.

No list is kept by hand. The file's name is the public name (``grad_cam``); the class in it is that name without
underscores in any case (``GradCAM``). Packages outside add theirs under the entry point group ``seewhy.<kind>``.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from seewhy.errors import UnknownName, nearest

__all__ = ["class_names", "load", "names"]


@cache
def _files(kind: str) -> dict[str, Path]:
    package = importlib.import_module(f"seewhy.{kind}")
    found: dict[str, Path] = {}
    for folder in package.__path__:
        files = (m.name for m in pkgutil.iter_modules([folder]) if not m.ispkg and not m.name.startswith("_"))
        found.update({name: Path(folder) / f"{name}.py" for name in files if name not in found})
    return found


def _outside(kind: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=f"seewhy.{kind}")}


def names(kind: str) -> list[str]:
    """The public names of a kind, sorted: those of the folder and those of entry points."""
    return sorted({**_outside(kind), **_files(kind)})


@cache
def class_names(kind: str) -> dict[str, str]:
    """Class name -> public name for every file in the kind's folder, read without importing the files."""
    found: dict[str, str] = {}
    for name, path in _files(kind).items():
        classes = re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found.update({c: name for c in classes if c.lower() == name.replace("_", "")})
    return found


def load(kind: str, name: str) -> Any:
    """The class registered as ``name`` (``grad_cam``; the class name ``GradCAM`` is taken too).

    Raises:
        UnknownName: names the nearest.
    """
    name = class_names(kind).get(name, name)
    if name in _files(kind):
        module = importlib.import_module(f"seewhy.{kind}.{name}")
        wanted = next((c for c, file in class_names(kind).items() if file == name), None)
        if wanted is None:
            raise UnknownName(f"{name}.py has no class called {name.replace('_', '')!r} in any case.")
        return getattr(module, wanted)
    if name in (outside := _outside(kind)):
        return outside[name].load()
    raise UnknownName(f"There is no {kind[:-1]} {name!r}. {nearest(name, names(kind))}")

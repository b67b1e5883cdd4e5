"""Finds everything of which there are several by name: a scan of the folder, then entry points.

No list is kept by hand. The file's name is the public name (``grad_cam``); the class in it is that name without
underscores in any case (``GradCAM``). Packages outside add theirs under the entry point group ``seewhy.<kind>``.
Nothing is imported before somebody asks for it by name.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seewhy.errors import UnknownName, nearest

__all__ = ["KINDS", "class_names", "files", "forget", "instead", "load", "loaded", "name_of", "names", "outside"]

KINDS = {
    **{
        kind: f"seewhy.{kind}"
        for kind in ("explainers", "metrics", "counterfactuals", "uncertainty", "engines", "datasets", "exports")
    },
    "backends": "seewhy.models.backends",
    "adapters": "seewhy.models.adapters",
    "readers": "seewhy.images.readers",
}
"""Kind -> the folder of its files."""


@cache
def _files(kind: str) -> dict[str, Path]:
    package = find_spec(KINDS[kind])  # it is not imported: names are asked for where torch is not loaded
    found: dict[str, Path] = {}
    assert package is not None, kind
    for folder in package.submodule_search_locations or ():
        files = (m.name for m in pkgutil.iter_modules([folder]) if not m.ispkg and not m.name.startswith("_"))
        found.update({name: Path(folder) / f"{name}.py" for name in files if name not in found})
    return found


@cache
def _outside(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"seewhy.{kind}")}


def forget() -> None:
    """Looks again for files and entry points the next time: a package was installed meanwhile."""
    for known in (_files, _outside, class_names, instead):
        known.cache_clear()


def files(kind: str) -> list[str]:
    """Returns the public names of the files in the kind's folder, sorted."""
    return sorted(_files(kind))


def outside(kind: str) -> list[str]:
    """Returns the names that only entry points have, sorted; nothing of them is imported."""
    return sorted(set(_outside(kind)) - set(_files(kind)))


def names(kind: str) -> list[str]:
    """Returns the public names of a kind, sorted: those of the folder and those of entry points."""
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
    """Returns the class registered as ``name`` (``grad_cam``; the class name ``GradCAM`` is taken too).

    Raises:
        UnknownName: names the nearest.
    """
    name = class_names(kind).get(name, name)
    if name in _files(kind):
        module = importlib.import_module(f"{KINDS[kind]}.{name}")
        wanted = next((c for c, file in class_names(kind).items() if file == name), None)
        if wanted is None:
            raise UnknownName(f"{name}.py has no class called {name.replace('_', '')!r} in any case.")
        return getattr(module, wanted)
    if name in (others := _outside(kind)):
        return others[name].load()
    raise UnknownName(f"There is no {kind[:-1]} {name!r}. {nearest(name, names(kind))}")


_RUNGS = {
    "scores": ("Model",),
    "features": ("Model", "FeatureModel"),
    "gradients": ("Model", "FeatureModel", "GradientModel"),
}
_OFFERS = re.compile(r"^    offered: ClassVar\[int\] = [1-9]", flags=re.MULTILINE)


@cache
def instead(gives: str, *, tokens: bool = False, volumes: bool = False) -> str:
    """Names the explainers that offer themselves where another cannot be used: "RISE or Occlusion".

    Rooms below the explainers do not know them; they say what a model gives, and each explainer says what it needs.

    Args:
        gives: what there is: "scores", "features" or "gradients".
        tokens: whether no layer has a spatial map.
        volumes: only those that explain volumes and clips, too.
    """
    offering = [name for name, path in _files("explainers").items() if _OFFERS.search(path.read_text(encoding="utf-8"))]
    kinds = sorted((load("explainers", name) for name in offering), key=lambda kind: kind.offered)
    fit = [
        k.__name__
        for k in kinds
        if k.needs.__name__ in _RUNGS[gives] and not (tokens and k.spatial) and k.volumes >= volumes
    ]
    return f"{', '.join(fit[:-1])} or {fit[-1]}"


def name_of(thing: Any) -> str:
    """What an object or a class is called: its registry name, or the name of its class where it is not registered."""
    cls = thing if isinstance(thing, type) else type(thing)
    for kind, package in KINDS.items():
        if cls.__module__.startswith(f"{package}.") and cls.__name__ in class_names(kind):
            name = class_names(kind)[cls.__name__]
            if cls.__module__ == f"{package}.{name}":
                return name
        for name in outside(kind):
            if _outside(kind)[name].value.replace(" ", "") == f"{cls.__module__}:{cls.__qualname__}":
                return name
    return cls.__name__


def loaded(package: str, places: Mapping[str, str], name: str) -> Any:
    """Returns a public name of a package that loads its files on first use (PEP 562), for its ``__getattr__``.

    Args:
        package: the package's name.
        places: public name -> the file in the package that has it.
        name: what is asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    if (place := places.get(name)) is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{place}"), name)

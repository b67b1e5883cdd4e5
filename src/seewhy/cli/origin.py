"""Where commands come from: typed here and now, by this user before, or by somebody else in a folder's run.json.

A run folder may come from anybody, and a command can import a module. So what this user typed on this machine is noted
outside of every run folder, where nothing that lies in one can reach it:

    $XDG_STATE_HOME/seewhy/runs/<digest>.json     (by default ~/.local/state/seewhy/runs)

A command in run.json that is not noted there, word for word and for this place, is shown and asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seewhy.errors import InvalidInput
from seewhy.runs.folder.filesystem import disk_path

__all__ = ["absolute", "here", "import_from", "no_standard_library", "noted", "own", "within"]

_LIBRARIES = ("timm", "torchvision")


def noted(place: str, command: Mapping[str, Any]) -> None:
    """Notes that this user typed a command for a run folder. Where the note cannot be kept, resuming will ask."""
    file = _file(place)
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"place": _place(place), "command": command}), encoding="utf-8")
        beside.chmod(0o600)
        beside.replace(file)


def own(place: str, command: Mapping[str, Any]) -> bool:
    """Says whether this user typed this very command for this folder on this machine."""
    try:
        known = json.loads(_file(place).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(known == {"place": _place(place), "command": dict(command)})


def _file(place: str) -> Path:
    root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    name = hashlib.blake2b(f"{socket.gethostname()}\0{_place(place)}".encode(errors="replace"), digest_size=16)
    return root / "seewhy" / "runs" / f"{name.hexdigest()}.json"


def _place(place: str) -> str:
    return place if (path := disk_path(place)) is None else os.path.realpath(path)


# ----------------------------------------------------------------------------------------------------------- paths


def absolute(values: Mapping[str, Any], base: str) -> dict[str, Any]:
    """Returns the values of a command with the files that they name as seen from the folder in which it was typed."""
    made = dict(values)
    for name in ("checkpoint", "labels"):
        if isinstance(made.get(name), str):
            made[name] = os.path.join(base, made[name])
    if isinstance(made.get("data"), str):
        made["data"] = _data(made["data"], base)
    if isinstance(made.get("model"), str) and os.path.isfile(os.path.join(base, made["model"])):
        made["model"] = os.path.join(base, made["model"])
    if isinstance(made.get("data_set"), list):
        made["data_set"] = [_option(str(one), base) for one in made["data_set"]]
    return made


def _data(text: str, base: str) -> str:
    kind, colon, rest = text.partition(":")
    if "://" in text:
        return text
    if not colon or not kind.isalpha() or os.path.lexists(os.path.join(base, text)):
        return os.path.join(base, text)
    return f"{kind}:{os.path.join(base, rest)}"


def _option(text: str, base: str) -> str:
    name, equals, value = text.partition("=")
    there = os.path.join(base, value)
    return f"{name}={there}" if equals and value and os.path.lexists(there) else text


def within(values: Mapping[str, Any], base: str, place: str) -> bool:
    """Says whether a command uses something that lies in the run folder itself, which others may have changed."""
    if (path := disk_path(place)) is None:
        return False
    root = os.path.realpath(path)
    named = [values.get(name) for name in ("checkpoint", "labels", "data", "model")]
    named += [str(one).partition("=")[2] for one in values.get("data_set") or ()]
    texts = [text for one in named if isinstance(one, str) for text in (one, one.partition(":")[2]) if text]
    paths = [os.path.realpath(os.path.join(base, text.partition("?")[0])) for text in texts]
    found = _beside(str(values.get("model") or ""), base)
    paths += [os.path.realpath(found)] if found else []
    return any(path == root or path.startswith(root + os.sep) for path in paths)


# --------------------------------------------------------------------------------------------------------- modules


def here() -> str:
    """Returns the working directory, "" where it was removed meanwhile."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def import_from(model: str | None, base: str) -> None:
    """Lets "module:factory" be found in a folder that has the module, where Python itself does not know it."""
    if model is not None and _beside(model, base) is not None and base not in sys.path:
        sys.path.append(base)


def _beside(model: str, base: str) -> str | None:
    """Returns the file or folder of the module that a factory names, if it lies in a folder."""
    module, colon, _ = model.partition(":")
    top = module.partition(".")[0]
    if not colon or top in _LIBRARIES or not top.isidentifier() or top in sys.stdlib_module_names:
        return None
    places = [path for path in (os.path.join(base, f"{top}.py"), os.path.join(base, top)) if os.path.exists(path)]
    return places[0] if places and not _known(top) else None


def _known(top: str) -> bool:
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def no_standard_library(model: str | None) -> None:
    """Raises for a factory of Python's own library, which makes no networks.

    Raises:
        InvalidInput: it is one.
    """
    module, colon, _ = (model or "").partition(":")
    if colon and module.partition(".")[0] in sys.stdlib_module_names:
        raise InvalidInput(f"{model!r} is part of Python's own library, which makes no networks.")

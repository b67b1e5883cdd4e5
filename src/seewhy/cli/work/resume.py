"""Goes on with a run by the command that run.json keeps, and by no more than that."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from seewhy.cli import origin
from seewhy.cli.flags import printable, say
from seewhy.cli.resume import Resume
from seewhy.cli.runs import How, RunCommand, flags
from seewhy.cli.work.run import carry_out
from seewhy.errors import InvalidInput
from seewhy.runs.folder.filesystem import disk_path
from seewhy.runs.folder.store import Store

__all__ = ["run"]

_TAKEN = {f.name for f in dataclasses.fields(RunCommand)} - {f.name for f in dataclasses.fields(How)}
_TAKEN -= {"config", "quiet", "out", "trust", "max_pixels"}


def run(command: Resume) -> int:
    """Goes on with the run, and gives the exit code."""
    folder = command.folder if (path := disk_path(command.folder)) is None else os.path.abspath(path)
    kept = Store(folder).settings()["command"]
    if kept is None:
        raise InvalidInput(
            f"The run in {command.folder!r} was started from Python with objects that no file holds. Go on with it by "
            "the same Python code: it computes only what is missing."
        )
    if kept.get("trust") and not command.trust:
        raise InvalidInput(
            f"The run in {command.folder!r} was started with --trust, which a folder cannot give itself. If you trust "
            "the files that it names, say so: seewhy resume --trust."
        )
    base = kept.get("cwd")
    if not isinstance(base, str) or not os.path.isabs(base):
        raise InvalidInput(f"The command in {command.folder!r} does not say in which folder it was typed.")
    asked, words = _command(kept, base, folder)
    if not command.yes and (not origin.own(folder, kept) or origin.within(kept, base, folder)):
        _ask(command.folder, words, base, asked.model)
    origin.no_standard_library(asked.model)
    origin.import_from(asked.model, base)
    return carry_out(dataclasses.replace(asked, trust=command.trust, quiet=command.quiet), command, folder, None)


def _command(command: Mapping[str, Any], base: str, folder: str) -> tuple[RunCommand, str]:
    """Returns the command, and as it is typed: what is shown is what is done."""
    given = {name: value for name, value in command.items() if name not in ("cwd", "trust")}
    if strange := sorted(set(given) - _TAKEN):
        raise InvalidInput(f"The command in {folder!r} has {strange[0]!r}, which cannot be resumed.")
    for name, value in given.items():
        texts = value if isinstance(value, list) else [] if name == "nms_threshold" and value is None else [value]
        if not all(isinstance(one, str | int | float) and not str(one).startswith("--") for one in texts):
            raise InvalidInput(f"The command in {folder!r} has no usable {name!r}.")
    words = [*flags(origin.absolute(given, base), Path(folder) / "run.json"), "--out", folder]
    try:
        asked = tyro.cli(RunCommand, args=words, config=(tyro.conf.FlagCreatePairsOff,), console_outputs=False)
    except SystemExit as error:
        raise InvalidInput(f"The command in {folder!r} cannot be used: {printable(shlex.join(words))}") from error
    return asked, shlex.join(words)


def _ask(folder: str, words: str, base: str, model: str | None) -> None:
    """Shows the command and waits for a yes.

    Raises:
        InvalidInput: there is none.
    """
    say(f"The run folder {folder!r} was not made by you on this machine with this command, or uses files of its own:")
    say(f"  seewhy run {words}".replace("\n", "\ufffd"))
    module, colon, _ = (model or "").partition(":")
    if colon and module not in ("timm", "torchvision"):
        say(f"  which imports and runs the Python module {module}, also from {base}")
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write("Go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise InvalidInput("Nothing was run. If this is what you want: seewhy resume --yes.")

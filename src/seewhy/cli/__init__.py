"""The command line: explain, compare, run, resume, status, view, export, list, demo, and what looks through runs.

Results go to stdout; progress, notes and errors go to stderr. Exit codes: 0 done, 1 nothing could be done (or, with
--strict, not everything), 2 the command itself was wrong, 130 interrupted.

Here is what can be typed; what a command does stands in `seewhy.cli.work`, and is imported when the command is given.
So help and mistakes are answered at once, and status, view and export never load torch, but for the formats that draw
maps (tensorboard, mlflow, wandb).
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

import tyro

from seewhy.cli.compare import Compare
from seewhy.cli.explain import Explain
from seewhy.cli.flags import Command, emit, say
from seewhy.cli.insights import Diff, NeighboursCommand, PatternsCommand, Report, SlicesCommand
from seewhy.cli.list_ import Demo, List
from seewhy.cli.resume import Resume
from seewhy.cli.runs import Export, RunCommand, Status, with_config
from seewhy.cli.view import View
from seewhy.errors import SeewhyError, UnknownName, nearest, storage_error
from seewhy.images.decoding import allowing
from seewhy.memory import keep_memory

__all__ = ["main"]

COMMANDS: dict[str, type[Command]] = {
    "explain": Explain,
    "compare": Compare,
    "run": RunCommand,
    "resume": Resume,
    "status": Status,
    "view": View,
    "export": Export,
    "diff": Diff,
    "slices": SlicesCommand,
    "patterns": PatternsCommand,
    "neighbours": NeighboursCommand,
    "report": Report,
    "list": List,
    "demo": Demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    keep_memory()
    try:
        if given[:1] == ["--version"]:
            emit(_version())
            return 0
        command = _parsed(given)
        with allowing(getattr(command, "max_pixels", None)):
            return command.run()
    except SeewhyError as error:
        say(f"seewhy: {error}")
        return 2
    except BrokenPipeError:  # `seewhy list | head`
        _give_up_output()
        return 1
    except OSError as error:  # a disk that is full, a folder that is gone: wherever the command wrote or read
        _give_up_output()
        say(f"seewhy: {storage_error(error)}")
        return 2


def _parsed(given: list[str]) -> Command:
    """Returns the command with its flags.

    Raises:
        UnknownName: there is no such command.
        SystemExit: help was asked for, or a flag cannot be used; what is wrong has been said.
    """
    config, name = (tyro.conf.FlagCreatePairsOff,), given[0] if given else ""
    if name in COMMANDS:
        kind, typed = COMMANDS[name], with_config(given)[1:]
        return tyro.cli(kind, prog=f"seewhy {name}", description=kind.told(), args=typed, config=config)
    if name and not name.startswith("-"):
        raise UnknownName(f"There is no command {name!r}. {nearest(name, COMMANDS)} All of them: seewhy --help.")
    overview: Command = tyro.extras.subcommand_cli_from_dict(
        dict(COMMANDS), prog="seewhy", args=given, config=config,
        description="Why a vision model said what it said. seewhy --version says which version this is.",
    )  # fmt: skip
    return overview


def _version() -> str:
    """What a report of a fault should say; read from metadata, so that nothing is loaded."""
    about = ", ".join([f"torch {version('torch')}", f"Python {platform.python_version()}", platform.platform()])
    return f"seewhy {version('seewhy')} ({about})"


def _give_up_output() -> None:
    """What could not be written to stdout cannot be written at exit either."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

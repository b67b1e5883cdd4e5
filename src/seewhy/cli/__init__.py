"""The command line: explain, compare, run, resume, status, view, export, list, demo.

Results go to stdout; progress, notes and errors go to stderr. Exit codes: 0 done, 1 nothing could be done (or, with
--strict, not everything), 2 the command itself was wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import tyro

from seewhy.cli.compare import Compare
from seewhy.cli.explain import Explain
from seewhy.cli.flags import say
from seewhy.cli.list_ import Demo, List
from seewhy.cli.resume import Resume
from seewhy.cli.runs import Export, RunCommand, Status, with_config
from seewhy.cli.view import View
from seewhy.errors import SeewhyError, storage_error
from seewhy.images.decoding import allowing
from seewhy.memory import keep_memory

__all__ = ["main"]

COMMANDS: dict[str, Any] = {
    "explain": Explain,
    "compare": Compare,
    "run": RunCommand,
    "resume": Resume,
    "status": Status,
    "view": View,
    "export": Export,
    "list": List,
    "demo": Demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    keep_memory()
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="seewhy",
            description="Why a vision model said what it said.",
            args=with_config(given),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        with allowing(getattr(command, "max_pixels", None)):
            code: int = command.run()
        return code
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


def _give_up_output() -> None:
    """What could not be written to stdout cannot be written at exit either."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

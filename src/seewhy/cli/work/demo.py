"""Runs the demo, and shows its pages from the moment on at which there is a run to be looked at."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator

from seewhy.checks import check_count
from seewhy.cli.flags import emit
from seewhy.cli.list_ import Demo

__all__ = ["run"]


def run(command: Demo) -> int:
    """Runs and shows it, and gives the exit code."""
    check_count("masks", command.masks, optional=True)
    if not command.view:
        return _computed(command)
    with _pages(command) as pages:
        try:
            code = _computed(command)
            pages.join()
        except KeyboardInterrupt:  # which ends the pages, too
            return 0
        return code or pages.exitcode or 0


def _computed(command: Demo) -> int:
    from seewhy import demo  # loads torch; the pages, which do not need it, begin before

    demo.run(command.out, masks=command.masks, say=emit)
    return 0


@contextlib.contextmanager
def _pages(command: Demo) -> Iterator[multiprocessing.process.BaseProcess]:
    """The pages, served by a process of their own beside the run; ended with the block."""
    from seewhy.cli.work.view import follow

    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    about = (command.out / "run", command.port, command.browser)
    serving = context.Process(target=follow, args=about, name="seewhy-pages", daemon=True)
    serving.start()
    try:
        yield serving
    finally:
        serving.terminate()
        serving.join()

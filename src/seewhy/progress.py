"""Progress callbacks (done, total), scoped to a block; the bar on the terminal is one of them."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from tqdm import tqdm

from seewhy.errors import InvalidType, raised_by

__all__ = ["Bar", "Listener", "aside", "check_progress", "listening", "part_of", "report"]

Listener = Callable[[int, int], None]
MINUTE = 60.0  # seconds between two lines where nobody watches a terminal
LINE = "{desc}: {n_fmt} of {total_fmt} ({unit}), {percentage:.0f} %, {elapsed} gone, {remaining} left"
_listener: ContextVar[Listener | None] = ContextVar("seewhy_progress", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Calls ``listener(done, total)``, in forward passes of one image, for what runs inside the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part_of(before: int, total: int) -> Iterator[None]:
    """What is reported inside the block is counted on from ``before``, and is part of ``total``."""
    outer = _listener.get()
    with listening(None if outer is None else lambda done, _: outer(before + done, total)):
        yield


def report(done: int, total: int) -> None:
    """Tells the listener, if there is one; raises InvalidInput that names it where it raises."""
    if (listener := _listener.get()) is not None:
        _tell(listener, done, total)


def _tell(listener: Listener, done: int, total: int) -> None:
    with raised_by("The progress callback"):
        listener(done, total)


def check_progress(progress: Any) -> None:
    """Raises InvalidType unless it is what `Bar` takes."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidType(f"progress must be True, False or a callback (done, total), got {progress!r}.")


@contextmanager
def aside() -> Iterator[None]:
    """Takes bars off the terminal while something else is written to it."""
    with tqdm.external_write_mode():
        yield


class _Lines:
    """What a bar says, as a line a minute: for logs, where nobody watches a terminal. Its methods are those of tqdm."""

    def __init__(self, total: int | None, initial: int, desc: str, unit: str) -> None:
        self.n, self._total, self._initial, self._desc, self._unit = initial, total, initial, desc, unit
        self._begun = self._told = time.monotonic()

    def update(self, by: int) -> None:
        self.n += by
        now = time.monotonic()
        if now - self._told < MINUTE:
            return
        self._told = now
        line = tqdm.format_meter(
            self.n, self._total or 0, now - self._begun, prefix=self._desc, unit=self._unit, initial=self._initial,
            bar_format=LINE if self._total else "{desc}: {n_fmt} ({unit}), {elapsed} gone",
        )  # fmt: skip
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def set_description(self, text: str, *, refresh: bool = True) -> None:
        self._desc = text

    def set_postfix_str(self, remark: str) -> None:
        """A remark changes with every step: it has no place in a log."""

    def close(self) -> None:
        """Nothing has to be taken away."""


def _bar() -> tuple[type[tqdm[Any]], bool | None]:
    """The bar of a notebook where one is running, else that of a terminal, which is silent where nobody watches.

    A notebook is a kernel with widgets; without them its bars are plain text.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ != "ZMQInteractiveShell":
        return tqdm, None
    if importlib.util.find_spec("ipywidgets") is None:
        return tqdm, False
    from tqdm.auto import tqdm as widget

    return widget, False


class Bar:
    """A progress bar on a terminal or in a notebook, a line a minute in a log, or the caller's own listener.

    Args:
        title: what is being done.
        progress: True for the bar, False or None for nothing, or a callback (done, total).
        unit: what is counted.
        before: how many were done earlier, which say nothing about the speed.
        total: how many there will be: the bar is there from the start. Without it, it appears with the first report.

    Raises:
        InvalidType: ``progress`` is something else.
    """

    def __init__(
        self, title: str, progress: bool | Listener | None, unit: str = "pass", *, before: int = 0,
        total: int | None = None,
    ) -> None:  # fmt: skip
        check_progress(progress)
        self._title, self._unit, self._before, self._total = title, unit, before, total
        self._drawn, self._listener = progress is True, progress if callable(progress) else None
        self._bar: tqdm[Any] | _Lines | None = None

    def __enter__(self) -> Self:
        if self._drawn and self._total is not None:
            self._draw(self._before, self._total)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int | None) -> None:
        """So many are done, of so many in all where that is known."""
        if self._listener is not None and total is not None:
            _tell(self._listener, done, total)
        elif self._drawn:
            self._draw(done, total)

    def _draw(self, done: int, total: int | None) -> None:
        if self._bar is None:
            kind, quiet = _bar()
            how: dict[str, Any] = {"total": total, "initial": self._before, "desc": self._title, "unit": self._unit}
            if quiet is None and not sys.stderr.isatty():
                self._bar = _Lines(**how)
            else:
                self._bar = kind(**how, leave=False, disable=quiet)
        self._bar.update(done - self._bar.n)

    def tell(self, line: str) -> None:
        """Writes a line above the bar, also where the bar is not to be seen because nobody watches a terminal."""
        if self._drawn:
            tqdm.write(line, file=sys.stderr)

    def say(self, title: str, remark: str = "") -> None:
        """Writes another title, and a remark behind the bar."""
        self._title = title
        if self._bar is not None:
            self._bar.set_description(title, refresh=False)
            self._bar.set_postfix_str(remark)

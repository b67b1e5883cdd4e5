"""Who wants to know how far a computation is: a callback for the time of a block, called with exact totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from seewhy.errors import raised_by

__all__ = ["Listener", "listening", "part_of", "report", "tell"]

Listener = Callable[[int, int], None]
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
    """Tells the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        tell(listener, done, total)


def tell(listener: Listener, done: int, total: int) -> None:
    """Calls a listener; raises InvalidInput that names it where it raises."""
    with raised_by("The progress callback"):
        listener(done, total)

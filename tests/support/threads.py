"""Calls from several threads at once, which change places as often as Python lets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["many_switches", "raised", "together"]


@contextmanager
def many_switches() -> Iterator[None]:
    """Threads change places 50 times as often for the time of a block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(*calls: Callable[[], Any], seconds: float = 60) -> list[Any]:
    """The results of calls that begin at the same time, each in a thread of its own; an error is its result."""
    results: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def work(place: int) -> None:
        start.wait()
        try:
            results[place] = calls[place]()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), "the threads wait for each other"
    return results


def raised(results: list[Any]) -> list[Any]:
    """The results; the first error among them is raised."""
    for one in results:
        if isinstance(one, BaseException):
            raise one
    return results

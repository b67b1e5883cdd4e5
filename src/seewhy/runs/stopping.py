"""Ctrl-C ends a run after the chunk in hand, and is answered at once; a second one interrupts."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stop", "stoppable"]


class Stop:
    """What an engine asks before it begins a chunk; when it asked says how long a chunk takes.

    Args:
        lanes: chunks that are computed at the same time.
        clock: seconds.
    """

    def __init__(self, lanes: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.lanes, self.clock = lanes, clock
        self.pressed = threading.Event()
        self._asked: deque[float] = deque(maxlen=32)

    def __call__(self) -> bool:
        """Says whether no further chunk is to be begun."""
        self._asked.append(self.clock())
        return self.pressed.is_set()

    @property
    def left(self) -> float | None:
        """Seconds that the chunks in hand will probably take; None while nobody knows how long one takes."""
        begun = self._asked
        if len(begun) <= self.lanes:
            return None
        each = (begun[-1] - begun[0]) / (len(begun) - 1) * self.lanes
        return max(1.0, each - (self.clock() - begun[-1]))

    def __str__(self) -> str:
        left = self.left
        how = "for which there is no estimate yet" if left is None else f"about {left:.0f} s"
        chunks, what = ("this chunk", "it is") if self.lanes == 1 else ("the chunks in hand", "they are")
        return f"Stopping after {chunks}, {how}. Ctrl-C again stops at once; then {what} computed anew by resume."


@contextmanager
def stoppable(lanes: int, say: Callable[[str], None]) -> Iterator[Stop]:
    """Listens for Ctrl-C, in the main thread, for the time of a block; a second one interrupts at once.

    Args:
        lanes: chunks that are computed at the same time.
        say: is told how long it will take.
    """
    stop = Stop(lanes)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may listen to signals
        return
    before = signal.getsignal(signal.SIGINT)

    def pressed(_number: int, _frame: Any) -> None:
        stop.pressed.set()
        signal.signal(signal.SIGINT, before)
        say(str(stop))

    signal.signal(signal.SIGINT, pressed)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)

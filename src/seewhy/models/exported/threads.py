"""Torch with one thread for the time of a block, where another library computes.

Torch keeps the number for each thread, and one for threads that have not computed yet. A thread that begins while
another is in such a block is born with 1; it is given back what the first of them had.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]

_lock = threading.RLock()
_inside: dict[int, int] = {}  # thread -> the number that it had before


@contextmanager
def one_thread() -> Iterator[int]:
    """One thread for torch in this thread; gives the number that it had before, and puts that back."""
    me = threading.get_ident()
    if me in _inside:
        yield _inside[me]
        return
    try:
        with _lock:
            now = torch.get_num_threads()
            _inside[me] = next(iter(_inside.values()), now) if now == 1 else now
        torch.set_num_threads(1)
        yield _inside[me]
    finally:
        torch.set_num_threads(_inside[me])
        del _inside[me]

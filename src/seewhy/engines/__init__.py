"""Where work runs: an engine builds workers and hands them one item after the other.

    for result in Local().map(factory, todo, stop):
        ...

``factory(lane)`` builds a worker in the lane (a process, a GPU) where it will work. A worker is called with an item and
the one that comes next, and gives the results that are finished meanwhile; ``flush`` gives the rest. Items have a
``name``, a result says by ``chunk`` of which item it is. An item whose worker is lost is done again by another one, at
most three times; then it is given up, which is a result, too. Doing an item twice must do no harm.

An engine is a frozen dataclass in a file here, or of an entry point ``seewhy.engines``. The command line gives it what
it has of the fields ``workers``, ``address`` and ``apart``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

__all__ = ["Engine", "Factory", "Worker"]


class Worker(Protocol):
    """A worker, which does items of work one after the other."""

    def __call__(self, item: Any, upcoming: Any = None, /) -> list[Any]:
        """Does an item; returns the results that are finished by now."""
        ...

    def flush(self) -> list[Any]:
        """Waits for the results that are not finished yet, and returns them."""
        ...

    def give_up(self, item: Any, why: str, /) -> Any:
        """Returns the result of an item that cannot be done."""
        ...

    def close(self) -> None:
        """Ends what the worker holds."""
        ...


Factory = Callable[[int], Worker]


class Engine(Protocol):
    """An engine, which runs items of work on its workers."""

    def map(self, factory: Factory, todo: Sequence[Any], stop: Callable[[], bool]) -> Iterator[Any]:
        """Yields the results as they come; once ``stop()`` is true, only the items in work are finished."""
        ...

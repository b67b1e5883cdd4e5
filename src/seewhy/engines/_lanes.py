"""Hands items to several workers at once, each in a lane of its own, and survives the loss of a lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from seewhy.errors import InvalidInput

__all__ = ["ATTEMPTS", "Lane", "LaneLost", "drive", "plain_failure"]

ATTEMPTS = 3


class LaneLost(Exception):
    """The error that a lane raises when its process is gone."""


class Lane(Protocol):
    """A worker in another process or on another machine, and the connection to it."""

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Calls the worker's method; the future raises LaneLost when the worker is gone."""
        ...

    def close(self) -> None:
        """Ends the lane and its worker."""
        ...


class _Waiting(NamedTuple):
    """An item that is to be done, how often it was tried, and why it is given up, if it is."""

    item: Any
    attempts: int = 0
    why: str | None = None


@dataclass(eq=False)
class _Busy:
    """A lane, its number, and what was handed to it and has not come back."""

    lane: Lane
    number: int
    held: dict[str, _Waiting] = field(default_factory=dict)


def drive(start: Callable[[int], Lane], lanes: int, todo: Sequence[Any], stop: Callable[[], bool]) -> Iterator[Any]:
    """Returns the results of all items.

    Args:
        start: makes the lane with a number.
        lanes: how many at once.
        todo: items.
        stop: whether no further item is to be begun.

    Raises:
        InvalidInput: workers are lost whatever they are asked, even to give an item up.
    """
    waiting = _Queue(todo)
    running: dict[Future[Any], _Busy] = {}
    try:
        for number in range(min(lanes, len(todo))):
            _hand(running, _Busy(start(number), number), waiting, stop)
        while running:
            for future in wait(list(running), return_when=FIRST_COMPLETED).done:
                busy = running.pop(future)
                try:
                    results = future.result()
                except LaneLost as lost:
                    waiting.again(_again(one, lost) for one in busy.held.values())
                    busy.lane.close()
                    if waiting and not stop():
                        _hand(running, _Busy(start(busy.number), busy.number), waiting, stop)
                    continue
                except BaseException:
                    busy.lane.close()
                    raise
                results = results if isinstance(results, list) else [results]
                for result in results:
                    busy.held.pop(result.chunk, None)
                if not _hand(running, busy, waiting, stop):
                    busy.lane.close()
                yield from results
    finally:
        for busy in running.values():
            busy.lane.close()


class _Queue:
    """The items that wait; new ones are taken from the iterator one by one, because it may make them only then."""

    def __init__(self, todo: Sequence[Any]) -> None:
        self._rest = iter(todo)
        self._made: deque[_Waiting] = deque()
        self._fill()

    def __bool__(self) -> bool:
        return bool(self._made)

    def again(self, lost: Iterable[_Waiting]) -> None:
        """Puts items back, in front of all others."""
        self._made.extendleft(lost)

    def take(self) -> _Waiting:
        """Returns the next item."""
        one = self._made.popleft()
        self._fill()
        return one

    def upcoming(self) -> Any:
        """Returns the item after it, if that will be computed."""
        return self._made[0].item if self._made and self._made[0].why is None else None

    def _fill(self) -> None:
        if not self._made and (item := next(self._rest, None)) is not None:
            self._made.append(_Waiting(item))


def _hand(running: dict[Future[Any], _Busy], busy: _Busy, waiting: _Queue, stop: Callable[[], bool]) -> bool:
    """Gives a lane its next item, or asks it for its last results; returns False when nothing is left to ask."""
    if waiting and not stop():
        one = waiting.take()
        busy.held[one.item.name] = one
        call = ("__call__", one.item, waiting.upcoming()) if one.why is None else ("give_up", one.item, one.why)
        running[busy.lane.call(*call)] = busy
    elif busy.held:
        running[busy.lane.call("flush")] = busy
    else:
        return False
    return True


def _again(one: _Waiting, lost: LaneLost) -> _Waiting:
    """Puts an item of a lost worker back, to be tried once more or given up."""
    tried = one.attempts + 1
    if one.why is not None:
        raise InvalidInput(
            f"No worker can begin: {lost} Look at what the network and the data do when they are loaded."
        )
    why = f"The worker was lost {tried} times over this picture or one beside it: {lost}" if tried >= ATTEMPTS else None
    return _Waiting(one.item, tried, why)


def plain_failure(error: BaseException) -> Exception:
    """What a worker raised, to be raised where it was asked: `exit()` there does not end who asked."""
    if isinstance(error, Exception):
        return error
    return InvalidInput(f"A worker was asked to end its process: {type(error).__name__}: {error}.")

"""State that several blocks keep at the same time, in one thread or in many: put back once, by the last to leave.

Two blocks keep the same state where their keys meet. A block that enters while another is inside sees what the other
made of the state, so what it found itself is not what has to be left behind; that is known to the first alone. A block
puts back what it found itself only where nobody else can be hurt: when all others inside are of its own thread (it is
nested in them), or when it had the state to itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

__all__ = ["SharedState"]

Restore = Callable[[], None]


class _Visit:
    """One block."""

    def __init__(self, keys: frozenset[Hashable]) -> None:
        self.keys, self.thread, self.left = keys, threading.get_ident(), False
        self.restore: Restore = lambda: None


class _Group:
    """Blocks whose keys meet.

    Attributes:
        visits: those inside.
        found: what the first to come to each key found, in the order of their coming.
        keys: all of them.
    """

    def __init__(self) -> None:
        self.visits: list[_Visit] = []
        self.found: list[Restore] = []
        self.keys: set[Hashable] = set()

    def put_back(self) -> None:
        """The first to come is the last to put back, so that its word counts."""
        for restore in reversed(self.found):
            restore()


class SharedState:
    """One kind of state.

    Attributes:
        groups: of blocks that are inside.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # re-entrant: a signal's handler may explain, too
        self.groups: list[_Group] = []

    @contextmanager
    def kept(
        self, keys: frozenset[Hashable], save: Callable[[], Restore], own: Callable[[], bool] = lambda: False,
        turn: Callable[[], AbstractContextManager[Any]] = nullcontext, change: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:  # fmt: skip
        """The state for the time of a block.

        Args:
            keys: what is kept.
            save: notes the state; gives what puts it back, which may be called twice.
            own: whether the block has the state to itself, asked at its end.
            turn: what is waited for before the state is changed or put back.
            change: changes the state for the block; may be interrupted half way.
        """
        visit = _Visit(keys)
        try:
            with turn():
                self._enter(visit, save)
                change()
            yield
        finally:
            try:
                with turn():
                    self._leave(visit, own)
            except BaseException:  # interrupted: what is put back twice is still put back
                self._leave(visit, own)
                raise

    def inside(self) -> bool:
        """Says whether anybody is in a block."""
        return bool(self.groups)

    def _enter(self, visit: _Visit, save: Callable[[], Restore]) -> None:
        with self.lock:
            near = [g for g in self.groups if not visit.keys.isdisjoint(g.keys)]
            group = near[0] if near else _Group()
            visit.restore = save()
            for other in near[1:]:  # the block joins what was apart
                group.visits += other.visits
                group.found += other.found
                group.keys |= other.keys
            if not visit.keys <= group.keys:
                group.found.append(visit.restore)
                group.keys |= visit.keys
            group.visits.append(visit)
            self.groups[:] = [g for g in self.groups if g not in near] + [group]

    def _leave(self, visit: _Visit, own: Callable[[], bool]) -> None:
        with self.lock:
            group = next((g for g in self.groups if visit in g.visits), None)
            if group is None:
                if not visit.left:  # interrupted before it was inside
                    visit.restore()
                return
            others = [v for v in group.visits if v is not visit]
            if not others:
                group.put_back()
                visit.left = True
                self.groups[:] = [g for g in self.groups if g is not group]
                return
            if all(v.thread == visit.thread for v in others) or own():
                visit.restore()
            visit.left = True
            group.visits[:] = others

"""Who may use a network when: many threads explain one network, and each gets what it would get alone.

A call that puts hooks on a network, records its graph, or changes its parameters or settings takes an *exclusive turn*
for all of its time. A method that only runs the network takes a turn for each forward pass, and such passes go side by
side, unless the network's own code keeps something from pass to pass or draws random numbers (see `torch.conduct`).
What sets up state of the whole process (exports, traces, a network that draws from the global generator) takes the
*process's turn*, during which no other thread runs a pass.

A turn covers modules, parameters and buffers, so a network, a part of it, and a wrapper around it exclude each other.
Turns belong to threads and may be taken again inside. They are granted in the order in which they were asked for, as
far as those who hold something need not wait for those who wait for them.

The order, which keeps threads from waiting for each other: all networks of a call at once, then the process, then
single passes. A call that asks in its middle for a network that is not part of its own breaks that order; if this
would end in a deadlock it is given up with `Clash`, and `Explainer.run` begins it again with all of them at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.torch.conduct import Conduct, conduct
from seewhy.models.torch.parts import modules_of

__all__ = ["Clash", "Taking", "alone", "busy", "holds", "network_of", "process", "running", "using"]

_PATIENCE = 1.0  # seconds after which a waiting thread looks again, whatever it was told


class Clash(SeewhyError):
    """Two threads each need a network that the other is using; `owners` are what was asked for."""

    def __init__(self, owners: tuple[Any, ...]) -> None:
        names = ", ".join(type(owner).__name__ for owner in owners) or "the process"
        super().__init__(
            f"Two threads wait for each other: one needs {names} in the middle of a call for another network, which "
            "the other thread holds in the same way. Explain the networks one after the other."
        )
        self.owners = owners


class _Turn:
    """A right to use networks.

    Args:
        kind: "alone": nobody else meanwhile. "call": as "alone" where the networks' own code asks for that, otherwise
            nothing but a name for what follows. "pass": one forward pass. "process": no other thread runs a pass.
        owners: modules, or other objects that several threads share.
    """

    def __init__(self, kind: Literal["alone", "call", "pass", "process"], *owners: Any) -> None:
        self.kind, self.owners, self.thread = kind, owners, 0

    @cached_property
    def parts(self) -> frozenset[int]:
        """What is covered. The objects live at least as long as the turn, so their addresses are unique."""
        if (outer := self._outer()) is not None:
            return outer.parts
        found = set(map(id, self.owners))
        for module in modules_of(self.owners):
            found.add(id(module))
            found.update(map(id, module._parameters.values()))
            found.update(map(id, module._buffers.values()))
        found.discard(id(None))
        return frozenset(found)

    @cached_property
    def conduct(self) -> Conduct:
        """What the networks' own code does besides computing."""
        if (outer := self._outer()) is not None:
            return outer.conduct
        each = [conduct(owner) for owner in self.owners]
        return Conduct(any(c.keeps for c in each), any(c.draws for c in each))

    def _outer(self) -> _Turn | None:
        """Returns the first turn of this thread for the same networks, if that is another one."""
        wanted = list(map(id, self.owners))
        own = (t for t in list(_table.held) if t.thread == self.thread and list(map(id, t.owners)) == wanted)
        first = next(own, self)
        return None if first is self else first

    @cached_property
    def alone(self) -> bool:
        """Whether nobody else may use the parts."""
        return self.kind == "alone" or (self.kind == "call" and (self.conduct.keeps or self.conduct.draws))

    @cached_property
    def process(self) -> bool | None:
        """True: no other thread runs a pass. False: this is a pass. None: neither."""
        if self.kind in ("pass", "process"):
            return self.kind == "process"
        return True if self.conduct.draws else None

    @property
    def void(self) -> bool:
        """Whether nobody has to wait for it."""
        return not self.alone and self.process is None

    def excludes(self, other: _Turn) -> bool:
        """Says whether two threads cannot have these at the same time."""
        if self.thread == other.thread or self.void or other.void:
            return False
        if None not in (self.process, other.process) and (self.process or other.process):
            return True
        return (self.alone or other.alone) and not self.parts.isdisjoint(other.parts)


class Taking:
    """Has a turn for the time of a block.

    An interrupt may come between the end of the block and the first line of ``__exit__``; then the turn goes back when
    nobody holds this object any longer.
    """

    def __init__(self, turn: _Turn) -> None:
        self.turn = turn

    def __enter__(self) -> None:
        try:
            _table.take(self.turn)
        except BaseException:
            _table.give(self.turn)
            raise

    def __exit__(self, *error: object) -> None:
        _table.give(self.turn)

    def __del__(self) -> None:
        """Gives the turn back where the block was left without its end."""
        if hasattr(self, "turn") and self.turn.thread:  # an interrupt may have come before it had one
            _table.give(self.turn)


class _Table:
    """Who holds what, and who waits for what, in order."""

    def __init__(self) -> None:
        self.condition = threading.Condition()  # re-entrant: a signal's handler may explain, too
        self.held: list[_Turn] = []
        self.waiting: list[_Turn] = []

    def take(self, turn: _Turn) -> None:
        """Waits until the turn can be had."""
        turn.thread = threading.get_ident()
        with self.condition:
            while self._blocked(turn):
                if turn not in self.waiting:
                    self.waiting.append(turn)
                if self._reaches(turn, turn.thread):
                    raise Clash(turn.owners)
                self.condition.wait(_PATIENCE)
            self.held.append(turn)
            _remove(self.waiting, turn)

    def give(self, turn: _Turn) -> None:
        """Gives the turn back, also when this is interrupted once."""
        try:
            self._drop(turn)
        except BaseException:
            self._drop(turn)
            raise

    def _drop(self, turn: _Turn) -> None:
        with self.condition:
            _remove(self.held, turn)
            if self.waiting:
                _remove(self.waiting, turn)
                self.condition.notify_all()
            turn.thread = 0

    def _blocked(self, turn: _Turn) -> bool:
        if len(self.held) + len(self.waiting) == 0:
            return False
        if any(self._holders(turn)):
            return True
        before = self.waiting[: self.waiting.index(turn)] if turn in self.waiting else self.waiting
        return any(turn.excludes(w) and not self._reaches(w, turn.thread) for w in before)

    def _holders(self, turn: _Turn) -> Iterator[_Turn]:
        return (held for held in self.held if held.thread != turn.thread and held.excludes(turn))

    def _reaches(self, turn: _Turn, thread: int) -> bool:
        """Says whether ``turn`` waits, through others, for what ``thread`` holds."""
        seen, open_ = set[int](), [turn]
        while open_:
            for holder in self._holders(open_.pop()):
                if holder.thread == thread:
                    return True
                if holder.thread not in seen:
                    seen.add(holder.thread)
                    open_.extend(w for w in self.waiting if w.thread == holder.thread)
        return False


def _remove(turns: list[_Turn], turn: _Turn) -> None:
    if turn in turns:
        turns.remove(turn)


_table = _Table()


def _forget() -> None:
    """Gives all turns back in a forked child, where the threads that held them do not exist."""
    _table.__init__()  # type: ignore[misc]  # the object stays, what it knew goes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def alone(*owners: Any) -> Taking:
    """Takes the networks for a block that hooks, records, or changes modes, parameters or settings of them."""
    return Taking(_Turn("alone", *owners))


def using(*owners: Any) -> Taking:
    """Announces a call that only runs the networks, several times; each pass takes its own turn."""
    return Taking(_Turn("call", *owners))


def running(*owners: Any) -> Taking:
    """Takes the turn of one forward pass."""
    return Taking(_Turn("pass", *owners))


def process() -> Taking:
    """Takes the whole process for a block that changes what belongs to it; no pass of another thread runs meanwhile."""
    return Taking(_Turn("process"))


def holds(network: Any = None) -> bool:
    """Says whether this thread has the network to itself; without one, whether it has the process."""
    me = threading.get_ident()
    own = [turn for turn in list(_table.held) if turn.thread == me and turn.kind != "pass"]
    if network is None:
        return any(turn.process for turn in own)
    return any(turn.kind == "alone" and any(o is network for o in turn.owners) for turn in own)


def busy() -> bool:
    """Says whether others may have to wait for this thread."""
    me = threading.get_ident()
    return any(turn.thread == me and not turn.void for turn in list(_table.held))


def network_of(model: Any) -> Any:
    """What threads share of a model: the module, the callable, or what runs the graph."""
    if isinstance(model, nn.Module):
        return model
    for name in ("module", "function", "engine", "cell"):
        if (found := getattr(model, name, None)) is not None:
            return found
    return model

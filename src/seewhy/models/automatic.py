"""The map that layer="auto" means, for torch modules and exported graphs alike.

It is the last one through which all passes that the scores know of the picture, with more than one channel, that lies
in the picture and is not the network's answer itself. None of that is read off names: each candidate is tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from seewhy.models.graph import Graph
from seewhy.models.layout import Seen
from seewhy.registry import instead

__all__ = ["Maps", "Trials", "no_stream", "nowhere"]

_DEEP = 4  # steps in which it is looked whether a map lies in the picture
_NAMED = 4  # layers that a message names
_ASTRAY = "does not move with the places of the picture"


class Trials(Protocol):
    """What can be tried out with maps of one network on one picture."""

    def keeps_places(self, one: Seen) -> bool:
        """Says whether every operation from the picture to a map is known to leave places where they are."""
        ...

    def moves(self, one: Seen, source: Seen | None) -> bool:
        """Whether a change at a place of the picture, or of an earlier map, moves a map there more than elsewhere."""
        ...

    def answers(self, one: Seen, channels: int) -> bool:
        """Says whether each of a map's channels is the score of one class."""
        ...

    def passed_by(self, one: Seen) -> bool:
        """Says whether the scores know of the picture by another way than through a layer that hands a map on."""
        ...


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps that were seen in one pass.

    Attributes:
        seen: all of them, in the order of execution.
        trials: what can be tried out.
        known: (value, shape) of a map -> why it is not the picture's, or ""; it grows.
    """

    seen: Sequence[Seen]
    trials: Trials
    known: dict[tuple[str, tuple[int, ...]], str]

    def last(self, wanted: Callable[[str], bool] = lambda _: True) -> Seen | None:
        """Returns the last map of the picture of a wanted name, or None.

        A layer that only hands a map on (an Identity, or Dropout) may be passed by: others may take it from before.
        """
        first: dict[str, int] = {}
        for number, one in enumerate(self.seen):
            first.setdefault(one.value, number)  # a map is as late as it was made, however often it is handed on
        carrying = sorted((s for s in self.seen if s.carries and wanted(s.name)), key=lambda s: first[s.value])
        fit = (s for s in reversed(carrying) if not self.objection(s))
        return next((s for s in fit if not (s.handed and self.trials.passed_by(s))), None)

    def astray(self) -> str:
        """Name of the last layer that everything passes and whose only fault is where its positions lie, or ""."""
        fit = (s.name for s in reversed(self.seen) if s.carries and self.objection(s) == _ASTRAY)
        return next(fit, "")

    def objection(self, one: Seen) -> str:
        """Why a map is not one of the picture, or ""."""
        key = (one.value, one.shape)
        if key not in self.known:
            self.known[key] = self._tried(one)
        return self.known[key]

    def _tried(self, one: Seen) -> str:
        if one.channels < 2:
            return "has one channel"
        if self.trials.answers(one, one.channels):
            return "is the network's answer itself, a channel for each class"
        if not self._lies(one, _DEEP):
            return _ASTRAY
        return ""

    def _lies(self, one: Seen, depth: int) -> bool:
        """Says whether a map moves with the places of the picture, or with those of an earlier map that does.

        In a deep network everything may move everything; step by step it can still be seen.
        """
        if self.trials.keeps_places(one) or self.trials.moves(one, None):
            return True
        maps = {s.value: s for s in self.seen if s.carries}
        before = list(maps.values())[: list(maps).index(one.value)]
        halves = dict.fromkeys([len(before) // 2, len(before) - 1]) if before and depth else ()
        return any(self.trials.moves(one, before[i]) and self._lies(before[i], depth - 1) for i in halves)


def nowhere(maps: Sequence[Seen], graph: Graph, astray: str = "") -> str:
    """Says that no map carries everything, and which layers come into question.

    Args:
        maps: those that the picture moves and on which the scores depend, in the order of execution.
        graph: the operations.
        astray: the layer that everything passes, but whose positions lie elsewhere; see `Maps.astray`.
    """
    if astray:
        return (
            f"All of the picture's influence on the scores passes layer {astray!r}, but its positions do not lie where "
            "the picture's places are, as where a network mirrors, turns or crops the picture itself: its map would "
            f"lie over other places. Do that before the network, or use {instead('scores')}."
        )
    beside = _ends([one for one in maps if one.channels > 1], graph)
    if not beside:
        return (
            "No layer of the network has a spatial map (N, C, h, w). Use a method that needs scores only: "
            f"{instead('scores')}."
        )
    named = ", ".join(map(repr, beside[:_NAMED]))
    return (
        "No layer with a spatial map carries all of the picture's influence on the scores: it passes through "
        f"several beside each other. Layers that come into question: {named}. Name one, layer={beside[0]!r} for "
        f"example, or use {instead('scores')}."
    )


def no_stream(length: int, prefix: int) -> str:
    """Says that the scores depend on no layer's tokens, of which ``prefix`` stand before those of the picture."""
    return (
        f"The network's scores do not depend on its tokens ({length} of them, {length - prefix} of the picture) after "
        f"any of its layers. Name a layer, or use {instead('scores')}."
    )


def _ends(maps: Sequence[Seen], graph: Graph) -> list[str]:
    """Returns the layers of maps of which no other is made, the last first: the ends of branches."""
    kept: dict[str, str] = {}
    for one in reversed(maps):
        if not graph.after([one.value]).intersection(kept):
            kept[one.value] = one.name
    return list(dict.fromkeys(kept.values()))

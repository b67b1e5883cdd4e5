"""The data's classes, said as the network's class indices.

A data set has class names of its own (folders, categories), or only numbers. `match` finds the network's class for each
name; a `Binding` is the result, and `Labelled` is what every data set with classes is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal, Self

from seewhy.checks import check_choice
from seewhy.errors import InvalidInput, nearest

__all__ = ["Binding", "Box", "Labelled", "match"]

Label = int | str
Box = tuple[int, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The way from the data's labels to the network's classes.

    Attributes:
        own: the data's class names; None where it has only indices.
        table: for each of them the network's class, or None where it has none; None as a whole: the same indices.
        names: the network's class names.
        num_classes: how many classes the network has; None when that is not known yet.
        unknown: the data's names mean nothing to the network, so no truth is known.
        notes: what was decided.
    """

    own: tuple[str, ...] | None = None
    table: tuple[int | None, ...] | None = None
    names: tuple[str, ...] | None = None
    num_classes: int | None = None
    unknown: bool = False
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int | None:
        """How many classes the data's own indices count."""
        return len(self.own) if self.own is not None else self.num_classes

    def of(self, label: Label) -> int | None:
        """Returns the network's class for an own index or a name; None where it has none.

        Raises:
            InvalidInput: out of range, or a name that nobody knows.
        """
        if self.unknown:
            return None
        if isinstance(label, str):
            return self._of_name(label)
        if self.table is None:
            return self.checked(label)
        _check_range(label, len(self.table), "the data have")
        return self.table[label]

    def checked(self, label: int) -> int:
        """Returns an index that is the network's already.

        Raises:
            InvalidInput: out of range.
        """
        _check_range(label, self.num_classes, "the network has")
        return label

    def labels(self, found: Iterable[Label] | None) -> tuple[int, ...] | None:
        """The network's classes, each once. None where nothing is known, or the network has none of those found."""
        if found is None or self.unknown:
            return None
        given = list(found)
        kept = tuple(dict.fromkeys(c for c in map(self.of, given) if c is not None))
        return kept if kept or not given else None

    def _of_name(self, name: str) -> int | None:
        if self.own is not None:
            if name not in self._own_index:
                raise InvalidInput(f"The data have no class {name!r}. {nearest(name, self.own)}")
            return self.of(self._own_index[name])
        if self.names is None:
            raise InvalidInput(f"The network has no class names, so the label {name!r} cannot be looked up.")
        found = _index(self.names).find(name)
        if len(found) != 1:
            raise InvalidInput(f"The label {name!r} is not one of the network's. {nearest(name, self.names)}")
        return found[0]

    @cached_property
    def _own_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.own or ())}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """What data sets with classes have in common.

    Attributes:
        name: how the data are called in reports.
        classes: the data's own class names, if it has any.
        unmatched: what happens to class names that the network lacks while it has others: "error" or "ignore".
        decided: what was decided when the data were opened.
        binding: how labels become the network's classes.
    """

    name: str
    classes: tuple[str, ...] | None = None
    unmatched: Literal["error", "ignore"] = "error"
    decided: tuple[str, ...] = ()
    binding: Binding = field(default=Binding())

    def __post_init__(self) -> None:
        check_choice("unmatched", self.unmatched, ("error", "ignore"))
        if self.classes is not None and self.binding == Binding():
            object.__setattr__(self, "binding", Binding(own=self.classes))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, for the reader of the results."""
        return self.decided + self.binding.notes

    def bind(self, classes: Sequence[str] | None, num_classes: int | None) -> Self:
        """Returns the same data with truth given as the network's class indices.

        Args:
            classes: the network's class names, if it has any.
            num_classes: how many classes it has.

        Raises:
            InvalidInput: some of the data's names are the network's and others are not.
        """
        return replace(self, binding=match(self.classes, classes, num_classes, unmatched=self.unmatched))


def match(
    own: Sequence[str] | None, names: Sequence[str] | None, num_classes: int | None, *,
    unmatched: str = "error", numbers: str = "auto",
) -> Binding:  # fmt: skip
    """Returns the network's class for each of the data's.

    Names are compared without regard to case; one of several that a network's label lists ("tench, Tinca tinca") is
    enough, and "_" and "-" pass for a space. A network without names takes as many classes in the data's order.

    Args:
        own: the data's class names.
        names: the network's.
        num_classes: of the network.
        unmatched: "error" or "ignore", for names that only some of the network's classes answer to.
        numbers: what names that are numbers mean: "index", their place in "sorted" order, or "auto".

    Raises:
        InvalidInput: names the classes that have no counterpart, or numbers that can be understood in two ways.
    """
    known = tuple(names) if names else None
    count = num_classes if num_classes is not None else len(known) if known else None
    bound = Binding(own=tuple(own) if own is not None else None, names=known, num_classes=count)
    if bound.own is None:
        return bound
    if known is not None:
        found = _by_name(bound.own, known, unmatched)
        if found is not None:
            return replace(bound, table=found, notes=_ignored(bound.own, found))
    return _by_order(bound, bound.own, count, numbers)


def _by_name(own: tuple[str, ...], known: tuple[str, ...], unmatched: str) -> tuple[int | None, ...] | None:
    """Binds labels by class name; None when no name at all is the network's."""
    index = _index(known)
    found = [index.find(name) for name in own]
    if not any(found):
        return None
    wrong = [(name, places) for name, places in zip(own, found, strict=True) if len(places) != 1]
    if wrong and unmatched != "ignore":
        reasons = [_complaint(name, places, known) for name, places in wrong[:5]]
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InvalidInput(
            f"{len(wrong)} of the data's {len(own)} classes {'is' if len(wrong) == 1 else 'are'} not found among the "
            f"network's: {'; '.join(reasons)}{more}. Rename, or pass unmatched='ignore' to leave them out."
        )
    return tuple(places[0] if len(places) == 1 else None for places in found)


def _complaint(name: str, places: list[int], known: Sequence[str]) -> str:
    if places:
        return f"{name!r} (names several classes: {', '.join(map(str, places))})"
    return f"{name!r} ({nearest(name, known).rstrip('.')})"


def _ignored(own: Sequence[str], table: Sequence[int | None]) -> tuple[str, ...]:
    left = [name for name, place in zip(own, table, strict=True) if place is None]
    return (f"Classes that the network does not have are ignored: {_some(left)}.",) if left else ()


def _by_order(bound: Binding, own: tuple[str, ...], count: int | None, numbers: str) -> Binding:
    """Numbers for names, or as many classes as a network without names has."""
    by_number = _as_indices(own, count)
    in_order = bound.names is None and len(own) == count
    if by_number is not None and in_order and by_number != tuple(range(len(own))) and numbers == "auto":
        first = next(i for i, place in enumerate(by_number) if place != i)
        raise InvalidInput(
            f"The data's class names are numbers: {own[first]!r} is class {first} in sorted order (as torchvision's "
            f"ImageFolder counts) and class {by_number[first]} by its number. Pass numbers='sorted' or numbers='index'."
        )
    if by_number is not None and not (in_order and numbers == "sorted"):
        return replace(bound, table=by_number, notes=("Class names that are numbers are taken as class indices.",))
    if in_order:
        note = f"The network has no class names: the data's {len(own)} classes are its classes in this order: "
        return replace(bound, table=tuple(range(len(own))), notes=(f"{note}{_some(own)}.",))
    if bound.names is None:
        why = f"The network has {'' if count is None else f'{count} '}classes without names, the data have {len(own)}"
    else:
        why = f"None of the data's {len(own)} class names is among the network's"
    return replace(bound, unknown=True, notes=(f"{why} ({_some(own)}): the true classes are not known.",))


def _as_indices(own: Sequence[str], count: int | None) -> tuple[int, ...] | None:
    if count is None or not all(name.isascii() and name.isdecimal() for name in own):
        return None
    found = tuple(map(int, own))
    return found if len(set(found)) == len(found) and max(found) < count else None


class _Names:
    """Looks class names up: the whole, one of several, then without regard to "_" and "-"."""

    def __init__(self, names: Sequence[str]) -> None:
        self.tables: tuple[dict[str, list[int]], ...] = ({}, {}, {})
        for i, name in enumerate(names):
            whole = name.strip().casefold()
            parts = whole.split(", ")
            for table, forms in zip(self.tables, ([whole], parts, [*map(_plain, [whole, *parts])]), strict=True):
                for form in dict.fromkeys(forms):
                    table.setdefault(form, []).append(i)

    def find(self, name: str) -> list[int]:
        whole = name.strip().casefold()
        exact, parts, plain = self.tables
        return exact.get(whole) or parts.get(whole) or plain.get(_plain(whole)) or []


@lru_cache(maxsize=8)
def _index(names: tuple[str, ...]) -> _Names:
    return _Names(names)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip()


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def _check_range(label: int, count: int | None, who: str) -> None:
    if label < 0:
        raise InvalidInput(f"Label {label} is negative. Classes are counted from 0; -1 is padding, in a list only.")
    if count is not None and label >= count:
        raise InvalidInput(f"Label {label} is out of range: {who} {count} classes, 0 to {count - 1}.")

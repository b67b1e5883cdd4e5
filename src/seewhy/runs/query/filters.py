"""Which labels of a run, in which order, and the SQL that it means. Values are parameters, never part of the text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

from seewhy.checks import is_count
from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.runs.folder.rows import FLAGS
from seewhy.runs.query.choosing import Plan
from seewhy.runs.query.queues import queues, spread

__all__ = ["Asked", "Query", "sorts"]

_COLUMNS = {
    "position": "position", "probability": "probability", "uncertainty": "std", "entropy": "entropy",
    "mutual_information": "mutual_information",
}  # fmt: skip


class Asked(TypedDict, total=False):
    """The filters, the order and the page, by name; see `Query`."""

    labels: Iterable[int] | None
    flags: Iterable[str] | None
    text: str | None
    explainers: Iterable[str] | None
    min_probability: float | None
    max_probability: float | None
    counterfactual: bool | None
    positions: Iterable[int] | None
    confidence: tuple[float, float] | None
    right: bool | None
    there: int | None
    missed: int | None
    mistaken: int | None
    failed: bool | None
    warning: str | None
    note: str | None
    verdicts: Iterable[str] | None
    reviewed: bool | None
    queue: str | None
    sort: str
    descending: bool
    offset: int
    limit: int


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which labels, in which order. All filters have to be met by the same label of a picture.

    Attributes:
        labels: of these classes; None for all.
        flags: with one of these flags: "TP", "FN", "FP", "TN".
        text: whose picture has this in its key, name or source, in upper or lower case.
        explainers: that have a map of each of these.
        min_probability: that the network gives at least this much.
        max_probability: that the network gives at most this much.
        counterfactual: True: whose hierarchical occlusion found something; False: whose found nothing.
        positions: whose picture stands at one of these places in the data.
        confidence: whose answer is at least as sure as the first of these, and less than the second: of exclusive
            classes the likeliest one of the picture, else what was found (TP, FP).
        right: True: whose picture the network is right about; False: wrong. See `SampleRecord.right`.
        there: whose picture truly has this class.
        missed: whose picture truly has this class, and the network does not say so.
        mistaken: of whose picture the network says this class, and it is not there.
        failed: True: whose picture has something that could not be done; False: whose has not.
        warning: whose picture has a warning of this kind.
        note: whose picture has a note of this kind, "EXPLAINER: KIND".
        verdicts: whose picture a reviewer gave one of these.
        reviewed: True: of whose picture a reviewer said something; False: nobody did.
        queue: that are in this queue; see `seewhy.runs.query.queues`.
        sort: "position", "probability", "uncertainty" (standard deviation), "entropy", "mutual_information",
            "score:EXPLAINER:METRIC", or "disagreement:METRIC": the largest minus the smallest value of the metric
            among the explainers, where at least two have one; "queue": the order of the queue. Labels without such a
            number come last.
        descending: from large to small. Ties are in the order of position, sample and label either way.
        offset: labels (or pictures) that are left out at the start.
        limit: how many there are on a page.
    """

    labels: tuple[int, ...] | None = None
    flags: tuple[str, ...] | None = None
    text: str | None = None
    explainers: tuple[str, ...] | None = None
    min_probability: float | None = None
    max_probability: float | None = None
    counterfactual: bool | None = None
    positions: tuple[int, ...] | None = None
    confidence: tuple[float, float] | None = None
    right: bool | None = None
    there: int | None = None
    missed: int | None = None
    mistaken: int | None = None
    failed: bool | None = None
    warning: str | None = None
    note: str | None = None
    verdicts: tuple[str, ...] | None = None
    reviewed: bool | None = None
    queue: str | None = None
    sort: str = "position"
    descending: bool = False
    offset: int = 0
    limit: int = 12

    def __post_init__(self) -> None:
        single = (one for one in (self.there, self.missed, self.mistaken) if one is not None)
        for label in (*(self.labels or ()), *single):
            if not is_count(label, 0) or label >= 1 << 31:
                raise InvalidInput(f"labels must be class indices, got {label!r}.")
        for flag in self.flags or ():
            if flag not in FLAGS:
                raise InvalidInput(f"flags must be of 'TP', 'FN', 'FP' and 'TN', got {flag!r}.")
        for name, value in (("min_probability", self.min_probability), ("max_probability", self.max_probability)):
            if value is not None and not -math.inf < value < math.inf:
                raise InvalidInput(f"{name} must be a number, got {value!r}.")
        _check_whole("offset", self.offset, 0)
        _check_whole("limit", self.limit, 1)

    @classmethod
    def of(cls, asked: Asked) -> Query:
        """Returns the query, with any iterables for its tuples."""
        given: dict[str, Any] = dict(asked)
        for name in ("labels", "flags", "explainers", "verdicts", "positions"):
            if given.get(name) is not None:
                given[name] = tuple(dict.fromkeys(given[name]))
        return cls(**given)

    def of_labels(self, plan: Plan) -> bool:
        """Says whether a filter asks something of a label; a picture without labels can meet the others."""
        asked = (self.labels, self.flags, self.explainers, self.min_probability, self.max_probability, self.queue)
        confidence = None if plan.exclusive else self.confidence
        return any(value is not None for value in (*asked, self.counterfactual, confidence))

    def where(self, plan: Plan, number: Callable[[str], Any]) -> tuple[str, list[Any]]:
        """Returns the condition on the table "labels", and its parameters.

        Args:
            plan: what run.json asks for.
            number: answers SQL for a number of the whole run.

        Raises:
            UnknownName: an explainer that the run does not have.
        """
        known = [
            ("class_index IN (SELECT unnest(?::INTEGER[]))", None if self.labels is None else list(self.labels)),
            ("flag IN (SELECT unnest(?::VARCHAR[]))", None if self.flags is None else list(self.flags)),
            ("probability >= ?::FLOAT", _single(self.min_probability)),
            ("probability <= ?::FLOAT", _single(self.max_probability)),
            ("tree = ?", self.counterfactual),
        ]
        if self.confidence is not None and not plan.exclusive:
            known += [*_between(self.confidence), ("(flag IS NULL OR flag IN ('TP', 'FP')) = ?", True)]
        parts, values = _present(known)
        there, more = self.pictures(plan)
        parts += [f"s IN (SELECT s FROM pictures WHERE {there})"] if there != "true" else []
        parts += [f"x{_place(name, plan.explainers, 'explainer')}" for name in self.explainers or ()]
        if self.queue is not None:
            every = queues(plan)
            queue = every[_known(self.queue, every, "queue")]
            parts.append(f"({queue.where})")
            more += [number(queue.limit)] if queue.limit else []
        return " AND ".join(parts) or "true", [*values, *more]

    def pictures(self, plan: Plan) -> tuple[str, list[Any]]:
        """The condition on the table "pictures", from what is asked of pictures, and its parameters.

        Raises:
            UnknownName: the explainer of a note that the run does not have.
        """
        there, missed, mistaken = _CONFUSED[plan.exclusive]
        known: list[tuple[str, Any]] = [
            (PICTURE_HAS_TEXT, self.text or None),
            ("position IN (SELECT unnest(?::BIGINT[]))", _listed(self.positions)),
            ('"right" = ?', self.right),
            (there, self.there),
            (missed, self.missed),
            (mistaken, self.mistaken),
            ("(failures > 0) = ?", self.failed),
            ("s IN (SELECT s FROM warnings WHERE kind = ?)", self.warning),
            (f"sample IN (SELECT sample FROM reviews WHERE {_VERDICT})", _listed(self.verdicts)),
            ("(sample IN (SELECT sample FROM reviews)) = ?", self.reviewed),
        ]
        if self.confidence is not None and plan.exclusive:
            known += _between(self.confidence)
        parts, values = _present(known)
        if self.note is not None:
            explainer, _, kind = self.note.rpartition(": ")
            number = _place(explainer, plan.explainers, "explainer")
            parts.append(f"s IN (SELECT s FROM notes WHERE e = {number} AND kind = ?)")
            values.append(kind)
        return " AND ".join(parts) or "true", values

    def key(self, plan: Plan) -> str:
        """What is sorted by, in terms of the table "labels".

        Raises:
            UnknownName: there is no such order.
        """
        every = sorts(plan)
        if self.queue is not None:
            every["queue"] = queues(plan)[self.queue].key
        return every[_known(self.sort, every, "order")]

    @property
    def direction(self) -> str:
        """The direction of the order, in SQL."""
        return "DESC NULLS LAST" if self.descending else "ASC NULLS LAST"


def _check_whole(name: str, value: Any, least: int) -> None:
    if not is_count(value, least) or value >= 1 << 62:
        raise InvalidInput(f"{name} must be an integer of at least {least}, got {value!r}.")


def _between(ends: tuple[float, float]) -> list[tuple[str, Any]]:
    low, high = ends
    return [("probability::DOUBLE >= ?", low), ("probability::DOUBLE < ?", high if high < math.inf else None)]


def _single(value: float | None) -> float | None:
    """Returns a number that single precision holds: what is larger is as good as its largest."""
    return None if value is None else min(max(value, -_LARGEST), _LARGEST)


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _present(known: Iterable[tuple[str, Any]]) -> tuple[list[str], list[Any]]:
    """The conditions that have a value, and these values."""
    asked = [(sql, value) for sql, value in known if value is not None]
    return [sql for sql, _ in asked], [value for _, value in asked]


PICTURE_HAS_TEXT = "contains(search, lower(?))"
_LARGEST = 3.4e38  # that single precision holds
_VERDICT = "verdict IN (SELECT unnest(?::VARCHAR[]))"
_CONFUSED = {  # a class that is there, that was missed, that is said and not there: of one class a picture, of several
    True: (
        "list_contains(truth, ?::INTEGER)",
        'list_contains(truth, ?::INTEGER) AND NOT "right"',
        'predicted = ?::INTEGER AND NOT "right"',
    ),
    False: (
        "s IN (SELECT s FROM labels WHERE flag IN ('TP', 'FN') AND class_index = ?::INTEGER)",
        "s IN (SELECT s FROM labels WHERE flag = 'FN' AND class_index = ?::INTEGER)",
        "s IN (SELECT s FROM labels WHERE flag = 'FP' AND class_index = ?::INTEGER)",
    ),
}


def sorts(plan: Plan) -> dict[str, str]:
    """All orders there are -> what they mean in SQL. Only numbers of columns stand in it, no names."""
    found = dict(_COLUMNS)
    numbers = {pair: f"m{number}" for number, pair in enumerate(plan.score)}
    found.update({f"score:{explainer}:{metric}": column for (explainer, metric), column in numbers.items()})
    if len(plan.explainers) > 1:
        for metric in plan.metrics:
            found[f"disagreement:{metric}"] = spread([numbers[explainer, metric] for explainer in plan.explainers])
    return found


def _known(name: str, names: Iterable[str], what: str) -> str:
    if name not in (every := list(names)):
        raise UnknownName(f"There is no {what} {name!r}. {nearest(name, every)}")
    return name


def _place(name: str, names: tuple[str, ...], what: str) -> int:
    return names.index(_known(name, names, what))

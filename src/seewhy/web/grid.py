"""The grid: many small samples, each with one chosen map, its flag and its probability; and the page of queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seewhy.errors import UnknownName, nearest
from seewhy.runs.query.run import Hit, Page
from seewhy.web.library import Opened
from seewhy.web.overview import QueueLine, queue_lines
from seewhy.web.queries import Filters, GridQuery, QueuesQuery, SampleQuery, address, asking
from seewhy.web.saliency import Choice, LabelCard, SampleCard, asked, card, sorts

__all__ = ["GridPage", "QueuesPage", "Tile", "chips", "found", "grid", "queues", "sample_address"]

_SHOWN = 10  # small pictures of a queue


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A sample of the grid.

    Attributes:
        sample: it, with the map of one explainer for its active label.
        label: the active one; None where it has none.
        link: address of its page, below the run's own.
    """

    sample: SampleCard
    label: LabelCard | None
    link: str


@dataclass(frozen=True, kw_only=True)
class GridPage:
    """A page of the grid.

    Attributes:
        run: the run's key.
        version: grows when there is more to be read.
        total: samples (or labels) that meet the filters.
        page: of them, from 1.
        pages: how many there are.
        explainers: whose maps can be shown.
        explainer: whose maps are; "" for none.
        flags: that there are, with how many labels have them.
        chosen: the classes of the filter.
        active: the filters that have no control of their own, in words, each with the address without it.
        sorts: the orders there are.
        falls: whether the largest value comes first.
        worst: whether it does so where nobody asks.
        queue: that is shown, or None.
        quantity: what the network's numbers are.
        exclusive: whether of the classes exactly one is meant.
        tiles: of this page.
    """

    run: str
    version: int
    total: int
    page: int
    pages: int
    explainers: list[str]
    explainer: str
    flags: list[Choice]
    chosen: list[Choice]
    active: list[Choice]
    sorts: list[Choice]
    falls: bool
    worst: bool
    queue: QueueLine | None
    quantity: str
    exclusive: bool
    tiles: list[Tile]


@dataclass(frozen=True, kw_only=True)
class QueuePreview:
    """A queue with its first samples."""

    queue: QueueLine
    tiles: list[Tile]


@dataclass(frozen=True, kw_only=True)
class QueuesPage:
    """All queues of a run; ``missing``: kinds that it has no data for -> what has to be asked of it."""

    run: str
    version: int
    queues: list[QueuePreview]
    missing: dict[str, str]


def grid(opened: Opened, query: GridQuery) -> GridPage:
    """Returns the page that an address asks for.

    Raises:
        InvalidInput: a filter that cannot be used.
        UnknownName: an explainer, a queue or an order that the run does not have.
    """
    run, version, counts = opened.run, opened.version, opened.counts()
    explainer = _explainer(opened, query.explainer, query.queue)
    page = found(opened, query)
    order = asked(opened, query)
    worst = asked(opened, query.model_copy(update={"descending": None}))
    return GridPage(
        run=opened.place.key, version=version, total=page.total, page=query.page,
        pages=max(1, -(-page.total // query.limit)), explainers=list(run.drawn), explainer=explainer,
        flags=[Choice(value=f, name=f, count=n) for f, n in counts.flags.items() if n or f != "TN"],
        chosen=[Choice(value=str(label), name=run.class_name(label)) for label in query.labels],
        active=chips(opened, query), sorts=sorts(opened), falls=order["descending"], worst=worst["descending"],
        queue=next((one for one in queue_lines(opened) if one.name == query.queue), None), quantity=run.quantity,
        exclusive=run.exclusive, tiles=_tiles(opened, query, page, explainer),
    )  # fmt: skip


def found(opened: Opened, query: GridQuery | SampleQuery) -> Page[Hit]:
    """Returns the samples, or the labels, that meet the filters of an address, those of its page."""
    ask = opened.run.labels if query.each == "label" else opened.run.samples
    return ask(**asked(opened, query))


def _tiles(opened: Opened, query: GridQuery, page: Page[Hit], explainer: str) -> list[Tile]:
    made = []
    for number, hit in enumerate(page, page.offset + 1):
        wanted = hit.labels[0] if hit.labels and query.each == "label" else _active(hit, query)
        one = card(opened, query, hit, [explainer] if explainer else [], wanted, notes=False)
        label = next((label for label in one.labels if label.active), None)
        at = None if label is None or wanted is None else label.label
        made.append(Tile(sample=one, label=label, link=sample_address(query, number, at)))
    return made


def _active(hit: Hit, query: GridQuery) -> int | None:
    """The label that a sample is shown with: one that a filter is about, else the network's answer."""
    if query.labels or query.flags or query.queue:
        return None
    predicted = hit.record.predicted
    return predicted if predicted in hit.record.labels and not hit.record.detections else None


def sample_address(query: GridQuery, number: int, label: int | None = None) -> str:
    """Returns the address of the page of the sample that is the number-th of those that meet the filters."""
    shared = {name: getattr(query, name) for name in SampleQuery.model_fields if name in GridQuery.model_fields}
    return "sample" + asking(SampleQuery, **{**shared, "page": number, "limit": 1, "label": label})


def _explainer(opened: Opened, name: str, queue: str) -> str:
    """The one that is asked for, or that the queue is about, or the first that looks at the network."""
    drawn = opened.run.drawn
    if name and name not in drawn:
        raise UnknownName(f"There are no maps of {name!r}. {nearest(name, list(drawn))}")
    about = opened.run.queues[queue].about if queue in opened.run.queues else ""
    return name or (about if about in drawn else next(iter(drawn), ""))


_RIGHT = {True: "right", False: "wrong"}
_REVIEWED = {True: "reviewed", False: "not reviewed"}
_FAILED = {True: "something failed", False: "nothing failed"}


def chips(opened: Opened, query: Filters) -> list[Choice]:
    """Returns the filters that come from other pages, in words; their value is the address without the filter."""
    name = opened.run.class_name
    words: dict[str, str] = {
        "right": _RIGHT.get(query.right, "") if query.right is not None else "",
        "there": "" if query.there is None else f"truly {name(query.there)}",
        "missed": "" if query.missed is None else f"missed: {name(query.missed)}",
        "mistaken": "" if query.mistaken is None else f"said, not there: {name(query.mistaken)}",
        "confidence": _range(query.confidence, opened.run.quantity),
        "failed": _FAILED.get(query.failed, "") if query.failed is not None else "",
        "warning": query.warning, "note": query.note,
        "reviewed": _REVIEWED.get(query.reviewed, "") if query.reviewed is not None else "",
        "verdicts": " or ".join(query.verdicts),
        "picks": f"{len(query.picks)} chosen" if query.picks else "",
    }  # fmt: skip
    usual = {field: about.get_default() for field, about in type(query).model_fields.items()}
    return [
        Choice(value=address(query, **{field: usual[field], "page": 1}), name=text)
        for field, text in words.items()
        if text
    ]


def _range(text: str, quantity: str) -> str:
    low, _, high = text.partition(",")
    if not text:
        return ""
    return f"{quantity} of the answer from {low} to {high}" if high else f"{quantity} of the answer from {low} on"


def queues(opened: Opened, query: QueuesQuery) -> QueuesPage:
    """Returns the page of queues."""
    made = []
    for line in queue_lines(opened):
        each: Literal["sample", "label"] = "sample" if opened.run.exclusive else "label"
        asking = GridQuery(queue=line.name, each=each, limit=_SHOWN)
        tiles = grid(opened, asking).tiles if line.count.labels else []
        made.append(QueuePreview(queue=line, tiles=tiles))
    return QueuesPage(
        run=opened.place.key, version=opened.version, queues=made, missing=dict(opened.run.missing_queues)
    )

"""The saliency page: samples with their labels, and a map of each explainer for the label that is active."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlencode

from seewhy.draw.scale import Scale
from seewhy.errors import InvalidInput, UnknownName
from seewhy.runs.folder.reviews import Review
from seewhy.runs.query.filters import Asked
from seewhy.runs.query.run import Hit, Page, SampleRecord
from seewhy.web.colours import SIGNED
from seewhy.web.directions import falls
from seewhy.web.library import Opened
from seewhy.web.pictures import flat
from seewhy.web.queries import Filters, Looked, SaliencyQuery

__all__ = [
    "Choice",
    "LabelCard",
    "MapCard",
    "SaliencyPage",
    "SampleCard",
    "Value",
    "asked",
    "card",
    "frame",
    "picture_urls",
    "saliency",
    "single",
    "sorts",
]


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric's value of a map.

    Attributes:
        metric: its label.
        value: None where it was judged and there are no data.
        better: "higher" or "lower".
        said: what the metric says beside its value; "" where it says nothing.
    """

    metric: str
    value: float | None
    better: str
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class MapCard:
    """A map, or why there is none.

    Attributes:
        explainer: its label.
        number: of the explainer in the run.
        url: of the grey picture, below the run's own address; "" where there is no map.
        low: the map's smallest value.
        high: its largest value.
        scale: the values of its first and last colour, whether 0 stands in the middle of them, and whether some values
            lie beyond.
        size: (height, width) in cells.
        flat: whether it has one value everywhere.
        nothing: why it shows nothing, so that it is drawn faint; "" where it shows something.
        values: of the metrics.
        missing: why there is no map.
    """

    explainer: str
    number: int
    url: str = ""
    low: float | None = None
    high: float | None = None
    scale: Scale | None = None
    size: tuple[int, int] | None = None
    flat: bool = False
    nothing: str = ""
    values: list[Value]
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelCard:
    """A label of a sample.

    Attributes:
        label: class index, or the number of a detector's box: it names the label in addresses.
        index: class index.
        name: of the class.
        number: of a detector's box, counted from 1; None for a class.
        detected: the box: x0, y0, x1, y1 in pixels of the original; None for a class.
        overlap: with the best true box of the class (intersection over union), or None.
        flag: "TP", "FN", "FP", "TN" or None.
        answer: where classes exclude each other and this is the likeliest: "predicted, right", "predicted, wrong" or
            "predicted"; else None.
        probability: what the network says.
        mean: Monte-Carlo mean, or None.
        std: its standard deviation, or None.
        low: lower end of the 95 % interval, or None.
        high: upper end.
        outside: whether the probability lies outside of its own interval: without dropout the network says something
            that it hardly ever says with it.
        meets: whether it meets the filters.
        active: whether its maps are shown.
        maps: of the explainers that are shown, if it is active.
    """

    label: int
    index: int
    name: str
    number: int | None = None
    detected: tuple[float, float, float, float] | None = None
    overlap: float | None = None
    flag: str | None
    answer: str | None = None
    probability: float
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    outside: bool = False
    meets: bool
    active: bool
    maps: list[MapCard]


@dataclass(frozen=True, kw_only=True)
class SampleCard:
    """What the saliency page shows of one sample.

    Attributes:
        sample: its key.
        position: in the data.
        name: for people.
        size: (height, width) of the original in pixels.
        box: x0, y0, x1, y1: what the network saw, in its pixels.
        boxes: (label, x0, y0, x1, y1) of the truth.
        picture: address of the small picture below the run's own; "" where there is none.
        large: address of the large picture.
        entropy: in nats, or None.
        mutual_information: in nats, or None.
        labels: all of them, those that meet the filters first.
        notes: warnings of the run about this sample.
        failures: what could not be done.
        reviews: what reviewers say of it.
    """

    sample: str
    position: int
    name: str
    size: tuple[int, int] | None
    box: tuple[float, float, float, float] | None
    boxes: list[tuple[int, float, float, float, float]]
    picture: str
    large: str
    entropy: float | None
    mutual_information: float | None
    labels: list[LabelCard]
    notes: list[str]
    failures: list[str]
    reviews: list[Review]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something that can be chosen, and how often there is some."""

    value: str
    name: str
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class SaliencyPage:
    """A page of samples.

    Attributes:
        run: the run's key.
        version: grows when there is more to be read.
        total: samples that meet the filters.
        page: of them, from 1.
        pages: how many there are.
        explainers: of the run.
        shown: those that are shown.
        flags: that there are, with how many labels have them.
        chosen: the classes of the filter.
        sorts: the orders there are.
        falls: whether the largest value comes first.
        worst: whether it does so where nobody asks: worst first.
        threshold: of the probability above which a class counts as predicted.
        uncertain: whether the run knows how sure the network is.
        detects: whether the labels are boxes of a detector.
        quantity: what the network's numbers are: "probability", "logit" or "value".
        samples: of this page.
    """

    run: str
    version: int
    total: int
    page: int
    pages: int
    explainers: list[str]
    shown: list[str]
    flags: list[Choice]
    chosen: list[Choice]
    sorts: list[Choice]
    falls: bool
    worst: bool
    threshold: float | None
    uncertain: bool
    detects: bool
    quantity: str
    samples: list[SampleCard]


def saliency(opened: Opened, query: SaliencyQuery) -> SaliencyPage:
    """Returns the page that an address asks for.

    Raises:
        InvalidInput: a filter that cannot be used.
        UnknownName: an explainer or an order that the run does not have.
    """
    run, version, counts = opened.run, opened.version, opened.counts()
    names = shown(opened, query)
    found = hits(opened, query)
    on = dict(one.split(".") for one in query.on)
    return SaliencyPage(
        run=opened.place.key, version=version, total=found.total, page=query.page,
        pages=max(1, -(-found.total // query.limit)), explainers=list(run.drawn), shown=names,
        flags=[Choice(value=f, name=f, count=n) for f, n in counts.flags.items() if n or f != "TN"],
        chosen=[Choice(value=str(label), name=run.class_name(label)) for label in query.labels],
        sorts=sorts(opened), falls=asked(opened, query)["descending"],
        worst=falls(run.settings, query.sort, None), threshold=run.settings.get("threshold"),
        uncertain=bool(run.settings.get("uncertainty")), detects=run.detects,
        quantity=run.quantity,
        samples=[_sample(opened, query, hit, names, on) for hit in found],
    )  # fmt: skip


def single(opened: Opened, query: SaliencyQuery, sample: str) -> SaliencyPage:
    """Returns a page with one sample, found by its key or its name, whatever the filters say.

    Raises:
        UnknownName: the run has no such sample, or several of that name.
    """
    record = opened.run.sample(sample)
    if record is None:
        named = [hit.record for hit in opened.run.samples(text=sample, limit=96) if hit.record.name == sample]
        if len(named) != 1:
            several = (
                f"{len(named)} pictures called {sample!r}: use the key of one" if named else f"no picture {sample!r}"
            )
            raise UnknownName(f"The run in {opened.run.address!r} has {several}.")
        record = named[0]
    page, on = saliency(opened, query), dict(one.split(".") for one in query.on)
    hit = Hit(record=record, labels=tuple(record.labels))
    card = _sample(opened, query, hit, page.shown, on)
    return replace(page, total=1, page=1, pages=1, samples=[card])


def shown(opened: Opened, query: SaliencyQuery) -> list[str]:
    """Returns the explainers of the run that are shown, in its order."""
    every = opened.run.drawn
    return list(every) if query.explainers is None else [name for name in every if name in query.explainers]


def asked(opened: Opened, query: Filters) -> Asked:
    """Returns the filters and the order of an address, as the run takes them."""
    run = opened.run
    sort = "queue" if query.queue and query.sort == "position" else query.sort
    falling = run.queues[query.queue].descending if sort == "queue" and query.queue in run.queues else None
    lists: dict[str, Any] = {
        "labels": query.labels, "flags": query.flags, "text": query.text, "warning": query.warning,
        "note": query.note, "queue": query.queue, "verdicts": query.verdicts, "positions": query.picks,
        "confidence": _ends(query.confidence),
    }  # fmt: skip
    single: dict[str, Any] = {
        "right": query.right, "there": query.there, "missed": query.missed, "mistaken": query.mistaken,
        "failed": query.failed, "reviewed": query.reviewed, "min_probability": query.least,
        "max_probability": query.most, "sort": sort, "offset": (query.page - 1) * query.limit, "limit": query.limit,
    }  # fmt: skip
    down = falls(run.settings, query.sort, query.descending)
    single["descending"] = down if falling is None or query.descending is not None else falling
    return cast(Asked, {**{name: value or None for name, value in lists.items()}, **single})


def _ends(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        low, high = text.split(",")
        return float(low), float(high or math.inf)
    except ValueError as error:
        raise InvalidInput(f"confidence must be FROM,TO, got {text!r}.") from error


def hits(opened: Opened, query: SaliencyQuery) -> Page[Hit]:
    """Returns the samples of the page."""
    return opened.run.samples(**asked(opened, query))


def frame(record: SampleRecord) -> tuple[int, int] | None:
    """(height, width) that a sample is drawn in: of the original, else of what there is of it."""
    if record.size is not None:
        return record.size
    if record.thumbnail is not None:
        return record.thumbnail[1].height, record.thumbnail[1].width
    return None


def picture_urls(record: SampleRecord) -> tuple[str, str]:
    """Returns the addresses of the small and the large picture, below the run's own; "" where there is none."""
    if record.thumbnail is None:
        return "", ""
    part, place = record.thumbnail
    which = urlencode({"sample": record.sample, "v": f"{part}.{place.offset}"})
    return f"thumbnail?{which}", f"picture?{urlencode({'sample': record.sample, 'v': record.digest or part})}"


_NAMES = {
    "position": "Order of the data", "uncertainty": "Uncertainty (deviation)",
    "entropy": "Entropy", "mutual_information": "Mutual information",
}  # fmt: skip


def sorts(opened: Opened) -> list[Choice]:
    """Returns the orders that can be chosen."""
    unsure = bool(opened.run.settings.get("uncertainty"))
    names = _NAMES | {"probability": opened.run.quantity.capitalize()}
    found = []
    for name in opened.run.sorts:
        if name in ("uncertainty", "entropy", "mutual_information") and not unsure:
            continue
        found.append(Choice(value=name, name=names.get(name) or _spoken(opened, name)))
    return found


def _spoken(opened: Opened, name: str) -> str:
    if name.startswith("disagreement:"):
        return f"Disagreement in {name.removeprefix('disagreement:')}"
    for explainer in opened.run.explainers:
        if name.startswith(f"score:{explainer}:"):
            return f"{name.removeprefix(f'score:{explainer}:')} of {explainer}"
    return name


def _sample(opened: Opened, query: SaliencyQuery, hit: Hit, names: list[str], on: dict[str, str]) -> SampleCard:
    wanted = int(on.get(str(hit.record.position), -1))
    return card(opened, query, hit, names, wanted, every=query.every)


def card(
    opened: Opened, query: Looked, hit: Hit, names: list[str], wanted: int | None = None, *, every: bool = False,
    notes: bool = True,
) -> SampleCard:  # fmt: skip
    """Returns a sample.

    Args:
        opened: the run.
        query: the order of the labels, and the colours.
        hit: the sample, and its labels that meet the filters.
        names: the explainers whose maps are shown.
        wanted: the label whose maps are shown, if the sample has it.
        every: whether the maps of all labels are.
        notes: whether it has its notes, for which its original is looked at.
    """
    record = hit.record
    order = _order(hit, query.sort)
    active = wanted if wanted in record.labels else next(iter(order), None)
    small, large = picture_urls(record)
    return SampleCard(
        sample=record.sample, position=record.position, name=record.name, size=frame(record), box=record.box,
        boxes=list(record.boxes), picture=small, large=large, entropy=record.entropy,
        mutual_information=record.mutual_information,
        labels=[
            _label(opened, query, record, one, one in hit.labels, names if every or one == active else None)
            for one in order
        ],
        notes=_notes(opened, record, names) if notes else [],
        failures=_failures(opened, record.failures), reviews=list(record.reviews),
    )  # fmt: skip


def _order(hit: Hit, sort: str) -> list[int]:
    """Labels that meet the filters come first, in the order asked for; without one, and after them, the likeliest."""
    known = hit.record.labels
    likely = sorted(known, key=lambda one: -known[one].probability)
    meeting = [one for one in likely if one in hit.labels] if sort == "position" else list(hit.labels)
    return [*meeting, *(one for one in likely if one not in hit.labels)]


def _label(
    opened: Opened, query: Looked, record: SampleRecord, label: int, meets: bool, names: list[str] | None
) -> LabelCard:
    """Returns a label; without names it is not the active one, and has no maps."""
    own, unsure = record.labels[label], record.uncertainty.get(label)
    index, box = record.class_of(label), record.detections.get(label)
    return LabelCard(
        label=label, index=index, name=opened.run.class_name(index), number=None if box is None else label + 1,
        detected=box.box if box else None, overlap=box.overlap if box else None, flag=own.flag,
        answer=_answer(opened, record, label), probability=own.probability,
        outside=unsure is not None and not unsure.low <= own.probability <= unsure.high,
        mean=unsure.mean if unsure else None, std=unsure.std if unsure else None,
        low=unsure.low if unsure else None, high=unsure.high if unsure else None, meets=meets,
        active=names is not None, maps=[_map(opened, query, record, label, name) for name in names or ()],
    )  # fmt: skip


def _answer(opened: Opened, record: SampleRecord, label: int) -> str | None:
    """What a softmax network says is there, and whether it is."""
    if not opened.run.exclusive or label != record.predicted:
        return None
    there = record.labels[label].truth
    return "predicted" if there is None else f"predicted, {'right' if there else 'wrong'}"


def _map(opened: Opened, query: Looked, record: SampleRecord, label: int, name: str) -> MapCard:
    stored = record.maps.get((label, name))
    number = opened.run.explainers.index(name)
    values = _values(opened, record, label, name)
    if stored is None:
        return MapCard(explainer=name, number=number, values=values, missing=_why(record, label, name))
    nothing = record.nothing(label, name)
    signed = True if query.colours == SIGNED else None
    scale = opened.run.scale(stored.row, signed=signed, faint=bool(nothing))
    which = {"sample": record.sample, "label": label, "explainer": name, "v": f"{stored.part}.{stored.row.offset}"}
    looks = {"fine": stored.row.encoding != "png", "signed": scale.signed, "faint": bool(nothing)}
    which |= {look: "true" for look, on in looks.items() if on}
    return MapCard(
        explainer=name, number=number, url=f"map?{urlencode(which)}", low=stored.row.low, high=stored.row.high,
        scale=scale, size=(stored.row.height, stored.row.width), flat=flat(stored), nothing=nothing, values=values,
    )  # fmt: skip


def _values(opened: Opened, record: SampleRecord, label: int, name: str) -> list[Value]:
    about = opened.run.settings.get("metrics") or {}
    return [
        Value(
            metric=m, value=record.scores[label, name, m], better=about.get(m, {}).get("better", "higher"),
            said=record.said.get((label, name, m), ""),
        )
        for m in opened.run.metrics
        if (label, name, m) in record.scores
    ]  # fmt: skip


def _why(record: SampleRecord, label: int, name: str) -> str:
    for failure in record.failures:
        if failure.explainer in (None, name) and failure.metric is None and failure.label in (None, label):
            return failure.reason
    return "Not computed (yet)."


LOOKED_AT = 16 * 1024 * 1024  # bytes of an original that are compared while a page is made


def _notes(opened: Opened, record: SampleRecord, names: list[str]) -> list[str]:
    def called(label: int) -> str:
        return f"box {label + 1}" if record.detections else opened.run.class_name(label)

    costs = [(name, record.costs[name]) for name in names if name in record.costs]
    own = [f"{name}: {text}" for name, cost in costs for text in cost.sentences(called)]
    said = opened.run.remark(record, LOOKED_AT)
    return list(dict.fromkeys([*record.warnings, *own, *filter(None, [said])]))


def _failures(opened: Opened, failures: Iterable[Any]) -> list[str]:
    found = []
    for one in failures:
        label = None if one.label is None else opened.run.class_name(one.label)
        about = ", ".join(part for part in (one.task, one.explainer, one.metric, label) if part)
        found.append(f"{about}: {one.reason}")
    return found

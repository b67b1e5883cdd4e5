"""The page of one sample: original and maps side by side, its scores beside those of chance, and what is said."""

from __future__ import annotations

from dataclasses import dataclass

from seewhy.runs.folder.reviews import VERDICTS
from seewhy.runs.query.run import SampleRecord
from seewhy.web.grid import chips, found
from seewhy.web.library import Opened
from seewhy.web.overview import QueueLine, queue_lines
from seewhy.web.queries import GridQuery, SampleQuery, address
from seewhy.web.saliency import Choice, LabelCard, SampleCard, card

__all__ = ["Level", "SamplePage", "ScoreLine", "sample"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A metric's value of an explainer's map.

    Attributes:
        explainer: its label.
        value: of this map; None where there are no data.
        mean: of the explainer over the run, or None.
        chance: whether the explainer looks at nothing.
    """

    explainer: str
    value: float | None
    mean: float | None
    chance: bool


@dataclass(frozen=True, kw_only=True)
class ScoreLine:
    """A metric's values of all maps of a label.

    Attributes:
        metric: its label.
        better: "higher" or "lower".
        levels: of the explainers, those that look at nothing last.
        said: explainer -> what the metric says beside its value.
    """

    metric: str
    better: str
    levels: list[Level]
    said: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SamplePage:
    """One sample.

    Attributes:
        run: the run's key.
        version: grows when there is more to be read.
        total: samples (or labels) that meet the filters.
        page: which of them this is, from 1.
        pages: the same as ``total``, at least 1.
        sample: it; None where nothing meets the filters.
        label: the one whose maps are shown.
        explainers: whose maps can be shown.
        shown: whose maps are.
        scores: of the label's maps.
        active: the filters, in words.
        queue: that is gone through, or None.
        grid: address of the page of the grid that has it, below the run's own.
        verdicts: what a reviewer can say.
        quantity: what the network's numbers are.
    """

    run: str
    version: int
    total: int
    page: int
    pages: int
    sample: SampleCard | None
    label: LabelCard | None
    explainers: list[str]
    shown: list[str]
    scores: list[ScoreLine]
    active: list[Choice]
    queue: QueueLine | None
    grid: str
    verdicts: tuple[str, ...]
    quantity: str


def sample(opened: Opened, query: SampleQuery) -> SamplePage:
    """Returns the page that an address asks for.

    Raises:
        InvalidInput: a filter that cannot be used.
        UnknownName: an explainer, a queue or an order that the run does not have.
    """
    run, version = opened.run, opened.version
    page = found(opened, query)
    names = [name for name in run.drawn if query.explainers is None or name in query.explainers]
    hit = page.items[0] if page.items else None
    wanted = query.label
    if hit is not None and wanted is None and query.each == "label":
        wanted = hit.labels[0]
    one = None if hit is None else card(opened, query, hit, names, wanted)
    label = None if one is None else next((own for own in one.labels if own.active), None)
    return SamplePage(
        run=opened.place.key, version=version, total=page.total, page=query.page, pages=max(1, page.total),
        sample=one, label=label, explainers=list(run.drawn), shown=names,
        scores=[] if hit is None or label is None else _scores(opened, hit.record, label.label),
        active=chips(opened, query), queue=next((q for q in queue_lines(opened) if q.name == query.queue), None),
        grid=_grid(query), verdicts=VERDICTS, quantity=run.quantity,
    )  # fmt: skip


def _grid(query: SampleQuery) -> str:
    """The page of the grid, with as many samples as it usually has, that the sample is on."""
    usual = GridQuery.model_fields["limit"].default
    shared = {name: getattr(query, name) for name in GridQuery.model_fields if name in SampleQuery.model_fields}
    shared |= {"limit": usual, "page": 1 + (query.page - 1) // usual}
    return "grid" + address(GridQuery(**shared))


def _scores(opened: Opened, record: SampleRecord, label: int) -> list[ScoreLine]:
    run = opened.run
    about = run.settings.get("metrics") or {}
    means = {(one.explainer, one.metric): one.mean for one in opened.once("scores", run.scores)}
    chance = set(opened.once("judged", run.judged).baselines)
    order = sorted(run.explainers, key=lambda name: name in chance)
    lines = []
    for metric in run.metrics:
        levels = [
            Level(
                explainer=name, value=record.scores[label, name, metric], mean=means.get((name, metric)),
                chance=name in chance,
            )
            for name in order
            if (label, name, metric) in record.scores
        ]  # fmt: skip
        said = {name: record.said[label, name, metric] for name in order if (label, name, metric) in record.said}
        better = str(about.get(metric, {}).get("better", "higher"))
        lines.append(ScoreLine(metric=metric, better=better, levels=levels, said=said))
    return [line for line in lines if line.levels]

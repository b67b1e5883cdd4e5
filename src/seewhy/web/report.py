"""A run told in one HTML file that stands alone: for a mail, a printer, an auditor. Nothing in it is fetched or run.

What was run and with what (digests, versions, the command), how often the network is right, which explainers beat
chance, where it is worse than elsewhere, the images that a reviewer should see first, failures, notes and all settings.
"""

from __future__ import annotations

import base64
import heapq
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seewhy.checks import check_count
from seewhy.draw import overlay as drawing
from seewhy.errors import InvalidInput
from seewhy.images import decoding
from seewhy.images.view import View
from seewhy.insights.properties import wrong
from seewhy.insights.slices import Slices, slices
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run
from seewhy.statistics import Interval, interval
from seewhy.web import pictures
from seewhy.web.rendering import render

__all__ = ["report"]

SIDE = 220  # pixels of a picture's long side
CLASSES = 15
FAILURES = 30


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image of the report.

    Attributes:
        name: for people.
        truth: names of what is truly there, or "".
        said: what the network says, and its number.
        picture: the image as a data URL, "" where there is none.
        maps: (what is drawn, data URL, why it shows nothing or "").
    """

    name: str
    truth: str
    said: str
    picture: str
    maps: list[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class: how many images truly have it, and how many of them the network gets right."""

    name: str
    images: int
    right: Interval


def report(
    run: Run | str | os.PathLike[str], out: str | os.PathLike[str], *, table: str | os.PathLike[str] | None = None,
    samples: int = 8,
) -> Path:  # fmt: skip
    """Writes what a run found into one HTML file.

    Args:
        run: a run, or its folder.
        out: the file.
        table: a CSV file of metadata that groups of images may be told by; see `seewhy.slices`.
        samples: images shown of each kind; 0 for none.

    Raises:
        InvalidInput: no folder of a run, or a table that cannot be read.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     seewhy.report(run, place + "/report.html").stat().st_size > 5000
        True
    """
    check_count("samples", samples, 0)
    opened = run if isinstance(run, Run) else Run(run)
    answers, rows = _answers(opened)
    try:
        groups: Slices | None = slices(opened, table=table)
    except InvalidInput:
        if table is not None and answers is not None:
            raise
        groups = None  # no truth, no errors
    text = render(
        "report.html", run=None, opened=opened, settings=opened.settings, made=datetime.now(UTC), answers=answers,
        classes=rows, groups=groups, judged=_judged(opened), costs=opened.costs(), counts=opened.counts(),
        notes=opened.notes(), failures=list(islice(opened.failures(0, FAILURES), FAILURES)),
        kinds=[(title, list(_shown(opened, found))) for title, found in _chosen(opened, samples)],
        everything=json.dumps(opened.settings, indent=1, ensure_ascii=False, sort_keys=True), damaged=opened.damaged,
    )  # fmt: skip
    Path(out).write_text(text, encoding="utf-8")
    return Path(out)


def _answers(run: Run) -> tuple[Interval | None, list[ClassRow]]:
    """How often the network is right, and the classes with the most errors."""
    every: list[float] = []
    by_class: dict[int, list[float]] = {}
    for record in run.records():
        bad = wrong(run, record)
        if bad is not None:
            every.append(float(not bad))
            for label in record.truth or ():
                by_class.setdefault(label, []).append(float(not bad))
    rows = [
        ClassRow(name=run.class_name(label), images=len(values), right=interval(np.array(values), ends=(0, 1)))
        for label, values in by_class.items()
    ]
    rows.sort(key=lambda row: (row.right.mean, -row.images, row.name))
    return (interval(np.array(every), ends=(0, 1)) if every else None), rows[:CLASSES]


def _judged(run: Run) -> list[dict[str, Any]]:
    """Returns a table a metric: means with intervals, and what is really better than chance."""
    table, found = run.judged(), []
    for m, metric in enumerate(table.metrics):
        best = table.best(metric)
        beats = {name: table.beaten(name, metric) for name in table.explainers}
        rows = [
            {
                "explainer": mean.explainer, "mean": mean, "chance": mean.explainer in table.baselines,
                "above": bool(table.baselines) and all(b in beats[mean.explainer] for b in table.baselines),
            }
            for mean in table.means if mean.metric == metric and mean.n
        ]  # fmt: skip
        if rows:
            found.append({"metric": metric, "better": table.better[m], "rows": rows, "best": best})
    return found


def _chosen(run: Run, most: int) -> Iterator[tuple[str, list[SampleRecord]]]:
    """Kinds of images that a reviewer should see first."""
    if not most:
        return
    sure: list[tuple[float, str, SampleRecord]] = []
    unsure: list[tuple[float, str, SampleRecord]] = []
    first: list[SampleRecord] = []
    for record in run.records():
        bad = wrong(run, record)
        number = record.probability or 0.0
        if bad:
            _keep(sure, (number, record.sample, record), most)
        elif bad is False:
            _keep(unsure, (-number, record.sample, record), most)
        if len(first) < most:
            first.append(record)
    if sure:
        yield "Wrong, and most confident", [record for _, _, record in sorted(sure, reverse=True)]
    if unsure:
        yield "Right, and least confident", [record for _, _, record in sorted(unsure, reverse=True)]
    if not sure and not unsure:
        yield "The first images", first


def _keep(heap: list[tuple[float, str, SampleRecord]], one: tuple[float, str, SampleRecord], most: int) -> None:
    """Keeps the largest; the key of the image decides between equals."""
    heapq.heappush(heap, one)
    if len(heap) > most:
        heapq.heappop(heap)


def _shown(run: Run, records: list[SampleRecord]) -> Iterator[Shown]:
    for record in records:
        stored = pictures.thumbnail(run, record.sample)
        if stored is None:
            small = None
        else:
            with decoding.opened(io.BytesIO(stored.data), formats=("PNG", "JPEG")) as image:
                small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
        said = "" if record.predicted is None else f"{run.class_name(record.predicted)} {record.probability:.3f}"
        truth = ", ".join(run.class_name(label) for label in record.truth or ())
        yield Shown(
            name=record.name, truth=truth, said=said, picture="" if small is None else _url(small),
            maps=[] if small is None else list(_maps(run, record, small)),
        )  # fmt: skip


def _maps(run: Run, record: SampleRecord, small: Image.Image) -> Iterator[tuple[str, str, str]]:
    """One map of each explainer: of what the network says, or else of the first label."""
    for explainer in run.drawn:
        labels = [label for label, by in record.maps if by == explainer]
        if not labels:
            continue
        label = next((one for one in labels if record.class_of(one) == record.predicted), labels[0])
        values, nothing = run.map(record.sample, label, explainer), record.nothing(label, explainer)
        if values is None:
            continue
        scale = run.scale(record.maps[label, explainer].row, faint=bool(nothing))
        size = record.size or (small.height, small.width)
        view = View(original=size, box=record.box) if record.box else View.identity(*size)
        laid = view.scaled(small.height, small.width).to_original(
            pictures.levels(values, scale).astype(np.float32) / 255
        )
        made = drawing.overlay(small, laid.clip(0, 1), signed=scale.signed)
        yield f"{explainer}, {run.class_name(record.class_of(label))}", _url(made), nothing


def _url(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"

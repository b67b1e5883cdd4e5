"""What can be said of each image of a run without the network: of the picture, its maps, how sure the network is.

Brightness and contrast (mean and deviation of the grey values, 0..1) and sharpness (mean size of the steps between
neighbouring pixels, as a share of the contrast) are those of the thumbnail. A map's entropy is that of its positive
mass over places, as a share of the largest there can be; "at the border" is the share of the mass in the outer eighth
on each side; "off the object" the share outside the true boxes. A table of metadata adds columns of its own.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.insights.places import GRID, share, spread
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run

__all__ = ["Value", "chosen", "metadata", "of_metadata", "properties", "wrong"]

Value = float | str
EDGE = GRID // 8


def wrong(run: Run, record: SampleRecord) -> bool | None:
    """Says whether the network is wrong about an image; None where the truth or an answer is missing.

    Where classes exclude each other it is wrong when its answer is not there; of several labels, and of a detector,
    when one of them is missed or found where it is not.
    """
    if record.truth is None or record.predicted is None:
        return None
    if run.exclusive:
        return record.predicted not in record.truth
    return any(row.flag in ("FN", "FP") for row in record.labels.values())


def properties(run: Run, record: SampleRecord, explainer: str | None) -> dict[str, Value]:
    """Name -> value, of what is known.

    Args:
        run: the run.
        record: the image.
        explainer: whose maps are looked at; None for none.
    """
    found = dict(_of_picture(run, record))
    if record.truth and len(record.truth) == 1:
        found["true class"] = run.class_name(record.truth[0])
    sure = {"entropy": record.entropy, "mutual information": record.mutual_information}
    found |= {name: value for name, value in sure.items() if value is not None}
    deviations = [row.std for row in record.uncertainty.values()]
    if deviations:
        found["dropout deviation"] = float(np.mean(deviations))
    if explainer is not None:
        found |= _of_maps(run, record, explainer)
    return {name: value for name, value in found.items() if isinstance(value, str) or math.isfinite(value)}


def _of_picture(run: Run, record: SampleRecord) -> Iterator[tuple[str, Value]]:
    if record.size is not None:
        height, width = record.size
        yield "width to height", width / height
        yield "pixels", float(height * width)
    stored = run.thumbnail(record.sample)
    if stored is None:
        return
    grey = np.asarray(Image.open(io.BytesIO(stored[0]), formats=("PNG", "JPEG")).convert("L"), dtype=np.float64) / 255
    contrast = float(grey.std())
    yield "brightness", float(grey.mean())
    yield "contrast", contrast
    if contrast > 0 and min(grey.shape) > 1:
        steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
        yield "sharpness", float(steps / 2 / contrast)


def _of_maps(run: Run, record: SampleRecord, explainer: str) -> dict[str, Value]:
    """Returns the properties of the map of what the network says, or else of the first label's."""
    labels = [label for label, by in record.maps if by == explainer]
    chosen = next((label for label in labels if record.class_of(label) == record.predicted), next(iter(labels), None))
    values = None if chosen is None else run.map(record.sample, chosen, explainer)
    if values is None or record.box is None or chosen is None:
        return {}
    even = spread(values, record.box, record.box)
    mass = np.maximum(even, 0)
    if not mass.sum() > 0:
        return {}
    parts = mass[mass > 0] / mass.sum()
    inner = mass[EDGE:-EDGE, EDGE:-EDGE].sum() / mass.sum()
    entropy = -(parts * np.log(parts)).sum() / math.log(mass.size)
    found: dict[str, Value] = {"map entropy": float(entropy), "map at the border": float(1 - inner)}
    boxes = [(x0, y0, x1, y1) for _, x0, y0, x1, y1 in record.boxes]
    if boxes:
        found["map off the object"] = 1 - share(even, boxes, record.box)
    return found


def metadata(path: str | os.PathLike[str]) -> dict[str, dict[str, Value]]:
    """A CSV file's columns by image: name or key of the image -> column -> value; numbers where all of them are.

    Args:
        path: of a table with a column "sample", "name" or "image".

    Raises:
        InvalidInput: it cannot be read, or has no such column.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidInput(f"The metadata {str(path)!r} cannot be read: {error}") from error
    names = list(rows[0]) if rows else []
    key = next((name for name in ("sample", "name", "image") if name in names), None)
    if key is None:
        raise InvalidInput(f"The metadata {str(path)!r} need a column sample, name or image, got {', '.join(names)}.")
    columns = {name: _column([row[name] for row in rows]) for name in names if name != key}
    return {
        row[key]: {name: value for name, values in columns.items() if (value := values[i]) is not None}
        for i, row in enumerate(rows)
    }


def _column(texts: list[str | None]) -> list[Value | None]:
    names: list[Value | None] = [text or None for text in texts]
    try:
        numbers: list[Value | None] = [float(text) if text else None for text in texts]
    except ValueError:
        return names
    return numbers if len(set(names) - {None}) > 6 else names  # a few numbers are names


def chosen(run: Run, explainer: str | None) -> str | None:
    """Returns the explainer whose maps are looked at: the named one, or the first of the run.

    Raises:
        UnknownName: the run does not have it.
    """
    if explainer is None:
        return next(iter(run.explainers), None)
    if explainer not in run.explainers:
        raise UnknownName(
            f"The run {run.address!r} has no explainer {explainer!r}. {nearest(explainer, run.explainers)}"
        )
    return explainer


def of_metadata(known: Mapping[str, Mapping[str, Value]], record: SampleRecord) -> Mapping[str, Value]:
    """Returns an image's metadata, by its key or its name."""
    return known.get(record.sample) or known.get(record.name) or {}

"""A map of a run folder as the `Explanation` that it was: to be looked at in a notebook, drawn and saved."""

from __future__ import annotations

import io

import torch
from PIL import Image

from seewhy.attribution import about_all
from seewhy.boxes import Box
from seewhy.errors import InvalidInput
from seewhy.explanation import Explanation
from seewhy.images.decoding import opened
from seewhy.images.reading import read
from seewhy.images.view import View
from seewhy.runs.folder.rows import CostRow
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run
from seewhy.types import Note, Passes

__all__ = ["explanation"]


def explanation(run: Run, sample: str, explainer: str, label: int | None = None) -> Explanation:
    """Returns the maps that an explainer made for a picture of a run.

    Args:
        run: the folder.
        sample: the picture's key.
        explainer: its label in the run.
        label: one class, or the number of a detector's box; None for all that were explained.

    Raises:
        InvalidInput: the run has no such map.
    """
    record = run.sample(sample)
    if record is None:
        raise InvalidInput(f"The run in {run.address!r} has no picture {sample!r}.")
    labels = [one for one, by in record.maps if by == explainer and label in (None, one)]
    if not labels or record.input is None or record.box is None or record.size is None:
        raise InvalidInput(f"The run in {run.address!r} has no map of {sample!r} by {explainer!r}.")
    picture, why = _picture(run, record)
    cost, about = record.costs.get(explainer), run.settings["explainers"][explainer]
    maps = [run.map(sample, one, explainer) for one in labels]
    probabilities = [record.labels[one].probability for one in labels]
    best = record.class_of(labels[0]) if record.predicted is None else record.predicted
    return Explanation(
        raw=torch.stack([torch.from_numpy(one) for one in maps])[None],
        size=record.input,
        targets=None if record.detections else torch.tensor([labels]),
        labels=[_names(run, record, labels)],
        probabilities=torch.tensor([probabilities]),
        predicted=[(run.class_name(best), record.probability or 0.0)],
        quantity=run.quantity,
        method=about["name"],
        parameters=about["parameters"],
        model=run.settings["model"]["name"],
        layer=cost.layer if cost else None,
        passes=Passes(round(cost.forward), round(cost.backward)) if cost else Passes(),
        seconds=cost.seconds if cost else 0.0,
        notes=(*about_all((*record.warnings, *why)), *(_notes(cost, labels) if cost else ())),
        preprocessing=run.settings["model"]["preprocessing"],
        pictures=[picture],
        views=[view := View(original=record.size, box=record.box)],
        names=[record.name],
        values=about.get("values", "size"),  # of earlier versions nothing is known
        boxes=[_boxes(record, labels, view, record.input)] if record.detections else [],
    )


def _names(run: Run, record: SampleRecord, labels: list[int]) -> list[str]:
    """Returns the classes; boxes of one class are counted."""
    plain = [run.class_name(record.class_of(one)) for one in labels]
    before = [plain[:t].count(name) for t, name in enumerate(plain)]
    return [f"{name} {count + 1}" if count else name for name, count in zip(plain, before, strict=True)]


def _notes(cost: CostRow, labels: list[int]) -> list[Note]:
    """Returns the notes about the maps that are shown."""
    own = [
        Note(text=one.text, kind=one.kind, image=0, target=None if one.label is None else labels.index(one.label))
        for one in cost.notes
        if one.label is None or one.label in labels
    ]
    return [*about_all(cost.warnings), *own]


def _boxes(record: SampleRecord, labels: list[int], view: View, size: tuple[int, int]) -> list[Box | None]:
    """Returns the boxes in pixels of the network's input."""
    return [view.box_to_input(record.detections[label].box, size) for label in labels]


def _picture(run: Run, record: SampleRecord) -> tuple[Image.Image, list[str]]:
    """Returns the original, where it still is what it was; else its thumbnail, enlarged, and why."""
    assert record.size is not None
    height, width = record.size
    found = run.original(record)
    why = [found.why] if found.why else []
    if found.data is not None:
        try:
            with opened(io.BytesIO(found.data)) as image:
                return read(image), [found.unchecked] if found.unchecked else []
        except Exception as error:  # whatever Pillow raises for a damaged picture
            why = [f"The original {record.source!r} cannot be read ({error}). The stored thumbnail is shown instead."]
    small = run.thumbnail(record.sample)
    if small is None:
        return Image.new("RGB", (width, height), "grey"), why
    with opened(io.BytesIO(small[0]), formats=("PNG", "JPEG")) as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), why

"""What the formats of experiment trackers share: maps as they are drawn, mean scores, and how the run was made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from seewhy.checks import check_count
from seewhy.errors import InvalidInput, MissingDependency
from seewhy.exports._pictures import chosen
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run, SampleRecord

__all__ = ["Shown", "Tracker", "empty", "facts", "means", "missing", "remarks"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A map over its image.

    Attributes:
        record: the image.
        explainer: by which the map is.
        class_name: what is explained.
        label: the class's index, or the number of a detector's box.
        image: the map over the original.
        caption: the image's name, what the network says of the class, and what is to be known.
        scores: metric -> value.
    """

    record: SampleRecord
    explainer: str
    class_name: str
    label: int
    image: Image.Image
    caption: str
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """What the formats of experiment trackers have in common.

    Attributes:
        explainers: whose maps are taken, a name or several; None for all.
        pictures: at most so many pictures' maps are taken; None for all.
    """

    explainers: tuple[str, ...] | str | None = None
    pictures: int | None = None

    def __post_init__(self) -> None:
        check_count("pictures", self.pictures, optional=True)

    def shown(self, run: Run) -> Iterator[Shown]:
        """Returns the maps, in the order of the data.

        Raises:
            UnknownName: an explainer that the run does not have.
        """
        wanted = chosen(self.explainers, run)
        for record in islice(run.records(), self.pictures):
            for label, explainer in record.maps:
                if explainer in wanted and None not in (record.input, record.box, record.size):
                    yield _shown(run, record, label, explainer)


def _shown(run: Run, record: SampleRecord, label: int, explainer: str) -> Shown:
    found = explanation(run, record.sample, explainer, label)
    values = {metric: record.scores.get((label, explainer, metric)) for metric in run.metrics}
    return Shown(
        record=record, explainer=explainer, class_name=found.labels[0][0], label=label, image=found.overlay(),
        caption="\n".join([f"{record.name}: {found.said()}", *found.warnings, *(one.line for one in record.reviews)]),
        scores={metric: value for metric, value in values.items() if value is not None},
    )  # fmt: skip


def means(run: Run) -> dict[str, float]:
    """EXPLAINER/METRIC -> mean over the pictures, where there are data."""
    return {f"{one.explainer}/{one.metric}": one.mean for one in run.scores() if one.mean is not None}


def remarks(run: Run) -> list[str]:
    """Counts the images of which, or of whose maps, something is to be known."""
    total = run.counts().samples
    found = [f"{one.pictures} of {total} pictures: {one.kind}" for one in run.warnings()]
    return [*found, *(f"{one.explainer}: {one.pictures} of {total} pictures: {one.kind}" for one in run.notes())]


def facts(run: Run) -> dict[str, Any]:
    """How the run was made: flat names and texts or numbers."""
    made = run.settings
    found = {
        "model": made["model"]["name"], "activation": made["activation"], "threshold": made["threshold"],
        "data": made["data"].get("root") or made["data"].get("kind"), "run": made["id"], "begun": made["created"],
        "pictures": run.counts().samples,
    }  # fmt: skip
    for label, about in made["explainers"].items():
        found |= {f"{label}.{name}": value for name, value in about["parameters"].items()}
    return {name: value if isinstance(value, int | float) else str(value) for name, value in found.items()}


def missing(library: str) -> MissingDependency:
    """Returns the error where the tracker's library is not installed."""
    return MissingDependency(f"Writing for {library} needs {library}. Install it: pip install {library}.")


def empty(out: str | os.PathLike[str], tracker: str) -> Path:
    """Returns the folder, which is made.

    Raises:
        InvalidInput: it exists and is not empty.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"The folder for {tracker} must be new or empty, got {str(out)!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""What the image formats share: maps on the original's pixels, and JSON that is written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.images.view import View
from seewhy.runs.query.run import Run, SampleRecord

__all__ = ["chosen", "dump", "view", "write_list"]


MOST_PIXELS = 1 << 28  # of an image on which maps are laid


def view(record: SampleRecord) -> View | None:
    """Where the network's input lies in the image; None where that is not known.

    Raises:
        InvalidInput: the image is too large.
    """
    size = record.size or record.input
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise InvalidInput(
            f"Picture {record.sample!r} has {size[0]} x {size[1]} pixels: maps are laid on up to {MOST_PIXELS}."
        )
    if size is None or (record.box is None and size != (record.input or size)):
        return None
    return View.identity(*size) if record.box is None else View(original=size, box=record.box)


def chosen(explainers: tuple[str, ...] | str | None, run: Run) -> tuple[str, ...]:
    """Returns the run's explainers, or those that are wanted of them: one by its name, several in a tuple.

    Raises:
        UnknownName: the run does not have one.
    """
    explainers = (explainers,) if isinstance(explainers, str) else explainers
    for name in explainers or ():
        if name not in run.drawn:
            raise UnknownName(f"There is no explainer {name!r}. {nearest(name, run.drawn)}")
    return run.drawn if explainers is None else explainers


def dump(value: Any) -> str:
    """Strict JSON: NaN is an error; ASCII, so that no reader guesses an encoding."""
    return json.dumps(value, allow_nan=False)


def write_list(file: TextIO, entries: Iterable[Any]) -> None:
    """A JSON list, one entry a line; the entries need not be in memory together."""
    file.write("[")
    for number, entry in enumerate(entries):
        file.write(",\n" if number else "\n")
        file.write(dump(entry))
    file.write("\n]")

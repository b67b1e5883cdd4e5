"""FiftyOne: a folder that ``fiftyone.Dataset.from_dir(..., dataset_type=fiftyone.types.FiftyOneDataset)`` reads.

    metadata.json            the data set: its fields and their types
    samples.json             one entry an image
    fields/EXPLAINER/*.png   the maps
    data/                    images, where they are copied

A ``note`` says why a thumbnail is shown where the original is not what it was.

Each image has ``prediction`` (the likeliest class), ``labels`` (all explained ones with probability, flag,
uncertainty and metric values), ``truth``, ``entropy``, ``mutual_information``, and for each explainer one heat map:
that of the explained label with the highest probability, which the heat map names; its metric values are fields of
their own (``EXPLAINER_METRIC``). FiftyOne stretches a heat map over the image, so it is drawn for the whole of it:
the map is laid on the original's pixels (`seewhy.images.view.View`), at most ``side`` of them along the longer side. 8
bits: 0 is the map's smallest value, 255 its largest (``low`` and ``high``); 0 too where the network did not look. A map
that shows nothing has the tag "shows nothing", and goes a quarter of the way.
FiftyOne itself is not needed.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.checks import check_count
from seewhy.draw.scale import Scale
from seewhy.errors import InvalidInput
from seewhy.exports import _fiftyone_fields as fields
from seewhy.exports._pictures import chosen, dump, view, write_list
from seewhy.images.view import View
from seewhy.runs.folder.originals import Original
from seewhy.runs.query.run import Run, SampleRecord

__all__ = ["FiftyOne"]


@dataclass(frozen=True, kw_only=True)
class FiftyOne:
    """FiftyOne: a data set folder with heat maps, predictions, truth and metric values.

    Attributes:
        explainers: whose maps are taken, a name or several; None for all.
        side: pixels that the longer side of a heat map has at most.
        copy: copies the images into the folder instead of naming where they lie.
    """

    explainers: tuple[str, ...] | str | None = None
    side: int = 512
    copy: bool = False

    def __post_init__(self) -> None:
        check_count("side", self.side)

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes the folder. An image whose file is not what the run saw is shown by its thumbnail, or left out.

        Raises:
            InvalidInput: the folder exists and is not empty.
            UnknownName: an explainer that the run does not have.
        """
        out = Path(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InvalidInput(f"The folder for FiftyOne must be new or empty, got {str(out)!r}.")
        names = fields.names(chosen(self.explainers, run), run.metrics)
        out.mkdir(parents=True, exist_ok=True)
        for name in names.explainers.values():
            (out / "fields" / name).mkdir(parents=True, exist_ok=True)
        with (out / "samples.json").open("w", encoding="utf-8") as file:
            file.write('{"samples": ')
            write_list(file, self._samples(run, out, names))
            file.write("}\n")
        about = fields.dataset(run.settings, names, [run.class_name(n) for n in range(len(run.classes or ()))])
        (out / "metadata.json").write_text(dump(about), encoding="utf-8")
        return [out]

    def _samples(self, run: Run, out: Path, names: fields.Names) -> Iterator[dict[str, Any]]:
        for number, record in enumerate(run.records()):
            found = run.original(record)
            path = self._picture(run, record, found, out, number)
            if path is not None:
                yield {
                    **fields.sample(_identity(run, record.sample), path, record, run.class_name, names),
                    "note": found.note or None,
                    **self._maps(run, record, out, number, names),
                }

    def _picture(self, run: Run, record: SampleRecord, found: Original, out: Path, number: int) -> str | None:
        """Returns the address of the image."""
        if found.data is not None and found.path is not None and not self.copy:
            return os.path.abspath(found.path)
        data, ending = found.data, Path(record.source or "").suffix
        if data is None:
            if (small := run.thumbnail(record.sample)) is None:
                return None
            data, ending = small[0], f".{small[1]}"
        (out / "data").mkdir(exist_ok=True)
        name = f"data/{number:08d}{ending}"
        (out / name).write_bytes(data)
        return name

    def _maps(self, run: Run, record: SampleRecord, out: Path, number: int, names: fields.Names) -> dict[str, Any]:
        found: dict[str, Any] = {}
        place = _shrunk(view(record), self.side)
        for explainer, name in names.explainers.items():
            label = _likeliest(record, explainer)
            values = run.map(record.sample, label, explainer) if label is not None and place is not None else None
            if label is None or values is None or place is None:
                continue
            path = f"fields/{name}/{number:08d}.png"
            nothing = record.nothing(label, explainer)
            scale = Scale.of(float(values.min()), float(values.max()), faint=bool(nothing))
            (out / path).write_bytes(_levels(place.to_original(values), scale))
            index = record.class_of(label)
            about = {"label": run.class_name(index), "class_index": index, "low": scale.low, "high": scale.high}
            about |= {"tags": ["shows nothing"]} if nothing else {}
            found[name] = {**fields.heat_map(_identity(run, record.sample, name), path), **about}
            scores = {m: record.scores.get((label, explainer, m)) for m in run.metrics}
            found |= {names.metrics[explainer, m]: value for m, value in scores.items()}
        return found


def _likeliest(record: SampleRecord, explainer: str) -> int | None:
    """Returns the label with the highest probability that has a map; of equal ones the smallest."""
    having = [label for label in record.labels if (label, explainer) in record.maps]
    return max(having, key=lambda label: (record.labels[label].probability, -label), default=None)


def _shrunk(place: View | None, side: int) -> View | None:
    """Returns the same view of a smaller copy of the image."""
    if place is None or max(place.original) <= side:
        return place
    share = side / max(place.original)
    return place.scaled(*(max(1, round(pixels * share)) for pixels in place.original))


def _levels(values: NDArray[np.float32], scale: Scale) -> bytes:
    out = io.BytesIO()
    whole = np.rint(255 * np.nan_to_num(scale.places(values), nan=0.0)).astype(np.uint8)
    Image.fromarray(whole).save(out, format="PNG", compress_level=2)
    return out.getvalue()


def _identity(run: Run, *names: str) -> str:
    """Twelve bytes, the same whenever the run is exported."""
    return hashlib.blake2b("\0".join([run.settings["id"], *names]).encode(), digest_size=12).hexdigest()

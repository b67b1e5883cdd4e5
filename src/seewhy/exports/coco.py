"""COCO: for each map the salient region, as box and run-length mask on the original's pixels.

    salient = map > threshold * maximum of the map

as in the metric IoSR: a map with negative values is first moved up until its minimum is 0. Maps are laid on the
original bilinearly (`seewhy.images.view.View`); pixels that the network did not see are not salient. A map without a
salient pixel (zero everywhere, or flat and not positive), and one of an image of which nobody knows which part was
seen, gets no annotation. Masks are uncompressed run lengths, column by column, the first run outside of the region.

Category ids are class indices plus 1, since 0 is the background in many readers.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014 (arXiv 1405.0312), and its data format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.checks import check_below_one
from seewhy.exports._pictures import chosen, dump, view, write_list
from seewhy.plain import FLAT
from seewhy.runs.query.run import Run, SampleRecord

__all__ = ["Coco", "run_lengths", "salient"]


@dataclass(frozen=True, kw_only=True)
class Coco:
    """COCO: the salient region of every map as box and mask; true boxes, and what a detector found, in files beside.

    Attributes:
        threshold: pixels above this share of the map's maximum are salient.
        explainers: whose maps are taken; None for all.
    """

    threshold: float = 0.5
    explainers: tuple[str, ...] | str | None = None

    def __post_init__(self) -> None:
        value: Any = self.threshold
        check_below_one("threshold", value)

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes ``out``, NAME-truth.json with the true boxes where there are any, and of a detector NAME-results.json.

        An annotation has the label's probability as score and, under "attributes", explainer, flag and metric values
        (null where there are no data); of a detector also the number and the box of what is explained. Images of
        unknown size are left out. What a detector found is a list of COCO results (image_id, category_id, bbox, score).

        Raises:
            UnknownName: an explainer that the run does not have.
        """
        out, explainers = Path(out), chosen(self.explainers, run)
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        labels: set[int] = set()
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8") as file:
            file.write('{"annotations": ')
            write_list(file, self._annotations(run, explainers, images, boxes, labels, results))
            _rest(file, run, images, labels)
        written = [out]
        if run.detects:
            written.append(out.with_name(f"{out.stem}-results{out.suffix}"))
            with written[1].open("w", encoding="utf-8") as file:
                write_list(file, results)
        if not boxes:
            return written
        beside = out.with_name(f"{out.stem}-truth{out.suffix}")
        with beside.open("w", encoding="utf-8") as file:
            file.write('{"annotations": ')
            write_list(file, ({"id": number, **box} for number, box in enumerate(boxes, 1)))
            _rest(file, run, images, labels)
        return [*written, beside]

    def _annotations(
        self, run: Run, explainers: tuple[str, ...], images: list[Any], boxes: list[Any], labels: set[int],
        results: list[Any],
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """Returns the annotations of all maps; images, boxes and labels are noted on the way."""
        number = 0
        for record in run.records():
            size = record.size or record.input
            if size is None:
                continue
            image = len(images) + 1
            said = {"reviews": [one.line for one in record.reviews]} if record.reviews else {}
            name = record.source or record.name
            images.append({"id": image, "file_name": name, "height": size[0], "width": size[1], **said})
            boxes += [_true_box(image, record, n) for n in range(len(record.boxes))]
            results += _results(image, record)
            labels.update(map(record.class_of, record.labels), (box[0] for box in record.boxes))
            for label in record.labels:
                for explainer in explainers:
                    region = self._region(run, record, label, explainer)
                    if region is not None:
                        number += 1
                        yield {"id": number, "image_id": image, **_annotation(record, label, explainer, region)}

    def _region(self, run: Run, record: SampleRecord, label: int, explainer: str) -> NDArray[np.bool_] | None:
        place = view(record)
        values = run.map(record.sample, label, explainer) if (label, explainer) in record.maps else None
        if place is None or values is None:
            return None
        return salient(place.to_original(values), self.threshold)


def salient(values: NDArray[np.float32], threshold: float) -> NDArray[np.bool_] | None:
    """(H, W) bool: the salient region; None where nothing is.

    Args:
        values: (H, W), NaN where the network did not look.
        threshold: share of the maximum.
    """
    seen = values[~np.isnan(values)].astype(np.float64)
    if not seen.size:
        return None
    lift = min(0.0, float(seen.min()))
    peak = float(seen.max()) - lift
    if peak <= FLAT * float(np.abs(seen).max()):
        return None
    region: NDArray[np.bool_] = np.nan_to_num(values.astype(np.float64) - lift, nan=-math.inf) > threshold * peak
    return region if region.any() else None


def run_lengths(region: NDArray[np.bool_]) -> list[int]:
    """How many pixels are outside, inside, outside, ... column by column; the first number may be 0."""
    flat = region.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = [0, *changes.tolist(), flat.size]
    lengths = [end - start for start, end in pairwise(bounds)]
    return [0, *lengths] if flat[0] else lengths


def _annotation(record: SampleRecord, label: int, explainer: str, region: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    x, y, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    about = record.labels[label]
    metrics = {m: value for (of, e, m), value in record.scores.items() if (of, e) == (label, explainer)}
    return {
        "category_id": record.class_of(label) + 1,
        "bbox": [x, y, right - x, bottom - y],
        "area": int(region.sum()),
        "segmentation": {"size": list(region.shape), "counts": run_lengths(region)},
        "iscrowd": 0,
        "score": _digits(about.probability),
        "attributes": {
            "explainer": explainer,
            "flag": about.flag,
            **_detection(record, label),
            **_nothing(record, label, explainer),
            **metrics,
        },
    }


def _nothing(record: SampleRecord, label: int, explainer: str) -> dict[str, str]:
    """Why the map of a region shows nothing, where it does not."""
    found = record.nothing(label, explainer)
    return {"shows_nothing": found} if found else {}


def _detection(record: SampleRecord, label: int) -> dict[str, Any]:
    """Which box of a detector a map explains."""
    if label not in record.detections:
        return {}
    one = record.detections[label]
    return {"detection": label, "box": _xywh(*one.box)}


def _results(image: int, record: SampleRecord) -> Iterator[dict[str, Any]]:
    """What a detector found, in the form of COCO's results."""
    for number, one in record.detections.items():
        about = record.labels.get(number)
        if about is not None and about.flag != "FN":
            score = _digits(about.probability)
            yield {"image_id": image, "category_id": one.class_index + 1, "bbox": _xywh(*one.box), "score": score}


def _true_box(image: int, record: SampleRecord, number: int) -> dict[str, Any]:
    """Returns a true box in COCO's form; "ignore" marks what need not be found, as Pascal VOC's difficult."""
    label, x0, y0, x1, y1 = record.boxes[number]
    hard = {"ignore": 1, "difficult": 1} if number in record.difficult else {}
    return {
        "image_id": image, "category_id": label + 1, "bbox": _xywh(x0, y0, x1, y1), "area": (x1 - x0) * (y1 - y0),
        "iscrowd": int(number in record.crowds), "segmentation": [], **hard,
    }  # fmt: skip


def _xywh(x0: float, y0: float, x1: float, y1: float) -> list[float | None]:
    return [_digits(value) for value in (x0, y0, x1 - x0, y1 - y0)]


def _digits(value: float | None) -> float | None:
    """Returns a float32 with the digits that it has."""
    return None if value is None else float(str(np.float32(value)))


def _rest(file: Any, run: Run, images: Iterable[Any], labels: set[int]) -> None:
    """All that the annotations refer to."""
    classes = sorted(labels.union(range(len(run.classes or ()))))
    categories = [{"id": label + 1, "name": run.class_name(label), "supercategory": ""} for label in classes]
    about = {"description": f"seewhy run {run.settings['id']}", "version": str(run.settings.get("seewhy", ""))}
    file.write(f',\n"info": {dump(about)},\n"licenses": [],\n"categories": ')
    write_list(file, categories)
    file.write(',\n"images": ')
    write_list(file, images)
    file.write("}\n")

"""Run folders without a network: rows and packs written straight through the store."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.runs.folder.codec import encode, thumbnail
from seewhy.runs.folder.parts import checksum
from seewhy.runs.folder.rows import (
    CostRow,
    FailureRow,
    LabelRow,
    MapRow,
    Row,
    ScoreRow,
    ThumbnailRow,
    TreeRow,
    UncertaintyRow,
)
from seewhy.runs.folder.store import Store

RUN = "0123456789ab"
EYE = np.eye(7, dtype=np.float32)
UNCERTAINTY, TREES = "uuuuuuuuuuuu", "cccccccccccc"


def identity(label: str) -> str:
    """What run.json calls the identity of an explainer or metric."""
    return f"id-{label}"


def settings(
    explainers: Any = ("one", "two"), metrics: Any = ("up", "down"), classes: Any = ("cat", "dog", "newt"), **more: Any
) -> dict[str, Any]:
    """A run.json. Metrics called "down" are better when lower."""
    return {
        "format": 1,
        "id": RUN,
        "created": "2026-01-01T00:00:00+00:00",
        "seewhy": "0",
        "torch": "2",
        "model": {"name": "net", "digest": "0", "preprocessing": None, "notes": []},
        "activation": "softmax",
        "threshold": 0.5,
        "classes": list(classes) if classes else None,
        "explainers": {
            label: {
                "class": label.title(), "name": label, "parameters": {}, "id": identity(label),
                "class_agnostic": False, "pixelwise": False,
            }
            for label in explainers
        },
        "metrics": {
            label: {
                "class": label.title(), "name": label, "parameters": {}, "id": identity(label),
                "better": "lower" if label == "down" else "higher", "range": [0.0, 1.0],
            }
            for label in metrics
        },
        "uncertainty": {"parameters": {}, "id": UNCERTAINTY},
        "counterfactual": {"parameters": {}, "id": TREES},
        "features": None,
        "data": {"kind": "folder", "length": 3},
        "chunk": 32,
        "batch": 16,
        "precision": "auto",
        "command": None,
        **more,
    }  # fmt: skip


def task(*names: str) -> str:
    """An identity: ("explain", "one") -> "explain:id-one", ("score", "one", "up") -> "score:id-one:id-up"."""
    return ":".join([names[0], *(identity(name) for name in names[1:])])


def tasks_of(*explainers: str, metrics: Any = ()) -> list[str]:
    """Everything that is done when these explainers are."""
    return [
        "predict",
        *(task("explain", e) for e in explainers),
        *(task("score", e, m) for e in explainers for m in metrics),
    ]


def flag(probability: float, truth: bool | None) -> str | None:
    if truth is None:
        return None
    return {(True, True): "TP", (True, False): "FN", (False, True): "FP", (False, False): "TN"}[
        truth, probability > 0.5
    ]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A row, and the maps and the picture whose bytes go into the pack."""

    row: Row
    maps: dict[tuple[int, str], NDArray[np.float32]]
    thumbnail: Image.Image | None = None


def picture(
    sample: str = "s0",
    position: int = 0,
    *,
    labels: Any = (),
    maps: Any = (),
    scores: Any = (),
    uncertainty: Any = (),
    trees: Any = (),
    costs: Any = (),
    failures: Any = (),
    done: Any = None,
    failed: Any = (),
    small: Image.Image | None = None,
    **more: Any,
) -> Picture:
    """One row. labels: {class: (probability, truth)}, maps: {(class, explainer): (h, w)},
    scores: {(class, explainer, metric): value}, trees: {class: json}, uncertainty: {class: (mean, std, low, high)}."""
    maps, scores = dict(maps), dict(scores)
    if done is None:
        done = ["predict", *(task("explain", e) for e in dict.fromkeys(e for _, e in maps))]
        done += [task("score", e, m) for e, m in dict.fromkeys((e, m) for _, e, m in scores)]
        done += [f"uncertainty:{UNCERTAINTY}"] if uncertainty else []
        done += [f"counterfactual:{TREES}"] if trees else []
    row = Row(
        sample=sample,
        position=position,
        **{"name": f"{sample}.png", "stamp": "1", "written": 1.0, "size": (8, 12), "input": (8, 8), **more},
        labels=[LabelRow(label, p, truth, flag(p, truth)) for label, (p, truth) in dict(labels).items()],
        scores=[ScoreRow(label, explainer, metric, value) for (label, explainer, metric), value in scores.items()],
        uncertainty=[UncertaintyRow(label, *values) for label, values in dict(uncertainty).items()],
        trees=[TreeRow(label, text) for label, text in dict(trees).items()],
        costs=[CostRow(*cost) for cost in costs],
        failures=[FailureRow(*failure) for failure in failures],
        done=list(done),
        failed=list(failed),
    )
    return Picture(row=row, maps=maps, thumbnail=small)


class Folder:
    """A run folder to be filled."""

    def __init__(self, place: Path | str, run: dict[str, Any] | None = None) -> None:
        self.place = place
        self.run = settings() if run is None else run
        self.store = Store(place)
        self.store.create(self.run)

    def add(self, chunk: str, *pictures: Picture, run: str | None = None, precision: Any = "auto") -> str:
        """Commits a part; gives its name."""
        pack = io.BytesIO()
        rows = [self._placed(one, pack, precision) for one in pictures]
        return self.store.write(run or self.run["id"], chunk, rows, [pack.getvalue()])

    def add_as(self, part: str, *pictures: Picture) -> None:
        """Commits a part under a name of one's own, for tests of the order of parts."""
        made = self.add("x" * 8, *pictures)
        for ending in ("pack", "parquet"):
            folder = Path(self.place) / "parts"
            (folder / f"{made}.{ending}").rename(folder / f"{part}.{ending}")

    def _placed(self, one: Picture, pack: io.BytesIO, precision: Any) -> Row:
        places = []
        for (label, explainer), values in one.maps.items():
            made, (height, width) = encode(np.asarray(values, dtype=np.float32), precision), np.shape(values)
            places.append(
                MapRow(
                    label, explainer, pack.tell(), len(made.data), made.encoding, height, width, made.low, made.high
                )._replace(checksum=checksum(made.data))
            )
            pack.write(made.data)
        small = None
        if one.thumbnail is not None:
            data, kind, (height, width) = thumbnail(one.thumbnail)
            small = ThumbnailRow(pack.tell(), len(data), kind, height, width, checksum(data))
            pack.write(data)
        return replace(one.row, maps=places, thumbnail=small)


def overwrite(folder: Folder, run: dict[str, Any]) -> None:
    """Another run.json, as somebody may write it."""
    folder.store.files.put("run.json", [json.dumps(run).encode()])


def three_pictures(folder: Folder) -> Folder:
    """Three pictures; a dog is in two of them, and "c" could not be read."""
    a = picture(
        "a", 0, labels={0: (0.9, True), 1: (0.6, False)}, source="/x/100%_A.jpg", entropy=0.3,
        maps={(0, "one"): EYE, (1, "one"): EYE, (0, "two"): EYE},
        scores={(0, "one", "up"): 0.5, (1, "one", "up"): 0.1, (0, "two", "up"): 0.9, (1, "two", "up"): None},
        uncertainty={0: (0.9, 0.05, 0.8, 1.0), 1: (0.5, 0.2, 0.1, 0.9)},
        trees={0: '{"found": true, "root": 1}', 1: '{"found": false, "reason": "\\"found\\": true"}'},
    )  # fmt: skip
    b = picture(
        "b", 1, labels={1: (0.2, True), 2: (0.7, False)}, maps={(1, "one"): EYE, (2, "two"): EYE},
        scores={(1, "one", "up"): 0.4, (2, "one", "up"): 0.3},
    )  # fmt: skip
    c = picture("c", 2, failures=[("read", None, None, None, "broken")], done=["predict"], failed=["predict"])
    folder.add("p", a, b, c)
    return folder


def keys(page: Any) -> list[Any]:
    """The sample and the labels of each hit."""
    return [(hit.record.sample, *hit.labels) for hit in page]

"""What counts neither way: COCO's crowds and Pascal VOC's difficult objects, from the files to the exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.boxes import Match, matched
from seewhy.datasets import open_data
from seewhy.datasets.coco import COCO
from seewhy.datasets.voc import VOC
from seewhy.errors import InvalidInput
from seewhy.exports.coco import Coco
from seewhy.runs.query.run import Run
from seewhy.types import Sample
from support.detection_runs import NAMES, QUARTERS, run, scene

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------------------------------------------- the protocols


def area(b: Any) -> float:
    return max(0.0, b[2] - b[0]) * max(0.0, b[3] - b[1])


def shared(a: Any, b: Any) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Any, b: Any) -> float:
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def coco_by_hand(found: list[Any], truth: list[Any], crowds: set[int]) -> list[tuple[int | None, bool]]:
    """pycocotools' evaluateImg for one class at 0.5: the true boxes with crowds last, one after the other.

    Written after the description of its steps: a true box that was taken is passed over unless it is a crowd; the
    search ends at the first crowd when a true box was found; a crowd's overlap is the share of the found box in it.
    """
    order = sorted(range(len(truth)), key=lambda g: g in crowds)
    taken: set[int] = set()
    said: list[tuple[int | None, bool]] = []
    for box in found:
        least, best = 0.5 - 1e-10, None
        for g in order:
            if g in taken and g not in crowds:
                continue
            if best is not None and best not in crowds and g in crowds:
                break
            value = shared(box, truth[g]) / area(box) if g in crowds else iou(box, truth[g])
            if value < least:
                continue
            least, best = value, g
        taken |= {best} if best is not None else set()
        said.append((None, True) if best in crowds and best is not None else (best, False))
    return said


def voc_by_hand(found: list[Any], truth: list[Any], difficult: set[int]) -> list[bool]:
    """VOCdevkit's VOCevaldet for one class at 0.5: which of the found boxes are passed over."""
    return [
        bool(truth) and max(overlaps) >= 0.5 and overlaps.index(max(overlaps)) in difficult
        for overlaps in ([iou(box, true) for true in truth] for box in found)
    ]


def drawn(seed: int) -> tuple[list[Any], list[Any], set[int]]:
    """Boxes about few places, so that they overlap in every way, and which of the true ones are special."""
    draw = np.random.default_rng(seed)
    corners = draw.integers(0, 3, (9, 2)) * 6 + draw.uniform(-2, 2, (9, 2))
    spans = draw.uniform(4, 12, (9, 2))
    boxes = [(*map(float, c), *map(float, c + s)) for c, s in zip(corners, spans, strict=True)]
    special = {n for n in range(4) if draw.random() < 0.5}
    return boxes[4:], boxes[:4], special


def ask(found: list[Any], truth: list[Any], **special: Any) -> list[Match]:
    return matched(found, [0] * len(found), [(0, *box) for box in truth], **special)


def test_crowds_are_matched_as_pycocotools_does() -> None:
    seen = {"crowd": 0, "true": 0, "false": 0}
    for seed in range(300):
        found, truth, crowds = drawn(seed)
        want = coco_by_hand(found, truth, crowds)
        got = ask(found, truth, crowds=tuple(crowds))
        assert [(one.true, one.ignored) for one in got] == want
        seen["crowd"] += sum(ignored for _, ignored in want)
        seen["true"] += sum(true is not None for true, _ in want)
        seen["false"] += sum(true is None and not ignored for true, ignored in want)
    assert min(seen.values()) > 50


def test_difficult_boxes_are_passed_over_as_in_voc() -> None:
    passed = 0
    for seed in range(300):
        found, truth, difficult = drawn(seed)
        want = voc_by_hand(found, truth, difficult)
        got = ask(found, truth, difficult=tuple(difficult))
        assert [one.ignored for one in got] == want
        assert not any(one.true in difficult for one in got)
        passed += sum(want)
    assert passed > 50


def test_the_nearer_of_a_true_and_a_difficult_box_decides() -> None:
    box, near, far = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 9.0), (0.0, 0.0, 10.0, 7.0)
    for truth, difficult in (([near, far], {1}), ([near, far], {0})):
        (got,) = ask([box], truth, difficult=tuple(difficult))
        assert [got.ignored] == voc_by_hand([box], truth, difficult)
        assert got.true == (0 if difficult == {1} else None)


def test_other_classes_have_no_part_in_it() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    assert matched([box], [0], [(1, *box)], crowds=(0,)) == [Match(None, None, False)]
    assert matched([box], [0], [(1, *box), (0, *box)], difficult=(0,)) == [Match(1.0, 1, False)]


# ------------------------------------------------------------------------------------------------------------- files


def test_a_coco_file_says_which_are_crowds(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    boxes = [(5, 0, 0, 0, 10, 10), (7, 1, 4, 4, 40, 40), (5, 0, 9, 9, 0, 5), (5, 1, 30, 30, 20, 20)]  # one has no area
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "iscrowd": crowd, "bbox": [x, y, w, h]}
        for n, (c, crowd, x, y, w, h) in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}], "annotations": annotations,
        "categories": [{"id": 5, "name": "red"}, {"id": 7, "name": "green"}],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    sample = COCO.open(tmp_path / "a.json")[0]
    assert sample.boxes == ((0, 0, 0, 10, 10), (1, 4, 4, 44, 44), (0, 30, 30, 50, 50))
    assert sample.crowds == (1, 2)
    assert sample.difficult == ()
    part = COCO.open(tmp_path / "a.json", unmatched="ignore").bind(["red"], 1)[0]
    assert (part.boxes, part.crowds) == (((0, 0, 0, 10, 10), (0, 30, 30, 50, 50)), (1,))


def test_a_voc_file_says_which_are_difficult(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "JPEGImages" / "a.jpg")
    objects = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x}</xmin><ymin>1</ymin>"
        f"<xmax>{x + 9}</xmax><ymax>10</ymax></bndbox></object>"
        for name, hard, x in (("red", 0, 1), ("blue", 0, 11), ("green", 1, 21))
    )
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    sample = VOC.open(tmp_path, unmatched="ignore").bind(list(NAMES), 2)[0]
    assert sample.boxes == ((0, 0, 0, 10, 10), (1, 20, 0, 30, 10))
    assert (sample.difficult, sample.crowds) == ((1,), ())
    assert VOC.open(tmp_path, unmatched="ignore", difficult=False).bind(list(NAMES), 2)[0].difficult == ()


def test_rows_say_it_one_a_box() -> None:
    row = {"image": Image.new("RGB", (96, 64)), "labels": [1, 0, 1],
           "boxes": [[0, 0, 9, 9], [5, 5, 5, 9], [8, 8, 20, 20]],
           "iscrowd": np.array([0, 1, 1]), "difficult": [True, False, False]}  # fmt: skip
    sample = open_data([row], box_format="xyxy")[0]
    assert (len(sample.boxes), sample.crowds, sample.difficult) == (2, (1,), (0,))
    boxes = ((1, 0, 0, 9, 9), (0, 1, 1, 9, 9))
    bound = open_data([Sample(image=row["image"], labels=(0, 1), boxes=boxes, crowds=(1,))])
    assert bound[0].crowds == (1,)
    with pytest.raises(InvalidInput, match=r"Flags of boxes \(iscrowd, difficult\) must be one a box, \(3,\), got"):
        open_data([row | {"iscrowd": [0, 1]}], box_format="xyxy")[0]


# -------------------------------------------------------------------------------------------------- runs and exports


def test_a_run_ignores_what_lies_on_them(tmp_path: Path) -> None:
    """q0 is a true one, q1 lies in a crowd that covers the right half, q2 is difficult, and a crowd is not missed."""
    picture = scene(q0=(0, 0.9), q1=(0, 0.8), q2=(0, 0.7), q3=(1, 0.6))
    large = [[2 * side for side in box] for box in QUARTERS]
    right, low = [48, 0, 96, 64], large[2]
    sample = {"image": picture, "labels": [0, 0, 0, 1], "boxes": [large[0], right, low, [0, 0, 12, 12]],
              "iscrowd": [0, 1, 0, 0], "difficult": [0, 0, 1, 0]}  # fmt: skip
    run(tmp_path / "out", data=[sample])
    (record,) = Run(tmp_path / "out").records()
    flags = [(NAMES[record.class_of(n)], one.flag, one.truth) for n, one in record.labels.items()]
    assert flags == [
        ("red", "TP", True), ("red", None, None), ("red", None, None), ("green", "FP", False), ("green", "FN", True)
    ]  # fmt: skip
    assert [d.overlap for d in record.detections.values()][1:3] == [None, None]
    assert (record.crowds, record.difficult) == ((1,), (2,))
    said = "Box {} lies on a crowd or on a difficult object: it counts neither as right nor as wrong."
    assert record.warnings == (said.format(2), said.format(3))
    scores = {n: value for (n, _, metric), value in record.scores.items() if metric.startswith("pointing")}
    assert scores[1] is None
    assert scores[2] is None
    assert Run(tmp_path / "out").counts().flags == {"TP": 1, "FN": 1, "FP": 1, "TN": 0}
    Coco()(Run(tmp_path / "out"), tmp_path / "maps.json")
    truth = json.loads((tmp_path / "maps-truth.json").read_text())["annotations"]
    assert [(one["iscrowd"], one.get("ignore", 0)) for one in truth] == [(0, 0), (1, 0), (0, 1), (0, 0)]


def test_an_old_picture_is_another_when_its_crowds_change() -> None:
    """What is true of it is part of its identity; without flags nothing changes."""
    from seewhy.runs.work.reading import digest

    given = {"image": scene(q0=(0, 0.9)), "labels": [0], "boxes": [[0, 0, 48, 32]]}
    plain, crowd, hard = (digest(open_data([given | more]), 0) for more in ({}, {"iscrowd": [1]}, {"difficult": [1]}))
    assert len({plain, crowd, hard}) == 3
    assert digest(open_data([given | {"iscrowd": [0]}]), 0) == plain

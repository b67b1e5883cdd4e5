"""Pascal VOC and COCO: boxes and masks against hand-counted pixels, and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from seewhy.datasets import Data, open_data, reopen
from seewhy.datasets._masks import decode, polygon
from seewhy.errors import InvalidInput
from support.pictures import solid


def error_of(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        call(*arguments, **options)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------------------- VOC


def thing(name: str, box: str, difficult: int = 0) -> str:
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=False))
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox>{part}</object>"


def voc(root: Path, **annotations: str | None) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in annotations.items():
        solid("RGB", (1, 2, 3), (20, 10)).save(root / "JPEGImages" / f"{name}.jpg")
        if content is not None:
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{content}</annotation>")
    return root


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    voc(tmp_path, a=thing("dog", "1 1 20 10") + thing("cat", "5 3 5.0 4", 1) + thing("dog", "0 2 3 4"), b="", c=None)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data[0].boxes == ((1, 0, 0, 20, 10), (0, 4, 2, 5, 4), (1, 0, 1, 3, 4))
    assert [data[i].labels for i in range(3)] == [(1, 0), (), None]
    assert data[0].image == tmp_path / "JPEGImages" / "a.jpg"
    assert data.key(0) == "JPEGImages/a.jpg"
    assert data.bind(["dog", "horse", "CAT"], 3)[0].boxes[1] == (2, 4, 2, 5, 4)
    assert open_data(tmp_path, difficult=False)[0].labels == (1,)
    unknown = data.bind(["x", "y"], 2)[0]
    assert (unknown.labels, unknown.boxes) == (None, ())


def test_voc_sets(tmp_path: Path) -> None:
    voc(tmp_path, a=thing("dog", "1 1 2 2"), b=thing("cat", "1 1 2 2"), c="")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\na  1\n\ngone -1\n")
    data = open_data(f"voc:{tmp_path}?val")
    assert [data.key(i) for i in range(3)] == ["JPEGImages/c.jpg", "JPEGImages/a.jpg", "JPEGImages/gone.jpg"]
    assert data.stamp(2) == "missing+missing"
    assert data.classes == ("dog",)
    again = reopen(json.loads(json.dumps(data.describe())))
    assert (len(again), again.classes, again[1].labels) == (3, ("dog",), (0,))
    assert error_of(open_data, tmp_path, set="test") == (
        f"There is no set 'test' in '{tmp_path}/ImageSets/Main'. Known: ['val']."
    )


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><object><name>&y;</name></object></annotation>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB.encode(), "it has a DOCTYPE, which annotations do not need and which is refused for safety"),
        (BOMB.encode("utf-16"), "it has a DOCTYPE, which annotations do not need and which is refused for safety"),
        (b"<annotation>", "it is not XML, no element found: line 1, column 12"),
        (b"", "it is not XML, no element found: line 1, column 0"),
        (b"<a><object/></a>", "an object has no name"),
        (
            f"<a>{thing('dog', '1 2 3')}</a>".encode(),
            "the box of 'dog' must have four numbers, got ['1', '2', '3', None]",
        ),
        (
            f"<a>{thing('dog', '9 9 3 3')}</a>".encode(),
            "a box must be four finite numbers xyxy with sides of 0 or more, got [8.0, 8.0, 3.0, 3.0]",
        ),
    ],
)
def test_bad_annotations_are_errors_of_their_sample_only(tmp_path: Path, content: bytes, reason: str) -> None:
    voc(tmp_path, a=thing("dog", "1 1 2 2"), b="")
    path = tmp_path / "Annotations/b.xml"
    path.write_bytes(content)
    data = open_data(tmp_path)
    assert data[0].labels == (0,)
    assert error_of(data.__getitem__, 1) == f"Cannot use the annotation {str(path)!r}: {reason}."


# ------------------------------------------------------------------------------------------------------------- COCO


def coco(root: Path, annotations: list[Any], **more: Any) -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "val2017").mkdir(exist_ok=True)
    solid("RGB", (1, 2, 3), (6, 4)).save(root / "val2017" / "b.png")
    content = {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 6, "height": 4},
            {"id": 4, "file_name": "a.png", "width": 6, "height": 4},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 17, "name": "cow"}],
        "annotations": annotations,
    }
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps({**content, **more}))
    return path


def one(category: int, box: Any = None, segmentation: Any = None, image: int = 9, crowd: int = 0) -> dict[str, Any]:
    found = {"image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, "iscrowd": crowd}
    return {name: value for name, value in found.items() if value is not None}


SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]


def test_coco_boxes_and_masks(tmp_path: Path) -> None:
    runs = {"size": [4, 6], "counts": [20, 4]}  # the last column
    path = coco(
        tmp_path,
        [
            one(90, [1, 1, 2, 2], SQUARE),
            one(90, [5, 0, 1, 4], runs, crowd=1),
            one(3, [0.5, 0, 2, 1.5]),
            one(17, [0, 0, 0, 3]),
            one(17, segmentation=SQUARE),
            one(3, image=77),
        ],
    )
    data = open_data(path)
    assert data.classes == ("cat", "cow", "dog")
    assert data.notes == ("1 annotations belong to no picture of the file.",)
    assert [data.key(i) for i in range(2)] == ["a.png", "b.png"]
    assert [data[i].labels for i in range(2)] == [(), (2, 0, 1)]
    sample = data[1]
    assert sample.image == tmp_path / "val2017" / "b.png"
    assert sample.boxes == ((2, 1, 1, 3, 3), (2, 5, 0, 6, 4), (0, 0.5, 0, 2.5, 1.5))
    assert list(sample.masks) == [2]  # the others have no mask, or not all of them
    expected = np.zeros((4, 6), bool)
    expected[1:3, 1:3] = expected[:, 5] = True
    np.testing.assert_array_equal(sample.masks[2], expected)
    assert list(data.bind(["dog", "cow", "cat"], 3)[1].masks) == [0]
    assert reopen(json.loads(json.dumps(data.describe())))[1].boxes == sample.boxes
    assert data.stamp(0).startswith("missing+")
    stamps = {open_data(coco(tmp_path, [one(90, [1, 1, 2, side])])).stamp(1).partition("+")[2] for side in (1, 2, 1)}
    assert len(stamps) == 2


def test_polygons_cover_the_pixels_whose_centre_is_inside() -> None:
    for points in (SQUARE[0], [0.2, 0.1, 5.7, 0.4, 3.1, 3.9, 1.2, 3.3], [-4, -3, 9, 1, 2, 8]):
        corners = np.array(points, float).reshape(-1, 2)
        centres = np.stack(np.meshgrid(np.arange(6) + 0.5, np.arange(4) + 0.5), -1).reshape(-1, 2)
        expected = Outline(np.vstack([corners, corners[:1]])).contains_points(centres).reshape(4, 6)
        np.testing.assert_array_equal(polygon(points, (4, 6)), expected)
    ring = [[0, 0, 6, 0, 6, 4, 0, 4]]
    assert decode(ring, (4, 6)).all()
    assert decode([*SQUARE, [4, 0, 6, 0, 6, 1, 4, 1]], (4, 6)).sum() == 4 + 2


def compressed(counts: list[int]) -> str:
    """The inverse of what is tested, written from COCO's description."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
            if not more:
                break
    return text


def test_run_lengths_go_down_the_columns_in_both_forms() -> None:
    rng = np.random.default_rng(0)
    assert compressed([3, 2, 40]) == "32X1"
    for _ in range(50):
        mask = np.kron(rng.random((5, 7)) < 0.4, np.ones((9, 13))).astype(bool)
        flat = np.concatenate([[False], mask.flatten(order="F"), [not mask[-1, -1]]])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        counts = np.diff(np.concatenate([[0], edges])).tolist()
        for form in (counts, compressed(counts), compressed(counts).encode()):
            np.testing.assert_array_equal(decode({"size": [45, 91], "counts": form}, (45, 91)), mask)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [6, 4], "counts": [24]}, "its run lengths are for the size [6, 4], the picture has [4, 6]."),
        ({"size": [4, 6], "counts": [23]}, "its run lengths do not add up to the picture's 24 pixels."),
        ({"size": [4, 6], "counts": "P"}, "its run lengths end too early."),
        ({"size": [4, 6], "counts": "\x01"}, "its run lengths have a character '\\x01' that cannot be there."),
        ([[1, 2, 3]], "expected a polygon of at least three points x, y."),
        ([[1, 2, 3, 4, 5, "a"]], "expected a polygon of at least three points x, y."),
        ("text", "expected polygons or run lengths, got str."),
    ],
)
def test_bad_masks(tmp_path: Path, segmentation: Any, reason: str) -> None:
    path = coco(tmp_path, [one(90, [1, 1, 2, 2], segmentation)])
    masks = open_data(path)[1].masks
    assert error_of(masks.__getitem__, 2) == f"Cannot use a mask of 'b.png' in {str(path)!r}: {reason}"


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (one(5), "there is no category 5."),
        ({"image_id": 9, "category_id": [3]}, "there is no category [3]."),
        (one(3, [1, 2, 3]), "a box must be four numbers, got [1, 2, 3]"),
        (
            one(3, [1, 2, -3, 1]),
            "a box must be four finite numbers xywh with sides of 0 or more, got [1.0, 2.0, -3.0, 1.0]",
        ),
        (one(3, "abcd"), "a box must be four numbers, got 'abcd'"),
    ],
)
def test_bad_objects(tmp_path: Path, annotation: Any, reason: str) -> None:
    path = coco(tmp_path, [annotation])
    data = open_data(path)
    assert data[0].labels == ()
    assert error_of(data.__getitem__, 1) == f"Cannot use the annotations of 'b.png' in {str(path)!r}: {reason}"


def test_files_that_are_no_coco(tmp_path: Path) -> None:
    path = coco(tmp_path, [], images=[{"id": 1}])
    form = "'images' must be a list of objects with ('id', 'file_name')."
    assert error_of(open_data, path) == f"{str(path)!r} is not COCO instances: {form}"
    same = [{"id": 1, "file_name": "b.png"}] * 2
    message = "the ids of 'images' must be numbers, each once."
    assert error_of(open_data, coco(tmp_path, [], images=same)) == f"{str(path)!r} is not COCO instances: {message}"
    elsewhere = [{"id": 1, "file_name": "elsewhere.png"}]
    assert "Pass images=FOLDER." in error_of(open_data, coco(tmp_path, [], images=elsewhere))
    assert len(open_data(path, images=tmp_path)) == 1
    path.write_text("[1, 2")
    assert error_of(open_data, path).startswith(f"Cannot read {str(path)!r}: it is not JSON, ")
    assert (
        error_of(open_data, f"coco:{tmp_path}/no.json")
        == f"Cannot read '{tmp_path}/no.json': No such file or directory."
    )


def test_both_are_data(tmp_path: Path) -> None:
    assert isinstance(open_data(coco(tmp_path / "c", [])), Data)
    assert isinstance(open_data(voc(tmp_path / "v", a="")), Data)

"""Rows of every form, in arrays, data sets, loaders and streams, as samples."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset
from torchvision import tv_tensors

from seewhy.datasets import Data, open_data, reopen
from seewhy.errors import InvalidInput, InvalidType, SeewhyError
from seewhy.types import Sample
from support.pictures import solid

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
READY = torch.arange(60.0).reshape(3, 4, 5)


def of(*row: Any, classes: int = 5, **options: Any) -> Sample:
    """The one sample of a row."""
    return open_data([tuple(row)], **options).bind(None, classes)[0]


def error_of(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(SeewhyError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------- images


def test_pictures_stay_pictures_and_ready_inputs_stay_ready() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    for image in (PIXELS, torch.from_numpy(PIXELS).permute(2, 0, 1), Image.fromarray(PIXELS), buffer.getvalue(),
                  {"bytes": buffer.getvalue(), "path": None}):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(of(image).image), PIXELS)
    assert torch.equal(of(READY).image, READY)
    assert of("a.png").image == of(Path("a.png")).image == of({"path": "a.png", "bytes": None}).image == Path("a.png")
    assert of(torch.zeros(4, 5, dtype=torch.uint8)).image.shape == (4, 5)
    assert error_of(of, torch.zeros(1, 3, 4, 5)) == (
        "Sample '000000': A tensor must be one image (C, H, W), got shape (1, 3, 4, 5). Volumes and clips are "
        "explained one by one, by seewhy.explain."
    )
    assert error_of(of, 3.0) == (
        "Sample '000000': An image must be a path, a PIL image, an array (H, W, C) or a tensor (C, H, W), got float."
    )
    assert error_of(of, b"text").startswith("Sample '000000': its 4 bytes are no picture: ")


# ----------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, None),
        (3, (3,)),
        (np.int64(3), (3,)),
        (torch.tensor(3), (3,)),
        (-1, None),
        ([4, 0, 4, -1], (4, 0)),
        (torch.tensor([-1, -1]), ()),
        ([], ()),
        ([0, 1], (0, 1)),
        ([True, False, True, False, False], (0, 2)),
        (np.array([0, 0, 0, 1, 0.0]), (3,)),
        (torch.zeros(5), ()),
        ([0, 1, 0, 0, 1], (1, 4)),
        ([0, 1, 2, 0, 1], (0, 1, 2)),
    ],
)
def test_labels(labels: Any, expected: tuple[int, ...] | None) -> None:
    assert of(PIXELS, labels).labels == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (5, "Label 5 is out of range: the network has 5 classes, 0 to 4."),
        ([0, -2], "Label -2 is negative. Classes are counted from 0, and -1 is padding."),
        (-7, "Label -7 is negative. Classes are counted from 0, and -1 is padding."),
        (2.0, "Labels are whole numbers, got 2.0."),
        ([0.5, 0, 0, 0, 1], "A multi-hot vector must be of 0 and 1, got 0..1."),
        ([1.0, 0.0], "A multi-hot vector must have one value a class, 5, got 2."),
        ([[1, 2]], "Labels are an index, a list of indices or a multi-hot vector, got shape (1, 2) of int64."),
        ("dog", "The network has no class names, so the label 'dog' cannot be looked up."),
    ],
)
def test_labels_that_cannot_be_used(labels: Any, message: str) -> None:
    assert error_of(of, PIXELS, labels) == f"Sample '000000': {message}"


def test_two_classes_are_never_guessed() -> None:
    message = (
        "Sample '000000': The labels [0, 1] may be class indices or multi-hot. "
        "Pass label_format='index' or label_format='multi_hot'."
    )
    assert error_of(of, PIXELS, [0, 1], classes=2) == message
    assert of(PIXELS, [0, 1], classes=2, label_format="index").labels == (0, 1)
    assert of(PIXELS, [0, 1], classes=2, label_format="multi_hot").labels == (1,)
    assert of(PIXELS, [0, 1], [[0, 0, 1, 1], [1, 1, 2, 2]], classes=2).labels == (0, 1)  # a label for each box
    assert of(PIXELS, [0, -1], classes=2).labels == (0,)
    assert error_of(open_data, [PIXELS], label_format="onehot") == (
        "label_format must be 'auto', 'index' or 'multi_hot', got 'onehot'."
    )


# --------------------------------------------------------------------------------------------------- boxes and masks


def test_boxes_in_every_form() -> None:
    boxes = torch.tensor([[1, 1, 2, 3], [0, 0, 5, 4], [0, 0, 0, 0]])
    first = of(PIXELS, [2, 0, -1], boxes)
    assert first.boxes == ((2, 1, 1, 3, 4), (0, 0, 0, 5, 4))
    assert first.labels == (2, 0)
    assert of(PIXELS, [2, 0, -1], boxes, box_format="xyxy").boxes[0] == (2, 1, 1, 2, 3)
    assert of(PIXELS, 2, [1, 1, 2, 3]).boxes == ((2, 1, 1, 3, 4),)
    assert of(PIXELS, [], []).boxes == ()
    detection = {"boxes": boxes[:1], "labels": torch.tensor([2]), "image_id": 7}
    assert of(PIXELS, detection).boxes == ((2, 1, 1, 2, 3),)  # torchvision's are corners
    own = tv_tensors.BoundingBoxes(boxes[:1], format="XYWH", canvas_size=(4, 5))
    assert of(PIXELS, {"boxes": own, "labels": [2]}).boxes == ((2, 1, 1, 3, 4),)
    assert of(PIXELS, [2], tv_tensors.BoundingBoxes(boxes[:1], format="XYXY", canvas_size=(4, 5))).boxes[0][3:] == (
        2,
        3,
    )
    found = open_data([{"image": PIXELS, "objects": {"bbox": [[1, 1, 2, 3]], "category": [4]}}]).bind(None, 5)[0]
    assert (found.labels, found.boxes) == ((4,), ((4, 1, 1, 3, 4),))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 1, 4, 5]], "The box (1.0, 1.0, 5.0, 6.0) reaches beyond the picture of 5x4. It was read as xywh; "
         "pass box_format='xyxy' if it is that, and give boxes in pixels of this picture."),
        ([[1, 1, -1, 1]], "a box must be four finite numbers xywh with sides of 0 or more, got [1.0, 1.0, -1.0, 1.0]."),
        ([[0, 0, 1, np.nan]],
         "a box must be four finite numbers xywh with sides of 0 or more, got [0.0, 0.0, 1.0, nan]."),
        ([[0, 0, 1, 1]] * 2, "Boxes must be one a label, (1, 4), got (2, 4)."),
        (tv_tensors.BoundingBoxes([[1, 1, 1, 1]], format="CXCYWH", canvas_size=(4, 5)),
         "Boxes must be xyxy or xywh, got cxcywh. Convert them first."),
    ],
)  # fmt: skip
def test_boxes_that_cannot_be_used(boxes: Any, message: str) -> None:
    assert error_of(of, PIXELS, [2], boxes) == f"Sample '000000': {message}"


def test_masks_in_every_form() -> None:
    left, top = np.zeros((4, 5)), np.zeros((4, 5))
    left[:, :2] = top[:1] = 1
    one = of(PIXELS, [2], left)
    assert one.mask is left
    assert one.masks == {2: left}
    assert of(PIXELS, [2, 3], left).masks == {}  # whose it is, nobody knows
    assert of(PIXELS, 2, "m.png").masks == {2: Path("m.png")}
    np.testing.assert_array_equal(of(PIXELS, 2, Image.fromarray(left.astype(np.uint8))).masks[2], left)
    several = of(PIXELS, [2, 2, -1, 1], torch.tensor(np.stack([left, top, left, top])))
    np.testing.assert_array_equal(several.masks[2], (left + top) > 0)
    np.testing.assert_array_equal(several.masks[1], top > 0)
    assert set(several.masks) == {1, 2}
    both = of(PIXELS, [2], [[0, 0, 2, 4]], left[None])
    assert (both.boxes, set(both.masks)) == (((2, 0, 0, 2, 4),), {2})
    assert error_of(of, PIXELS, [2], np.zeros((2, 4, 5))) == (
        "Sample '000000': Masks must be (H, W), or one a label, (1, H, W), got (2, 4, 5)."
    )


class _Row(NamedTuple):
    image: Any
    label: int


def test_mappings_and_named_tuples() -> None:
    for row in ({"image": PIXELS, "label": 2}, {"img": PIXELS, "labels": [2]}, {"pixel_values": READY, "target": 2},
                _Row(PIXELS, 2), [PIXELS, 2]):  # fmt: skip
        assert open_data([row])[0].labels == (2,)
    assert error_of(open_data([{"photo": PIXELS}]).__getitem__, 0) == (
        "Sample '000000': A row must have one of 'image', 'img', 'pixel_values', got ['photo']."
    )
    assert error_of(of, PIXELS, 1, 2, 3, 4) == (
        "Sample '000000': A row is image, (image, labels), (image, labels, boxes) or (image, labels, masks), "
        "got 5 values."
    )
    given = Sample(image=PIXELS, labels=(1,), boxes=((1, 0, 0, 2, 2),), name="mine")
    found = open_data([given], classes=("a", "b")).bind(("b", "x", "a"), 3)[0]
    assert (found.labels, found.boxes, found.name) == ((0,), ((0, 0, 0, 2, 2),), "mine")


# ------------------------------------------------------------------------------------------------ data sets, loaders


class Rows(Dataset[Any]):
    classes = ("cat", "dog", "cow")

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        if i == 4:
            raise OSError("bad block")
        return READY + i, i % 3


class Counting(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(READY + i, i % 3) for i in range(10)])


def numbers(data: Data) -> list[int]:
    return [int(data[i].image[0, 0, 0]) for i in range(len(data))]


def test_a_data_set_is_read_by_number_and_a_bad_row_is_its_own_error() -> None:
    data = open_data(Rows()).bind(["cow", "dog", "cat"], 3)
    assert (len(data), data.name, data.classes) == (10, "Rows", ("cat", "dog", "cow"))
    assert (data.key(7), data.stamp(7), data.source(7)) == ("000007", "", None)
    assert data[9].labels == (2,)
    assert data[2].labels == (0,)
    assert error_of(data.__getitem__, 4) == "Sample '000004': the data set raised OSError: bad block."
    assert isinstance(data, Data)
    assert open_data(Subset(Rows(), [1, 2])).classes == Rows.classes
    with pytest.raises(InvalidInput, match=r"The data came from an object \(Rows\), not a path: pass it again."):
        reopen(data.describe())


def test_loaders() -> None:
    data = TensorDataset(torch.stack([READY + i for i in range(10)]), torch.arange(10) % 3)
    for loader in (DataLoader(data, batch_size=4), DataLoader(data, batch_size=3, shuffle=True, drop_last=True)):
        opened = open_data(loader)
        assert numbers(opened) == list(range(10))
        assert opened.notes == ("The loader's data set is read by number, in its own order.",)
    chosen = open_data(DataLoader(data, batch_size=4, sampler=SubsetRandomSampler([7, 2, 5])))
    assert numbers(chosen) == [2, 5, 7]
    assert [chosen.key(i) for i in range(3)] == ["000002", "000005", "000007"]
    assert chosen.notes == ("The loader's sampler chooses 3 of 10 samples; they are read by number.",)

    def pairs(rows: list[Any]) -> Any:
        return [image + 100 for image, _ in rows], [{"labels": label} for _, label in rows]

    taken = open_data(DataLoader(data, batch_size=4, collate_fn=pairs))
    assert [(int(taken[i].image[0, 0, 0]), taken[i].labels) for i in range(10)] == [
        (100 + i, (i % 3,)) for i in range(10)
    ]
    mapped = open_data(DataLoader(data, batch_size=4, collate_fn=lambda rows: {"image": [r[0] for r in rows]}))
    assert numbers(mapped) == list(range(10))
    assert numbers(open_data(DataLoader(Counting(), batch_size=3), length=10)) == list(range(10))
    assert numbers(open_data(DataLoader(Counting(), batch_size=None), length=10)) == list(range(10))
    assert numbers(open_data(DataLoader(data, batch_sampler=[[0, 1], [5]]), length=3)) == [0, 1, 5]


def test_streams_are_read_in_order_and_keep_a_window() -> None:
    data = open_data(Counting(), length=10, window=3)
    assert numbers(data) == list(range(10))
    assert int(data[8].image[0, 0, 0]) == 8
    message = (
        "Row 6 has gone by: these data can only be read in order, and the last 3 rows are kept. "
        "Pass a data set with __getitem__, or a list."
    )
    assert error_of(data.__getitem__, 6) == message
    anew = pickle.loads(pickle.dumps(data))
    assert int(anew[1].image[0, 0, 0]) == 1
    assert int(open_data(Counting(), length=10)[7].image[0, 0, 0]) == 7
    short = open_data(iter([(READY, 1)] * 4), length=5)
    assert error_of(short.__getitem__, 4) == "The data ended after 4 rows, 5 were expected."
    assert error_of(pickle.dumps, short) == (
        "An iterator cannot be sent to other processes. Pass a data set or a list."
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Counting(), "How many samples Counting gives is not known. Pass length=, or a list of its rows."),
        (iter([READY]), "How many samples the iterator gives is not known. Pass length=, or a list of its rows."),
        (DataLoader(Counting()), "How many samples the loader gives is not known. Pass length=."),
        ([], "There is no sample: the data are empty."),
        ({"train": [1], "test": [2]}, "Expected one data set, got a mapping of ['test', 'train']. Pass one of them."),
        (7, "Expected a data set, a loader or an iterable of rows, got int."),
    ],
)
def test_objects_that_are_no_data(data: Any, message: str) -> None:
    assert error_of(open_data, data) == message


class Faces:
    """The form of a Hugging Face data set."""

    def __init__(self) -> None:
        self.features = {"image": object(), "label": SimpleNamespace(names=["cat", "dog"])}

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return {"image": solid("RGB", (i, 0, 0)), "label": i % 2}


def test_data_sets_of_the_hugging_face_form() -> None:
    data = open_data(Faces()).bind(["dog", "CAT"], 2)
    assert data.classes == ("cat", "dog")
    assert [data[i].labels for i in range(3)] == [(1,), (0,), (1,)]
    boxed = Faces()
    names = SimpleNamespace(feature=SimpleNamespace(names=["a", "b"]))
    boxed.features = {"objects": SimpleNamespace(feature={"bbox": object(), "category": names})}
    assert open_data(boxed).classes == ("a", "b")


# ----------------------------------------------------------------------------------------------------------- arrays


def test_arrays_of_pictures() -> None:
    images = np.stack([PIXELS, PIXELS + 1])
    data = open_data((images, np.array([[2, -1], [0, 1]]), np.array([[[0, 0, 2, 2]] * 2] * 2))).bind(None, 3)
    np.testing.assert_array_equal(data[1].image, PIXELS + 1)
    assert [data[i].labels for i in range(2)] == [(2,), (0, 1)]
    assert [len(data[i].boxes) for i in range(2)] == [1, 2]
    assert (data.key(1), data.source(1)) == ("000001", None)
    changed = images.copy()
    changed[1, 0, 0, 0] += 1
    other = open_data((changed, np.array([[2, -1], [0, 1]]), np.array([[[0, 0, 2, 2]] * 2] * 2)))
    assert [data.stamp(i) == other.stamp(i) for i in range(2)] == [True, False]
    assert open_data((images[..., 0], [1, 0]))[0].image.shape == (4, 5)
    assert torch.equal(open_data(READY[None])[0].image, READY)
    assert open_data(torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16)).stamp(0)
    masks = np.ones((2, 4, 5), bool)
    assert open_data({"images": images, "labels": [1, 0], "masks": masks})[1].masks[0].all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            np.zeros((4, 5, 3), np.uint8),
            "Expected many images (N, H, W[, C]), got (4, 5, 3). For one pass image[None].",
        ),
        (np.zeros((2, 3, 4, 5)), "Arrays of images must have shape (N, H, W) or (N, H, W, C), got (2, 3, 4, 5)."),
        (torch.zeros(3, 4, 5), "A tensor of images must have shape (N, C, H, W), got (3, 4, 5)."),
        (np.zeros((0, 4, 5)), "There is no picture: the array is empty."),
        ((np.zeros((2, 4, 5, 3)), [1]), "labels must have 1 or 2 dimensions and 2 rows, got (1,)."),
        ((np.zeros((2, 4, 5, 3)), None, np.zeros((2, 4))), "Boxes need labels, one a box."),
    ],
)
def test_arrays_that_do_not_fit(parts: Any, message: str) -> None:
    assert error_of(open_data, parts) == message


def test_npz_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.stack([PIXELS] * 3), labels=np.array([[0, 1], [1, 1], [0, 0]]))
    data = open_data(tmp_path / "d.npz", label_format="multi_hot", classes=["a", "b"]).bind(["b", "a"], 2)
    assert [data[i].labels for i in range(3)] == [(0,), (1, 0), ()]
    again = reopen(data.describe())
    assert (again.classes, again[0].labels, again.stamp(0)) == (("a", "b"), (1,), data.stamp(0))
    np.savez(tmp_path / "p.npz", images=np.array([{}], object))
    assert "without pickled objects" in error_of(open_data, tmp_path / "p.npz")
    np.savez(tmp_path / "x.npz", pictures=PIXELS)
    assert error_of(open_data, tmp_path / "x.npz") == (
        f"'{tmp_path}/x.npz' must have 'images' and may have ('labels', 'boxes', 'masks'), it has ['pictures']."
    )
    (tmp_path / "t.npz").write_text("text")
    assert error_of(open_data, tmp_path / "t.npz").startswith(f"Cannot read '{tmp_path}/t.npz' as an .npz file")


def test_kinds_of_errors() -> None:
    with pytest.raises(InvalidType):
        open_data(7)
    with pytest.raises(InvalidType, match=r"Data has no option 'classes'"):
        open_data(open_data([READY]), classes=["a"])

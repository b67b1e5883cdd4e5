"""Targets: what each scores, every form in which they may be asked for, every mistake."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.errors import InvalidTarget
from seewhy.targets import BoxTarget, ClassTarget, MaskTarget, Request, SimilarityTarget, Target, TargetSet
from seewhy.types import Outputs
from support.typed import present, unchecked

close = torch.testing.assert_close


def classifier(n: int = 3, k: int = 5) -> Outputs:
    return Outputs.of_classes(torch.arange(n * k, dtype=torch.float32).view(n, k))


def resolved(targets: Any, n: int = 3, k: int = 5) -> list[list[int]]:
    classes: list[list[int]] = present(Request.parse(targets, n).resolve(classifier(n, k)).classes).tolist()
    return classes


FORMS = [
    (None, [[4], [4], [4]]), (2, [[2], [2], [2]]), (torch.tensor(2), [[2], [2], [2]]), (np.int64(2), [[2], [2], [2]]),
    ([0, 1, 2], [[0], [1], [2]]), ((0, 1, 2), [[0], [1], [2]]), (torch.tensor([0, 1, 2]), [[0], [1], [2]]),
    (np.array([2, 1, 0])[::-1], [[0], [1], [2]]), (np.array([0, 1, 2], dtype=np.uint8), [[0], [1], [2]]),
    ([[0, 1], [2, 3], [4, 0]], [[0, 1], [2, 3], [4, 0]]), (torch.tensor([[3], [2], [1]]), [[3], [2], [1]]),
    ("all", [[0, 1, 2, 3, 4]] * 3), (ClassTarget(label=3), [[3]] * 3),
    ([ClassTarget(label=3), ClassTarget(label=0)], [[3, 0]] * 3),
    (torch.tensor([0, 1, 2], dtype=torch.int16), [[0], [1], [2]]),
]  # fmt: skip


@pytest.mark.parametrize(("targets", "want"), FORMS)
def test_every_form(targets: Any, want: list[list[int]]) -> None:
    assert resolved(targets) == want


NOT_INTEGER = "targets must be integers, got {}."
SHAPE = "targets must be one class, ({n},) for one an image or ({n}, T) for T an image, got shape {shape}."
WRONG = [
    (-1, "Target -1 is negative. Classes are counted from 0."),
    ([0, -2, 1], "Target -2 is negative. Classes are counted from 0."),
    (5, "Target 5 is out of range: the network has 5 classes, 0 to 4."),
    ([0, 1, 5000], "Target 5000 is out of range: the network has 5 classes, 0 to 4."),
    (ClassTarget(label=5), "Target 5 is out of range: the network has 5 classes, 0 to 4."),
    (1.0, NOT_INTEGER.format("float64")),
    (torch.tensor([1.0, 2.0, 0.0]), NOT_INTEGER.format("float32") + " If they are one-hot, pass targets.argmax(1)."),
    (True, NOT_INTEGER.format("bool")),
    (torch.eye(5)[:3], NOT_INTEGER.format("float32") + " If they are one-hot, pass targets.argmax(1)."),
    (torch.eye(5).long()[:3], "targets looks one-hot, shape (3, 5). Pass targets.argmax(1)."),
    (torch.tensor([[1, 0, 1, 0, 0]] * 3), "targets looks multi-hot, shape (3, 5). Pass the indices of the ones."),
    ([0, 1], SHAPE.format(n=3, shape="(2,)")),
    ([0, 1, 2, 3], SHAPE.format(n=3, shape="(4,)")),
    (torch.zeros(2, 2).long(), SHAPE.format(n=3, shape="(2, 2)")),
    (torch.zeros(3, 1, 1).long(), SHAPE.format(n=3, shape="(3, 1, 1)")),
    ([], "targets is empty. Pass None for the predicted class."),
    (torch.zeros(0).long(), "targets is empty. Pass None for the predicted class."),
    ("every", "targets as a string can only be 'all', got 'every'."),
    ("3", "targets as a string can only be 'all', got '3'."),
    ({"a": 1}, "targets must be class indices, 'all' or Target objects, got {'a': 1}."),
    ([None, 1, 2], "targets must be class indices, 'all' or Target objects, got [None, 1, 2]."),
    ([[0], [1, 2], [3]], "targets must be class indices, 'all' or Target objects, got [[0], [1, 2], [3]]."),
    (["cat", "dog", "cow"], "targets must be class indices, 'all' or Target objects, got ['cat', 'dog', 'cow']."),
    ([ClassTarget(label=0), SimilarityTarget(embedding=torch.ones(5))],
     "A SimilarityTarget cannot stand beside other targets. Explain them in two calls."),
]  # fmt: skip


@pytest.mark.parametrize(("targets", "said"), WRONG)
def test_every_mistake(targets: Any, said: str) -> None:
    with pytest.raises(InvalidTarget, match="^" + re.escape(said) + "$"):
        resolved(targets)


def test_one_image_with_several_targets_is_told_how() -> None:
    said = SHAPE.format(n=1, shape="(3,)") + " For several targets of one image pass shape (1, 3)."
    with pytest.raises(InvalidTarget, match="^" + re.escape(said) + "$"):
        resolved([1, 2, 3], n=1)
    assert resolved([[1, 2, 3]], n=1) == [[1, 2, 3]]


def test_networks_with_one_or_two_outputs() -> None:
    assert resolved(0, k=1) == [[0]] * 3
    assert resolved("all", k=1) == [[0]] * 3
    assert resolved([[0, 1], [1, 0], [0, 1]], k=2) == [[0, 1], [1, 0], [0, 1]]  # two targets, each a class: not one-hot
    with pytest.raises(InvalidTarget, match=r"^Target 1 is out of range: the network has 1 classes, 0 to 0\.$"):
        resolved(1, k=1)


def test_values_of_classes_and_rows() -> None:
    outputs = classifier()
    targets = TargetSet(classes=torch.tensor([[0, 1], [2, 3], [4, 0]]))
    assert targets.values(outputs).tolist() == [[0, 1], [7, 8], [14, 10]]
    rows = torch.tensor([2, 0, 2])
    assert targets.values(classifier(3), rows).tolist() == [[4, 0], [5, 6], [14, 10]]
    assert targets.count == 2
    assert targets.names(1) == ["class 2", "class 3"]


def test_values_of_objects() -> None:
    targets = Request.parse([lambda o: o.classes.sum(1), ClassTarget(label=1)], 3).resolve(classifier())
    assert targets.values(classifier()).tolist() == [[10, 1], [35, 6], [60, 11]]
    assert targets.count == 2
    assert targets.names(0) == ["target 0", "target 1"]
    assert targets.activates


@pytest.mark.parametrize(("value", "got"), [(torch.zeros(2), "(2,)"), (torch.zeros(3, 1), "(3, 1)"), (1.0, "float")])
def test_a_target_that_gives_no_number_an_image(value: Any, got: str) -> None:
    targets = Request.parse(lambda _: value, 3).resolve(classifier())
    said = f"A target must return one number an image, shape (3,), got {got}."
    with pytest.raises(InvalidTarget, match="^" + re.escape(said) + "$"):
        targets.values(classifier())


def boxes() -> Outputs:
    """Two images, three candidates, two classes; the last candidate of the second image is padding."""
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.7], [0.5, 0.5]], [[0.3, 0.6], [0.8, 0.2], [0.0, 0.0]]])
    places = torch.tensor(
        [[[0, 0, 10, 10], [0, 0, 20, 10], [30, 30, 40, 40.0]], [[5, 5, 15, 15], [0, 0, 10, 10], [0, 0, 0, 0.0]]]
    )
    return Outputs(scores=scores, boxes=places)


def slow_iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / area


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (2, 1, 18, 9), (50, 50, 60, 60), (5.5, 5.5, 35, 35)])
@pytest.mark.parametrize("label", [0, 1])
def test_box_target_is_class_probability_times_overlap(box: Any, label: int) -> None:
    outputs = boxes()
    want = [
        max(float(s[label]) * slow_iou(b.tolist(), list(box)) for s, b in zip(scores, places, strict=True))
        for scores, places in zip(outputs.scores, present(outputs.boxes), strict=True)
    ]
    close(BoxTarget(box=box, label=label)(outputs), torch.tensor(want))


def test_box_target_agrees_with_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops")
    outputs, box = boxes(), (3.0, 2.0, 12.0, 25.0)
    overlap = torch.stack([ops.box_iou(b, torch.tensor([box]))[:, 0] for b in present(outputs.boxes)])
    close(BoxTarget(box=box, label=1)(outputs), (outputs.scores[..., 1] * overlap).amax(1))


def test_mask_target_is_class_probability_times_overlap() -> None:
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2], masks[0, 1, :, :2] = 1, 0.5
    outputs = Outputs(scores=torch.tensor([[[0.9, 0.2], [0.4, 0.8]]]), masks=masks)
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[:2] = True
    close(MaskTarget(mask=wanted, label=0)(outputs), torch.tensor([0.9]))
    shared, union = 4 * 0.5, 8 + 4 * 0.5  # soft: sums of the smaller and of the larger values
    close(MaskTarget(mask=wanted, label=1)(outputs), torch.tensor([max(0.2, 0.8 * shared / union)]))


def test_similarity_target_is_the_cosine() -> None:
    a, b = torch.randn(3, 5), torch.randn(5)
    want = torch.stack([(row @ b) / (row.norm() * b.norm()) for row in a])
    close(SimilarityTarget(embedding=b)(Outputs.of_classes(a)), want)
    assert not Request.parse(SimilarityTarget(embedding=b), 3).resolve(Outputs.of_classes(a)).activates


def test_class_target_of_a_detector_is_the_best_candidates() -> None:
    close(ClassTarget(label=1)(boxes()), torch.tensor([0.7, 0.6]))
    assert isinstance(ClassTarget(label=unchecked(np.int64(1))), Target)


def _mask() -> Tensor:
    return torch.ones(4, 4)


MADE_WRONG = [
    (lambda: ClassTarget(label=-1), "Target -1 is negative. Classes are counted from 0."),
    (lambda: ClassTarget(label=unchecked(1.0)), "A label is an integer, got 1.0."),
    (lambda: ClassTarget(label=True), "A label is an integer, got True."),
    (lambda: BoxTarget(box=(0, 0, 10, 10), label=unchecked("cat")), "A label is an integer, got 'cat'."),
    (lambda: BoxTarget(box=(10, 0, 10, 10), label=0), "A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got "
     "(10, 0, 10, 10)."),
    (lambda: BoxTarget(box=unchecked((0, 0, 10)), label=0),
     "A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got (0, 0, 10)."),
    (lambda: BoxTarget(box=(0, 0, float("nan"), 9), label=0),
     "A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got (0, 0, nan, 9)."),
    (lambda: MaskTarget(mask=torch.zeros(4, 4), label=0), "A mask is (h, w) and not empty, got shape (4, 4)."),
    (lambda: MaskTarget(mask=torch.ones(1, 4, 4), label=0), "A mask is (h, w) and not empty, got shape (1, 4, 4)."),
    (lambda: BoxTarget(box=(0, 0, 9, 9), label=0)(classifier()),
     "BoxTarget needs a detector: this model's outputs have no boxes. Use ClassTarget."),
    (lambda: BoxTarget(box=(0, 0, 9, 9), label=2)(boxes()), "Target 2 is out of range: the network has 2 "
     "classes, 0 to 1."),
    (lambda: MaskTarget(mask=_mask(), label=0)(boxes()),
     "MaskTarget needs instance masks: this model's outputs have none. Use BoxTarget."),
    (lambda: MaskTarget(mask=_mask(), label=0)(Outputs(scores=torch.ones(1, 1, 2), masks=torch.ones(1, 1, 8, 8))),
     "The mask must have the size of the model's masks, (8, 8), got (4, 4)."),
    (lambda: SimilarityTarget(embedding=torch.ones(4))(classifier()),
     "The embedding must have the shape of the model's output, (5,), got (4,)."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), MADE_WRONG)
def test_targets_made_or_used_wrongly(make: Any, said: str) -> None:
    with pytest.raises(InvalidTarget, match="^" + re.escape(said) + "$"):
        make()

"""Boxes: the one rule for the pixels they hold, the way between picture and input, and suppression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import seewhy
from seewhy import boxes as owner
from seewhy.attribution import Attribution
from seewhy.boxes import box_mask, suppress
from seewhy.explainers import Explainer
from seewhy.images.view import View
from seewhy.judging import truth
from seewhy.metrics import PointingGame
from seewhy.runs.query.run import Run
from seewhy.types import Sample
from support.detection_runs import QUARTERS, Quarters, run
from support.typed import present, unchecked


def slow_mask(boxes: list[tuple[float, ...]], size: tuple[int, int]) -> Tensor:
    """Pixel by pixel: the centre lies at or after the first side and before the second."""
    rows = [[any(b[0] <= j + 0.5 < b[2] and b[1] <= i + 0.5 < b[3] for b in boxes) for j in range(size[1])]
            for i in range(size[0])]  # fmt: skip
    return torch.tensor(rows)


@pytest.mark.parametrize("seed", range(4))
def test_the_pixels_of_boxes(seed: int) -> None:
    """Sides at whole and half pixels, where a rule shows, boxes beyond the input and boxes inside one pixel."""
    draw = np.random.default_rng(seed)
    for _ in range(20):
        low, span = draw.integers(-6, 20, (3, 2)) / 2, draw.integers(1, 12, (3, 2)) / 2
        boxes = [(*map(float, a), *map(float, a + b)) for a, b in zip(low, span, strict=True)]
        assert torch.equal(box_mask(boxes, (7, 9)), slow_mask(boxes, (7, 9)))
        assert torch.equal(box_mask(boxes[0], (7, 9)), slow_mask(boxes[:1], (7, 9)))


def test_boxes_that_share_a_side_share_no_pixel() -> None:
    left, right = box_mask((0.0, 0.0, 2.5, 4.0), (4, 5)), box_mask((2.5, 0.0, 5.0, 4.0), (4, 5))
    assert not bool((left & right).any())
    assert bool((left | right).all())
    assert left.sum(1).tolist() == [2] * 4


def test_boxes_there_and_back() -> None:
    """A picture of 40 x 60 of which the input of 10 x 30 sees 20 x 30, from x 15 and y 10 on."""
    view = View(original=(40, 60), box=(15.0, 10.0, 45.0, 30.0))
    assert view.box_to_original((0, 0, 30, 10), (10, 30)) == view.box
    assert view.box_to_original((3, 1, 6, 5), (10, 30)) == (18, 12, 21, 20)
    assert view.box_to_input((18, 12, 21, 20), (10, 30)) == (3, 1, 6, 5)
    half = view.scaled(20, 30)
    assert half == View(original=(20, 30), box=(7.5, 5.0, 22.5, 15.0))
    assert half.box_to_original((3, 1, 6, 5), (10, 30)) == (9, 6, 10.5, 10)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Points(Explainer):
    """Has its maximum at one position of the input, whatever is asked."""

    place: tuple[int, int]

    def _explain(self, model: Any, inputs: Tensor, request: Any) -> Attribution:
        outputs = model(inputs)
        targets = request.resolve(outputs)
        raw = torch.zeros(len(inputs), targets.count, *inputs.shape[2:])
        raw[..., self.place[0], self.place[1]] = 1
        return Attribution(raw=raw, outputs=outputs, targets=targets)


@pytest.mark.parametrize("place", [(4, 3), (4, 4), (3, 4), (4, 22), (4, 23), (14, 9), (15, 9), (16, 24)])
def test_the_pointing_game_by_hand_is_that_of_a_run(tmp_path: Path, place: tuple[int, int]) -> None:
    """The sides of the true box lie on centres of pixels, so that another rule would judge otherwise."""
    one, box = torch.zeros(3, 32, 48), (3.5, 4.5, 22.5, 15.5)
    one[0, :16, :24] = 0.9
    explainer = Points(Quarters(), place=place)
    target = seewhy.BoxTarget(box=unchecked(tuple(map(float, QUARTERS[0]))), label=0)
    by_hand = PointingGame(tolerance=0).evaluate(explainer, one[None], target, mask=box_mask(box, (32, 48))[None])
    run(tmp_path / "out", model=Quarters(), explainers=[explainer], metrics=["pointing_game(tolerance=0)"],
        data=[{"image": one, "labels": [0], "boxes": [list(box)]}])  # fmt: skip
    (record,) = Run(tmp_path / "out").records()
    assert [label.flag for label in record.labels.values()] == ["TP"]
    judged = [value for (_, by, _), value in record.scores.items() if by not in ("random", "centre")]
    assert judged == [float(by_hand[0])]
    assert float(by_hand[0]) == float(4 <= place[0] < 15 and 3 <= place[1] < 22)


def test_a_letter_boxed_truth_is_by_the_same_rule() -> None:
    """Two of the picture's pixels are one of the input, below a margin of 8."""
    shown = seewhy.Preprocessing(size=(32, 48), mean=(0, 0, 0), std=(1, 1, 1), fit="letterbox", pad=0.0)
    inputs, view = shown(Image.new("RGB", (96, 32)))
    found = present(truth(Sample(image=None, labels=(0,), boxes=((0, 3.0, 1.0, 9.0, 7.0),)), view, 0, (32, 48)))
    assert torch.equal(found, box_mask((1.5, 8.5, 4.5, 11.5), (32, 48)))
    assert found.nonzero().tolist() == [[i, j] for i in (8, 9, 10) for j in (1, 2, 3)]
    assert tuple(inputs.shape[2:]) == tuple(found.shape)


# ------------------------------------------------------------------------------------------------------ suppression


def scattered(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes about 0 and far from it, equal scores and whole numbers among them, so that ties and limits are met."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(-40, 60, (count, 2), generator=generator).float()
    spans = torch.randint(1, 40, (count, 2), generator=generator).float()
    scores = torch.randint(0, 50, (count,), generator=generator) / 50
    return torch.cat([corners, corners + spans], 1), scores, torch.randint(0, 4, (count,), generator=generator)


@pytest.mark.parametrize("overlap", [0.1, 0.5, 2 / 3, 0.9])
@pytest.mark.slow
def test_torchvision_suppresses_as_we_do(monkeypatch: pytest.MonkeyPatch, overlap: float) -> None:
    pytest.importorskip("torchvision")
    for seed in range(5):
        boxes, scores, labels = scattered(seed, 300)
        fast = suppress(boxes, scores, labels, overlap, 300)
        with monkeypatch.context() as patch:
            patch.setattr(owner, "_suppressor", lambda: owner._greedy)
            assert suppress(boxes, scores, labels, overlap, 300) == fast
        assert fast == slow_suppression(boxes, scores, labels, overlap)


def slow_suppression(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        a = boxes[i].tolist()
        for j in kept:
            b = boxes[j].tolist()
            shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if labels[i] == labels[j] and shared / union > overlap:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.slow
def test_the_best_of_very_many_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are suppressed in goes: first the best few, more where not enough of them stay."""
    boxes, scores, labels = scattered(7, 900)
    want = slow_suppression(boxes, scores, labels, 0.3)
    monkeypatch.setattr(owner, "_FIRST", 16)
    for most in (1, 5, 40, 900):
        assert suppress(boxes, scores, labels, 0.3, most) == want[:most]
    assert suppress(boxes[:0], scores[:0], labels[:0], 0.3, 5) == []

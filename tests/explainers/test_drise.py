"""D-RISE as published: against a slow twin, what tells it from a box alone, and scores of few values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy import BoxTarget, Detection, DRISETarget
from seewhy.errors import BadOutput, InvalidTarget
from seewhy.models.heads import YOLOv5
from seewhy.types import Outputs
from support.networks import detector
from support.typed import present


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def outputs(objectness: bool = True, own: bool = False) -> Outputs:
    """(2, 9, 4) candidates; with ``own`` each class has a box of its own."""
    low = drawn(2, 9, 4, 2, seed=1) * 20 if own else drawn(2, 9, 2, seed=1) * 20
    boxes = torch.cat([low, low + 4 + drawn(*low.shape, seed=2) * 20], -1)
    return Outputs(
        scores=drawn(2, 9, 4) ** 3, boxes=boxes, activated=True, objectness=drawn(2, 9, seed=3) if objectness else None
    )


def slow(found: Outputs, box: tuple[float, ...], vector: list[float], label: int) -> list[float]:
    """s = max over candidates of IoU(L) x cos(P) x O, number by number (Petsiuk 2021, section 3)."""
    values, boxes = [], present(found.boxes)
    for n in range(len(found.scores)):
        best = 0.0
        for q, row in enumerate(found.scores[n].tolist()):
            b = boxes[n, q].tolist() if boxes.ndim == 3 else boxes[n, q, label].tolist()
            wide, high = (max(0.0, min(b[i + 2], box[i + 2]) - max(b[i], box[i])) for i in (0, 1))
            union = (b[2] - b[0]) * (b[3] - b[1]) + (box[2] - box[0]) * (box[3] - box[1]) - wide * high
            dot = sum(a * c for a, c in zip(row, vector, strict=True))
            cosine = dot / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(c * c for c in vector))
            sure = max(row) if found.objectness is None else float(found.objectness[n, q])
            best = max(best, wide * high / union * cosine * sure)
        values.append(best)
    return values


@pytest.mark.parametrize("objectness", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_the_similarity_is_the_published_one(objectness: bool, own: bool) -> None:
    found, box, vector = outputs(objectness, own), (3.0, 2.0, 25.0, 21.0), [0.1, 0.7, 0.0, 0.3]
    target = DRISETarget(box=box, scores=torch.tensor(vector), label=1)
    torch.testing.assert_close(target(found), torch.tensor(slow(found, box, vector, 1)), atol=1e-5, rtol=0)
    same = Detection(label=1, score=0.7, box=box, scores=torch.tensor(vector))
    assert torch.equal(same(found), target(found))
    plain = Detection(label=1, score=0.7, box=box)
    assert torch.equal(plain(found), BoxTarget(box=box, label=1)(found))
    assert torch.equal(same.box_target(found), plain(found))
    assert not torch.allclose(same(found), plain(found), atol=1e-3)


def test_a_detection_keeps_its_class_vector_and_is_most_like_itself() -> None:
    found = outputs()
    boxes, objectness = present(found.boxes), present(found.objectness)
    for n, some in enumerate(seewhy.detection.detect(found, score_threshold=0.3)):
        for one in some:
            (q,) = [q for q in range(9) if boxes[n, q].tolist() == list(one.box)]
            assert torch.equal(present(one.scores), found.scores[n, q])
            assert float(one(found)[n]) >= float(objectness[n, q]) - 1e-6


def test_other_classes_count() -> None:
    """A box that keeps its class's probability while another rises is less like itself; BoxTarget is blind."""
    box = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    before, after = (Outputs(scores=torch.tensor([[row]]), boxes=box, activated=True, objectness=torch.ones(1, 1))
                     for row in ([0.8, 0.1], [0.8, 0.8]))  # fmt: skip
    one = seewhy.detection.detect(before)[0][0]
    assert float(one(before)) == pytest.approx(1)
    assert float(one(after)) == pytest.approx((0.8 * 0.8 + 0.1 * 0.8) / (math.hypot(0.8, 0.1) * math.hypot(0.8, 0.8)))
    assert float(one.box_target(before)) == float(one.box_target(after))


def test_objectness_comes_from_the_head() -> None:
    rows = torch.cat([drawn(1, 30, 2) * 60, 5 + drawn(1, 30, 2) * 20, drawn(1, 30, 4)], 2)
    found = YOLOv5()(rows)
    assert torch.equal(present(found.objectness), rows[..., 4])
    with pytest.raises(BadOutput, match=r"^Outputs.objectness must have shape \(2, 9\), got \(2, 8\)\.$"):
        Outputs(scores=drawn(2, 9, 4), objectness=drawn(2, 8))


def scene() -> Tensor:
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24], x[:, 1, 16:, 24:] = 0.9, 0.8
    return x


def test_explaining_what_is_found_is_d_rise() -> None:
    """Masks weighted by the published similarity and added up; the number shown is the box's probability."""
    seen: list[Tensor] = []

    def watched(images: Tensor) -> Outputs:
        seen.append(images)
        return detector(images)

    found = seewhy.explain(watched, scene() + 0.05, method="rise", progress=False, num_masks=24, estimator="plain")
    boxes = seewhy.detections(detector, scene()[0] + 0.05)
    masked = torch.cat([x for x in seen if len(x) > 1])[-24:]
    masks = masked[:, 2:3] / 0.05
    for t, one in enumerate(boxes):
        weights = torch.tensor(slow(detector(masked), one.box, one.scores.tolist(), one.label))
        want = (weights.view(-1, 1, 1, 1) * masks).sum(0)[0] / (24 * 0.5)
        torch.testing.assert_close(found.raw[0, t], want, atol=1e-4, rtol=0)
        assert float(found.probabilities[0, t]) == pytest.approx(one.score, abs=1e-5)
    assert len(boxes) == 2


WRONG: list[tuple[Any, str]] = [
    (lambda: DRISETarget(box=(0, 0, 1, 1), scores=torch.zeros(3), label=0),
     "A class vector is (K,) and not zero, got shape (3,)."),
    (lambda: DRISETarget(box=(0, 0, 1, 1), scores=torch.ones(3), label=0)(outputs()),
     "The class vector must be as long as the model's rows of scores, 4, got 3."),
    (lambda: DRISETarget(box=(0, 0, 1, 1), scores=torch.ones(3), label=0)(Outputs.of_classes(torch.ones(1, 3))),
     "DRISETarget needs a detector: this model's outputs have no boxes. Use ClassTarget."),
    (lambda: Detection(label=0, score=0.5, box=(0, 0, 1, 1)).similarity_target,
     "This detection has no class vector: it was made without scores. Use its box_target."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(InvalidTarget) as said:
        make()
    assert str(said.value) == message


# ------------------------------------------------------------------------------------------------ scores of few values


@pytest.mark.parametrize(("steps", "said"), [(2, True), (3, True), (255, False)])
def test_scores_of_few_values_are_said(steps: int, said: bool) -> None:
    """As of a network whose output is rounded; one class is rounded and the other is not."""

    def rounded(x: Tensor) -> Outputs:
        bright = x.mean((1, 2, 3))
        coarse = ((bright - 0.2) * 10).clamp(0, 1).mul(steps - 1).round() / (steps - 1)
        return Outputs(scores=torch.stack([coarse, bright], 1).unsqueeze(1), activated=True)

    found = seewhy.RISE(rounded, num_masks=64, grid=4).run(torch.full((1, 3, 16, 16), 0.5), [[0, 1]])
    warnings = [w for w in found.warnings if "values under all" in w]
    assert bool(warnings) == said
    if said:
        assert warnings == [
            f"Image 0, class 0: its score has {steps} values under all 64 masks, as where a network is rounded to 8 "
            "bits. The map cannot be finer than that."
        ]
    flat = seewhy.RISE(lambda x: x.mean((2, 3)) * 0, num_masks=64).run(torch.rand(1, 3, 8, 8), 0)
    assert not any("values under all" in w for w in flat.warnings)


def test_the_number_beside_a_map_is_the_probability_where_a_head_has_objectness() -> None:
    """Objectness 0.9 times class probability 0.8 is the box's 0.72; its similarity with itself is 0.9."""
    row = torch.tensor([24.0, 16, 20, 10, 0.9, 0.8, 0.1])
    model = seewhy.load(lambda x: row.expand(len(x), 30, -1), output=YOLOv5(classes=2))
    found = seewhy.explain(model, torch.rand(1, 3, 32, 48), method="occlusion", progress=False)
    assert found.probabilities.tolist() == [[pytest.approx(0.72)]]
    (one,) = seewhy.detections(model, torch.rand(3, 32, 48))
    assert float(one(model(torch.rand(1, 3, 32, 48)))) == pytest.approx(0.9)

"""Detections, and maps for boxes and masks: where the answer is known, and against slow twins from the papers."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import BoxTarget, Detection, MaskTarget
from seewhy.boxes import suppress
from seewhy.detection import box_mask, detect
from seewhy.errors import InvalidInput, InvalidTarget
from seewhy.explainers import RISE, Gradient, HiResCAM, Occlusion
from seewhy.metrics import DeletionAUC, InsertionAUC, PointingGame
from seewhy.models.adapters import as_model
from seewhy.models.heads import DETR
from seewhy.types import Outputs
from support import detector_networks, networks
from support.networks import build, detector, pictures
from support.typed import present

RED, GREEN = (0.0, 0.0, 24.0, 16.0), (24.0, 16.0, 48.0, 32.0)


def close(a: Tensor, b: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), atol=atol, rtol=0)


def scene() -> Tensor:
    """A red thing in the first quarter and a green one in the last; (1, 3, 32, 48)."""
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24] = 0.9
    x[:, 1, 16:, 24:] = 0.8
    return x


class Detector(nn.Module):
    """`networks.detector` as a module; with masks that are 1 in a candidate's quarter."""

    labels = ("red", "green")

    def __init__(self, masks: bool = False) -> None:
        super().__init__()
        self.same, self.masks = nn.Conv2d(3, 3, 1, bias=False), masks
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Outputs:
        found = detector(self.same(x))
        if not self.masks:
            return found
        quarters = torch.zeros(4, 8, 12)
        for q, (i, j) in enumerate(itertools.product((0, 4), (0, 6))):
            quarters[q, i : i + 4, j : j + 6] = 1
        return Outputs(
            scores=found.scores, boxes=found.boxes, masks=quarters.expand(len(x), -1, -1, -1), activated=True
        )


# ------------------------------------------------------------------------------------------------------ detections


def test_suppression_is_torchvisions() -> None:
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((200, 2), generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand((200, 2), generator=generator) * 30], 1)
    scores, labels = torch.rand(200, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    for overlap in (0.1, 0.5, 0.9):
        want = ops.boxes._batched_nms_vanilla(boxes, scores, labels, overlap).tolist()
        assert suppress(boxes, scores, labels, overlap, 200) == want
        assert suppress(boxes, scores, labels, overlap, 7) == want[:7]
    assert suppress(boxes, scores, labels, None, 200) == scores.argsort(descending=True).tolist()


def crowd() -> Outputs:
    """Two overlapping candidates, one elsewhere, one without an area."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [5, 5, 5, 5]]).float()
    scores = torch.tensor([[0.9, 0.4], [0.8, 0.6], [0.3, 0.7], [0.9, 0.9]])
    return Outputs(scores=scores[None], boxes=boxes[None], masks=torch.rand(1, 4, 3, 3), activated=True)


def test_what_is_detected() -> None:
    outputs = crowd()
    found = detect(outputs)[0]
    assert [(d.label, round(d.score, 2), d.box) for d in found] == [
        (0, 0.9, (0, 0, 10, 10)), (1, 0.7, (20, 0, 30, 10)), (1, 0.6, (0, 0, 10, 9)),
    ]  # fmt: skip
    assert torch.equal(present(found[2].mask), present(outputs.masks)[0, 1])
    assert [d.score for d in detect(outputs, score_threshold=0.65, nms_threshold=None)[0]] == pytest.approx(
        [0.9, 0.8, 0.7]
    )
    assert len(detect(outputs, score_threshold=0)[0]) == 4
    assert len(detect(outputs, max_detections=1)[0]) == 1
    assert detect(outputs, score_threshold=0.95) == [[]]


def test_boxes_of_single_classes() -> None:
    outputs = Outputs(
        scores=torch.tensor([[[0.9, 0.8]]]), boxes=torch.tensor([[[[0, 0, 4, 4], [4, 4, 8, 12]]]]).float()
    )
    assert [d.box for d in detect(outputs)[0]] == [(0, 0, 4, 4), (4, 4, 8, 12)]
    close(BoxTarget(box=(4, 4, 8, 8), label=1)(outputs), [0.4])
    close(BoxTarget(box=(4, 4, 8, 8), label=0)(outputs), [0.0])


def test_a_detection_is_a_target() -> None:
    outputs = crowd()
    one = detect(outputs)[0][1]
    close(one(outputs), BoxTarget(box=(20, 0, 30, 10), label=1)(outputs))
    close(one.box_target(outputs), [0.7])
    close(one.mask_target(outputs), [0.7])
    with pytest.raises(InvalidTarget) as said:
        Detection(label=1, score=0.5, box=(0, 0, 1, 1)).mask_target  # noqa: B018
    assert str(said.value) == "This detection has no mask: the model gives boxes only. Use its box_target."


WRONG = [
    ({"score_threshold": 1.5}, "score_threshold must be a number from 0 to 1, got 1.5."),
    ({"nms_threshold": "half"}, "nms_threshold must be a number from 0 to 1, got 'half'."),
    ({"max_detections": 0}, "max_detections must be a positive integer, got 0."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG)
def test_thresholds_that_cannot_be(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        detect(crowd(), **parameters)


def test_only_a_detector_detects() -> None:
    with pytest.raises(InvalidTarget) as said:
        seewhy.detections(build(networks.Pooled), pictures(1))
    assert str(said.value) == "Only a detector detects: this model's outputs have no boxes."


def test_detections_of_one_picture_and_of_several() -> None:
    model = seewhy.load(Detector(), labels=("red", "green"))
    one, several = seewhy.detections(model, scene()[0]), seewhy.detections(model, scene().expand(2, -1, -1, -1))
    assert [(d.name, round(d.score, 2), d.box) for d in one] == [("red", 0.9, RED), ("green", 0.8, GREEN)]
    assert [[d.box for d in objects] for objects in several] == [[RED, GREEN]] * 2
    with pytest.raises(InvalidInput, match="DETR was made for inputs of 8 x 8 pixels, got 32 x 48"):
        seewhy.detections(seewhy.load(Detector(), output=DETR(size=(8, 8))), scene())


# ------------------------------------------------------------------------------------------------- maps for boxes


@pytest.mark.parametrize("method", [lambda m: RISE(m, num_masks=200, grid=(4, 6)), lambda m: Occlusion(m, window=8)])
def test_the_map_of_a_box_lies_on_the_pixels_that_it_depends_on(method: Any) -> None:
    maps = method(detector).attribute(scene(), [BoxTarget(box=RED, label=0), BoxTarget(box=GREEN, label=1)])[0]
    for one, box in zip(maps, (RED, GREEN), strict=True):
        inside = box_mask(box, (32, 48))
        assert float(one[inside].mean()) > 5 * float(one[~inside].abs().mean())
        assert float(one.clamp_min(0)[inside].sum()) > 0.7 * float(one.clamp_min(0).sum())


def test_all_boxes_come_from_the_same_passes() -> None:
    targets = [BoxTarget(box=RED, label=0), BoxTarget(box=GREEN, label=1), BoxTarget(box=GREEN, label=0)]
    together = RISE(detector, num_masks=64).run(scene(), targets)
    assert together.passes.forward == 65
    for t, target in enumerate(targets):
        close(together.raw[:, t : t + 1], RISE(detector, num_masks=64).run(scene(), target).raw, 1e-6)


def slow_box_scores(outputs: Outputs, box: tuple[float, ...], label: int) -> list[float]:
    """D-RISE's similarity with one class asked for: the best candidate's overlap times its score for the class."""
    found = []
    for scores, boxes in zip(outputs.scores, present(outputs.boxes), strict=True):
        best = 0.0
        for s, b in zip(scores.tolist(), boxes.tolist(), strict=True):
            wide = max(0.0, min(b[2], box[2]) - max(b[0], box[0]))
            high = max(0.0, min(b[3], box[3]) - max(b[1], box[1]))
            union = (b[2] - b[0]) * (b[3] - b[1]) + (box[2] - box[0]) * (box[3] - box[1]) - wide * high
            best = max(best, s[label] * wide * high / union)
        found.append(best)
    return found


def test_rise_on_a_box_is_d_rise() -> None:
    """Petsiuk 2021: masks weighted by the similarity of what is detected under them with the box, and added up."""
    box, label, p, count = (3.0, 2.0, 30.0, 20.0), 0, 0.5, 40
    x = torch.rand((1, 3, 32, 48), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def watched(images: Tensor) -> Outputs:
        seen.append(images)
        return detector(images)

    explainer = RISE(watched, num_masks=count, estimator="plain", p=p, perturbation_per_eval=7)
    raw = explainer.attribute(x, BoxTarget(box=box, label=label))
    masked = torch.cat(seen[1:])
    masks = (masked / x)[:, 0]
    want = sum(s * m for s, m in zip(slow_box_scores(detector(masked), box, label), masks, strict=True)) / (count * p)
    close(raw[0, 0], want, 1e-4)


def test_a_mask_target_is_explained() -> None:
    mask = torch.zeros(8, 12)
    mask[4:, 6:] = 1
    maps = RISE(Detector(masks=True), num_masks=200, grid=(4, 6)).attribute(scene(), MaskTarget(mask=mask, label=1))
    inside = box_mask(GREEN, (32, 48))
    assert float(maps[0, 0][inside].mean()) > 5 * float(maps[0, 0][~inside].abs().mean())
    found = seewhy.detections(Detector(masks=True), scene()[0])
    close(maps, RISE(Detector(masks=True), num_masks=200, grid=(4, 6)).attribute(scene(), found[1].mask_target))


def test_gradients_of_a_box_are_autograds() -> None:
    network, x = build(detector_networks.Pooled), pictures(1)
    live = network.features(x).sum(1)[0]
    i, j = divmod(int(live.flatten().argmax()), 8)
    target = BoxTarget(box=(4.0 * j, 4.0 * i, 4.0 * j + 4, 4.0 * i + 4), label=2)
    leaf = x.clone().requires_grad_()
    target(network(leaf)).sum().backward()
    gradient = present(leaf.grad)
    assert bool(gradient.any())
    close(Gradient(network, reduce="sum").attribute(x, target)[0, 0], gradient[0].sum(0), 1e-6)
    found = HiResCAM(network, layer="act2").run(x, target).raw
    want = torch.zeros(8, 8)  # the score of the box hangs on its own position alone
    score = network(x).scores[0, (8 * i + j) * 2, 2]
    want[i, j] = score * (1 - score) * (network.cls1.weight[2, :, 0, 0] @ network.features(x)[0, :, i, j])
    close(found[0, 0], want.detach(), 1e-6)


def test_a_network_that_suppresses_under_no_grad_is_refused() -> None:
    class Final(Detector):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Outputs:
            return super().forward(x)

    with pytest.raises(InvalidInput) as said:
        Gradient(Final()).attribute(scene(), BoxTarget(box=RED, label=0))
    assert str(said.value) == (
        "The scores do not depend on the input through operations that torch can differentiate (the network may run "
        "under torch.no_grad() itself). Use ReciproCAM, RISE or Occlusion."
    )


def test_a_box_that_nothing_overlaps_is_said() -> None:
    nowhere = BoxTarget(box=(100.0, 100.0, 120.0, 120.0), label=1)
    found = RISE(detector, num_masks=16).run(scene(), [BoxTarget(box=RED, label=0), nowhere])
    assert found.warnings[-1] == (
        "Image 0, target 1: no box matched. No candidate of the network with a score for class 1 overlaps it, so the "
        "map shows nothing."
    )
    assert not any("target 0" in warning for warning in found.warnings)
    mask = torch.zeros(8, 12)
    mask[0, 0] = 1
    found = Occlusion(Detector(masks=True)).run(scene() * 0, MaskTarget(mask=mask, label=1))
    assert "Image 0, target 0: no mask matched." in found.warnings[-1]


# ------------------------------------------------------------------------------------------------------- explain


def test_without_targets_every_detection_is_explained() -> None:
    found = seewhy.explain(seewhy.load(Detector(), labels=("red", "green")), scene(), progress=False, num_masks=64)
    assert found.method == "rise"
    assert found.labels == [["red", "green"]]
    assert found.boxes == [[RED, GREEN]]
    close(found.probabilities, [[0.9, 0.8]])
    assert found.passes.forward == 65
    assert "Method 'auto' chose RISE for a detector's boxes, one by one (D-RISE)." in found.warnings
    ((name, probability),) = map(present, found.predicted)
    assert (name, round(probability, 6)) == ("red", 0.9)


def test_several_boxes_of_a_class_have_names_of_their_own() -> None:
    x = scene()
    x[:, 0, :16, 24:] = 0.7
    found = seewhy.explain(seewhy.load(Detector(), labels=("red", "green")), x, progress=False, num_masks=16)
    assert found.labels == [["red", "green", "red 2"]]
    asked = [
        BoxTarget(box=RED, label=0),
        MaskTarget(mask=torch.ones(8, 12), label=1),
        lambda outputs: outputs.scores[:, 0, 0],
    ]
    found = seewhy.explain(Detector(masks=True), x, asked, "occlusion", progress=False)
    assert found.labels == [["class 0", "class 1", "target 2"]]
    assert found.boxes == [[RED, None, None]]


def test_classes_of_a_detector_are_explained_by_its_heads() -> None:
    network = build(detector_networks.Pooled)
    found = seewhy.explain(network, pictures(2), [[1, 3], [0, 2]], progress=False)
    assert found.method == "det_class_probability_map"
    assert "Method 'auto' chose DetClassProbabilityMap for a detector's classes." in found.warnings
    assert (present(found.targets).tolist(), found.boxes) == ([[1, 3], [0, 2]], [])
    without = seewhy.explain(Detector(), scene(), 1, progress=False)
    assert without.method == "rise"
    assert any("It is not known how the candidates of Detector lie in the picture." in w for w in without.warnings)


def test_a_method_of_classes_takes_the_likeliest_class() -> None:
    network = build(detector_networks.Pooled)
    found = seewhy.explain(network, pictures(2), None, "det_class_probability_map", progress=False)
    want = as_model(network)(pictures(2)).classes.max(1)
    assert present(found.targets).tolist() == want.indices.view(2, 1).tolist()
    close(found.probabilities, want.values.view(2, 1))


def test_detections_need_one_picture_and_something_to_see() -> None:
    with pytest.raises(InvalidTarget) as said:
        RISE(detector).attribute(scene().expand(2, -1, -1, -1))
    assert str(said.value) == (
        "What a detector finds is explained one picture at a time, got 2. Pass targets that hold for all of them, or "
        "one picture."
    )
    with pytest.raises(InvalidTarget) as said:
        seewhy.explain(Detector(), scene() / 2, progress=False)
    assert str(said.value) == (
        "The detector finds nothing with a score above 0.5; the likeliest is class 0 with 0.45. Pass "
        "targets=seewhy.detections(model, image, score_threshold=...)."
    )
    faint = seewhy.detections(Detector(), scene()[0] / 2, score_threshold=0.3)
    assert seewhy.explain(Detector(), scene() / 2, faint, "occlusion", progress=False).raw.shape[1] == 2


def test_the_box_is_drawn_where_it_is_in_the_picture(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray((scene()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).resize((480, 320), 0)
    shown = seewhy.Preprocessing(size=(32, 48), mean=(0, 0, 0), std=(1, 1, 1), fit="squash", interpolation="nearest")
    model = seewhy.load(Detector(), preprocessing=shown, labels=("red", "green"))
    found = seewhy.explain(model, picture, method="occlusion", progress=False)
    assert found.box(0, 1) == (240.0, 160.0, 480.0, 320.0)
    pixels = np.asarray(found.overlay(0, 1))
    assert (pixels[162:164, 300] == 255).all()
    assert (pixels[250, 242:244] == 255).all()
    assert not (pixels[:150, :230] == 255).all(-1).any()
    files = found.save(tmp_path)
    assert [f.name for f in files[:2]] == ["image_0-occlusion-red.png", "image_0-occlusion-green.png"]
    told = json.loads(files[-1].read_text())["images"][0]["targets"]
    assert [t["box"] for t in told] == [[0, 0, 240, 160], [240, 160, 480, 320]]


def test_boxes_of_a_letter_boxed_picture() -> None:
    from PIL import Image

    shown = seewhy.Preprocessing(size=(32, 48), mean=(0, 0, 0), std=(1, 1, 1), fit="letterbox", pad=0.0)
    picture = Image.new("RGB", (96, 32), "red")  # shown at half its size, between margins of 8 pixels
    model = seewhy.load(Detector(), preprocessing=shown)
    asked = BoxTarget(box=(12.0, 8.0, 24.0, 20.0), label=0)
    assert seewhy.explain(model, picture, asked, "occlusion", progress=False).box() == (24.0, 0.0, 48.0, 24.0)


# ------------------------------------------------------------------------------------------------------- metrics


def test_metrics_take_boxes() -> None:
    explainer, target = Occlusion(detector, window=8), BoxTarget(box=GREEN, label=1)
    truth = box_mask(GREEN, (32, 48))
    right = explainer.attribute(scene(), target)[0]
    wrong = right.flip(1, 2)
    for metric in (PointingGame(tolerance=0), InsertionAUC(baseline=0), DeletionAUC()):
        mask = truth[None] if metric.needs_truth else None
        good = metric.evaluate(explainer, scene(), target, mask=mask)
        bad = metric.evaluate(explainer, scene(), target, mask=mask, saliency=wrong)
        assert float(good) > float(bad) + 0.3
        assert float(metric.evaluate(explainer, scene(), Detection(label=1, score=0.8, box=GREEN), mask=mask)) == float(
            good
        )


def test_the_mask_of_a_box_holds_the_pixels_within() -> None:
    mask = box_mask((1.4, 0.0, 3.5, 2.6), (4, 5))
    assert mask.nonzero().tolist() == [[i, j] for i in range(3) for j in (1, 2)]

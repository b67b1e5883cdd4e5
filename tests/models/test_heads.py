"""Heads of detectors -> candidates: by the published formulas on made-up heads, and against torchvision itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.detection import detect
from seewhy.errors import BadOutput, InvalidInput, InvalidType
from seewhy.models.adapters import as_model
from seewhy.models.box_formats import paste
from seewhy.models.heads import DETR, SSD, DenseBoxes, Grid, NanoDet, YOLOv5, YOLOv8, detector
from seewhy.models.torch.model import TorchModel
from seewhy.types import Outputs
from support.detector_networks import Slope, squares
from support.torchvision_detectors import torchvision_detector
from support.typed import loaded, of_kind, present, unchecked


def close(a: Tensor, b: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b), atol=atol, rtol=0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------- finished boxes


@pytest.mark.parametrize(
    ("form", "row"),
    [("xyxy", (10, 20, 40, 60)), ("yxyx", (20, 10, 60, 40)), ("cxcywh", (25, 40, 30, 40)), ("xywh", (10, 20, 30, 40))],
)
def test_every_form_of_a_box(form: Any, row: tuple[float, ...]) -> None:
    boxes, scores = torch.tensor([[row]]).float(), torch.tensor([[[0.2, 0.7]]])
    found = DenseBoxes(form=form)((scores, boxes))
    close(present(found.boxes), [[[10.0, 20.0, 40.0, 60.0]]])
    close(found.scores, scores)
    assert found.activated
    shares = DenseBoxes(form=form, size=(100, 200), scores="s", boxes="b")
    scale = [100, 200] if form == "yxyx" else [200, 100]
    close(present(shares({"b": boxes / torch.tensor(scale * 2), "s": scores}).boxes), [[[10.0, 20.0, 40.0, 60.0]]])


def test_scores_that_are_logits_and_a_background() -> None:
    logits, boxes = noise(2, 3, 4), torch.rand(2, 3, 4)
    close(DenseBoxes(activation_fn="sigmoid")((logits, boxes)).scores, logits.sigmoid())
    found = DenseBoxes(activation_fn="softmax", background=2)((logits, boxes)).scores
    close(found[..., [0, 1, 3]], logits.softmax(-1)[..., [0, 1, 3]])
    assert not bool(found[..., 2].any())


# ----------------------------------------------------------------------------------------------------------- DETR


class _Answer(NamedTuple):
    logits: Tensor
    pred_boxes: Tensor
    loss: None


@pytest.mark.parametrize("form", ["published", "hugging face", "names"])
def test_detr_drops_no_object_and_places_boxes(form: str) -> None:
    logits, boxes = noise(2, 7, 4), torch.rand(2, 7, 4)
    raw: Any = {"pred_logits": logits, "pred_boxes": boxes} if form == "published" else _Answer(logits, boxes, None)
    adapter = DETR(size=(48, 80))
    if form == "names":
        raw, adapter = (boxes, logits), DETR(size=(48, 80), scores=1, boxes=0)
    found = adapter(raw)
    assert found.scores.shape == (2, 7, 3)
    for n in range(2):
        for q in range(7):
            total = sum(math.exp(v) for v in logits[n, q].tolist())
            close(found.scores[n, q], [math.exp(v) / total for v in logits[n, q].tolist()[:3]])
            cx, cy, w, h = boxes[n, q].tolist()
            want = [(cx - w / 2) * 80, (cy - h / 2) * 48, (cx + w / 2) * 80, (cy + h / 2) * 48]
            close(present(found.boxes)[n, q], want, 1e-4)


def test_detr_with_sigmoid_has_no_class_to_drop() -> None:
    logits = noise(1, 7, 4)
    found = DETR(size=(48, 80), activation_fn="sigmoid")({"logits": logits, "pred_boxes": torch.rand(1, 7, 4)})
    close(found.scores, logits.sigmoid())


# ----------------------------------------------------------------------------------------------------------- YOLO


def test_yolo_layouts_say_the_same() -> None:
    boxes, classes, objectness = torch.rand(2, 21 * 3, 4) * 30 + 5, torch.rand(2, 63, 3), torch.rand(2, 63, 1)
    old = YOLOv5(size=(32, 32))(torch.cat([boxes, objectness, classes], 2))
    new = YOLOv8(size=(32, 32))(torch.cat([boxes, objectness * classes], 2).transpose(1, 2))
    close(old.scores, new.scores)
    close(present(old.boxes), new.boxes)
    cx, cy, w, h = boxes[1, 9].tolist()
    close(present(old.boxes)[1, 9], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    close(old.scores[1, 9], objectness[1, 9] * classes[1, 9])
    assert old.grids == (Grid(4, 4, 3, True), Grid(2, 2, 3, True), Grid(1, 1, 3, True))
    assert new.grids is None  # 63 candidates are no 21 positions


def test_yolo_in_a_tuple_normalised_and_with_grids() -> None:
    raw = torch.rand(1, 7, 8 * 12 + 4 * 6 + 2 * 3)
    adapter = YOLOv8(size=(64, 96), normalised=True)
    found = adapter((raw, [noise(1, 2)]))
    assert found.grids == (Grid(8, 12), Grid(4, 6), Grid(2, 3))
    cx, cy, w, h = raw[0, :4, 5].tolist()
    close(
        present(found.boxes)[0, 5], [(cx - w / 2) * 96, (cy - h / 2) * 64, (cx + w / 2) * 96, (cy + h / 2) * 64], 1e-4
    )
    close(YOLOv8(output=1, size=(64, 96), normalised=True)([None, raw.numpy()]).scores, raw[:, 4:].transpose(1, 2))


# ------------------------------------------------------------------------------------------------------------ SSD


def test_ssd_undoes_the_encoding() -> None:
    """Boxes are encoded as Liu et al. 2016 write it, and must come back."""
    anchors = torch.rand(9, 4) * 0.3 + torch.tensor([0.2, 0.2, 0.1, 0.1])
    boxes = torch.rand(2, 9, 4) * 0.3 + torch.tensor([0.3, 0.3, 0.1, 0.1])
    tx, ty = ((boxes[..., i] - anchors[:, i]) / anchors[:, 2 + i] * 10 for i in (0, 1))
    tw, th = (torch.log(boxes[..., 2 + i] / anchors[:, 2 + i]) * 5 for i in (0, 1))
    logits = noise(2, 9, 4)
    cx, cy, w, h = (boxes * torch.tensor([80.0, 48.0, 80.0, 48.0])).unbind(-1)
    want = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
    tensorflow = SSD(anchors=anchors, size=(48, 80))((torch.stack([ty, tx, th, tw], -1), logits))
    close(present(tensorflow.boxes), want, 1e-4)
    close(tensorflow.scores[..., 1:], logits.sigmoid()[..., 1:])
    assert not bool(tensorflow.scores[..., 0].any())
    caffe = SSD(
        anchors=anchors * torch.tensor([80.0, 48.0, 80.0, 48.0]), order="xywh", activation_fn="softmax",
        background=None, boxes="loc", scores="conf",
    )({"loc": torch.stack([tx, ty, tw, th], -1), "conf": logits})  # fmt: skip
    close(present(caffe.boxes), want, 1e-4)
    close(caffe.scores, logits.softmax(-1))


# -------------------------------------------------------------------------------------------------------- NanoDet


def test_nanodet_distances_are_the_means_of_distributions() -> None:
    """With all mass on two neighbours the distance lies between them; positions are counted row by row."""
    size, levels = (32, 48), ((4, 6), (2, 3), (1, 2))
    q = sum(h * w for h, w in levels)
    logits, scores = torch.full((1, q, 4, 8), -1e4), torch.rand(1, q, 2)
    steps = torch.tensor([[1, 2], [0, 1], [3, 4], [2, 3]])  # left, top, right, bottom: 1.25, 0.25, 3.25, 2.25
    for side, (one, two) in enumerate(steps.tolist()):
        logits[..., side, one], logits[..., side, two] = math.log(3), 0.0
    found = NanoDet(size=size)((scores, logits.flatten(2)))
    close(found.scores, scores)
    assert found.grids == tuple(Grid(h, w) for h, w in levels)
    place, boxes = 0, present(found.boxes)
    for stride, (h, w) in zip((8, 16, 32), levels, strict=True):
        for i in range(h):
            for j in range(w):
                x, y = (j + 0.5) * stride, (i + 0.5) * stride
                free = [x - 1.25 * stride, y - 0.25 * stride, x + 3.25 * stride, y + 2.25 * stride]
                close(boxes[0, place], [min(max(v, 0), s) for v, s in zip(free, (48, 32, 48, 32), strict=True)])
                place += 1
    corner = NanoDet(size=size, offset=0.0)((scores, logits.flatten(2)))
    close(present(corner.boxes)[0, 8], [6.0, 6.0, 42.0, 26.0])


def test_nanodet_in_one_tensor_in_levels_and_as_logits() -> None:
    scores, logits = noise(2, 24 + 6 + 2, 3).sigmoid(), noise(2, 32, 32, seed=1)
    want = NanoDet(size=(32, 48))((scores, logits))
    whole = NanoDet(size=(32, 48))(torch.cat([scores, logits], 2))
    parts = {f"{name}{i}": t for name, values in (("c", scores), ("d", logits))
             for i, t in enumerate(values.split([24, 6, 2], 1))}  # fmt: skip
    levels = NanoDet(size=(32, 48), scores=("c0", "c1", "c2"), boxes=("d0", "d1", "d2"))(parts)
    for found in (whole, levels):
        close(found.scores, want.scores)
        close(present(found.boxes), want.boxes)
    close(NanoDet(size=(32, 48), activation_fn="sigmoid")((scores, logits)).scores, scores.sigmoid())


# --------------------------------------------------------------------------------------------------------- errors


ANCHORS = torch.rand(9, 4) + 0.1

WRONG = [
    (DenseBoxes(), (torch.rand(1, 5, 4), torch.rand(1, 5, 3)),
     "The head must give scores (N, Q, K) and boxes (N, Q, 4), got (1, 5, 4) at 0 and (1, 5, 3) at 1. They seem to be "
     "swapped: pass scores=1, boxes=0."),
    (DenseBoxes(), (torch.rand(1, 5, 3), torch.rand(1, 6, 4)),
     "The head must give scores (N, Q, K) and boxes (N, Q, 4), got (1, 5, 3) at 0 and (1, 6, 4) at 1."),
    (DenseBoxes(boxes="b"), {"a": torch.rand(1, 5, 3)}, "The network's output has no 'b': it is a dict with 'a'."),
    (DenseBoxes(), (torch.rand(5, 3), torch.rand(1, 5, 4)), "The head must give a tensor (N, Q, ...) at 0, got shape "
     "(5, 3)."),
    (DenseBoxes(background=3), (torch.rand(1, 5, 3), torch.rand(1, 5, 4)),
     "There is no background class 3: the head has 3 classes."),
    (DETR(size=(8, 8)), {"logits": torch.rand(1, 5, 3)}, "The network's output has no 'pred_boxes': it is a dict with "
     "'logits'."),
    (YOLOv5(), torch.rand(1, 84, 8400), "YOLOv5's output has shape (N, Q, 5 + K), got (1, 84, 8400). It looks like "
     "YOLOv8's."),
    (YOLOv8(), torch.rand(1, 25200, 85), "YOLOv8's output has shape (N, 4 + K, Q), got (1, 25200, 85). It looks like "
     "YOLOv5's, or RT-DETR's (heads.RTDETR)."),
    (YOLOv8(), torch.rand(1, 4, 85), "YOLOv8's output has shape (N, 4 + K, Q), got (1, 4, 85)."),
    (SSD(anchors=ANCHORS), (torch.rand(1, 8, 4), torch.rand(1, 8, 3)), "There are 9 anchors, but encodings of 8 "
     "boxes."),
    (NanoDet(size=(64, 64)), (torch.rand(1, 8, 3), torch.rand(1, 8, 32)),
     "An input of 64 x 64 pixels has 84 positions at strides 8, 16, 32, the head gives 8. Pass the right size and "
     "strides."),
    (NanoDet(size=(64, 64)), (torch.rand(1, 84, 3), torch.rand(1, 84, 28)),
     "The head must give scores (N, Q, K) and boxes (N, Q, 32), got (1, 84, 3) at 0 and (1, 84, 28) at 1."),
]  # fmt: skip


@pytest.mark.parametrize(("adapter", "raw", "message"), WRONG)
def test_wrong_shapes_are_named(adapter: Any, raw: Any, message: str) -> None:
    with pytest.raises(BadOutput) as said:
        adapter(raw)
    assert str(said.value) == message


MADE_WRONG = [
    (lambda: DETR(size=unchecked((6.0, 6))),
     "size must be the network's input as (height, width) in pixels, got (6.0, 6)."),
    (lambda: YOLOv8(normalised=True), "Boxes that are shares of the input need its size=(height, width)."),
    (lambda: DenseBoxes(form=unchecked("xxyy")), "form must be one of xyxy, yxyx, cxcywh, xywh, got 'xxyy'."),
    (lambda: SSD(anchors=torch.zeros(5, 4)), "anchors must be (Q, 4): x and y of the centre, width and height above 0, "
     "got (5, 4)."),
    (lambda: SSD(anchors=ANCHORS, order=unchecked("hwxy")), "order must be 'yxhw' or 'xywh', got 'hwxy'."),
    (lambda: DETR(size=(8, 8), activation_fn=unchecked("relu")),
     "activation_fn must be 'softmax', 'sigmoid', None or a callable, "
     "got 'relu'."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), MADE_WRONG)
def test_adapters_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as said:
        make()
    assert str(said.value) == message


def test_an_input_of_another_size_is_refused() -> None:
    """Its boxes would be elsewhere."""

    def head(x: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.zeros(len(x), 3, 4), "pred_boxes": torch.full((len(x), 3, 4), 0.5)}

    model = seewhy.load(head, output=DETR(size=(32, 48)))
    assert seewhy.Occlusion(model).attribute(torch.rand(1, 3, 32, 48), 0).shape == (1, 1, 32, 48)
    with pytest.raises(InvalidInput) as said:
        seewhy.Occlusion(model).attribute(torch.rand(1, 3, 32, 32), 0)
    assert str(said.value) == (
        "DETR was made for inputs of 32 x 48 pixels, got 32 x 32. Use size=(32, 32) or give it inputs of its size."
    )


def test_grids_and_class_boxes_must_fit() -> None:
    with pytest.raises(BadOutput, match=r"^Outputs.grids must hold the 5 candidates of the scores, got room for 6.$"):
        Outputs(scores=torch.rand(1, 5, 3), grids=(Grid(1, 2), Grid(2, 2)))
    assert Outputs(scores=torch.rand(1, 5, 3), boxes=torch.rand(1, 5, 3, 4)).boxes is not None
    with pytest.raises(BadOutput, match=r"^Outputs.boxes must have shape \(1, 5, 4\), got \(1, 5, 2, 4\).$"):
        Outputs(scores=torch.rand(1, 5, 3), boxes=torch.rand(1, 5, 2, 4))


# ---------------------------------------------------------------------------------------------------- torchvision


@pytest.mark.parametrize("kind", ["ssd", "retina", "fcos", "faster", "mask"])
@pytest.mark.slow
def test_suppressed_candidates_are_torchvisions_detections(kind: str) -> None:
    network = torchvision_detector(kind)
    x = torch.rand((2, 3, 90, 150), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(list(x))
    model = as_model(network)
    with model.opened():
        outputs = model(x)
    assert outputs.activated
    found = detect(outputs, score_threshold=0, nms_threshold=0.5, max_detections=40)
    assert model.name == type(network).__name__
    for want, got in zip(wanted, found, strict=True):
        assert len(got) == len(want["boxes"]) == 40
        assert [d.label for d in got] == want["labels"].tolist()
        close(torch.tensor([d.score for d in got]), want["scores"], 1e-4)
        close(torch.tensor([d.box for d in got]), want["boxes"], 1e-2 if kind == "faster" else 1e-3)


def test_a_detector_is_adapted_once_and_shares_its_parts() -> None:
    network = torchvision_detector("ssd")
    first, again = (of_kind(TorchModel, as_model(network)) for _ in range(2))
    assert first.module is again.module
    assert first.module.backbone is network.backbone
    assert set(first.module.state_dict()) == set(network.state_dict())
    network.head = torchvision_detector("ssd").head
    assert of_kind(TorchModel, as_model(network)).module.head is network.head
    assert detector(network) is not first.module


def test_a_detector_with_a_forward_of_its_own_is_left_alone() -> None:
    zoo = pytest.importorskip("torchvision.models.detection.ssd")

    def forward(self: Any, images: Any, targets: Any = None) -> Any:
        return Tensor()

    network = torchvision_detector("ssd")
    network.__class__ = type("Own", (zoo.SSD,), {"forward": forward})
    assert of_kind(TorchModel, as_model(network)).module is network


def test_masks_are_torchvisions() -> None:
    """Up to its rounding of boxes to whole pixels; of each box the mask of its own class."""
    network: Any = torchvision_detector("mask")
    network.roi_heads.mask_predictor = Slope()
    x = torch.rand((1, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, outputs = network(list(x))[0]["masks"][:, 0], as_model(network)(x)
    masks, boxes = present(outputs.masks), present(outputs.boxes)
    assert masks.shape == (1, 40, 96, 128)
    wide = [i for i, b in enumerate(boxes[0]) if bool((b[2:] - b[:2] > 14).all())]
    assert len(wide) > 5
    for i in wide:
        ours = masks[0, i]
        assert float((ours - want[i]).abs().sum()) < 0.2 * float(want[i].sum())


def test_mask_rcnn_without_masks_gives_every_proposal() -> None:
    network = torchvision_detector("mask")
    x = torch.rand((1, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    plain, small = as_model(detector(network, masks=False)), as_model(detector(network, mask_side=16))
    with torch.no_grad():
        boxes, masks = plain(x), small(x)
    assert boxes.masks is None
    assert present(boxes.boxes).shape == (1, 1000, 6, 4)
    assert present(masks.masks).shape == (1, 40, 12, 16)
    first, second = (detect(o, score_threshold=0, max_detections=40)[0] for o in (boxes, masks))
    assert [d.label for d in first] == [d.label for d in second]
    close(torch.tensor([d.box for d in first]), torch.tensor([d.box for d in second]), 1e-3)


def test_pasting_lays_a_mask_in_its_box() -> None:
    masks, boxes = torch.ones(1, 2, 4, 4), torch.tensor([[[2.0, 4.0, 6.0, 12.0], [0.0, 0.0, 0.0, 0.0]]])
    masks[0, 0, :, 2:] = 0  # the left half
    found = paste(masks, boxes, (16, 8), (16, 8))
    assert found.shape == (1, 2, 16, 8)
    assert not bool(found[0, 1].any())
    inside = torch.zeros(16, 8, dtype=torch.bool)
    inside[4:12, 2:6] = True
    assert not bool(found[0, 0][~inside].gt(0.5).any())
    assert bool(found[0, 0][5:11, 3].gt(0.5).all())
    assert not bool(found[0, 0][5:11, 4:6].gt(0.5).any())


def test_a_detector_subtracts_the_mean_itself() -> None:
    assert str(loaded(TorchModel, torchvision_detector("ssd")).preprocessing) == (
        "320x320 RGB, squashed, sampled; values 0..1, mean 0, deviation 1"
    )
    retina = present(loaded(TorchModel, torchvision_detector("retina")).preprocessing)
    assert (retina.size, retina.fit, retina.mean, retina.std) == ((96, 160), "keep", (0, 0, 0), (1, 1, 1))
    assert str(retina) == ("at most 96 by 160 RGB, at its own aspect ratio, sampled; values 0..1, mean 0, deviation 1")


def test_a_named_detector_with_a_checkpoint(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    name = "ssdlite320_mobilenet_v3_large"
    torch.save(models.get_model(name, weights=None, weights_backbone=None).state_dict(), tmp_path / "ssd.pth")
    model = loaded(TorchModel, f"torchvision:{name}", checkpoint=tmp_path / "ssd.pth")
    assert present(model.labels)[:2] == ("__background__", "person")
    with model.opened():
        assert model(torch.rand(1, 3, 320, 320)).scores.shape == (1, 3234, 91)


def test_the_automatic_layer_of_a_detector_is_its_backbones() -> None:
    x = torch.rand((1, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    for kind, layer, size in (("retina", "backbone.body.layer4", (3, 4)), ("faster", "backbone.body.16", None)):
        network = torchvision_detector(kind)
        found = seewhy.ActivationMap(network).run(x, 1)
        assert found.layer == layer
        assert size in (None, tuple(found.raw.shape[2:]))
        assert any("pads" in warning for warning in found.warnings) == (kind == "faster")  # 426 to 448
    narrow = seewhy.GradCAM(torchvision_detector("retina")).run(x[..., :120], 1)
    assert narrow.warnings[0] == (
        "RetinaNet pads its input to whole multiples of 32 pixels, so the layer's map covers up to 7% more than the "
        "picture and is shifted by as much at the right and lower border."
    )


def test_only_torchvisions_detectors_are_known() -> None:
    with pytest.raises(InvalidType) as said:
        detector(nn.Conv2d(3, 3, 1))
    assert str(said.value) == (
        "Expected a detector of torchvision, got Conv2d. For others pass an adapter: "
        "seewhy.load(network, output=seewhy.heads.YOLOv8(...))."
    )
    with pytest.raises(InvalidInput, match=r"^mask_side must be a positive integer, got 0\.$"):
        detector(torchvision_detector("ssd"), mask_side=0)


def test_an_adapter_reads_a_models_arrays() -> None:
    """As exported models give them."""
    raw = [np.random.default_rng(0).random((1, 4, 2), dtype=np.float32), squares(2, 2, 16, (16,))[None].numpy()]
    outputs = as_model(seewhy.load(lambda x: raw, output=DenseBoxes()))(torch.rand(1, 3, 32, 32))
    close(present(outputs.boxes)[0, 3], [16.0, 16.0, 32.0, 32.0])

"""Ultralytics' own objects with random weights: what seewhy reads of them is what the library itself predicts."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy import errors
from seewhy.models.adapters import as_model

os.environ.setdefault("YOLO_OFFLINE", "true")
ultralytics: Any = pytest.importorskip("ultralytics")

SIZE = 96
DETECTORS = ["yolov8n", "yolov5nu", "yolo11n", "yolo26n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb"]
TASKS = {"seg": "segment", "pose": "pose", "obb": "obb"}


def picture(height: int = 60, width: int = 90) -> Image.Image:
    found = np.random.default_rng(0).integers(0, 256, (height // 6, width // 6, 3)).astype("uint8")
    return Image.fromarray(found).resize((width, height), Image.Resampling.BICUBIC)


def made(name: str) -> Any:
    torch.manual_seed(0)
    network = ultralytics.YOLO(f"{name}.yaml", verbose=False)
    network.overrides["imgsz"] = SIZE
    if name.endswith("seg"):  # with so few classes that an input of 64 pixels has more candidates than rows
        network.model = type(network.model)(f"{name}.yaml", nc=4, verbose=False)
        network.model.args, network.model.task = {"task": "segment"}, "segment"
    for module in network.model.modules():  # random weights say nearly the same everywhere
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    head = network.model.model[-1]
    for branch in (*getattr(head, "cv3", ()), *(getattr(head, "one2one_cv3", None) or ())):
        nn.init.normal_(branch[-1].weight, std=0.3)
        nn.init.constant_(branch[-1].bias, -2.0)
    network.model.names = {i: f"thing {i}" for i in range(len(network.names))}
    return network


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_found_is_what_the_library_finds(name: str) -> None:
    network, image = made(name), picture()
    side = 64 if name.endswith("seg") else SIZE  # of which all candidates are kept, not the likeliest 100
    network.overrides["imgsz"] = side
    square = Image.new("RGB", (90, 90), (114, 114, 114))
    square.paste(image, (0, 15))  # the library leaves most of the padding of a single picture away
    model: Any = seewhy.load(network)
    found = seewhy.detections(model, square, score_threshold=0.05, nms_threshold=None, max_detections=20000)
    bgr = np.ascontiguousarray(np.asarray(square)[..., ::-1])
    (own,) = network.predict(bgr, imgsz=side, conf=0.05, iou=0.97, max_det=300, verbose=False)
    boxes = own.obb if own.boxes is None else own.boxes
    rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
    ours = [(one.label, one.score, np.clip(as_view(model, square, one), 0, 90)) for one in found]
    near = [
        min(abs(score - b) + np.abs(np.clip(box, 0, 90) - c).max() for a, b, c in ours if a == label)
        for label, score, box in rows
    ]
    assert len(near) > 3
    assert all(one.name == f"thing {one.label}" for one in found)
    assert max(near) < 0.1  # the library keeps each candidate's best class alone, and suppresses some


def as_view(model: Any, image: Image.Image, one: Any) -> np.ndarray:
    """The box in pixels of the image."""
    _, view = model.preprocessing(image)
    return np.asarray(view.box_to_original(one.box, model.preprocessing.size))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_box_is_explained(name: str) -> None:
    model: Any = seewhy.load(made(name))
    found = seewhy.detections(model, picture(), score_threshold=0.01, max_detections=2)
    explanation = seewhy.explain(model, picture(), found[0], "rise", num_masks=12, grid=4, progress=False)
    assert explanation.raw.shape[:2] == (1, 1)
    assert explanation.labels == [[f"thing {found[0].label}"]]
    masks = as_model(model)(model.preprocessing(picture())[0]).masks
    assert (masks is not None) == name.endswith("seg")


def test_classes_of_a_detector_have_maps_over_its_grids() -> None:
    explanation = seewhy.explain(made("yolov8n"), picture(), 3, progress=False)
    assert explanation.method == "det_class_probability_map"
    assert float(explanation.raw.amax() - explanation.raw.amin()) > 0


def test_a_classifier_gives_logits_and_what_the_library_says() -> None:
    network = made("yolov8n-cls")
    model: Any = seewhy.load(network)
    (own,) = network.predict(np.ascontiguousarray(np.asarray(picture(96, 96))[..., ::-1]), imgsz=SIZE, verbose=False)
    explanation = seewhy.explain(model, picture(96, 96), progress=False)
    assert explanation.predicted[0] is not None
    assert explanation.predicted[0][0] == f"thing {own.probs.top1}"
    assert explanation.predicted[0][1] == pytest.approx(float(own.probs.top1conf), abs=1e-3)
    assert explanation.method == "recipro_cam"
    for method in ("grad_cam", "gradient"):
        assert seewhy.explain(model, picture(96, 96), 2, method, progress=False).raw.isfinite().all()


def test_rt_detr_is_read_from_its_last_decoder_layer() -> None:
    torch.manual_seed(0)
    network = ultralytics.RTDETR("rtdetr-resnet50.yaml")
    model: Any = seewhy.load(network)
    inputs = torch.rand(1, 3, SIZE, SIZE)
    with model.opened():
        outputs = model(inputs)
        raw = network.model(inputs)[1]
    assert outputs.scores.shape[2] == 80
    torch.testing.assert_close(outputs.scores, raw[1][-1].sigmoid())
    wide = (outputs.boxes[..., 2] - outputs.boxes[..., 0]) / SIZE
    torch.testing.assert_close(wide, raw[0][-1][..., 2])


def test_the_network_alone_is_known_too_and_is_left_as_it_was() -> None:
    network = made("yolov8n")
    network.model.train()
    state = {name: value.clone() for name, value in network.model.state_dict().items()}
    alone, whole = seewhy.load(network.model), seewhy.load(network)
    given = torch.rand(1, 3, 64, 128)
    for one in (alone, whole):
        with one.opened():
            boxes = one(given).boxes
            assert boxes is not None
            assert boxes.shape == (1, 8 * 16 + 4 * 8 + 2 * 4, 4)
    assert network.model.training
    assert all(torch.equal(value, state[name]) for name, value in network.model.state_dict().items())


def test_what_cannot_be_read_is_said() -> None:
    network = made("yolov8n")
    with pytest.raises(errors.InvalidInput, match=r"multiples of its largest stride, 32, got 50 x 64"):
        seewhy.detections(network, torch.rand(1, 3, 50, 64))
    network.task = "depth"
    with pytest.raises(errors.InvalidInput, match=r"The task of this YOLO is 'depth', which is not known"):
        seewhy.load(network)
    network.task = "detect"
    del network._modules["model"]
    network.__dict__["model"] = "weights.onnx"
    with pytest.raises(errors.InvalidType, match=r"runs the file 'weights\.onnx': pass that, seewhy\.load"):
        seewhy.load(network)

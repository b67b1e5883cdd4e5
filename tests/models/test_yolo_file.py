"""Files as YOLO exporters write them: names, task and size in their metadata, and nothing to be said besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import cli
from seewhy.errors import InvalidInput
from seewhy.models.heads import DETR, RTDETR, EndToEnd, YOLOv5, YOLOv8
from seewhy.models.yolo_file import YOLOFile
from support.exports import to_onnx, to_xml
from support.typed import present

pytestmark = pytest.mark.slow

SIZE = (64, 96)
NAMES = ("red thing", "green thing", "blue thing")
Q = 8 * 12 + 4 * 6 + 2 * 3


class Places(nn.Module):
    """A box of one stride at each position, and how red, green and blue the picture is there."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task
        boxes = [
            ((j + 0.5) * s, (i + 0.5) * s, float(s), float(s))
            for s, h, w in ((8, 8, 12), (16, 4, 6), (32, 2, 3)) for i in range(h) for j in range(w)
        ]  # fmt: skip
        self.register_buffer("boxes", torch.tensor(boxes).t()[None])

    boxes: Tensor

    def forward(self, x: Tensor) -> Any:
        levels = [nn.functional.avg_pool2d(x, s).flatten(2) for s in (8, 16, 32)]
        scores = torch.cat(levels, 2) * 0.9
        boxes = self.boxes + 0 * scores[:, :1]
        if self.task == "pose":
            return torch.cat([boxes, scores, boxes[:, :2], scores[:, :1]], 1)
        if self.task == "obb":
            return torch.cat([boxes, scores, 0 * scores[:, :1] + 1.2], 1)
        if self.task == "segment":
            return torch.cat([boxes, scores, scores[:, :2] - 0.5], 1), nn.functional.avg_pool2d(x, 4)[:, :2]
        if self.task == "rows":
            corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
            best, label = scores.max(1, keepdim=True)
            return torch.cat([corners, best, label.float()], 1).transpose(1, 2)[:, :Q]
        return torch.cat([boxes, scores], 1)


def scene() -> Image.Image:
    """A green square on black, 192 x 128 pixels: twice the input."""
    pixels = np.zeros((128, 192, 3), np.uint8)
    pixels[32:64, 96:128, 1] = 255
    return Image.fromarray(pixels)


def metadata(task: str, **more: Any) -> dict[str, Any]:
    names = dict(enumerate(NAMES))
    return {
        "description": "a model",
        "stride": 32,
        "task": task,
        "batch": 1,
        "imgsz": list(SIZE),
        "names": names,
        **more,
    }


def write(task: str, kind: str, folder: Path) -> Path:
    network, x = Places(task).eval(), torch.rand(1, 3, *SIZE)
    told = metadata("detect" if task == "rows" else task)
    if kind == "torchscript":
        path = folder / "net.torchscript"
        script = torch.jit.trace(network, x, check_trace=False)
        torch.jit.save(script, path, _extra_files={"config.txt": json.dumps(told)})
        return path
    if kind == "xml":
        path = to_xml(network, folder / "net.xml", x, batch=1, fused=True)
        graph = ov.Core().read_model(path)
        labels = [name.replace(" ", "_") for name in NAMES]
        info: dict[str, Any] = {"model_type": "YOLO", "labels": labels, "pad_value": 114,
                "scale_values": [255.0], "reverse_input_channels": True,
                "resize_type": "fit_to_window_letterbox"}  # fmt: skip
        for key, value in (
            info | ({"task": task, "names": str(told["names"])} if task in ("pose", "obb") else {})
        ).items():
            graph.set_rt_info(value, ["model_info", key])
        ov.save_model(graph, folder / "with.xml", compress_to_fp16=False)
        return folder / "with.xml"
    path = to_onnx(network, folder / "net.onnx", x, free=False, output_names=None)
    graph = onnx.load(path)
    for key, value in told.items():
        graph.metadata_props.add(key=key, value=str(value))
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("kind", ["onnx", "xml", "torchscript"])
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "rows"])
def test_a_file_says_what_it_needs(task: str, kind: str, tmp_path: Path) -> None:
    model: Any = seewhy.load(write(task, kind, tmp_path))
    best = seewhy.detections(model, scene(), max_detections=1)[0]
    assert best.name in ("green thing", "green_thing")
    assert best.score == pytest.approx(0.87, abs=0.05)  # a border of pixels that were made smaller
    side = 8 * (abs(np.cos(1.2)) + abs(np.sin(1.2))) if task == "obb" else 16
    if task != "obb":
        assert best.box == pytest.approx((48, 16, 64, 32), abs=0.1)
    else:
        assert best.box[2] - best.box[0] in (pytest.approx(side, abs=0.1), pytest.approx(2 * side, abs=0.1))
    assert (best.mask is not None) == (task == "segment")
    said = "Read as its file says: "
    assert any(
        note.startswith(said) and "3 classes, pictures letterboxed to 96 x 64 pixels" in note for note in model.notes
    )
    ready = present(model.preprocessing)
    assert (ready.fit, ready.size, ready.pad, ready.channels) == ("letterbox", SIZE, pytest.approx(114 / 255), "RGB")


def test_the_command_line_needs_no_flags(tmp_path: Path, capsys: Any) -> None:
    scene().save(tmp_path / "scene.png")
    path = write("detect", "onnx", tmp_path)
    code = cli.main(["explain", str(tmp_path / "scene.png"), "--model", str(path), "--out", str(tmp_path / "maps"),
                     "--method", "occlusion", "--max-detections", "1", "--quiet"])  # fmt: skip
    assert code == 0
    assert "green thing" in capsys.readouterr().out


def bare(folder: Path) -> Path:
    """A file without metadata."""
    network, x = Places("detect").eval(), torch.rand(1, 3, *SIZE)
    return to_onnx(network, folder / "bare.onnx", x, free=False, output_names=None)


def test_the_command_line_takes_the_name_of_a_head(tmp_path: Path, capsys: Any) -> None:
    scene().save(tmp_path / "scene.png")
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    code = cli.main(["explain", str(tmp_path / "scene.png"), "--model", str(bare(tmp_path)), "--head", "yolov8",
                     "--labels", str(tmp_path / "names.txt"), "--mean", "0", "0", "0", "--std", "1", "1", "1", "--fit",
                     "letterbox", "--out", str(tmp_path / "maps"), "--method", "occlusion", "--quiet"])  # fmt: skip
    assert code == 0
    assert "green thing" in capsys.readouterr().out


def test_heads_by_name_and_what_they_need(tmp_path: Path) -> None:
    path = bare(tmp_path)
    load: Any = seewhy.load
    assert load(path, head="yolov8", labels=NAMES).output == YOLOv8(size=SIZE, classes=3)
    assert load(path, head="endtoend", labels=NAMES).output == EndToEnd(num_classes=3)
    assert load(path, head="detr").output == DETR(size=SIZE)
    for name, said in (
        ("endtoend", r"^Head 'endtoend' needs the class names of bare\.onnx: pass labels \(--labels FILE\)\.$"),
        ("ssd", r"^An SSD's boxes are told from its anchors, which a name does not give"),
        ("yolo", r"^head must be 'detr', .* or 'yolox', got 'yolo'\.$"),
    ):
        with pytest.raises(InvalidInput, match=said):
            seewhy.load(path, head=name)
    with pytest.raises(InvalidInput, match="pass one of them"):
        seewhy.load(path, head="detr", output=0)
    with pytest.raises(InvalidInput, match=r"^Head 'yolov8' needs the size of Places's input, which is open"):
        seewhy.load(Places("detect"), head="yolov8")


def test_what_the_caller_says_goes_before_what_the_file_says(tmp_path: Path) -> None:
    reader = YOLOv8(size=SIZE, classes=3)
    model: Any = seewhy.load(write("detect", "onnx", tmp_path), output=reader)
    assert model.output is reader


def test_a_classifier_of_the_same_exporter_is_cut_at_the_centre(tmp_path: Path) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)).eval()
    path = to_onnx(network, tmp_path / "net.onnx", torch.rand(1, 3, 64, 64), free=False)
    graph = onnx.load(path)
    for key, value in metadata("classify", imgsz=[64, 64]).items():
        graph.metadata_props.add(key=key, value=str(value))
    onnx.save(graph, path)
    model: Any = seewhy.load(path)
    assert (present(model.preprocessing).fit, model.labels) == ("crop", NAMES)
    found = seewhy.explain(model, scene().crop((64, 0, 128, 64)), method="occlusion")
    assert present(found.predicted[0])[0] == "green thing"


@pytest.mark.parametrize(
    ("shape", "classes", "kind"),
    [
        ((1, 7, Q), 3, YOLOv8), ((1, 300, 6), 80, EndToEnd), ((1, 300, 6), 1, EndToEnd), ((1, 25200, 6), 1, YOLOv5),
        ((1, 378, 8), 3, YOLOv5), ((1, 300, 7), 3, RTDETR), ((1, 84, 8400), 80, YOLOv8),
    ],
)  # fmt: skip
def test_the_head_is_known_by_the_shape(shape: tuple[int, ...], classes: int, kind: type) -> None:
    file = YOLOFile(task="detect", size=SIZE, classes=classes)
    raw = torch.zeros(shape)
    assert type(file.chosen(raw)) is kind

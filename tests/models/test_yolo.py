"""YOLO's layouts: each is read by its own reader and refused by the others; readers on files; suppression inside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import seewhy
from seewhy.detection import BoxTarget
from seewhy.errors import BadOutput, InvalidInput
from seewhy.models.exported.onnx import ONNXModel
from seewhy.models.heads import RTDETR, YOLOX, DenseBoxes, EndToEnd, Grid, YOLOv5, YOLOv8
from seewhy.types import Outputs
from support.typed import present, unchecked

SIZE = (64, 96)
Q = 8 * 12 + 4 * 6 + 2 * 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Any, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a.float(), torch.as_tensor(b).float(), atol=atol, rtol=0)


def places(n: int = 2, q: int = Q) -> Tensor:
    """(N, Q, 4) centre and size in pixels all over the input."""
    return torch.cat([drawn(n, q, 2) * torch.tensor([96.0, 64.0]), 2 + drawn(n, q, 2, seed=1) * 30], 2)


def dense(*more: Tensor) -> Tensor:
    """YOLOv8's (N, 4 + K + ..., Q) with three classes."""
    return torch.cat([places(), drawn(2, Q, 3, seed=2), *more], 2).transpose(1, 2)


def rows(q: int = 30, k: int = 5) -> Tensor:
    """(2, Q, 6) corners, score and class, the best first, as networks that suppress themselves give."""
    first = places(2, q)
    scores = drawn(2, q, 1, seed=3).sort(1, descending=True).values
    labels = torch.randint(0, k, (2, q, 1), generator=torch.Generator().manual_seed(4)).float()
    return torch.cat([first[..., :2] - first[..., 2:] / 2, first[..., :2] + first[..., 2:] / 2, scores, labels], 2)


PROTOTYPES = drawn(2, 8, 16, 24, seed=5) * 2 - 1
COEFFICIENTS = drawn(2, Q, 8, seed=6) * 4 - 2
KEYPOINTS = drawn(2, Q, 51, seed=7) * 60
ANGLE = drawn(2, Q, 1, seed=8) * math.pi - math.pi / 4
SHARES = torch.cat([drawn(2, 300, 4, seed=9), drawn(2, 300, 80, seed=10)], 2)
OFFSETS = torch.cat([drawn(2, Q, 2), drawn(2, Q, 2, seed=1) * 3 - 1, drawn(2, Q, 4, seed=2)], 2)


# -------------------------------------------------------------------------------- one reader takes what is its own

WRONG = [
    (YOLOv8(), rows(), "They look like rows of a network that suppresses itself: use heads.EndToEnd(num_classes=...)."),
    (YOLOv5(), rows(), "They look like rows of a network that suppresses itself: use heads.EndToEnd(num_classes=...)."),
    (YOLOv5(), rows(k=1), "use heads.EndToEnd(num_classes=...)."),
    (YOLOv5(), rows(k=1).flip(1), "The last column of (2, 30, 6) holds class numbers, no probabilities."),
    (YOLOv5(), rows(k=2).flip(1), "The last column of (2, 30, 6) holds class numbers, no probabilities."),
    (YOLOv8(), rows(k=2).transpose(1, 2), "The last row of (2, 6, 30) holds class numbers, no probabilities."),
    (YOLOv8(size=SIZE, normalised=True), dense(), "said to be shares of the input, but go up to 95"),
    (YOLOv8(size=(32, 32)), dense(), "Most boxes have their centre outside of an input of 32 x 32 pixels"),
    (YOLOv8(size=SIZE), dense(COEFFICIENTS), "Columns that are no classes are key points (task='pose')"),
    (YOLOv8(size=SIZE), dense(KEYPOINTS), "Columns that are no classes are key points (task='pose')"),
    (YOLOv8(size=SIZE), dense(ANGLE), "Columns that are no classes are key points (task='pose')"),
    (YOLOv8(size=SIZE, classes=3), dense(ANGLE / 9 + 0.5), "YOLOv8 should give 3 classes, its output has room for 4."),
    (YOLOv8(size=SIZE), (dense(COEFFICIENTS.abs() / 9), PROTOTYPES), "maps of shape (2, 8, 16, 24), as prototypes"),
    (YOLOv8(size=SIZE, task="segment"), (dense(COEFFICIENTS), 3), "Prototypes of masks have shape (N, M, h, w)"),
    (YOLOv8(size=SIZE, task="segment", classes=4), (dense(COEFFICIENTS), PROTOTYPES), "YOLOv8 should give 4 classes"),
    (YOLOv5(size=SIZE), OFFSETS, "They look like offsets within cells: use heads.YOLOX(size=...)."),
    (YOLOv5(size=(640, 640)), torch.cat([OFFSETS[..., :2], OFFSETS[..., 2:4].abs() + 0.1, OFFSETS[..., 4:]], 2),
     "All boxes lie within the first 2.1 pixels of an input of 640 x 640. They look like offsets within cells"),
    (YOLOX(size=SIZE), torch.cat([places(), drawn(2, Q, 4, seed=2)], 2), "they are decoded. Use heads.YOLOv5."),
    (YOLOX(size=(64, 64)), OFFSETS, "YOLOX's output has shape (N, 84, 5 + K) for an input of 64 x 64 pixels"),
    (YOLOv5(), SHARES, "rows (N, Q, 4 + K) without objectness are read by heads.RTDETR(size=...)."),
    (YOLOv8(), SHARES, "It looks like YOLOv5's, or RT-DETR's (heads.RTDETR)."),
    (RTDETR(size=SIZE), dense().transpose(1, 2), "RT-DETR's boxes are shares of the input, from 0 to 1, got"),
    (YOLOv8(), torch.cat([places(), drawn(2, Q, 3) * 9 - 4], 2).transpose(1, 2), "logits need a sigmoid."),
    (YOLOv5(classes=3), torch.cat([places(), drawn(2, Q, 5)], 2), "YOLOv5 should give 3 classes, its output has"),
    (DenseBoxes(), (drawn(1, 5, 3) * 9, drawn(1, 5, 4)), "Logits need activation_fn='sigmoid' or 'softmax'."),
    (EndToEnd(num_classes=3), rows(), "Class numbers must be whole, from 0 to 2, got 0 to 4."),
    (EndToEnd(num_classes=5, columns=("box", "class", "score")), rows(), "The scores of a detector must be"),
    (EndToEnd(num_classes=5), drawn(2, 30, 7), "Suppressed boxes must have shape (N, Q, 6) at 0, got shape (2, 30"),
    (EndToEnd(num_classes=5, boxes=0, scores=1, classes=2), (drawn(2, 9, 4), drawn(2, 9), drawn(2, 8).round()),
     "Boxes, scores and classes must have as many rows each, got (2, 9, 4), (2, 9, 1), (2, 8, 1)."),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "raw", "message"), WRONG)
def test_what_is_not_theirs_is_refused(reader: Any, raw: Any, message: str) -> None:
    with pytest.raises(BadOutput) as said:
        reader(raw)
    assert message in str(said.value)


MADE_WRONG = [
    (lambda: YOLOv8(task=unchecked("classify")), "task must be one of detect, segment, pose, obb, got 'classify'."),
    (lambda: YOLOv8(task="segment"), "Masks need the input's size=(height, width)."),
    (lambda: YOLOv8(classes=0), "The number of classes must be a positive integer, got 0."),
    (lambda: EndToEnd(num_classes=2, boxes=0), "boxes, scores and classes belong together: pass all three, or none."),
    (lambda: EndToEnd(num_classes=2, columns=("box", "score")),
     "columns must name box, score and class, and image if it is there, got ('box', 'score')."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), MADE_WRONG)
def test_readers_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as said:
        make()
    assert str(said.value) == message


# --------------------------------------------------------------------------------------------- what each of them reads


def test_yolox_is_decoded_position_by_position() -> None:
    found = YOLOX(size=SIZE)(OFFSETS)
    assert found.grids == (Grid(8, 12), Grid(4, 6), Grid(2, 3))
    place, boxes = 0, present(found.boxes)
    for stride, (h, w) in ((8, (8, 12)), (16, (4, 6)), (32, (2, 3))):
        for i in range(h):
            for j in range(w):
                x, y, a, b, objectness, *classes = OFFSETS[1, place].tolist()
                cx, cy, wide, high = (j + x) * stride, (i + y) * stride, math.exp(a) * stride, math.exp(b) * stride
                want = [cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2]
                close(boxes[1, place], want, 1e-3)
                close(found.scores[1, place], [objectness * c for c in classes])
                place += 1
    close(present(found.objectness), OFFSETS[..., 4])


def test_masks_are_products_within_their_boxes() -> None:
    found = YOLOv8(size=SIZE, task="segment", candidates=5)((dense(COEFFICIENTS), PROTOTYPES))
    masks = present(found.masks)
    assert masks.shape == (2, 5, 16, 24)
    whole = YOLOv8(size=SIZE)(dense())
    boxes = present(whole.boxes)
    best = whole.scores[1].amax(1).argsort(descending=True)[:5]
    close(found.scores[1], whole.scores[1, best])
    close(present(found.boxes)[1], boxes[1, best])
    for q, place in enumerate(best.tolist()):
        x0, y0, x1, y1 = boxes[1, place].tolist()
        for i in range(16):
            for j in range(24):
                inside = x0 <= 4 * j + 2 < x1 and y0 <= 4 * i + 2 < y1
                logit = float((COEFFICIENTS[1, place] * PROTOTYPES[1, :, i, j]).sum())
                assert float(masks[1, q, i, j]) == pytest.approx(inside / (1 + math.exp(-logit)), abs=1e-5)
    named = YOLOv8(size=SIZE, task="segment", output="output0", prototypes="output1", candidates=5)
    close(present(named({"output0": dense(COEFFICIENTS), "output1": PROTOTYPES.numpy()}).masks), masks)


def test_key_points_are_left_out_and_turned_boxes_stand_upright() -> None:
    plain = YOLOv8(size=SIZE)(dense())
    pose = YOLOv8(size=SIZE, task="pose", classes=3)(dense(KEYPOINTS))
    close(pose.scores, plain.scores)
    close(present(pose.boxes), plain.boxes)
    assert YOLOv8(size=SIZE, task="pose")(dense(KEYPOINTS)).scores.shape == (2, Q, 1)
    turned = YOLOv8(size=SIZE, task="obb")(dense(ANGLE))
    close(turned.scores, plain.scores)
    for q in range(0, Q, 7):
        cx, cy, w, h = places()[1, q].tolist()
        t = float(ANGLE[1, q])
        ends = [(cx + a * w / 2 * math.cos(t) - b * h / 2 * math.sin(t), cy + a * w / 2 * math.sin(t)
                 + b * h / 2 * math.cos(t)) for a in (-1, 1) for b in (-1, 1)]  # fmt: skip
        want = [min(x for x, _ in ends), min(y for _, y in ends), max(x for x, _ in ends), max(y for _, y in ends)]
        close(present(turned.boxes)[1, q], want, 1e-3)


def test_rt_detr_in_one_tensor() -> None:
    found = RTDETR(size=SIZE)(SHARES)
    cx, cy, w, h = SHARES[1, 7, :4].tolist()
    close(
        present(found.boxes)[1, 7], [(cx - w / 2) * 96, (cy - h / 2) * 64, (cx + w / 2) * 96, (cy + h / 2) * 64], 1e-3
    )
    close(found.scores, SHARES[..., 4:])


def test_rows_after_suppression_in_every_form() -> None:
    given = rows()
    given[1, 20:] = 0  # fewer were found in the second image
    given[0, 29, 5] = -1  # and a row that is none
    found = EndToEnd(num_classes=5)(given)
    want = torch.zeros(2, 30, 5)
    for n in range(2):
        for q in range(30):
            if given[n, q, 5] >= 0:
                want[n, q, int(given[n, q, 5])] = given[n, q, 4]
    close(found.scores, want)
    close(present(found.boxes), given[..., :4])
    swapped = torch.cat([torch.arange(2.0).view(2, 1, 1).expand(2, 30, 1), given[..., :4], given[..., [5, 4]]], 2)
    named = EndToEnd(num_classes=5, columns=("image", "box", "class", "score"))(swapped)
    close(named.scores, want)
    close(present(named.boxes), given[..., :4])
    apart = {
        "b": given[..., :4] / torch.tensor([96.0, 64.0, 96.0, 64.0]),
        "s": given[..., 4],
        "c": given[..., 5].long(),
    }
    three = EndToEnd(num_classes=5, boxes="b", scores="s", classes="c", size=SIZE)(apart)
    close(three.scores, want)
    close(present(three.boxes), given[..., :4], 1e-3)
    one = EndToEnd(num_classes=5, boxes=0, scores=1, classes=2)(
        [given[0, :, :4], given[0, :, 4], given[0, :, 5].numpy()]
    )
    close(one.scores, want[:1])


# ----------------------------------------------------------------------------------------------- names, NaN, infinite


def test_class_names_that_are_not_as_many_as_the_classes() -> None:
    head = YOLOv8(size=SIZE)
    model = seewhy.load(lambda x: dense()[: len(x)], output=head, labels=["a", "b"])
    with pytest.raises(BadOutput) as said:
        model(torch.rand(1, 3, *SIZE))
    assert str(said.value) == (
        "YOLOv8 gives 3 classes, and there are 2 class names, 'a' to 'b'. Check the reader (other columns are no "
        "classes), or pass the right labels."
    )
    assert seewhy.load(lambda x: dense()[: len(x)], output=head, labels=["a", "b", "c"])(torch.rand(1, 3, *SIZE))


def test_boxes_without_a_place_are_left_out_with_a_note() -> None:
    """NaN and infinity, with scores that would win or are none; what is left is as before."""
    clean, broken = dense(), dense()
    broken[0, 0, 3] = math.nan
    broken[0, 4:, 3] = math.nan
    broken[0, 2, 4] = math.inf
    broken[0, 4:, 4] = 1
    model = seewhy.load(lambda x: broken[[0, 1] if len(x) == 2 else [0] * len(x)], output=YOLOv8(size=SIZE))
    outputs = model(torch.rand(2, 3, *SIZE))
    assert present(outputs.dropped).tolist() == [2, 0]
    want = YOLOv8(size=SIZE)(clean)
    others = [q for q in range(Q) if q not in (3, 4)]
    boxes = present(want.boxes)
    close(present(outputs.boxes)[:, others], boxes[:, others])
    assert not bool(outputs.scores[0, 3:5].any())
    box = unchecked(tuple(boxes[0, 50].tolist()))
    found = seewhy.RISE(model, num_masks=8).run(torch.rand(1, 3, *SIZE), BoxTarget(box=box, label=1))
    assert f"Image 0: 2 of {Q} boxes are NaN or infinite and were left out." in found.warnings
    seen = seewhy.detections(model, torch.rand(1, 3, *SIZE), score_threshold=0.1)[0]
    assert all(math.isfinite(side) for one in seen for side in one.box)
    lost = seewhy.load(lambda x: broken[: len(x)] * math.nan, output=DenseBoxes(boxes=1))
    with pytest.raises(BadOutput):
        lost(torch.rand(1, 3, *SIZE))


def test_boxes_of_classes_and_logits_are_left_out_one_by_one() -> None:
    boxes = drawn(1, 4, 2, 4) + torch.tensor([0.0, 0, 2, 2])
    boxes[0, 1, 0] = math.inf
    scores = drawn(1, 4, 2) - 3
    model = seewhy.load(lambda x: Outputs(scores=scores, boxes=boxes))
    outputs = model(torch.rand(1, 3, 8, 8))
    assert present(outputs.dropped).tolist() == [1]
    assert float(outputs.scores[0, 1, 0]) <= float(scores[0, [0, 2, 3]].amin())
    assert float(outputs.scores[0, 1, 1]) == float(scores[0, 1, 1])
    boxes.fill_(math.nan)
    with pytest.raises(BadOutput, match=r"^All boxes that the network returned are NaN or infinite\."):
        model(torch.rand(1, 3, 8, 8))


# -------------------------------------------------------------------------------------------------------------- files


class Small(nn.Module):
    """Boxes where it is, and how bright it is there: YOLOv8's (N, 4 + 2, Q)."""

    boxes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bright = nn.Conv2d(3, 2, 8, 8)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
        self.register_buffer("boxes", torch.stack([8 * x + 4, 8 * y + 4, x * 0 + 8, x * 0 + 8]).flatten(1)[None])

    def forward(self, x: Tensor) -> Tensor:
        scores = self.bright(x).flatten(2).sigmoid()
        return torch.cat([self.boxes.to(x).expand(len(x), -1, -1), scores], 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network as a file of 32 and of 16 bits, and with suppression inside."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    network = Small().eval()
    made = {name: folder / f"{name}.onnx" for name in ("plain", "half", "unsorted", "suppressed")}
    axes = {"images": {0: "n"}, "output0": {0: "n"}}
    for name, net in (("plain", network), ("half", Small().half().eval())):
        net.load_state_dict(network.state_dict())
        inputs = torch.rand(1, 3, *SIZE).to(next(net.parameters()).dtype)
        torch.onnx.export(net, (inputs,), made[name], dynamo=False, input_names=["images"], output_names=["output0"],
                          dynamic_axes=axes)  # fmt: skip
    mixed = onnx.load(made["half"])
    nodes = list(mixed.graph.node)
    del mixed.graph.node[:]
    mixed.graph.node.extend(reversed(nodes))  # as some converters leave them
    onnx.save(mixed, made["unsorted"])
    onnx.save(suppressing(onnx.load(made["plain"])), made["suppressed"])
    return made


def suppressing(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with suppression inside: rows (M, 7) of image, corners, class and score, as many as there are.

    NonMaxSuppression takes (N, Q, 4) boxes as centre and size and (N, K, Q) scores.
    """
    graph = model.graph
    constants = {"a4": [4], "a0": [0], "a6": [6], "a1": [1], "most": [9], "iou": 0.5, "least": LEAST, "c2": [2],
                 "c3": [3], "half": [[0.5, 0.5]], "m2": [2, 2]}  # fmt: skip
    for name, value in constants.items():
        kind = np.float32 if isinstance(value, float) or name == "half" else np.int64
        array = np.asarray([value] if isinstance(value, float) else value, kind)
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph.node.extend([
        helper.make_node("Slice", ["output0", "a0", "a4", "a1"], ["geometry"]),
        helper.make_node("Slice", ["output0", "a4", "a6", "a1"], ["scores"]),
        helper.make_node("Transpose", ["geometry"], ["places"], perm=[0, 2, 1]),
        helper.make_node("NonMaxSuppression", ["places", "scores", "most", "iou", "least"], ["kept"],
                         center_point_box=1),
        helper.make_node("Split", ["kept"], ["image", "label", "place"], axis=1, num_outputs=3),
        helper.make_node("Concat", ["image", "place"], ["where_box"], axis=1),
        helper.make_node("GatherND", ["places", "where_box"], ["chosen"]),
        helper.make_node("GatherND", ["scores", "kept"], ["values"]),
        helper.make_node("Unsqueeze", ["values", "a1"], ["column"]),
        helper.make_node("Split", ["chosen", "m2"], ["centre", "extent"], axis=1),
        helper.make_node("Mul", ["extent", "half"], ["reach"]),
        helper.make_node("Sub", ["centre", "reach"], ["low"]),
        helper.make_node("Add", ["centre", "reach"], ["high"]),
        helper.make_node("Cast", ["image"], ["image_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["label"], ["label_f"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["image_f", "low", "high", "label_f", "column"], ["rows"], axis=1),
    ])  # fmt: skip
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["m", 7]))
    model.opset_import[0].version = 18
    return model


LEAST = 0.56


def scenes() -> Tensor:
    return drawn(3, 3, *SIZE, seed=11) * torch.tensor([0.2, 1.0, 3.0]).view(3, 1, 1, 1)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", ["output0", 0])
def test_readers_on_files_by_name_and_by_index(files: dict[str, Path], backend: str, place: Any) -> None:
    network = Small().eval()
    network.load_state_dict({"boxes": network.boxes, **weights(files["plain"])})
    head = YOLOv8(output=place, size=SIZE)
    model = seewhy.load(files["plain"], output=head, backend=backend)
    want = seewhy.load(network, output=head)(scenes())
    found = model(scenes())
    close(found.scores, want.scores.detach(), 1e-4)
    close(present(found.boxes), want.boxes, 1e-3)


def weights(file: Path) -> dict[str, Tensor]:
    known = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
             for one in onnx.load(file).graph.initializer}  # fmt: skip
    return {name: known[name] for name in ("bright.weight", "bright.bias")}


@pytest.mark.parametrize("kind", ["half", "unsorted"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_files_of_16_bits(files: dict[str, Path], kind: str, backend: str) -> None:
    """Inputs stay float32 for the caller; the operations may stand in any order that the runtime takes."""
    head = YOLOv8(size=SIZE)
    model, full = (seewhy.load(files[one], output=head, backend=backend) for one in (kind, "plain"))
    close(model(scenes()).scores, full(scenes()).scores, 5e-3)
    layer = "/bright/Conv"  # the network's only map, which also is its answer: it must be named
    found, want = (seewhy.ActivationMap(one, layer=layer).attribute(scenes(), 0) for one in (model, full))
    close(found, want, 5e-3)


def test_a_graph_in_a_circle_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(files["plain"])
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    onnx.save(model, tmp_path / "round.onnx")
    with pytest.raises(seewhy.errors.CheckpointError, match="is not a model that ONNX Runtime can read"):
        ONNXModel(tmp_path / "round.onnx")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_suppression_inside_is_run_image_by_image_and_filled_up(files: dict[str, Path], backend: str) -> None:
    """Against the network that gives everything, suppressed by us: each image has its own number of boxes."""
    plain = seewhy.load(files["plain"], output=YOLOv8(size=SIZE), backend=backend)
    model = seewhy.load(
        files["suppressed"], backend=backend,
        output=EndToEnd(num_classes=2, columns=("image", "box", "class", "score")),
    )  # fmt: skip
    model(scenes()[:1])
    passes = model.passes.forward
    found = model(scenes())
    assert model.passes.forward == passes + 3
    counts = []
    for i in range(3):
        everything = plain(scenes()[i : i + 1]).scores[0]
        mine = seewhy.detections(model, scenes()[i], score_threshold=LEAST, max_detections=99)
        counts.append(len(mine))
        best = [everything[:, k].sort(descending=True).values for k in (0, 1)]
        for k in (0, 1):
            got = sorted((d.score for d in mine if d.label == k), reverse=True)
            close(torch.tensor(got), best[k][best[k] > LEAST][:9], 1e-4)
    assert len(set(counts)) > 1
    assert found.scores.shape[1] == max(counts)
    target = seewhy.detections(model, scenes()[2], score_threshold=LEAST)[0]
    maps = seewhy.Occlusion(model, window=8, stride=8).attribute(scenes()[2:], target.box_target)
    x0, y0, x1, y1 = (round(side) for side in target.box)
    assert float(maps[0, 0, y0:y1, x0:x1].abs().mean()) > 5 * float(maps[0, 0].abs().mean())

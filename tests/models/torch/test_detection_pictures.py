"""Detectors through the picture door: what torchvision finds, several sizes at once, boxes in a picture's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import BoxTarget, Preprocessing, cli
from seewhy.errors import InvalidInput, InvalidTarget
from seewhy.images.reading import read
from seewhy.images.view import View
from seewhy.inputs import prepare
from seewhy.maps import upsample
from seewhy.models.torch.detectors import detector
from seewhy.models.torch.model import TorchModel
from seewhy.runs.query.run import Run
from support.detection_runs import NAMES, QUARTERS, Quarters, run
from support.networks import pictures
from support.pictures import PHOTOS
from support.torchvision_detectors import torchvision_detector
from support.typed import loaded, present, unchecked

pytestmark = pytest.mark.slow


def photo(height: int, width: int) -> Image.Image:
    return read(PHOTOS[0]).resize((width, height))


def pixels(picture: Image.Image) -> Tensor:
    """What torchvision's own transform makes of a picture, by hand."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255


SIZES = ((90, 150), (200, 90), (64, 64), (500, 300), (97, 411))


@pytest.mark.parametrize("kind", ["ssd", "fcos", "faster", "mask"])
def test_torchvisions_boxes_come_through_the_picture_door(kind: str) -> None:
    """At every shape, larger and smaller than the detector's own size: its labels, scores and boxes in the picture."""
    network = torchvision_detector(kind)
    model = loaded(TorchModel, network)
    shown = present(model.preprocessing)
    for size in SIZES[1:4:2] if kind == "mask" else SIZES:
        picture = photo(*size)
        with torch.no_grad():
            want = network([pixels(picture)])[0]
        found = seewhy.detections(model, picture, score_threshold=0, max_detections=44)  # equal scores may swap
        inputs, view = shown(picture)
        rows = [(d.label, d.score, view.box_to_original(d.box, tuple(inputs.shape[2:]))) for d in found]
        assert len(want["boxes"]) == 40
        for label, score, box in zip(*(want[key].tolist() for key in ("labels", "scores", "boxes")), strict=True):
            if box[0] == box[2] or box[1] == box[3]:  # FCOS keeps what its border has cut off; nothing can be explained
                continue
            assert (label, pytest.approx(score, abs=1e-5), pytest.approx(tuple(box), abs=1e-3)) in rows


def test_a_batch_of_three_sizes_is_found_as_each_alone() -> None:
    network = torchvision_detector("fcos")
    pictures = [photo(*size) for size in (SIZES[1], SIZES[0], SIZES[1], SIZES[3])]
    together = seewhy.detections(network, pictures, score_threshold=0, max_detections=5)
    for picture, found in zip(pictures, together, strict=True):
        alone = seewhy.detections(network, picture, score_threshold=0, max_detections=5)
        assert [(d.label, d.box) for d in found] == [(d.label, pytest.approx(d.box, abs=1e-3)) for d in alone]


# ------------------------------------------------------------------------------------------ pictures at their ratio


KEEP = Preprocessing(size=(32, 48), mean=(0,) * 3, std=(1,) * 3, fit="keep", interpolation="sampled")


@pytest.mark.parametrize(
    ("original", "wanted"),
    [((20, 30), (20, 30)), ((32, 48), (32, 48)), ((64, 64), (32, 32)), ((64, 80), (32, 40)), ((40, 400), (4, 48)),
     ((300, 31), (48, 4)), ((1, 500), (1, 48))],
)  # fmt: skip
def test_pictures_keep_their_ratio_and_are_never_enlarged(original: tuple[int, int], wanted: tuple[int, int]) -> None:
    tensor, view = KEEP(photo(*original))
    assert tuple(tensor.shape[2:]) == wanted
    assert view == View(original=original, box=(0, 0, original[1], original[0]))
    if wanted == original:
        torch.testing.assert_close(tensor[0], pixels(photo(*original)), atol=1e-6, rtol=0)
    else:
        small = torch.nn.functional.interpolate(pixels(photo(*original))[None], wanted, mode="bilinear")
        torch.testing.assert_close(tensor, small, atol=1e-5, rtol=0)


def test_what_keep_cannot_be() -> None:
    with pytest.raises(InvalidInput) as said:
        Preprocessing(size=(48, 32), mean=(0,) * 3, std=(1,) * 3, fit="keep")
    assert str(said.value) == "Preprocessing.size: expected the short side before the long one, got (48, 32)."
    with pytest.raises(InvalidInput, match=r"^Preprocessing.crop_fraction: expected 1 where the picture is kept whole"):
        Preprocessing(size=(32, 48), mean=(0,) * 3, std=(1,) * 3, fit="keep", crop_fraction=0.9)


def kept() -> Any:
    """Finds what is red or green in quarters of 24 x 16, wherever the input ends."""
    return seewhy.load(Quarters(), preprocessing=KEEP, labels=NAMES)


def scene(height: int, width: int) -> Image.Image:
    """Red in the first quarter of 24 x 16 pixels, and somewhat in the rest."""
    values = np.full((height, width, 3), 20, np.uint8)
    values[:16, :24, 0] = 230
    return Image.fromarray(values)


SHAPES = ((32, 48), (40, 30), (28, 47))  # the inputs are 32 x 48, 40 x 30 and 28 x 47


def test_pictures_of_three_sizes_in_one_explanation() -> None:
    pictures = [scene(*shape) for shape in SHAPES]
    target = BoxTarget(box=unchecked(tuple(map(float, QUARTERS[0]))), label=0)
    found = seewhy.explain(kept(), pictures, target, "occlusion", progress=False, window=8, stride=4)
    assert found.size == (40, 48)
    assert tuple(found.raw.shape) == (3, 1, 40, 48)
    for i, shape in enumerate(SHAPES):
        alone = seewhy.explain(kept(), pictures[i], target, "occlusion", progress=False, window=8, stride=4)
        assert alone.size == shape
        assert found.pictures[i].size == shape[::-1]
        assert found.probabilities[i].tolist() == alone.probabilities[0].tolist()
        assert found.box(i) == alone.box() == (0, 0, 24, 16)
        mine, other = (
            one.views[n].to_original(upsample(one.raw[n : n + 1], one.size)) for one, n in ((found, i), (alone, 0))
        )
        np.testing.assert_allclose(mine, other, atol=1e-6)
        assert np.abs(np.asarray(found.overlay(i)).astype(int) - np.asarray(alone.overlay())).mean() < 4
    assert found.passes.forward == sum(
        seewhy.explain(kept(), p, target, "occlusion", progress=False, window=8, stride=4).passes.forward
        for p in pictures
    )


def test_classes_of_pictures_of_several_sizes_stay_with_them() -> None:
    pictures = [scene(*SHAPES[0]), scene(*SHAPES[1]), scene(*SHAPES[0])]
    found = seewhy.explain(kept(), pictures, ["red", "green", "green"], "occlusion", progress=False)
    assert found.labels == [["red"], ["green"], ["green"]]
    assert present(found.targets).tolist() == [[0], [1], [1]]
    flat = seewhy.explain(kept(), [scene(*SHAPES[1]), Image.new("RGB", (48, 32))], 0, "rise", progress=False)
    assert [w for w in flat.warnings if w.startswith("Image 1, class 0: its score did not change")]


def test_what_is_found_in_pictures_of_several_sizes_is_explained_one_by_one() -> None:
    with pytest.raises(InvalidTarget) as said:
        seewhy.explain(kept(), [scene(*shape) for shape in SHAPES], progress=False)
    assert str(said.value) == (
        "What a detector finds is explained one picture at a time, got 3. Pass targets that hold for all of them, or "
        "one picture."
    )
    with pytest.raises(InvalidInput) as refused:
        prepare(kept(), [scene(*shape) for shape in SHAPES])
    assert str(refused.value) == (
        "The pictures become inputs of several sizes: 32 x 48, 40 x 30, 28 x 47. Pass them one by one."
    )


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel, torch.compile, lambda n: torch.compile(nn.DataParallel(n)),
        lambda n: nn.DataParallel(unchecked(torch.compile(n))),
    ],
    ids=["spread", "compiled", "compiled, spread", "spread, compiled"],
)  # fmt: skip
def test_a_detector_that_is_compiled_or_spread_over_devices(wrap: Any) -> None:
    network, x = torchvision_detector("fcos"), pictures(1, height=64, width=96).abs()
    want, got = (seewhy.detections(one, x, score_threshold=0)[0] for one in (network, wrap(network)))
    assert [one.box for one in got] == [one.box for one in want]
    assert detector(wrap(network)).title == "FCOS"
    raw = [seewhy.explain(n, x, want[:1], "recipro_cam").raw for n in (network, wrap(network))]
    torch.testing.assert_close(raw[0], raw[1])


def test_a_run_and_the_command_line_find_what_the_door_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A batch of the run holds three sizes."""
    network = torchvision_detector("fcos")
    files = []
    for number, size in enumerate((SIZES[0], SIZES[3], SIZES[4])):
        files.append(tmp_path / f"{number}.png")
        photo(*size).save(files[-1])
    labels = [f"class {i}" for i in range(6)]
    model = loaded(TorchModel, network, labels=labels)
    shown = present(model.preprocessing)
    first = seewhy.detections(model, files[0], score_threshold=0)
    least = first[3].score + 1e-6
    run(tmp_path / "out", model=model, data=[{"image": str(f)} for f in files], score_threshold=least,
        explainers=["det_class_probability_map"], metrics=())  # fmt: skip
    for record, file in zip(Run(tmp_path / "out").records(), files, strict=True):
        inputs, view = shown(read(file))
        direct = seewhy.detections(model, file, score_threshold=least)
        assert record.input == tuple(inputs.shape[2:])
        assert [d.box for d in record.detections.values()] == [
            pytest.approx(view.box_to_original(one.box, record.input), abs=1e-3) for one in direct
        ]
    import seewhy.cli.work.explain as command

    monkeypatch.setattr(command, "network", lambda _: model)
    code = cli.main(["explain", str(files[0]), "--model", "x:y", "--score-threshold", str(least), "--method",
                     "occlusion", "--set", "window=64", "--set", "stride=64", "--out", str(tmp_path / "maps"),
                     "--quiet"])  # fmt: skip
    assert code == 0
    inputs, view = shown(read(files[0]))
    shown = [" ".join(f"{v:.0f}" for v in view.box_to_original(one.box, tuple(inputs.shape[2:]))) for one in first[:3]]
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == [f"box {text}" for text in shown]


# -------------------------------------------------------------------------------------------------- boxes of a picture


def letterboxed() -> Any:
    shown = Preprocessing(size=(32, 48), mean=(0,) * 3, std=(1,) * 3, fit="letterbox", pad=0.0)
    return seewhy.load(Quarters(), preprocessing=shown, labels=NAMES)


def test_a_box_in_pixels_of_the_picture() -> None:
    """Shown at half its size between margins of 8: 24..48, 0..24 of the picture is 12..24, 8..20 of the input."""
    picture = Image.new("RGB", (96, 32), "red")
    asked = BoxTarget(picture_box=(24.0, 0.0, 48.0, 24.0), label=0)
    found = seewhy.explain(letterboxed(), picture, asked, "occlusion", progress=False)
    assert found.boxes == [[(12.0, 8.0, 24.0, 20.0)]]
    assert found.box() == (24.0, 0.0, 48.0, 24.0)
    own = BoxTarget(box=(12.0, 8.0, 24.0, 20.0), label=0)
    assert torch.equal(found.raw, seewhy.explain(letterboxed(), picture, own, "occlusion", progress=False).raw)


def test_a_box_of_several_pictures_lies_in_each_at_its_own_place() -> None:
    """One is shown at half its size, one as it is."""
    pictures = [Image.new("RGB", (96, 64), "red"), Image.new("RGB", (48, 32), "red")]
    asked = [BoxTarget(picture_box=(0.0, 0.0, 24.0, 16.0), label=0), BoxTarget(box=(0.0, 0.0, 24.0, 16.0), label=0)]
    found = seewhy.explain(letterboxed(), pictures, asked, "occlusion", progress=False)
    second = (0.0, 0.0, 24.0, 16.0)
    assert found.boxes == [[(0.0, 0.0, 12.0, 8.0), second], [second, second]]
    assert found.probabilities.tolist() == [[0.25, 1.0], [1.0, 1.0]]


def test_a_picture_box_needs_the_picture() -> None:
    asked = BoxTarget(picture_box=(0.0, 0.0, 24.0, 16.0), label=0)
    with pytest.raises(InvalidTarget) as said:
        seewhy.Occlusion(Quarters())(torch.rand(1, 3, 32, 48), asked)
    assert str(said.value) == (
        "Where a picture_box lies in the network's input is known to seewhy.explain(model, picture, target) alone. "
        "Pass box=(x0, y0, x1, y1) in pixels of the input."
    )
    for wrong in ({}, {"box": (0, 0, 1, 1), "picture_box": (0, 0, 1, 1)}):
        with pytest.raises(InvalidTarget) as said:
            BoxTarget(label=0, **wrong)
        assert str(said.value) == "A BoxTarget has either a box, in pixels of the input, or a picture_box."
    with pytest.raises(InvalidTarget, match=r"^A box is \(x0, y0, x1, y1\) with x0 < x1 and y0 < y1, got"):
        BoxTarget(label=0, picture_box=(0.0, 0.0, float("inf"), 2.0))


def test_a_box_that_leaves_the_input_is_said() -> None:
    inputs = torch.rand((1, 3, 32, 48), generator=torch.Generator().manual_seed(0))
    boxes = [(0.0, 0.0, 48.0, 32.0), (24.0, 0.0, 49.0, 32.0), (24.0, 0.0, 96.0, 32.0), (-9.0, 4.0, 20.0, 20.0)]
    found = seewhy.Occlusion(Quarters()).run(inputs, [BoxTarget(box=box, label=0) for box in boxes])
    said = [w for w in found.warnings if "leaves the input" in w]
    assert [w[:9] for w in said] == ["Target 2:", "Target 3:"]
    assert said[0] == (
        "Target 2: its box (24, 0, 96, 32) leaves the input of 48 x 32 pixels (width x height). Boxes are in pixels of "
        "the input; for pixels of the picture pass BoxTarget(picture_box=...)."
    )

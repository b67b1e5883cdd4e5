"""Runs over detectors whose instance masks are explained: maps of masks, later runs, truth, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.errors import InvalidInput
from seewhy.runs.folder.identity import identity
from seewhy.runs.query.run import Run
from seewhy.runs.work.matching import Sieve
from seewhy.types import Outputs
from support.detection_runs import NAMES, OCCLUSION, QUARTERS, SIZE, Quarters, model, run, scene
from support.typed import present

WINDOW = {"window": 8, "stride": 8, "baseline": 0.0}


class Masked(Quarters):
    """The detector of quarters; a candidate's mask is what is bright in the left half of its quarter."""

    def forward(self, x: Tensor) -> Outputs:
        bright = torch.nn.functional.avg_pool2d(x.amax(1, keepdim=True), 4)
        masks = bright.repeat(1, 4, 1, 1)
        for q, (x0, y0, x1, y1) in enumerate(QUARTERS):
            inside = torch.zeros_like(masks[0, 0])
            inside[y0 // 4 : y1 // 4, x0 // 4 : (x0 + x1) // 8] = 1
            masks[:, q] *= inside
        return replace(super().forward(x), masks=masks)


def masked() -> Any:
    plain = seewhy.Preprocessing(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1), fit="squash")
    return seewhy.load(Masked(), preprocessing=plain, labels=list(NAMES))


def rows() -> list[dict[str, Any]]:
    """Two objects that are found, and a true one that is not, with the mask of class 0: the upper half of its box."""
    picture = scene(q0=(0, 0.8), q3=(1, 0.7))
    mask = np.zeros((64, 96), np.uint8)
    mask[:16, :48] = 1
    return [{"image": picture, "labels": [0, 1], "boxes": [[0, 0, 48, 32], [0, 32, 48, 64]], "masks": {0: mask}}]


def done(place: Path, **changes: Any) -> Any:
    return run(place, **{"model": masked(), "data": rows(), "metrics": (), "instances": "masks", **changes})


def direct(name: str, parameters: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The maps of the masks that are found, without a run."""
    net = masked()
    found = seewhy.detections(net, rows()[0]["image"])
    targets = [one.mask_target for one in found]
    maps = seewhy.explain(net, rows()[0]["image"], targets, name, progress=False, **parameters).raw[0]
    return [one.numpy() for one in maps]


def test_maps_are_those_of_the_masks(tmp_path: Path) -> None:
    assert done(tmp_path / "out").left == 0
    read = Run(tmp_path / "out")
    (record,) = list(read.records())
    assert [one.flag for one in record.labels.values()] == ["TP", "FP", "FN"]
    want = direct("occlusion", WINDOW)
    for n in range(2):
        np.testing.assert_allclose(present(read.map("000000", n, OCCLUSION)), want[n], atol=1e-6)
    boxes = tmp_path / "boxes"
    done(boxes, instances="boxes")
    assert not np.allclose(present(Run(boxes).map("000000", 0, OCCLUSION)), want[0])
    missed = present(read.map("000000", 2, OCCLUSION))  # has no mask: its box is explained
    np.testing.assert_allclose(missed, present(Run(boxes).map("000000", 2, OCCLUSION)), atol=1e-6)


def test_a_later_explainer_sees_the_same_masks(tmp_path: Path) -> None:
    rise = "rise(num_masks=60, grid=4)"
    done(tmp_path / "out")
    done(tmp_path / "out", explainers=[OCCLUSION, rise])
    want = direct("rise", {"num_masks": 60, "grid": 4})
    for n in range(2):
        np.testing.assert_allclose(present(Run(tmp_path / "out").map("000000", n, rise)), want[n], atol=1e-5)


def test_the_truth_of_an_object_is_the_mask_of_its_class_within_its_box(tmp_path: Path) -> None:
    done(tmp_path / "out", metrics=["relevance_mass"])
    read = Run(tmp_path / "out")
    (record,) = list(read.records())
    energy = np.maximum(present(read.map("000000", 0, OCCLUSION)), 0)
    share = energy[:8, :24].sum() / energy.sum()  # two pixels of the picture are one of the input
    assert record.scores[0, OCCLUSION, "relevance_mass"] == pytest.approx(share, abs=1e-5)


def test_a_network_that_finds_other_boxes_now_is_an_error(tmp_path: Path) -> None:
    class Fickle(Masked):
        turned = False

        def forward(self, x: Tensor) -> Outputs:
            found = super().forward(x)
            return replace(found, scores=found.scores.flip(2)) if Fickle.turned else found

    plain = seewhy.Preprocessing(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1), fit="squash")
    net = seewhy.load(Fickle(), preprocessing=plain, labels=list(NAMES))
    done(tmp_path / "out", model=net)
    Fickle.turned = True
    summary = done(tmp_path / "out", model=net, explainers=[OCCLUSION, "random_map"])
    assert any("The network finds other boxes than before" in one.reason for _, one in summary.failures)


def test_masks_are_for_networks_that_give_them(tmp_path: Path) -> None:
    summary = done(tmp_path / "out", model=model())
    assert [one.reason for _, one in summary.failures] == [
        "The network gives boxes without instance masks. Run with instances='boxes'."
    ]
    with pytest.raises(InvalidInput, match=r"^instances must be 'boxes' or 'masks', got 'mask'\.$"):
        done(tmp_path / "other", instances="mask")


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    done(tmp_path / "out")
    with pytest.raises(InvalidInput):
        done(tmp_path / "out", instances="boxes")
    sieve = Sieve(score_threshold=0.5, nms_threshold=0.5, max_detections=20)
    assert identity(sieve) == "9312906a9436"  # runs over boxes are known as they were before there was a choice

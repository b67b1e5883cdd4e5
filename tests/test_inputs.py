"""What callers bring becomes a batch; and a typo never waits for a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.errors import InvalidInput, InvalidTarget, InvalidType, UnknownName, UnknownParameter, UnreadableImage
from seewhy.inputs import Opened, count, opened, prepare, together
from support import factories

PREPROCESSING = seewhy.Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, fit="keep")
GOOD = np.zeros((6, 8, 3), np.uint8)


def model(**options: Any) -> Any:
    return seewhy.load(lambda x: x.mean((2, 3)), **options)


def test_images_of_every_form_are_opened_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    Image.fromarray(GOOD).save(path)
    with Image.open(path) as image:
        found = opened([path, str(path), image, GOOD])
    assert isinstance(found, Opened)
    assert found.names == ["cat.png", "cat.png", "cat.png", "image 3"]
    assert [p.size for p in found.pictures] == [(8, 6)] * 4
    assert opened(found) is found


def test_images_are_counted_before_there_is_a_network() -> None:
    assert count(opened(GOOD)) == 1
    assert count(opened([GOOD, GOOD])) == 2
    assert count(opened(torch.zeros(3, 4, 4))) == 1
    assert count(opened(torch.zeros(5, 3, 4, 4))) == 5
    assert count(opened({"pixel_values": torch.zeros(5, 3, 4, 4)})) is None


def test_images_of_two_input_sizes_are_two_batches_and_keep_their_places() -> None:
    network = model(preprocessing=PREPROCESSING)
    found = together(network, [GOOD, GOOD[:4], GOOD])
    assert [(tuple(batch.inputs.shape), places) for batch, places in found] == [
        ((2, 3, 6, 8), [0, 2]),
        ((1, 3, 4, 8), [1]),
    ]
    with pytest.raises(InvalidInput, match=r"The pictures become inputs of several sizes: 6 x 8, 4 x 8. Pass them one"):
        prepare(network, [GOOD, GOOD[:4]])
    assert [places for _, places in together(network, [GOOD, GOOD], apart=True)] == [[0], [1]]


Call = Callable[[], object]
WORD: Any = "on"
MODEL = "support.factories:recorded"
WRONG: dict[str, tuple[Call, type[Exception], str]] = {
    "a path": (lambda: seewhy.explain(MODEL, "missing.png"), UnreadableImage, "missing.png"),
    "one of several paths": (lambda: seewhy.explain(MODEL, [GOOD, "missing.png"]), UnreadableImage, "missing.png"),
    "no image": (lambda: seewhy.explain(MODEL, []), InvalidInput, "There is no picture to explain"),
    "a tensor": (lambda: seewhy.explain(MODEL, torch.zeros(4, 4)), InvalidInput, r"inputs must have shape \(N, C, H"),
    "a method": (lambda: seewhy.explain(MODEL, GOOD, method="rize"), UnknownName, "Did you mean 'rise'"),
    "a class": (lambda: seewhy.explain(MODEL, GOOD, method=int), InvalidType, "method is a registry name or"),
    "a parameter": (
        lambda: seewhy.explain(MODEL, GOOD, method="rise", num_mask=3), UnknownParameter, "Did you mean 'num_masks'",
    ),
    "a value": (lambda: seewhy.explain(MODEL, GOOD, method="rise", p=2), InvalidInput, "p must lie between 0 and 1"),
    "a parameter of auto": (
        lambda: seewhy.explain(MODEL, GOOD, num_mask=3), UnknownParameter,
        "No method that 'auto' may choose has a parameter 'num_mask'. Did you mean 'num_masks'",
    ),
    "an inner method": (
        lambda: seewhy.explain(MODEL, GOOD, method="smooth_grad", inner="grad_cm"), UnknownName, "'grad_cam'",
    ),
    "an activation": (
        lambda: seewhy.explain(MODEL, GOOD, activation_fn="softmx"), InvalidInput, "activation_fn must be 'auto'",
    ),
    "a target": (lambda: seewhy.explain(MODEL, GOOD, -1), InvalidTarget, "Target -1 is negative"),
    "targets": (lambda: seewhy.explain(MODEL, [GOOD, GOOD], [1, 2, 3]), InvalidTarget, "targets must be one class"),
    "progress": (lambda: seewhy.explain(MODEL, GOOD, progress=WORD), InvalidType, "progress must be"),
    "class names": (lambda: seewhy.load(MODEL, labels="missing.txt"), InvalidInput, "class names 'missing.txt'"),
    "a checkpoint": (lambda: seewhy.load(MODEL, checkpoint="missing.pth"), InvalidInput, "missing.pth"),
    "a backend": (lambda: seewhy.load(MODEL, backend="onxruntime"), InvalidInput, "backend must be 'auto'"),
    "a threshold": (lambda: seewhy.detections(MODEL, GOOD, score_threshold=2), InvalidInput, "score_threshold must be"),
    "a count": (lambda: seewhy.detections(MODEL, GOOD, max_detections=0), InvalidInput, "max_detections must be a pos"),
    "detection's path": (lambda: seewhy.detections(MODEL, "missing.png"), UnreadableImage, "missing.png"),
    "compare's explainer": (lambda: seewhy.compare(MODEL, [GOOD], "rize", "sparseness"), UnknownName, "'rise'"),
    "compare's value": (lambda: seewhy.compare(MODEL, [GOOD], "rise(p=3)", "sparseness"), InvalidInput, "p must lie"),
    "compare's metric": (lambda: seewhy.compare(MODEL, [GOOD], "rise", "sparsness"), UnknownName, "'sparseness'"),
    "compare's baseline": (
        lambda: seewhy.compare(MODEL, [GOOD], "rise", "sparseness", baselines=["rndom"]), UnknownName, "'random'",
    ),
    "compare's data": (lambda: seewhy.compare(MODEL, [], "rise", "sparseness"), InvalidInput, "There is no picture"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_call_does_not_wait_for_the_model(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factories, "made", made := list[str]())
    call, kind, text = WRONG[what]
    with pytest.raises(kind, match=text):
        call()
    assert made == []


def test_a_right_call_makes_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factories, "made", made := list[str]())
    seewhy.explain(MODEL, torch.rand(3, 8, 8), 1, "rise", num_masks=8, progress=False)
    assert made == ["recorded"]

"""Explanations of volumes and clips: their slices are drawn, kept and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.draw.slices import contact, which
from seewhy.errors import InvalidInput, MissingCapability
from support.networks import build

SLICE, ROWS, COLUMNS = 13, slice(4, 10), slice(16, 22)


class Bright(nn.Module):
    """Class 1 where something is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.act, self.fc = nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Linear(2, 2)
        with torch.no_grad():
            self.see.weight.fill_(1 / 27)
            self.fc.weight.copy_(torch.tensor([[-40.0, 0.0], [40.0, 0.0]]))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.act(self.see(x)).mean((2, 3, 4)))


def volume(n: int = 1, size: tuple[int, int, int] = (20, 24, 32)) -> Tensor:
    x = 0.1 * torch.rand((n, 1, *size), generator=torch.Generator().manual_seed(0))
    x[:, :, SLICE, ROWS, COLUMNS] = 2.0
    return x


def explained(**given: Any) -> seewhy.Explanation:
    return seewhy.explain(build(Bright), volume(), [0, 1], "grad_cam", progress=False, **given)


def test_a_volume_is_explained_by_one_call() -> None:
    found = explained()
    assert (found.size, tuple(found.raw.shape), tuple(found.saliency.shape)) == (
        (20, 24, 32), (1, 2, 20, 24, 32), (1, 2, 20, 24, 32),
    )  # fmt: skip
    assert found.strongest(0, 1) in (SLICE - 1, SLICE, SLICE + 1)
    assert len(found.stacks[0]) == 20
    assert found.pictures[0].size == (32, 24)


def test_auto_takes_a_method_that_is_defined_for_volumes() -> None:
    found = seewhy.explain(build(Bright), volume(), progress=False)
    assert found.method == "recipro_cam"
    assert abs(found.strongest() - SLICE) <= 1
    black = seewhy.explain(
        lambda x: torch.stack([x.mean((1, 2, 3, 4)), -x.mean((1, 2, 3, 4))], 1), volume(), 0, progress=False,
        num_masks=150, activation_fn=None,
    )  # fmt: skip
    assert black.method == "rise"
    assert abs(black.strongest() - SLICE) <= 3


def test_a_slice_is_drawn_with_what_lies_in_it() -> None:
    found = explained()
    lit = np.asarray(found.overlay(0, 1, depth=SLICE)).astype(float)
    dark = np.asarray(found.overlay(0, 1, depth=2)).astype(float)
    assert lit.shape == (24, 32, 3)
    colour = lit[ROWS, COLUMNS].max(2) - lit[ROWS, COLUMNS].min(2)
    assert colour.mean() > 60  # the strongest colours of the scale
    assert (dark.max(2) - dark.min(2)).max() < 40  # grey: the map has nothing there
    plain = np.asarray(found.overlay(0, 1, depth=SLICE, opacity=0))
    assert np.array_equal(plain, np.asarray(found.stacks[0][SLICE]))
    assert np.array_equal(np.asarray(found.overlay(0, 1, depth=-7)), lit.astype(np.uint8))


def test_without_a_number_a_sheet_of_slices_is_drawn() -> None:
    found = explained()
    sheet = found.overlay(0, 1)
    one = contact([found.overlay(0, 1, depth=SLICE)], [SLICE])
    assert sheet.size == (one.width * 4, one.height * 3)
    assert found.heatmap(0, 1).size == sheet.size
    assert found.heatmap(0, 1, depth=3).size == (32, 24)


@pytest.mark.parametrize(
    ("strongest", "count", "want"),
    [(0, 5, [0, 1, 2, 3, 4]), (3, 40, [1, 3, 8, 11, 14, 18, 21, 24, 28, 31, 34, 38]), (39, 40, None)],
)
def test_the_strongest_slice_is_among_those_that_are_shown(strongest: int, count: int, want: list[int] | None) -> None:
    values = np.zeros((count, 2, 2))
    values[strongest, 1, 0] = -1.0  # what is against counts as well
    found = which(values)
    assert strongest in found
    assert len(found) == min(12, count)
    assert found == sorted(found)
    assert want is None or found == want


def test_wrong_slices_are_named() -> None:
    found = explained()
    for depth in (20, -21, 1.0, True):
        with pytest.raises(InvalidInput) as raised:
            found.overlay(depth=depth)  # type: ignore[arg-type]
        assert str(raised.value) == f"depth must be an integer from 0 to 19, got {depth!r}."
    picture = seewhy.explain(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                             volume()[:, :, 0], 0, "gradient", progress=False)  # fmt: skip
    for draw in (picture.overlay, picture.heatmap):
        with pytest.raises(InvalidInput, match=r"has no slices: depth is for volumes and clips\.$"):
            draw(depth=0)
    with pytest.raises(InvalidInput, match=r"has no slices"):
        picture.strongest()


def test_trust_is_not_defined_for_volumes() -> None:
    with pytest.raises(MissingCapability, match=r"for volumes and clips that is not defined\.$"):
        explained().trust()


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    found = explained()
    files = found.save(tmp_path)
    assert [file.suffix for file in files] == [".png", ".png", ".npz", ".json"]
    again = seewhy.Explanation.load(tmp_path)
    assert torch.equal(again.raw, found.raw)
    assert again.size == (20, 24, 32)
    for d in (0, SLICE):
        assert np.array_equal(np.asarray(again.overlay(0, 1, depth=d)), np.asarray(found.overlay(0, 1, depth=d)))
    assert found.summary()["images"][0]["targets"][1]["strongest_slice"] == found.strongest(0, 1)


def test_the_sheet_and_the_notebook_show_slices() -> None:
    found = explained()
    sheet = found.sheet()
    assert sheet.width > 3 * 320
    assert "20 x 24 x 32" in found._repr_html_()
    assert repr(found).startswith("Explanation(grad_cam of Bright: 1 x 2 maps (20, 24, 32)")


def test_slices_have_one_black_and_one_white() -> None:
    shown = [np.asarray(one) for one in explained().stacks[0]]
    assert shown[SLICE].max() == 255
    assert shown[0].max() < 20  # as dark as it is beside the bright one


def test_a_preprocessing_says_how_slices_look() -> None:
    model = seewhy.load(
        build(Bright), preprocessing=seewhy.Preprocessing(size=(24, 32), channels="L", mean=(0.5,), std=(0.25,))
    )
    x = torch.zeros(1, 1, 3, 24, 32)
    x[:, :, 1] = 2.0
    found = seewhy.explain(model, x, 1, "grad_cam", progress=False)
    assert [np.asarray(one)[0, 0, 0] for one in found.stacks[0]] == [128, 255, 128]


def test_maps_are_drawn_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Image.Image] = []
    monkeypatch.setattr("seewhy.draw.figure.show", lambda pictures, _titles: drawn.extend(pictures))
    seewhy.GradCAM(build(Bright))(volume(), 1, show=True)
    assert len(drawn) == 1
    assert drawn[0].width > 4 * 64

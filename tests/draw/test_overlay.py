"""Colours, overlays and contact sheets, against closed forms."""

from __future__ import annotations

from typing import Any

import cmap
import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.draw.overlay import colour_bar, colourise, overlay, saliency_to_image, signed
from seewhy.errors import InvalidInput, InvalidType, UnknownName
from support.pictures import pixel
from support.typed import unchecked

ENDS = {"inferno": ((0, 0, 4), (252, 255, 164)), "viridis": ((68, 1, 84), (253, 231, 37))}
WHITE = (255, 255, 255)


def solid(colour: Any, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def unique(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(int(v) for v in row) for row in np.asarray(image).reshape(-1, 3)}


# ------------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("name", ENDS)
def test_ends_of_the_colour_map(name: str) -> None:
    assert unique(colourise(np.zeros((3, 5)), name)) == {ENDS[name][0]}
    assert unique(colourise(torch.ones(3, 5), name)) == {ENDS[name][1]}


def test_every_value_has_its_colour_and_place() -> None:
    values = np.array([[0.0, 0.25, np.nan], [0.5, 0.75, 1.0]])
    image = colourise(values, "viridis")
    assert (image.mode, image.size) == ("RGB", (3, 2))
    wanted = np.rint(np.asarray(cmap.Colormap("viridis")(np.nan_to_num(values)))[..., :3] * 255)
    wanted[0, 2] = 128
    assert np.abs(np.asarray(image, dtype=float) - wanted).max() <= 2
    assert image.getpixel((2, 0)) == (128, 128, 128)


def test_one_pixel_and_leading_dimensions() -> None:
    assert colourise(torch.zeros(1, 1, 1, 1)).size == (1, 1)
    assert colourise(np.zeros((1, 7, 3), np.float16)).size == (3, 7)
    assert colourise(torch.zeros(2, 2, dtype=torch.bfloat16, requires_grad=True)).size == (2, 2)
    assert unique(colourise(np.full((2, 2), np.nan))) == {(128, 128, 128)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[0.0, 300.0]]),
            "Expected saliency in [0, 1], got 0 to 300. Scale it first, or draw raw values with signed().",
        ),
        (
            np.array([[-0.5, np.nan]]),
            "Expected saliency in [0, 1], got -0.5 to -0.5. Scale it first, or draw raw values with signed().",
        ),
        (
            np.array([[np.inf]]),
            "Expected saliency in [0, 1], got inf to inf. Scale it first, or draw raw values with signed().",
        ),
        (np.zeros((2, 3, 4)), "Expected one map of shape (H, W), got (2, 3, 4)."),
        (np.zeros(3), "Expected one map of shape (H, W), got (3,)."),
        (np.zeros((0, 3)), "Expected one map of shape (H, W), got (0, 3)."),
    ],
)
def test_values_that_have_no_colour(values: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        colourise(values)
    assert str(caught.value) == message
    with pytest.raises(InvalidInput) as caught:
        overlay(solid("red"), values)
    assert str(caught.value) == message


def test_unknown_colour_map_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"Expected a colour map of the cmap catalogue, got 'infernu'\. .*'inferno'"):
        colourise(np.zeros((2, 2)), "infernu")
    for name in ("", "no such map"):
        with pytest.raises(UnknownName):
            overlay(solid("red"), np.zeros((2, 2)), colour_map=name)
    with pytest.raises(InvalidType, match="Expected the name of a colour map, got int"):
        colourise(np.zeros((2, 2)), unchecked(3))
    with pytest.raises(InvalidType, match="Expected a map of real numbers, got complex128"):
        colourise(np.zeros((2, 2), complex))


def test_signed_is_symmetric_around_white() -> None:
    assert unique(signed(np.zeros((3, 3)))) == {(247, 247, 247)}
    image = np.asarray(signed(np.array([[-4.0, -2.0, 0.0, 2.0, 4.0, np.nan]]))).astype(int)[0]
    assert tuple(image[2]) == (247, 247, 247)
    assert tuple(image[5]) == (128, 128, 128)
    assert image[0, 2] > image[0, 0] + 50
    assert image[4, 0] > image[4, 2] + 50
    table = np.rint(cmap.Colormap("colorbrewer:RdBu_r").lut(257)[:, :3] * 255)
    np.testing.assert_array_equal(image[[0, 1, 3, 4]], table[[0, 64, 192, 256]])


def test_signed_uses_one_scale_for_both_signs() -> None:
    lone = np.asarray(signed(np.array([[0.0, 1.0, -10.0]])))[0]
    assert lone[1].min() > 215  # a tenth of the peak is pale
    np.testing.assert_array_equal(np.asarray(signed(np.array([[1e30, -1e-30]])))[0, 1], (247, 247, 247))
    with pytest.raises(InvalidInput, match="Expected finite values"):
        signed(np.array([[np.inf, 0.0]]))


def test_colour_bar_runs_from_left_to_right_with_its_numbers() -> None:
    image = colour_bar(-1.5, 2.0, width=300, height=30)
    assert image.size == (300, 30)
    row = np.asarray(image)[15]
    coloured = np.flatnonzero((np.abs(row.astype(int) - ENDS["inferno"][0]).sum(axis=1)) == 0)
    start = int(coloured[0])
    end = int(np.flatnonzero((row == ENDS["inferno"][1]).all(axis=1))[-1])
    assert 15 < start < 60
    assert 240 < end < 295
    left, right = np.asarray(image.convert("L"))[:, :start], np.asarray(image.convert("L"))[:, end + 1 :]
    assert (left < 100).sum() > 20
    assert (right < 100).sum() > 10
    assert colour_bar(0, 1) != colour_bar(0, 2)
    with pytest.raises(InvalidInput, match="Expected room for 0, 1 and the colours, got 20x24 pixels"):
        colour_bar(0, 1, width=20)


# ------------------------------------------------------------------------------------------------------- overlay


def test_opacity_zero_is_the_picture() -> None:
    picture = noise(9, 13)
    values = np.random.default_rng(1).random((9, 13))
    values[0, 0] = np.nan
    np.testing.assert_array_equal(np.asarray(overlay(picture, values, opacity=0)), np.asarray(picture))


def test_opacity_one_is_the_map_where_it_is_one() -> None:
    assert unique(overlay(noise(9, 13), np.ones((9, 13)), opacity=1)) == {ENDS["inferno"][1]}
    assert unique(overlay(noise(9, 13), np.ones((1, 1)), opacity=1, colour_map="viridis")) == {ENDS["viridis"][1]}


def test_flat_zero_shows_the_picture_in_grey() -> None:
    picture = noise(8, 8)
    luma = np.asarray(picture, dtype=float) @ [0.299, 0.587, 0.114]
    got = np.asarray(overlay(picture, torch.zeros(1, 1, 8, 8), opacity=1), dtype=float)
    np.testing.assert_allclose(got, np.repeat(luma[..., None], 3, 2), atol=0.51)


def test_red_stays_red() -> None:
    for value in (0.0, np.nan):
        r, g, b = pixel(overlay(solid("red"), np.full((4, 6), value), opacity=0.5), 2, 2)
        assert r > g + 100
        assert r > b + 100
    r, g, b = pixel(saliency_to_image(np.zeros((4, 6)), solid("blue"), opacity=0.5), 2, 2)
    assert b > r + 100


def test_unseen_pixels_are_grey_and_dark() -> None:
    values = np.zeros((4, 6))
    values[:, :2] = np.nan
    got = np.asarray(overlay(solid((200, 100, 50)), values, opacity=1), dtype=float)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(got[:, :2], 0.4 * luma, atol=0.51)
    np.testing.assert_allclose(got[:, 2:], luma, atol=0.51)


def test_details_stay_visible_at_the_default() -> None:
    board = Image.fromarray((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8))
    for value in (0.0, 0.3, 0.6, 1.0):
        got = np.asarray(overlay(board, np.full((16, 16), value)), dtype=int)
        assert abs(got[0, 0] - got[0, 1]).max() > 40


def test_a_small_map_covers_the_picture_half_pixel_exact() -> None:
    small = np.array([[0.0, 1.0], [0.5, np.nan]])
    got = overlay(solid("black", (40, 20)), small, opacity=1)
    assert got.size == (40, 20)
    assert got.getpixel((39, 0)) == ENDS["inferno"][1]
    assert got.getpixel((0, 0)) == (0, 0, 0)
    source = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(source[None, None], (12, 10), mode="bilinear")[0, 0]
    a = np.asarray(overlay(noise(12, 10), source), dtype=int)
    assert np.abs(a - np.asarray(overlay(noise(12, 10), wanted), dtype=int)).max() <= 2
    assert unique(overlay(noise(12, 10), np.full((3, 3), np.nan))) == unique(
        overlay(noise(12, 10), np.full((12, 10), np.nan))
    )


def test_a_small_map_is_unseen_up_to_half_a_cell() -> None:
    got = np.asarray(overlay(solid("white", (10, 1)), np.array([[1.0, np.nan]]), opacity=1))[0]
    assert {tuple(p) for p in got[:5]} == {ENDS["inferno"][1]}
    assert {tuple(p) for p in got[5:]} == {(102, 102, 102)}


def test_not_transposed() -> None:
    values = np.zeros((20, 40))
    values[2, 35] = 1
    got = np.asarray(overlay(solid("black", (40, 20)), values)).sum(axis=2)
    assert np.unravel_index(got.argmax(), got.shape) == (2, 35)


def test_arguments_of_overlay() -> None:
    for opacity in (-0.1, 60, float("nan")):
        with pytest.raises(InvalidInput, match=r"Expected an opacity in \[0, 1\], got"):
            overlay(solid("red"), np.zeros((2, 2)), opacity=opacity)
    with pytest.raises(InvalidType, match=r"Expected an RGB or grey PIL image, got mode RGBA. Pass it through seewhy"):
        overlay(solid("red", mode="RGBA"), np.zeros((2, 2)))
    with pytest.raises(InvalidType, match="got ndarray"):
        overlay(unchecked(np.zeros((2, 2, 3))), np.zeros((2, 2)))


def test_saliency_to_image_takes_every_form_of_a_picture() -> None:
    picture = noise(5, 7)
    values = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    wanted = np.asarray(overlay(picture, values))
    array = np.asarray(picture)
    chw = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for original in (picture, array, array / 255.0, chw, chw / 255, (chw / 255)[None].double()):
        for saliency in (values, values[0], values[0, 0].numpy()):
            np.testing.assert_array_equal(np.asarray(saliency_to_image(saliency, original)), wanted)
    grey = saliency_to_image(values, np.zeros((5, 7), np.uint8))
    np.testing.assert_array_equal(np.asarray(grey), np.asarray(saliency_to_image(values, torch.zeros(1, 5, 7))))


@pytest.mark.parametrize(
    ("original", "message"),
    [
        (torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), r"got float32 of .* Undo the normalisation"),
        (np.full((5, 7, 3), 200.0), "got float64 of 200 to 200"),
        (np.full((5, 7, 3), np.nan), "got float64 of nan to nan"),
        (np.zeros((5, 7, 3), np.int64), r"Expected a picture in uint8 or with values in \[0, 1\], got int64"),
        (torch.zeros(2, 3, 5, 7), r"got shape \(2, 3, 5, 7\)"),
        (np.zeros((3, 5, 7)), r"an array \(H, W, C\) with 1 or 3 channels, got shape \(3, 5, 7\)"),
    ],
)
def test_originals_that_are_no_pictures(original: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        saliency_to_image(np.zeros((5, 7)), original)

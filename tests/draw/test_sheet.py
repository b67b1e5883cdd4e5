"""Contact sheets: where the pictures stand and what is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.draw.sheet import grid
from seewhy.errors import InvalidInput

WHITE = (255, 255, 255)


def solid(colour: Any, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def boxes(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around the pixels of one colour."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_pictures_stand_in_rows_and_columns_without_distortion() -> None:
    red, lime, blue, gold = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 215, 0)
    sheet = grid(
        [[solid(red, (50, 25)), solid(lime, (30, 30))], [solid(blue, (20, 40)), solid(gold, (1, 1))]], cell=100
    )
    r, g, b, y = (boxes(sheet, c) for c in (red, lime, blue, gold))
    assert [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (r, g, b, y)] == [(100, 50), (100, 100), (50, 100), (100, 100)]
    assert g[1] + g[3] == r[1] + r[3]
    assert b[0] + b[2] == r[0] + r[2]
    assert g[0] > r[2]
    assert b[1] > g[3]
    assert y[0] == g[0]
    assert y[1] == b[1]


def test_titles_are_written_beside_their_pictures() -> None:
    red, blue, lime = (solid(colour, (9, 9)) for colour in ("red", "blue", "lime"))
    plain: list[list[Image.Image | None]] = [[red, None], [blue, lime]]
    bare = grid(plain, cell=100)
    full = grid(plain, cell=100, column_titles=["a", "b"], row_titles=["x", "y"], title="Title", footer="bright = much")
    assert full.width > bare.width
    assert full.height > bare.height
    x0, y0, x1, _ = boxes(full, (255, 0, 0))
    *_, y_end = boxes(full, (0, 255, 0))
    ink = np.asarray(full.convert("L")) < 100
    ink[y0:y_end, x0:] = False
    assert ink[:y0, x0:x1].any()
    assert ink[y0:y_end, :x0].any()
    assert ink[y_end:].any()
    assert ink[:25].any()  # the heading stands above the column titles
    assert np.asarray(bare)[:5].min() == 255


def test_long_and_strange_titles_stay_inside() -> None:
    strange = [
        "\U0001f431 \N{CJK UNIFIED IDEOGRAPH-732B}",
        "\udcff\x00\u202e",
        "line\nbreak\r\n\n",
        "w" * 500,
        "many words " * 60,
        "  ",
    ]
    pictures: list[Image.Image | None] = [solid("red", (9, 9)) for _ in strange]
    sheet = grid(
        [pictures], cell=80, column_titles=strange, row_titles=["w" * 500], title="t " * 900, footer="f" * 5000
    )
    assert sheet.width < 80 * 6 + 250
    assert grid([pictures[:1]], title="a\x07b") == grid([pictures[:1]], title="a?b")
    assert sheet.height < 500
    rim = np.asarray(sheet).copy()
    rim[3:-3, 3:-3] = 255
    assert rim.min() == 255


def test_small_maps_are_enlarged_without_new_colours() -> None:
    edge = Image.fromarray(np.array([[100, 100, 200, 200]] * 4, dtype=np.uint8))
    x0, y0, *_ = boxes(grid([[solid("red", (4, 4))]], cell=200), (255, 0, 0))
    inside = np.asarray(grid([[edge]], cell=200))[y0 : y0 + 200, x0 : x0 + 200]
    assert (inside.min(), inside.max()) == (100, 200)


def test_ragged_rows_and_extreme_shapes() -> None:
    sheet = grid([[solid("red", (900, 1))], [None, solid("lime", (1, 900))], []], cell=64)
    assert (boxes(sheet, (255, 0, 0))[2] - boxes(sheet, (255, 0, 0))[0]) == 64
    assert sheet.mode == "RGB"


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], {}, "Expected at least one row with one picture, got none."),
        ([[]], {}, "Expected at least one row with one picture, got none."),
        ([[None]], {"cell": 5}, "Expected cells of at least 32 pixels, got 5."),
        ([[None, None]], {"column_titles": ["a"]}, "Expected 2 column titles or none, got ['a']."),
        ([[None]], {"row_titles": ["a", "b"]}, "Expected 1 row titles or none, got ['a', 'b']."),
        ([[None]], {"row_titles": "a"}, "Expected 1 row titles or none, got 'a'."),
    ],
)
def test_sheets_that_cannot_be(rows: list[list[None]], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        grid(rows, **arguments)
    assert str(caught.value) == message

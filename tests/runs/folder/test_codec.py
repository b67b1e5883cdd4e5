import io

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import InvalidInput
from seewhy.runs.folder.codec import decode, encode, lossless, thumbnail

random = np.random.default_rng(0)
MAPS = {
    "7x7": random.normal(size=(7, 7)),
    "1x1": np.ones((1, 1)),
    "largest of numbers": random.random((32, 32)),
    "png": random.random((33, 32)),
    "negative": -random.random((40, 50)) - 3,
    "signed": random.normal(size=(64, 96)),
    "flat": np.full((40, 40), -0.25),
    "zero": np.zeros((40, 40)),
    "huge": random.uniform(-3e38, 3e38, size=(40, 40)),
    "tiny": random.normal(size=(40, 40)) * 1e-30,
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_come_back(name):
    values = MAPS[name].astype(np.float32)
    made = encode(values)
    back = decode(made.data, made.encoding, values.shape, made.low, made.high)
    assert back.dtype == np.float32
    assert back.shape == values.shape
    assert (made.low, made.high) == (values.min(), values.max())
    if values.size <= 1024:
        assert made.encoding == "f4"
        assert lossless("f4")
        np.testing.assert_array_equal(back, values)
    else:
        assert made.encoding == "png"
        half = (np.float64(made.high) - made.low) / 255 / 2
        assert np.abs(back.astype(np.float64) - values).max() <= half * 1.001 + abs(made.high) * 1e-6
        assert (back.min(), back.max()) == (values.min(), values.max())


def test_numbers_on_request():
    values = MAPS["signed"].astype(np.float32)
    made = encode(values, "float32")
    np.testing.assert_array_equal(decode(made.data, made.encoding, values.shape, made.low, made.high), values)
    made = encode(values, "float16")
    assert (made.encoding, lossless("f2"), len(made.data)) == ("f2", False, 2 * values.size)
    back = decode(made.data, made.encoding, values.shape, made.low, made.high)
    np.testing.assert_allclose(back, values, rtol=1e-3, atol=1e-7)
    huge = MAPS["huge"].astype(np.float32)  # beyond what float16 holds
    assert (
        encode(huge, "float16").encoding == "f4"
        or np.isfinite(decode(*encode(huge, "float16")[:2], huge.shape, *encode(huge, "float16")[2:])).all()
    )


def test_an_unknown_encoding_is_refused():
    with pytest.raises(InvalidInput, match=r"^Maps are kept as 'f4', 'f2' or 'png', got 'jpg': written by a later"):
        decode(b"", "jpg", (1, 1), 0, 1)


@pytest.mark.parametrize(
    ("size", "kind", "expected"),
    [
        ((28, 28), "png", (28, 28)),
        ((96, 40), "png", (40, 96)),
        ((97, 40), "jpeg", (40, 97)),
        ((380, 190), "jpeg", (190, 380)),
        ((390, 320), "jpeg", (160, 195)),
        ((640, 320), "jpeg", (160, 320)),
        ((300, 4000), "jpeg", (250, 19)),
        ((20000, 10), "jpeg", (1, 257)),
    ],
)
def test_thumbnails(size, kind, expected):
    given = Image.new("RGB", size, (200, 30, 30))
    data, made, shape = thumbnail(given)
    assert (made, shape) == (kind, expected)
    with Image.open(io.BytesIO(data)) as small:
        assert (small.height, small.width) == expected
        assert np.abs(np.asarray(small.convert("RGB")).mean((0, 1)) - (200, 30, 30)).max() < 4
    assert given.size == size

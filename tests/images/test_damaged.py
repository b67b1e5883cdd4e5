"""Damaged, strange and hostile pictures: each is read right or is an error that names the file and the reason."""

from __future__ import annotations

import faulthandler
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.datasets import open_data
from seewhy.datasets._files import key
from seewhy.errors import UnreadableImage
from seewhy.images.reading import read
from support.damaged import Fate, write_damaged


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A pipe or a loop that is waited for ends the run with a trace, not never."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def fault(image: Image.Image, fate: Fate) -> str | None:
    """What is wrong with a picture that was read."""
    if fate.kind == "failure":
        return f"was read as {image.size}"
    if fate.pixels is None:
        return None
    found = np.asarray(image)
    if found.shape != fate.pixels.shape:
        return f"has shape {found.shape}, not {fate.pixels.shape}"
    off = int(np.abs(found.astype(int) - fate.pixels.astype(int)).max())
    return f"is off by {off}" if off > fate.near else None


def complaint(path: Path, error: UnreadableImage, fate: Fate) -> str | None:
    """What is wrong with an error."""
    message, start = str(error), f"Cannot read {str(path)!r}: "
    if fate.kind == "right":
        return f"should be read: {message}"
    said = message.removeprefix(start).strip(" .")
    return None if message.startswith(start) and said and fate.reason in said else f"has the message {message}"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_every_picture_is_right_or_a_failure_with_its_reason(tmp_path: Path) -> None:
    expected = write_damaged(tmp_path)
    assert len(expected) >= 200
    data = open_data(tmp_path)
    samples = {key(name): fate for name, fate in expected.items() if fate.kind != "absent"}
    assert [data.key(i) for i in range(len(data))] == [key(name) for name in sorted(expected) if key(name) in samples]
    assert len(set(samples)) == len(data)
    faults, outcomes = {}, Counter[str]()
    for i in range(len(data)):
        fate, path = samples[data.key(i)], data[i].image
        try:
            found = fault(read(path), fate)
            outcomes["read"] += 1
        except UnreadableImage as error:  # any other error ends the test: it would have ended a run
            found = complaint(path, error, fate)
            outcomes["failed"] += 1
        if found:
            faults[data.key(i)] = found
        assert data.key(i).encode()
        assert data.stamp(i)
    assert faults == {}
    assert min(outcomes.values()) > 80


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_a_part_of_a_file_never_passes_for_another_picture(tmp_path: Path, form: str) -> None:
    y, x = np.mgrid[:16, :24]
    path = tmp_path / "cut"
    Image.fromarray(np.stack([x * 10, y * 15, x * y % 256], 2).astype(np.uint8)).save(path, form)
    data, whole = path.read_bytes(), np.asarray(read(path))
    wrong = []
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found = np.asarray(read(path))
        except UnreadableImage:
            continue
        if not np.array_equal(found, whole):
            wrong.append(length)
    assert wrong == []


def test_warnings_that_the_caller_made_errors_are_failures_too(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (9600, 9600)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match="could be decompression bomb DOS attack"):
            read(path)

"""What is a folder on a disk, and what an address: one answer for the store, the commands and the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.cli.origin import within
from seewhy.runs.folder.filesystem import LocalFiles, disk_path, files
from seewhy.web.library import Library


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("runs/a", "runs/a"), ("/tmp/a", "/tmp/a"), (Path("a"), "a"), ("file:///tmp/a", "/tmp/a"),
        ("local:///tmp/a", "/tmp/a"), ("s3://bucket/a", None), ("memory://a", None),
    ],
)  # fmt: skip
def test_which_places_lie_on_a_disk(place: str | Path, path: str | None) -> None:
    assert disk_path(place) == path


def test_a_disk_by_its_address_is_the_same_folder_everywhere(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    address = f"file://{tmp_path / 'out'}"
    found = files(address)
    assert isinstance(found, LocalFiles)
    assert found.root == tmp_path / "out"
    library = Library(address)
    assert (library.root, library.remote) == (str(tmp_path / "out"), False)
    (tmp_path / "out" / "weights.pth").write_bytes(b"")
    assert within({"checkpoint": "out/weights.pth"}, str(tmp_path), address)
    assert not within({"checkpoint": "other.pth"}, str(tmp_path), address)

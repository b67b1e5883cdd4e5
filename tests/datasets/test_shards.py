"""WebDataset shards, data frames and data modules: read as written, and what is wrong with them said."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import seewhy
from seewhy.datasets import open_data, reopen
from seewhy.errors import InvalidInput


def picture(seed: int, ending: str = "png") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(out, "JPEG" if ending == "jpg" else ending.upper())
    return out.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    mask = io.BytesIO()
    Image.fromarray(np.eye(12, 16, dtype=np.uint8) * 255).save(mask, "PNG")
    shard(
        tmp_path / "b.tar", {"x/1.png": picture(1), "x/1.cls": b"2", "x/1.mask.png": mask.getvalue(), "x/2.cls": b"1"}
    )
    told = json.dumps({"labels": [1, 0], "boxes": [[1, 2, 5, 6], [0, 0, 3, 3]]}).encode()
    shard(tmp_path / "a.tar", {"1.jpg": picture(2, "jpg"), "1.json": told, "2.v1.png": b"", "2.png": picture(3)})
    return tmp_path


def test_shards_are_read_in_order_by_number(shards: Path) -> None:
    data = open_data(f"tar:{shards}")
    assert [data.key(i) for i in range(len(data))] == ["1", "2", "x/1"]
    assert data.notes == ("1 samples of the shards have no picture and are left out.",)
    first, second, third = (data[i] for i in (0, 1, 2))
    assert (first.labels, first.boxes) == ((1, 0), ((1, 1.0, 2.0, 5.0, 6.0), (0, 0.0, 0.0, 3.0, 3.0)))
    assert (second.labels, third.labels) == (None, (2,))
    np.testing.assert_array_equal(np.asarray(third.image), np.asarray(Image.open(io.BytesIO(picture(1)))))
    np.testing.assert_array_equal(third.masks[2], np.eye(12, 16) > 0)


def test_a_file_a_pattern_and_a_description_open_the_same(shards: Path) -> None:
    assert [open_data(str(shards / "a.tar")).key(i) for i in range(2)] == ["1", "2"]
    some = open_data(f"tar:{shards}/[a-b].tar")
    again = reopen(json.loads(json.dumps(some.describe())))
    assert [again.key(i) for i in range(len(again))] == [some.key(i) for i in range(len(some))]
    assert again.stamp(0) == some.stamp(0)


def test_class_names_in_shards(tmp_path: Path) -> None:
    files = {"1.png": picture(1), "1.txt": b"tabby cat\n", "2.png": picture(2), "2.txt": b"dog"}
    data = open_data(shard(tmp_path / "a.tar", files))
    assert data.classes == ("dog", "tabby cat")
    bound = data.bind(["bird", "dog", "tabby cat"], 3)
    assert [bound[i].labels for i in (0, 1)] == [(2,), (1,)]


def test_what_is_wrong_with_shards_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"There is no shard .*Expected a \.tar file, a folder of them, or a pattern"
    ):
        open_data(f"tar:{tmp_path}/none.tar")
    (tmp_path / "text.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(InvalidInput, match=r"Cannot read .*text\.tar' as a \.tar archive: .*must be unpacked first"):
        open_data(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as archive:
        archive.add(tmp_path / "text.tar", "1.png")
    with pytest.raises(InvalidInput, match=r"as a \.tar archive"):
        open_data(tmp_path / "zipped.tar")
    with pytest.raises(InvalidInput, match="There is no picture in"):
        open_data(shard(tmp_path / "empty.tar", {"1.cls": b"1"}))
    bad = open_data(shard(tmp_path / "bad.tar", {"1.png": b"no picture", "2.png": picture(1), "2.json": b"{"}))
    with pytest.raises(InvalidInput, match=r"Sample '1': its 10 bytes are no picture"):
        bad[0]
    with pytest.raises(InvalidInput, match="Sample '2': its json part is none"):
        bad[1]
    (tmp_path / "bad.tar").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"bad\.tar' is shorter than it was when it was opened"):
        bad[0]


def test_a_link_in_a_shard_leads_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for name, kind in (("1.png", tarfile.SYMTYPE), ("2.png", tarfile.LNKTYPE), ("3.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(InvalidInput, match="There is no picture in"):
        open_data(tmp_path / "links.tar")


# --------------------------------------------------------------------------------------------------------- frames


def rows(tmp_path: Path) -> dict[str, list[Any]]:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    return {"Filepath": [str(tmp_path / f"{i}.png") for i in range(3)], "label": [2, 0, None]}


def frames(given: dict[str, list[Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"pyarrow": pa.table(given)}
    for library in ("pandas", "polars"):
        try:
            made[library] = __import__(library).DataFrame(given)
        except ImportError:
            continue
    return made


def test_data_frames_with_a_column_of_paths(tmp_path: Path) -> None:
    for frame in frames(rows(tmp_path)).values():
        data = open_data(frame)
        assert [data[i].labels for i in range(3)] == [(2,), (0,), None]
        assert data.source(1) == str(tmp_path / "1.png")


def test_a_frame_without_images() -> None:
    with pytest.raises(
        InvalidInput, match=r"a column with its path, called one of image, img, path.* got the columns 'x'"
    ):
        open_data(pa.table({"x": [1]}))


# -------------------------------------------------------------------------------------------------------- modules


def test_data_modules_of_lightning() -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningDataModule):  # type: ignore[misc,name-defined]
        ready = ""

        def setup(self, stage: str) -> None:
            self.ready = stage

        def val_dataloader(self) -> Any:
            assert self.ready == "validate"
            rows: Any = [{"image": torch.rand(3, 8, 8), "label": i} for i in range(5)]
            return DataLoader(rows, batch_size=2)

    data = open_data(Module())
    assert [data[i].labels for i in range(len(data))] == [(i,) for i in range(5)]
    with pytest.raises(
        InvalidInput, match="LightningDataModule has no test_dataloader, predict_dataloader or val_datal"
    ):
        open_data(lightning.LightningDataModule())


# -------------------------------------------------------------------------------------------------------- compare


def test_compare_takes_any_data(shards: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    known = seewhy.Preprocessing(size=(12, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = seewhy.load(network, preprocessing=known)
    found = seewhy.compare(model, f"tar:{shards}", ["gradient"], ["relevance_mass", "sparseness"], progress=False)
    assert found.pictures == ("1", "2", "x/1")
    assert found.mean("gradient", "sparseness").n == 3
    assert found.mean("gradient", "relevance_mass").n == 1  # one has a mask

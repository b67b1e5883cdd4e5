"""Of several pages, frames or slices one is chosen, in the same words wherever a path is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy import Preprocessing
from seewhy.cli import main
from seewhy.datasets import open_data
from seewhy.errors import UnreadableImage
from seewhy.images.pages import chosen
from seewhy.images.reading import read, read_mask
from seewhy.runs.query.run import Run
from seewhy.runs.runner import Runner
from seewhy.runs.work.job import Job

GREYS = (10, 100, 200)


@pytest.fixture
def several(tmp_path: Path) -> dict[str, Path]:
    pages = [Image.new("L", (12, 9), grey) for grey in GREYS]
    files = {name: tmp_path / f"several.{name}" for name in ("gif", "tif", "png", "webp")}
    for name, path in files.items():
        more: dict[str, Any] = {"lossless": True} if name == "webp" else {}
        pages[0].save(path, save_all=True, append_images=pages[1:], **more)
    return files


def test_every_page_can_be_chosen_and_none_is_taken_unasked(several: dict[str, Path]) -> None:
    for path in several.values():
        for i, grey in enumerate(GREYS):
            assert abs(read(f"{path}[{i}]").getpixel((5, 5))[0] - grey) <= 1, path  # type: ignore[index]
        with pytest.raises(UnreadableImage) as caught:
            read(path)
        assert str(caught.value) == (
            f"Cannot read {str(path)!r}: it has 3 pages or frames; say which one behind the file's name, from name[0] "
            "to name[2]."
        )
        for wrong in ("3", "0,0"):
            with pytest.raises(UnreadableImage, match=rf"it has 3 pages or frames, and no \[{wrong}\]"):
                read(f"{path}[{wrong}]")


def test_a_single_picture_is_page_0_and_names_are_names(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png[0]").getpixel((0, 0)) == (7, 7, 7)
    with pytest.raises(UnreadableImage, match=r"it has 1 pages or frames, and no \[1\]"):
        read(tmp_path / "x.png[1]")
    Image.new("L", (4, 4), 9).save(tmp_path / "x.png[1]", format="PNG")  # a file that is called so
    assert read(tmp_path / "x.png[1]").getpixel((0, 0)) == (9, 9, 9)
    assert chosen("a[1]/b.png") == (Path("a[1]/b.png"), ())
    assert chosen("a/b.nii[2, 3]") == (Path("a/b.nii"), (2, 3))


def test_smaller_copies_and_masks_of_a_page_do_not_count(tmp_path: Path) -> None:
    big, small = Image.new("L", (12, 9), 10), Image.new("L", (6, 5), 100)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    big.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "x.tif") as file:
        file.seek(1)
        assert file.tag_v2[254] == 1  # type: ignore[attr-defined]
    assert read(tmp_path / "x.tif").size == (12, 9)
    assert read(tmp_path / "x.tif[1]").size == (6, 5)


def test_the_limit_holds_for_the_chosen_page(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.tif", save_all=True, append_images=[Image.new("L", (40, 40))])
    with pytest.raises(UnreadableImage, match="it has 40 x 40 pixels, more than the 100 that are opened"):
        read(tmp_path / "x.tif[1]", most_pixels=100)
    assert read(tmp_path / "x.tif[0]", most_pixels=100).size == (4, 4)


def test_an_open_file_of_pillow_says_by_where_it_stands(several: dict[str, Path]) -> None:
    with Image.open(several["tif"]) as file:
        with pytest.raises(UnreadableImage, match=r"it is the first of 3 pages or frames; pass image\.copy\(\)"):
            read(file)
        assert read(file.copy()).getpixel((0, 0)) == (10, 10, 10)
        file.seek(2)
        assert read(file).getpixel((0, 0)) == (200, 200, 200)


def test_masks_too(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 3), grey) for grey in (0, 255)]
    pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
    assert read_mask(tmp_path / "mask.tif[1]").all()
    assert not read_mask(tmp_path / "mask.tif[0]").any()
    with pytest.raises(UnreadableImage, match="say which one"):
        read_mask(tmp_path / "mask.tif")


def _network() -> Any:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    plain = Preprocessing(size=(9, 12), mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash")
    return seewhy.load(network.eval(), preprocessing=plain)


def test_a_table_of_pages_is_a_run_of_pages(several: dict[str, Path], tmp_path: Path) -> None:
    rows = [f"{several['tif'].name}[{i}]" for i in (2, 0)]
    (tmp_path / "pages.csv").write_text("image\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = open_data(str(tmp_path / "pages.csv"))
    assert not data.stamp(0).startswith("missing")
    job = Job(place=tmp_path / "run", model=_network(), data=data, explainers=["gradient"], metrics=())
    Runner(job=job, progress=False).run()
    run = Run(tmp_path / "run")
    assert sorted(hit.record.name for hit in run.samples()) == sorted(rows)
    found = seewhy.explain(_network(), str(several["tif"]) + "[2]", method="gradient", progress=False)
    assert np.asarray(found.pictures[0]).max() == 200
    assert found.names == [rows[0]]


def test_on_the_command_line(several: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.pt2"
    network = _network().module
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 9, 12),)), model)
    base = ["explain", "--model", str(model), "--mean", "0", "0", "0", "--std", "1", "1", "1", "--method", "occlusion"]
    base += ["--quiet", "--out", str(tmp_path / "out")]
    assert main([*base, f"{several['tif']}[1]"]) == 0, capfd.readouterr().err
    assert main([*base, str(several["tif"])]) == 1
    assert "it has 3 pages or frames; say which one" in capfd.readouterr().err

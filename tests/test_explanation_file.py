"""An explanation comes back from its file bit for bit, and a notebook shows it with all that is to be known."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import explanation_file
from seewhy.errors import InvalidInput, MissingCapability
from seewhy.explanation import Explanation
from seewhy.types import Note
from support import networks
from support.networks import build

HALF = seewhy.Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)


def picture(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("uint8"))


@pytest.fixture(scope="module")
def found() -> Explanation:
    torch.manual_seed(0)
    model = seewhy.load(build(networks.Deep), preprocessing=HALF)
    made = seewhy.explain(
        model, [picture(0), picture(1, 60, 40)], [[0, 2], [1, 0]], "occlusion", window=(8, 16), stride=8,
        baseline=torch.full((3, 32, 32), 0.25), progress=False,
    )  # fmt: skip
    extra = Note(text="the <b>map</b> is odd.", kind="odd", image=1, target=0)
    error = made.raw.abs() / 3
    return replace(made, notes=(*made.notes, extra), predicted=[("a <i>", 0.5), None], error=error)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list) and a and isinstance(a[0], Image.Image):
        return len(a) == len(b) and all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def test_everything_comes_back_bit_for_bit(found: Explanation, tmp_path: Path) -> None:
    file = next(path for path in found.save(tmp_path) if path.suffix == ".npz")
    for place in (file, str(tmp_path)):
        back = Explanation.load(place)
        for one in fields(Explanation):
            if one.name not in ("asker", "_trust", "passes", "parameters"):
                assert same(getattr(found, one.name), getattr(back, one.name)), one.name
        assert (back.passes.forward, back.passes.backward) == (found.passes.forward, found.passes.backward)
        assert {k: same(v, back.parameters[k]) for k, v in found.parameters.items()} == dict.fromkeys(
            found.parameters, True
        )
    assert json.dumps(back.summary()) == json.dumps(found.summary())
    assert back.overlay(1, 1).tobytes() == found.overlay(1, 1).tobytes()
    assert [p.read_bytes() for p in back.save(tmp_path / "again")] == [p.read_bytes() for p in found.save(tmp_path)]
    with pytest.raises(MissingCapability):
        back.trust()


def test_boxes_masks_of_grey_and_maps_without_classes_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = seewhy.load(build(networks.Deep), preprocessing=replace(HALF))
    target = seewhy.SimilarityTarget(embedding=torch.rand(5))
    made = seewhy.explain(model, picture(3), target, "gradient", progress=False)
    made = replace(made, pictures=[made.pictures[0].convert("L")], boxes=[[(1.0, 2.5, 30.0, 31.0)]])
    made.save(tmp_path)
    back = Explanation.load(tmp_path)
    assert (back.targets, back.boxes, back.quantity) == (None, [[(1.0, 2.5, 30.0, 31.0)]], "similarity")
    assert back.pictures[0].mode == "L"


def test_what_is_no_explanation_is_refused(found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"'.*nothing\.npz' cannot be read: No such file"):
        Explanation.load(tmp_path / "nothing.npz")
    with pytest.raises(InvalidInput, match=r"has 0 \.npz files: pass the file of one explanation"):
        Explanation.load(tmp_path)
    np.savez(tmp_path / "other.npz", raw=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "objects.npz", about=np.array([{}], object))
    file = next(path for path in found.save(tmp_path / "one") if path.suffix == ".npz")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:-200])
    with (
        zipfile.ZipFile(tmp_path / "large.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("raw.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(9):
            member.write(bytes(1 << 20))
    monkeypatch.setattr(explanation_file, "_MOST", 1 << 23)
    for name in ("other", "text", "objects", "cut", "large"):
        with pytest.raises(InvalidInput, match=rf"{name}\.npz' holds no explanation as Explanation\.save writes it"):
            Explanation.load(tmp_path / f"{name}.npz")


def test_a_notebook_shows_captions_warnings_and_parameters(found: Explanation) -> None:
    page = found._repr_html_()
    assert page.count("<img ") == 1
    assert 'src="data:image/png;base64,' in page
    assert "occlusion of Deep<br>image 0: class 0 " in page
    assert "<li>Image 1, class 1: the &lt;b&gt;map&lt;/b&gt; is odd.</li>" in page
    assert ">window</th>" in page
    assert ">[8, 16]</td>" in page
    assert ">tensor of shape (3, 32, 32)</td>" in page
    assert ">32 x 32</td>" in page


def test_a_notebook_shows_a_comparison_as_a_table() -> None:
    torch.manual_seed(0)
    data = [(torch.rand(3, 32, 32), 1) for _ in range(4)]
    made = seewhy.compare(build(networks.Deep), data, ["gradient"], ["sparseness"], progress=False)
    page = made._repr_html_()
    assert page.count("<tr>") == 1 + len(made.explainers)
    assert '<th scope="col"' in page
    assert made._cell(made.mean("gradient", "sparseness")) in page
    assert "Real differences" in page
    assert "Means over 4 pictures" in page

"""The door: pictures in, an Explanation out; labels, the automatic method, saving, progress."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.draw.overlay import DIVERGING, colourise
from seewhy.errors import (
    InvalidInput,
    InvalidTarget,
    InvalidType,
    MissingCapability,
    UnknownName,
    UnknownParameter,
    UnreadableImage,
)
from seewhy.images.preprocessing import Preprocessing
from support import networks
from support.networks import build
from support.typed import present, unchecked

LABELS = ("tabby, tabby cat", "tiger cat", "crane", "crane", "red thing")
HALF = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)


class Red(nn.Module):
    """Class 4 answers to red, wherever it is; the others to nothing much."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)
        nn.init.constant_(self.stem.weight, 0.0)
        nn.init.constant_(present(self.stem.bias), 0.0)
        with torch.no_grad():
            self.stem.weight[0, 0], self.stem.weight[0, 1:] = 1 / 9, -1 / 18
            self.head.weight.zero_()
            self.head.weight[4, 0], self.head.weight[:4, 0] = 30.0, 0.5
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).relu().mean((2, 3)))


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Grey with a red square whose middle lies at a quarter of the height and three quarters of the width."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[height // 8 : 3 * height // 8, 5 * width // 8 : 7 * width // 8] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture
def model() -> object:
    return seewhy.load(Red(), preprocessing=HALF, labels=LABELS)


@pytest.mark.parametrize("method", ["grad_cam", "recipro_cam", "occlusion", "rise", "gradient", "GradCAM"])
def test_the_red_square_is_found_on_the_original_picture(model: object, method: str) -> None:
    options: dict[str, Any] = {"rise": {"num_masks": 300}}.get(method, {})
    found = seewhy.explain(model, picture(), "red thing", method, progress=False, **options)
    assert found.labels == [["red thing"]]
    assert present(found.predicted[0])[0] == "red thing"
    laid = np.nan_to_num(found.views[0].to_original(found.saliency[0, 0]))
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    assert 40 / 8 - 4 <= row <= 3 * 40 / 8 + 4
    assert 5 * 60 / 8 - 4 <= column <= 7 * 60 / 8 + 4


def test_every_way_to_give_a_picture_is_the_same(model: object, tmp_path: Path) -> None:
    picture().save(tmp_path / "red.png")
    ready, _ = HALF(picture())
    ways = [
        tmp_path / "red.png",
        str(tmp_path / "red.png"),
        picture(),
        np.asarray(picture()),
        [picture()],
        ready,
        ready[0],
    ]
    maps = [seewhy.explain(model, way, 4, "gradient").saliency for way in ways]
    for other in maps[1:]:
        assert torch.equal(maps[0], other)


def test_auto_takes_the_method_that_a_transformer_wants() -> None:
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2).eval()
    assert seewhy.explain(vit, torch.randn(1, 3, 64, 64), progress=False).method == "vit_recipro_cam"


def test_auto_falls_back_where_tokens_cannot_be_told_apart() -> None:
    timm = pytest.importorskip("timm")
    xcit = timm.create_model("xcit_nano_12_p16_224", img_size=64, depth=2).eval()
    x = torch.randn(1, 3, 64, 64)
    found = seewhy.explain(xcit, x, progress=False)
    assert found.method == "grad_cam"
    said = f"Method 'auto' chose GradCAM at layer {found.layer!r}. ReciproCAM is defined for"
    assert any(text.startswith(said) for text in found.warnings)
    again = seewhy.explain(xcit, x, progress=False).passes
    assert (again.forward, again.backward) == (1, 1)
    found = seewhy.explain(xcit, x, progress=False, perturbation_per_eval=64)  # GradCAM has no such parameter
    assert found.method == "rise"
    assert any(text.startswith("Method 'auto' chose RISE. ReciproCAM is defined for") for text in found.warnings)


def test_auto_says_what_it_chose(model: object) -> None:
    found = seewhy.explain(model, picture())
    assert found.method == "recipro_cam"
    assert "Method 'auto' chose ReciproCAM at layer 'stem'." in found.warnings
    net = Red().eval()

    def black_box(x: torch.Tensor) -> torch.Tensor:
        return net(x)

    found = seewhy.explain(seewhy.load(black_box, preprocessing=HALF), picture(), num_masks=20, progress=False)
    assert found.method == "rise"
    assert found.warnings[0].startswith("Method 'auto' chose RISE: black_box gives scores only.")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    found = seewhy.explain(seewhy.load(flat, preprocessing=HALF), picture(), num_masks=20, progress=False)
    assert found.method == "rise"
    assert "No layer of the network has a spatial map" in found.warnings[0]


def test_targets_by_name_index_and_list(model: object) -> None:
    def asked(targets: object) -> list[list[int]]:
        found = seewhy.explain(model, picture(), targets, "gradient").targets
        assert found is not None
        return found.tolist()

    assert asked("Tiger Cat") == [[1]]
    assert asked("tabby") == [[0]]
    assert asked(["tabby cat", 4, "1"]) == [[0, 4, 1]]
    assert asked([1, 2]) == [[1, 2]]
    assert asked("all") == [[0, 1, 2, 3, 4]]
    assert asked(None) == [[4]]
    with pytest.raises(InvalidTarget, match=re.escape("'crane' names several classes: 2, 3. Pass an index.")):
        asked("crane")
    with pytest.raises(InvalidTarget, match=re.escape("The model has no class 'tigre cat'. Did you mean 'tiger cat'")):
        asked("tigre cat")
    nameless = seewhy.load(Red(), preprocessing=HALF)
    with pytest.raises(InvalidTarget, match=re.escape("The model has no class names, so 'cat' cannot be looked up.")):
        seewhy.explain(nameless, picture(), "cat")


def test_targets_that_are_not_classes(model: object) -> None:
    along = seewhy.SimilarityTarget(embedding=torch.tensor([0.0, 0, 0, 0, 1]))
    found = seewhy.explain(model, picture(), along, "gradient")
    assert found.targets is None
    assert found.labels == [["target 0"]]
    assert 0.99 < float(found.probabilities[0, 0]) <= 1
    found = seewhy.explain(model, picture(), lambda outputs: outputs.classes[:, 4], "gradient")
    assert float(found.probabilities[0, 0]) == pytest.approx(present(found.predicted[0])[1])


def test_errors_name_what_to_do(model: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="How a picture becomes an input of Red is not known"):
        seewhy.explain(Red(), picture())
    with pytest.raises(UnknownName, match=re.escape("There is no explainer 'gradcam++'. Did you mean 'grad_cam'")):
        seewhy.explain(model, picture(), method="gradcam++")
    with pytest.raises(UnknownParameter, match=re.escape("RISE has no parameter 'nmasks'. Did you mean 'num_masks'?")):
        seewhy.explain(model, picture(), method="rise", nmasks=3)
    with pytest.raises(InvalidType, match="method is a name or a class"):
        seewhy.explain(model, picture(), method=seewhy.GradCAM(Red()))
    with pytest.raises(InvalidType, match="method is a registry name or an Explainer class"):
        seewhy.explain(model, picture(), method=int)
    with pytest.raises(InvalidInput, match="the list is empty"):
        seewhy.explain(model, [])
    with pytest.raises(UnreadableImage):
        seewhy.explain(model, tmp_path / "none.png")


def test_a_tensor_that_was_not_normalised_is_noticed(model: object) -> None:
    ready, _ = HALF(picture())
    assert not any("0..255" in w or "mean" in w for w in seewhy.explain(model, ready, 4, "gradient").warnings)
    raw = (ready * 0.5 + 0.5) * 255
    assert any("255" in w for w in seewhy.explain(model, raw, 4, "gradient").warnings)


def test_progress_has_exact_totals_and_can_be_silenced(model: object, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    found = seewhy.explain(model, picture(), 4, "rise", num_masks=50, progress=lambda *s: seen.append(s))
    assert seen == [(25, 50), (50, 50)]
    assert found.passes.forward == 51
    seewhy.explain(model, picture(), 4, "rise", num_masks=50, progress=False)
    assert capsys.readouterr() == ("", "")


def test_sigmoid_goes_to_the_method_and_to_the_report(model: object) -> None:
    soft = seewhy.explain(model, picture(), 4, "occlusion", progress=False)
    sharp = seewhy.explain(model, picture(), 4, "occlusion", activation_fn="sigmoid", progress=False)
    assert sharp.parameters["activation_fn"] == "sigmoid"
    assert float(sharp.probabilities[0, 0]) != pytest.approx(float(soft.probabilities[0, 0]))
    assert not torch.allclose(soft.raw, sharp.raw)


def test_save_writes_what_it_says(model: object, tmp_path: Path) -> None:
    path = tmp_path / "a picture: 1 ß.png"
    picture().save(path)
    found = seewhy.explain(model, path, ["red thing", 0], "grad_cam")
    files = found.save(tmp_path / "out" / "deep")
    assert [f.suffix for f in files] == [".png", ".png", ".npz", ".json"]
    assert sorted(p.name for p in (tmp_path / "out" / "deep").iterdir()) == sorted(f.name for f in files)
    assert Image.open(files[0]).size == (60, 40)
    with np.load(files[2]) as values:
        assert np.array_equal(values["raw"], found.raw.numpy())
        assert values["targets"].tolist() == [[4, 0]]
        assert np.allclose(values["probabilities"], found.probabilities.numpy())
    told = json.loads(files[3].read_text(encoding="utf-8"))
    assert told["images"][0]["name"] == path.name
    assert [t["label"] for t in told["images"][0]["targets"]] == ["red thing", "tabby, tabby cat"]
    assert told["images"][0]["targets"][0]["raw_max"] == float(found.raw[0, 0].max())
    assert (told["layer"], told["forward_passes"], told["backward_passes"]) == ("stem", found.passes.forward, 2)
    assert told["files"] == [f.name for f in files[:3]]
    assert told["warnings"] == list(found.warnings)
    assert [f.suffix for f in found.save(tmp_path / "lean", values=False)] == [".png", ".png", ".json"]


def test_how_sure_a_map_is_is_told_and_shown_on_request(model: object, tmp_path: Path) -> None:
    """The agreement that is told is that with the maps of other seeds; inputs of two sizes are put on one canvas."""
    asked: dict[str, Any] = {"num_masks": 400, "error": True, "progress": False}
    found = seewhy.explain(model, picture(), 4, "rise", **asked)
    others = [seewhy.explain(model, picture(), 4, "rise", seed=s, **asked).raw.flatten() for s in range(1, 9)]
    true = np.corrcoef(np.stack([found.raw.flatten().numpy(), *(o.numpy() for o in others)]))[0, 1:].mean()
    assert found.agreement() == pytest.approx(true, abs=0.1)
    assert found.error is not None
    assert found.error.shape == found.raw.shape
    shown = np.asarray(found.error_map())[..., 0] / 255
    assert shown.max() == pytest.approx(float(found.error.max() / found.raw.abs().max()), abs=0.02)
    files = found.save(tmp_path)
    assert [f.name for f in files if f.suffix == ".png"] == ["image_0-rise-4.png", "image_0-rise-4-error.png"]
    told = json.loads(files[-1].read_text(encoding="utf-8"))
    assert told["images"][0]["targets"][0]["agreement"] == round(found.agreement(), 4)
    assert f"agreement {found.agreement():.2f} with another draw" in found._repr_html_()
    plain = seewhy.explain(model, picture(), 4, "rise", num_masks=16, progress=False)
    for ask in (plain.agreement, plain.error_map):
        with pytest.raises(MissingCapability, match=r'rise gave no standard errors.*method="rise", error=True'):
            ask()
    several = seewhy.load(build(networks.Pooled), preprocessing=replace(HALF, fit="keep"))
    joined = seewhy.explain(several, [picture(), picture(40, 60)], 1, "rise", num_masks=64, error=True, progress=False)
    assert joined.error is not None
    assert joined.error.shape == joined.raw.shape


def test_two_pictures_of_one_name_do_not_overwrite_each_other(model: object, tmp_path: Path) -> None:
    found = seewhy.explain(model, [picture(), picture(40, 60)], 4, "gradient")
    files = found.save(tmp_path)
    assert len(set(files)) == 4
    assert [Image.open(f).size for f in files[:2]] == [(60, 40), (40, 60)]


def test_what_the_network_did_not_see_is_marked(model: object) -> None:
    found = seewhy.explain(model, picture(80, 40), 4, "grad_cam")
    shown = np.asarray(found.overlay(clip=100), dtype=int)
    original = np.asarray(picture(80, 40), dtype=int)
    assert (shown[:, :18] < original[:, :18]).all()
    assert found.seen().size == (40, 40)
    assert found.seen(picture=found.overlay()).size == (40, 40)
    assert found.heatmap().size == (32, 32)


def test_notebook_picture_and_one_line(model: object) -> None:
    found = seewhy.explain(model, picture(), [4, 0], "grad_cam")
    assert Image.open(BytesIO(found._repr_png_())).width > 3 * 320
    assert repr(found).startswith("Explanation(grad_cam of Red: 1 x 2 maps (16, 16), [['red thing'")
    assert repr(found).endswith(", probability)")


def test_the_key_names_the_raw_values_of_the_first_and_last_colour(model: object) -> None:
    found = replace(seewhy.explain(model, picture(), 4, "grad_cam"), raw=torch.randn(1, 1, 7, 7))
    raw = torch.nn.functional.interpolate(found.raw, found.size, mode="bilinear")[0, 0].numpy()
    scale = found.scale_of()
    assert scale.signed
    assert scale.high == pytest.approx(float(found.raw.abs().max()))
    expected = colourise((raw / scale.high / 2 + 0.5).clip(0, 1), DIVERGING)
    assert np.abs(np.asarray(found.heatmap(), dtype=int) - np.asarray(expected, dtype=int)).max() <= 4
    plain = found.scale_of(colour_map="viridis")
    assert not plain.signed
    assert plain.low == pytest.approx(float(found.raw.min()))
    expected = colourise(((raw - plain.low) / (plain.high - plain.low)).clip(0, 1), "viridis")
    assert np.abs(np.asarray(found.heatmap(colour_map="viridis"), dtype=int) - np.asarray(expected, int)).max() <= 4
    assert found.scale_of(colour_map="colorbrewer:PuOr").signed


def test_plot_and_show(model: object, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = seewhy.explain(model, picture(), [4, 0], "grad_cam")
    figure = found.plot()
    assert next(axis.get_title() for axis in figure.axes).startswith("image 0: red thing 0.96")
    drawn: list[int] = []
    monkeypatch.setattr(pyplot, "show", lambda: drawn.append(len(pyplot.gcf().axes)))
    inputs = torch.cat([HALF(picture())[0]] * 2)
    seewhy.GradCAM(Red())(inputs, [[4, 0], [1, 2]], show=True)
    assert drawn == [4]
    pyplot.close("all")


def test_public_names_are_sorted_lazy_and_complete() -> None:
    assert seewhy.__all__ == sorted(seewhy.__all__)
    assert {"GradCAM", "RISE", "explain", "load", "saliency_to_image"} <= set(dir(seewhy))
    for name in seewhy.__all__:
        assert getattr(seewhy, name) is not None
    with pytest.raises(AttributeError, match="module 'seewhy' has no attribute 'nothing'"):
        _ = unchecked(seewhy).nothing

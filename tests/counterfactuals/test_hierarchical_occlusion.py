"""What HierarchicalOcclusion returns: reasons, fills, layers, errors and sheets."""

from __future__ import annotations

import json
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from seewhy import registry
from seewhy.counterfactuals import HierarchicalOcclusion
from seewhy.counterfactuals import _sheet as sheets
from seewhy.errors import BadOutput, InvalidInput, InvalidTarget, InvalidType, UnknownParameter
from seewhy.types import Outputs
from support import networks
from support.counterfactual_cases import HAND, ONES, QUARTERS, close, linear, needing, raw, searching, told
from support.networks import build, pictures

# ------------------------------------------------------------------------------------------ what is not found


def test_why_there_is_no_tree() -> None:
    network = linear(QUARTERS)
    found = HierarchicalOcclusion(network, threshold=5, **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    assert (tree.found, tree.root, tree.layers, tree.nodes) == (False, None, 0, ())
    assert tree.reason == "Class 0 is at 5, not above the threshold 5."
    assert found.warnings == ("Image 0: Class 0 is at 5, not above the threshold 5.",)
    assert found.passes.forward == 1
    assert float(tree.saliency().abs().max()) == 0
    assert HierarchicalOcclusion(network, threshold=4.999, **HAND)(ONES, 0)[0][0].found

    found = HierarchicalOcclusion(network, threshold=-1, **HAND).run(ONES, 0)
    said = "Class 0 is at 0 when the whole picture is filled: nothing has to be shown for -1."
    assert found.trees[0][0].reason == said
    assert found.passes.forward == 2

    found = HierarchicalOcclusion(network, threshold=-1.5, mode="hide", **HAND).run(ONES, 0)
    said = (
        "Class 0 did not fall under -1.5 while the picture was filled window by window, and is at 0 when all of it is."
    )
    assert found.trees[0][0].reason == said
    assert found.passes.forward == 1 + 4 + 3 + 2 + 1  # and nothing is searched inside of windows in vain


def test_a_fill_that_is_the_picture() -> None:
    for mode, said in (("show", "nothing has to be shown for 1."), ("hide", "and is at 5 when all of it is.")):
        found = HierarchicalOcclusion(linear(QUARTERS), threshold=1, mode=mode, **{**HAND, "fill": 1.0}).run(ONES, 0)
        assert found.trees[0][0].reason.endswith(said)
        assert found.passes.forward == 1


def test_layers_that_are_not_there() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    for layer in (2, -1, True, "0"):
        for ask in (tree.layer_mask, tree.layer_image, tree.layer_probability):
            with pytest.raises(InvalidInput, match=f"^layer must be one of 0 to 1, got {layer!r}.$"):
                ask(layer)
    nothing = HierarchicalOcclusion(linear(QUARTERS), threshold=5, **HAND)(ONES, 0)[0][0]
    with pytest.raises(InvalidInput, match=r"^There are no layers: Class 0 is at 5, not above the threshold 5.$"):
        nothing.layer_image(0)


# ------------------------------------------------------------------------------------------------ fill, results

FILLS: list[tuple[Any, Any]] = [
    (0.25, [0.25, 0.25, 0.25]),
    (-1, [-1.0, -1.0, -1.0]),
    ((0.1, 0.2, 0.3), [0.1, 0.2, 0.3]),
    ([1, 2, 3], [1.0, 2.0, 3.0]),
    (torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), [0.1, 0.2, 0.3]),
    (torch.tensor(0.5), [0.5, 0.5, 0.5]),
]


@pytest.mark.parametrize("mode", ["show", "hide"])
@pytest.mark.parametrize(("fill", "colours"), FILLS, ids=[str(f) for f, _ in FILLS])
def test_fills_of_one_colour(fill: Any, colours: list[float], mode: str) -> None:
    network, x = linear({(1, 1): 9.0}, channels=3), pictures(2, height=8, width=8) + 3
    for i, row in enumerate(HierarchicalOcclusion(network, mode=mode, threshold=12, **{**HAND, "fill": fill})(x, 0)):
        mask, image = row[0].layer_mask(0), row[0].layer_image(0)
        seen = mask if mode == "show" else ~mask
        assert mask.dtype == torch.bool
        assert torch.equal(image[:, seen], x[i][:, seen])
        close(image[:, ~seen], torch.tensor(colours).view(3, 1).expand(3, int((~seen).sum())))


def test_a_picture_as_fill() -> None:
    network, x, other = linear({(1, 1): 9.0}, channels=3), pictures(2, height=8, width=8) + 3, pictures(2, 3, 8, 8, 7)
    for fill in (other, other[:1], other[0]):
        trees = HierarchicalOcclusion(network, threshold=12, **{**HAND, "fill": fill})(x, 0)
        for i in (0, 1):
            hidden = ~trees[i][0].layer_mask(0)
            want = fill.expand(2, 3, 8, 8)[i]
            assert torch.equal(trees[i][0].layer_image(0)[:, hidden], want[:, hidden])


@pytest.mark.parametrize(("height", "width", "sigma"), [(60, 75, 2.4), (20, 30, 1.0)])
def test_the_blur(height: int, width: int, sigma: float) -> None:
    network, x = linear({(1, 1): 1.0}, height, width), pictures(1, 1, height, width)
    x[0, 0, 1, 1] = 9.0
    tree = HierarchicalOcclusion(network, activation_fn=None, threshold=8.9, window=8)(x, 0)[0][0]
    want = ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma, mode="nearest", radius=round(4 * sigma))
    hidden = ~tree.layer_mask(0)
    close(tree.layer_image(0)[0][hidden].double(), torch.from_numpy(want)[hidden], atol=1e-5, rtol=0)
    assert tree.root is not None
    assert tree.root.probability == pytest.approx(want[1, 1], abs=1e-5)


@pytest.mark.parametrize("mode", ["show", "hide"])
def test_a_layers_probability_is_what_the_network_says_about_its_picture(mode: str) -> None:
    method, x = searching(mode=mode), pictures(6, height=24, width=30)
    trees = [row[0] for row in method(x)]
    assert sum(tree.layers for tree in trees) >= 6
    for tree in trees:
        for layer in range(tree.layers):
            with torch.no_grad():
                said = method.network(tree.layer_image(layer)[None]).softmax(1)[0, int(tree.target.split()[1])]
            assert float(said) == pytest.approx(tree.layer_probability(layer), abs=1e-5)
        if tree.found:
            last = tree.layer_probability(tree.layers - 1)
            assert last >= 0.6 if mode == "show" else last < 0.6


def test_the_map() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    want = torch.zeros(8, 8)
    want[:4, :4], want[:4, 4:] = 4.0, 2.0
    want[:2, :2] += 3
    want[2:4, 2:4] += 1
    want[2:4, 4:6] += 2
    close(tree.saliency(), want / 7)


def test_the_dictionary_is_json() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    read = json.loads(json.dumps(tree.as_dict()))
    child = {"box": [4, 2, 2, 2], "layer": 1, "probability": 6.0, "gain": 2.0, "children": []}
    step = {"box": [4, 0, 4, 4], "layer": 0, "probability": 6.0, "gain": 2.0, "children": [child]}
    assert read["root"]["children"][1] == step
    del read["root"]
    assert read == {
        "found": True, "reason": None, "target": "class 0", "mode": "show", "threshold": 4.5, "size": [8, 8],
        "probability": 5.0, "layers": 2, "layer_probabilities": [6.0, 6.0], "cut_off": [],
    }  # fmt: skip
    nothing = HierarchicalOcclusion(linear(QUARTERS), threshold=5, **HAND)(ONES, 0)[0][0].as_dict()
    assert (nothing["root"], nothing["layers"], json.loads(json.dumps(nothing))) == (None, 0, nothing)


def test_trees_can_be_kept() -> None:
    x = ONES.clone()
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(x, 0)[0][0]
    want = tree.layer_image(0).clone()
    x.zero_()
    assert torch.equal(tree.layer_image(0), want)
    assert torch.equal(pickle.loads(pickle.dumps(tree)).layer_image(0), want)
    many, one = pictures(40, height=24, width=30), pictures(1, height=24, width=30)
    sizes = [len(pickle.dumps(searching(fill="blur")(x, 1)[0][0])) for x in (many, one)]
    assert sizes[0] < 1.5 * sizes[1]  # without the rest of the batch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    network = build(networks.Pooled).to(dtype)
    tree = HierarchicalOcclusion(network, threshold=0.2)(pictures(1, height=56, width=60).to(dtype))[0][0]
    assert tree.probability > 0.2
    assert tree.found or "nothing has to be shown" in str(tree.reason)


def test_the_network_is_left_as_it_was() -> None:
    network = build(networks.Dropout).train()
    x = pictures(1, height=24, width=30)
    with torch.inference_mode():
        inside = HierarchicalOcclusion(network, threshold=0.25, window=12)(x.clone())
    again = HierarchicalOcclusion(network, threshold=0.25, window=12)(x.requires_grad_())
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert raw(inside) == told(again)
    assert not any(t.is_inference() or t.requires_grad for t in (inside[0][0].picture, again[0][0].picture))


# ------------------------------------------------------------------------------------------------------- errors

SMALL = "The picture's short side is 55 px; windows of 28 px take 56. Enlarge the picture, or ask for smaller windows: "
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, SMALL + "window=27."),
    ({"threshold": "0.5"}, "threshold must be a number, got '0.5'."),
    ({"threshold": True}, "threshold must be a number, got True."),
    ({"threshold": float("nan")}, "threshold must be a number, got nan."),
    ({"threshold": 1.0}, "threshold must lie between 0 and 1 for probabilities, got 1.0."),
    ({"threshold": 50, "activation_fn": "sigmoid"}, "threshold must lie between 0 and 1 for probabilities, got 50."),
    ({"mode": "both"}, "mode must be 'show' or 'hide', got 'both'."),
    ({"fill": "grey"}, "fill must be 'blur', a number, one number a channel, or a tensor, got 'grey'."),
    ({"fill": None}, "fill must be 'blur', a number, one number a channel, or a tensor, got None."),
    ({"fill": ()}, "fill must be 'blur', a number, one number a channel, or a tensor, got ()."),
    ({"fill": [0.5, "a"]}, "fill must be 'blur', a number, one number a channel, or a tensor, got [0.5, 'a']."),
    ({"fill": (0, math.inf)}, "fill has NaN or infinite values."),
    ({"fill": (0, 1), "window": 9}, "fill must be a number, 3 numbers or a picture (3, 55, 60), got the shape (2,)."),
    ({"fill": torch.ones(55, 60), "window": 9},
     "fill must be a number, 3 numbers or a picture (3, 55, 60), got the shape (55, 60)."),
    ({"window": 0}, "window must be a positive integer or a tuple of them, one a layer, got 0."),
    ({"window": ()}, "window must be a positive integer or a tuple of them, one a layer, got ()."),
    ({"window": (9, True)}, "window must be a positive integer or a tuple of them, one a layer, got (9, True)."),
    ({"stride": 1.5}, "stride must be a positive integer or a tuple of them, one a layer, got 1.5."),
    ({"stride": -2}, "stride must be a positive integer or a tuple of them, one a layer, got -2."),
    ({"num_layers": 0}, "num_layers must be a positive integer, got 0."),
    ({"num_layers": "3"}, "num_layers must be a positive integer, got '3'."),
    ({"window": (9, 9)}, "window must get smaller from layer to layer, got (9, 9)."),
    ({"window": (9, 4), "num_layers": 3}, "window has 2 layers, num_layers is 3. One of them is enough."),
    ({"window": 56}, "window 56 is larger than the picture, (55, 60)."),
    ({"window": 9, "stride": 10}, "stride 10 is larger than window 9: some pixels would never be covered."),
    ({"window": (9, 4), "stride": 5}, "stride 5 is larger than window 4: some pixels would never be covered."),
    ({"window": (9, 4), "stride": (2, 2, 2)}, "stride has 3 layers, there are 2: windows (9, 4)."),
    ({"window": 9, "num_layers": 5}, "num_layers=5 halves a window of 9 px to nothing."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), **parameters)(pictures(height=55, width=60))


def test_unknown_keywords_name_the_nearest() -> None:
    said = "HierarchicalOcclusion has no parameter 'treshold'. Did you mean 'threshold'?"
    with pytest.raises(UnknownParameter, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), treshold=0.5)
    said = (
        "HierarchicalOcclusion takes the network, and parameters by name: activation_fn, perturbation_per_eval, "
        "threshold, mode, fill, num_layers, window, stride."
    )
    with pytest.raises(UnknownParameter, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), "softmax")


def test_inputs_and_targets_are_checked() -> None:
    method = HierarchicalOcclusion(build(networks.Pooled), window=12)
    for inputs, error in ((pictures()[0], InvalidInput), (pictures() * math.nan, InvalidInput), ([1], InvalidType)):
        with pytest.raises(error, match=r"^inputs "):
            method(inputs)
    with pytest.raises(InvalidTarget, match=r"^Target 5 is out of range: the network has 5 classes, 0 to 4.$"):
        method(pictures(), 5)
    with pytest.raises(
        InvalidInput, match=r"^The network is float32, the input float64. Use inputs.to\(torch.float32\)"
    ):
        method(pictures().double())
    one = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    with pytest.raises(BadOutput, match=r"^The network has one output, and the softmax of one score is always 1"):
        HierarchicalOcclusion(one, window=1, activation_fn="softmax")(pictures(height=2, width=2))

    def breaking(x: Tensor) -> Outputs:
        return Outputs.of_classes(torch.where(x.mean((1, 2, 3)) < 1, torch.nan, 1.0)[:, None] * torch.ones(1, 2))

    with pytest.raises(BadOutput, match=r"^The network returned NaN or infinite scores"):
        HierarchicalOcclusion(breaking, fill=0.0, window=4, threshold=0.4)(ONES, 0)

    for seen in (ONES, -ONES):  # NaN where a picture is empty, and on the untouched one
        with pytest.raises(BadOutput, match=r"^The targets came to NaN or infinite probabilities. Check activation_fn"):
            HierarchicalOcclusion(linear(QUARTERS), **{**HAND, "activation_fn": torch.log}, threshold=1)(seen, 0)


def test_the_method_is_found_by_name_and_shows_its_parameters() -> None:
    assert registry.names("counterfactuals") == ["hierarchical_occlusion"]
    assert registry.load("counterfactuals", "hierarchical_occlusion") is HierarchicalOcclusion
    method = HierarchicalOcclusion(build(networks.Pooled), threshold=0.7, mode="hide")
    assert method.parameters["threshold"] == 0.7
    assert repr(method) == (
        "HierarchicalOcclusion(Pooled, activation_fn='auto', perturbation_per_eval=32, threshold=0.7, mode='hide', "
        "fill='blur', num_layers=None, window=None, stride=None)"
    )


# ------------------------------------------------------------------------------------------------------- sheets


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 256, (height, width, 3), dtype=np.uint8))


def test_what_is_hidden_is_dark_and_grey_and_windows_are_outlined() -> None:
    picture, seen = noise(80, 120), np.zeros((8, 12), dtype=bool)
    seen[2:6, 4:8] = True
    for mask, boxes in ((seen, [(4, 2, 4, 4)]), (~seen, [(4, 2, 4, 4)]), (seen, [])):
        drawn = np.asarray(sheets.panel(picture, sheets.Panel(mask, boxes, ()))).astype(int)
        line = (drawn == sheets.LINE).all(2)
        large = np.kron(mask, np.ones((10, 10), dtype=bool)) & ~line
        hidden = drawn[~large & ~line]
        assert (drawn[large] == np.asarray(picture)[large]).all()
        assert (hidden.max(1) == hidden.min(1)).all()
        assert hidden.max() < 110
        assert np.unique(hidden).size > 5  # blurred, not painted over
        ring = np.zeros_like(line)
        if boxes:
            ring[20:60, 40:80] = True
            ring[21:59, 41:79] = False
        assert (line == ring).all()


def colours(sheet: Image.Image) -> int:
    """How many pictures stand side by side: runs of columns that are not paper, in the row through their middle."""
    ink = (np.asarray(sheet.convert("RGB")) != 255).any(2)[sheet.height // 2 - 20 : sheet.height // 2].any(0)
    return int((np.diff(ink.astype(int)) == 1).sum())


def test_the_sheet_has_a_panel_for_each_layer() -> None:
    network = linear(QUARTERS)
    picture = noise(50, 50)
    shown = HierarchicalOcclusion(network, threshold=4.5, **HAND)(ONES, 0)[0][0]
    hidden = HierarchicalOcclusion(network, threshold=2, mode="hide", **HAND)(ONES, 0)[0][0]
    nothing = HierarchicalOcclusion(network, threshold=5, **HAND)(ONES, 0)[0][0]
    drawn = [tree.sheet(picture, cell=100) for tree in (shown, hidden, nothing)]
    assert [colours(sheet) for sheet in drawn] == [4, 3, 1]  # untouched, all hidden, two layers; and so on
    assert all(sheet.mode == "RGB" for sheet in drawn)
    assert drawn[0] != shown.sheet(picture, cell=100, label="tiger cat")
    assert colours(shown.sheet()) == 4  # the input itself, stretched


def test_the_words_on_the_sheet() -> None:
    network = linear(QUARTERS)
    shown = HierarchicalOcclusion(network, threshold=4.5, **HAND)(ONES, 0)[0][0]
    assert [one.caption for one in sheets.panels(shown)] == [
        ("untouched", "probability 5.000"), ("start: all hidden", "probability 0.000"),
        ("layer 0: 2 windows", "probability 6.000"), ("layer 1: 3 windows", "probability 6.000"),
    ]  # fmt: skip
    assert sheets.title(shown, "cat") == "cat: windows that suffice for 4.5"
    assert sheets.footer(shown) == "In colour: what the network saw. Dark and grey: what was hidden from it."
    hidden = HierarchicalOcclusion(network, threshold=2, mode="hide", **HAND)(ONES, 0)[0][0]
    assert [one.caption for one in sheets.panels(hidden)] == [
        ("untouched", "probability 5.000"), ("layer 0: 1 window", "probability 1.000"),
        ("layer 1: 2 windows", "probability 1.000"),
    ]  # fmt: skip
    assert sheets.title(hidden, None) == "Class 0: windows without which it falls under 2"
    assert [bool(one.seen[0, 0]) for one in sheets.panels(hidden)] == [True, False, False]
    assert [bool(one.seen[0, 0]) for one in sheets.panels(shown)] == [True, False, True, True]
    nothing = HierarchicalOcclusion(network, threshold=5, **HAND)(ONES, 0)[0][0]
    assert sheets.title(nothing, None) == "Class 0: no windows found"
    assert sheets.footer(nothing) == "Class 0 is at 5, not above the threshold 5."
    cut = HierarchicalOcclusion(needing(context=True), threshold=0.5, **HAND)(ONES, 0)[0][0]
    assert sheets.footer(cut).endswith(" Deeper layers were cut off, their windows alone come to 0.300.")


def test_sheets_that_cannot_be() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    with pytest.raises(InvalidInput, match=r"^Expected cells of at least 32 pixels, got 31.$"):
        tree.sheet(cell=31)
    with pytest.raises(InvalidType, match=r"^Expected an RGB or grey PIL image, got mode RGBA. Pass it through"):
        tree.sheet(Image.new("RGBA", (8, 8)))
    assert tree.sheet(Image.new("L", (8, 8)), cell=32).size > (0, 0)

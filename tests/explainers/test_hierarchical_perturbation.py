"""HiPe against the paper written out pixel by pixel, and against windows counted by hand."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.errors import InvalidInput
from seewhy.explainers import HierarchicalPerturbation
from seewhy.targets import BoxTarget, ClassTarget
from support import networks
from support.networks import build, detector, pictures

close = torch.testing.assert_close


def slow(
    network: Any, x: Tensor, cover: Tensor, grids: list[tuple[int, int]], target: int
) -> tuple[Tensor, list[set[tuple[int, int]]]]:
    """The map (H, W) of one image, one window at a time; and the windows of every level."""
    _, height, width = x.shape
    saliency, tried = torch.zeros(height, width), []
    before = network(x[None]).softmax(1)[0, target]
    for level, (down, across) in enumerate(grids):
        threshold = (saliency.min() + saliency.max()) / 2
        added, windows = torch.zeros(height, width), set()
        for i, j in itertools.product(range(-1, down), range(-1, across)):
            cells = torch.zeros(down, across, dtype=torch.bool)
            cells[max(0, i) : i + 2, max(0, j) : j + 2] = True
            rows = [r * down // height for r in range(height)]
            columns = [c * across // width for c in range(width)]
            mask = cells[rows][:, columns]
            if level and not (saliency.max() > saliency.min() and (saliency * mask).max() >= threshold):
                continue
            windows.add((i, j))
            changed = torch.where(mask, cover, x)
            added += mask * torch.relu(before - network(changed[None]).softmax(1)[0, target]).item()
        saliency += added
        tried.append(windows)
    return saliency, tried


def at_pixels(native: Tensor, height: int, width: int) -> Tensor:
    rows = [r * native.shape[0] // height for r in range(height)]
    return native[rows][:, [c * native.shape[1] // width for c in range(width)]]


CASES = [
    ((24, 40), 2, 4, 0.0, [(2, 2), (4, 4)]),
    ((37, 50), (2, 3), 2, "mean", [(2, 3), (4, 6), (8, 12), (16, 24)]),
    ((33, 32), 8, 4, "blur", [(8, 8)]),
    ((20, 28), 1, 3, 0.0, [(1, 1), (2, 2), (4, 4)]),
]


@pytest.mark.parametrize(("size", "grid", "smallest", "baseline", "grids"), CASES)
def test_it_is_the_definition(size: tuple[int, int], grid: Any, smallest: int, baseline: Any, grids: Any) -> None:
    network, x = build(networks.Pooled), pictures(2, height=size[0], width=size[1])
    cover = baselines.make(baseline, x)
    explainer = HierarchicalPerturbation(network, grid=grid, smallest_cell=smallest, baseline=baseline)
    found = explainer.run(x, 2)
    assert found.raw.shape == (2, 1, *grids[-1])
    passes = 2
    for i in range(2):
        want, tried = slow(network, x[i], cover[i], grids, 2)
        passes += sum(map(len, tried))
        close(at_pixels(found.raw[i, 0], *size), want.detach(), atol=1e-5, rtol=0)
    assert found.passes.forward == passes


def spots(inputs: Tensor) -> Tensor:
    """Class 0 is the brightness at the top left, class 1 that at the bottom right, class 2 the first less the other."""
    first, second = inputs[:, 0, :2, :2].mean((1, 2)), inputs[:, 0, -2:, -2:].mean((1, 2))
    return torch.stack([first, second, first - second], 1)


def spotty(**parameters: Any) -> HierarchicalPerturbation:
    return HierarchicalPerturbation(spots, activation_fn=None, grid=2, **parameters)


def test_only_what_is_salient_is_refined() -> None:
    """9 windows at first; 4 cover the spot, and its cell alone passes the mid-range: 9 finer windows meet it."""
    found = spotty().run(torch.ones(1, 1, 32, 32), 0)
    assert found.passes.forward == 1 + 9 + 9
    want = torch.tensor([[8.0, 6, 2, 2], [6, 5, 2, 2], [2, 2, 1, 1], [2, 2, 1, 1]])
    close(found.raw[0, 0], want)


def test_a_window_that_two_targets_ask_for_is_run_once() -> None:
    x = torch.ones(1, 1, 32, 32)
    both = spotty().run(x, [[0, 1]])
    assert both.passes.forward == 1 + 9 + 9 + 9 - 1  # both corners ask for the window in the middle
    close(both.raw[:, :1], spotty().run(x, 0).raw, atol=0, rtol=0)
    close(both.raw[:, 1:], spotty().run(x, 1).raw, atol=0, rtol=0)


def test_a_target_keeps_only_the_windows_that_it_asked_for() -> None:
    network, x = build(networks.Pooled), pictures(2, height=40, width=56)
    together = HierarchicalPerturbation(network, grid=3, smallest_cell=2).run(x, "all")
    alone = [HierarchicalPerturbation(network, grid=3, smallest_cell=2).run(x, t) for t in range(networks.CLASSES)]
    close(together.raw, torch.cat([found.raw for found in alone], 1), atol=1e-6, rtol=1e-5)
    assert together.passes.forward < sum(found.passes.forward for found in alone)
    assert together.passes.forward > max(found.passes.forward for found in alone)


def test_images_are_refined_each_for_itself() -> None:
    x = torch.zeros(3, 1, 32, 32)
    x[0, 0, 0, 0] = x[1, 0, -1, -1] = 1.0
    found = spotty().run(x, [0, 1, 1])
    assert found.passes.forward == 3 + 3 * 9 + 2 * 9  # the third has nothing to refine
    assert found.raw[:, 0].flatten(1).argmax(1).tolist() == [0, 15, 0]
    assert float(found.raw[2].abs().max()) == 0


def test_closed_form_of_a_linear_network() -> None:
    network, x = build(networks.Linear, 1, 8, 12), pictures(1, channels=1, height=8, width=12)
    drops = (x * network.weight.detach()[3])[0, 0]
    explainer = HierarchicalPerturbation(network, activation_fn=None, grid=(4, 4), smallest_cell=2)
    padded = torch.zeros(12, 18)
    padded[2:10, 3:15] = drops
    windows = padded.unfold(0, 4, 2).unfold(1, 6, 3).sum((2, 3)).relu()
    want = windows[:-1, :-1] + windows[1:, :-1] + windows[:-1, 1:] + windows[1:, 1:]
    close(explainer.attribute(x, 3, native=True)[0, 0], want, atol=1e-5, rtol=1e-5)


def test_the_levels_of_the_paper() -> None:
    """d = 8, doubled while d < min(H, W) / 4."""

    def network(inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3)).repeat(1, 2)

    for size, cells in (((224, 224), 32), ((256, 400), 32), ((257, 400), 64), ((64, 96), 8), ((32, 32), 8)):
        native = HierarchicalPerturbation(network).attribute(torch.zeros(1, 1, *size), 0, native=True)
        assert native.shape == (1, 1, cells, cells)


def test_it_finds_a_small_thing_with_few_passes() -> None:
    def network(inputs: Tensor) -> Tensor:
        patch = inputs[:, :, 100:110, 40:50].mean((1, 2, 3))
        return torch.stack([patch, -patch], 1)

    found = HierarchicalPerturbation(network).run(torch.ones(1, 3, 224, 224), 0)
    row, column = divmod(int(found.raw[0, 0].argmax()), 32)
    assert 98 <= row * 7 + 3 <= 112
    assert 38 <= column * 7 + 3 <= 52
    assert found.passes.forward < 150  # 1,089 windows of the finest level, had all been tried


def test_targets_of_every_kind() -> None:
    network, x = build(networks.Pooled), pictures()
    want = HierarchicalPerturbation(network, grid=2).run(x, [[0, 4]] * 2)
    got = HierarchicalPerturbation(network, grid=2).run(x, [ClassTarget(label=0), ClassTarget(label=4)])
    assert torch.equal(got.raw, want.raw)
    assert got.passes.forward == want.passes.forward


def test_it_does_not_depend_on_torchs_defaults() -> None:
    network, x = build(networks.Pooled), pictures()
    want = HierarchicalPerturbation(network, grid=2).attribute(x)
    with networks.float64_by_default():
        assert torch.equal(HierarchicalPerturbation(network, grid=2).attribute(x), want)


def test_boxes_of_a_detector() -> None:
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24] = 1.0
    x[:, 1, 16:, 24:] = 1.0
    red, green = BoxTarget(box=(0, 0, 24, 16), label=0), BoxTarget(box=(24, 16, 48, 32), label=1)
    maps = HierarchicalPerturbation(detector, grid=4).attribute(x, [red, green], native=True)[0]
    assert maps.shape == (2, 4, 4)
    assert float(maps[0, :2, :2].min()) > 1.9 * float(maps[0, 2:, 2:].max())
    assert float(maps[1, 2:, 2:].min()) > 1.9 * float(maps[1, :2, :2].max())


def test_scores_that_no_window_changes() -> None:
    found = HierarchicalPerturbation(build(networks.Constant), grid=2).run(torch.zeros(1, 3, 32, 32), 1)
    assert "Image 0, class 1: its score did not change under any window." in found.warnings
    assert "Image 0, class 1: the map is constant, nothing stands out." in found.warnings
    assert not any("raises" in w for w in found.warnings)
    assert float(found.raw.abs().max()) == 0
    assert found.passes.forward == 1 + 9


def test_windows_that_only_raise_the_score() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., -1, -1] = 1.0
    found = spotty().run(x, 2)
    assert "Image 0, class 2: covering any part only raises its score, so the map is empty." in found.warnings
    assert not any("did not change" in w for w in found.warnings)
    assert float(found.raw.abs().max()) == 0
    assert not any("raises" in w for w in spotty().run(torch.ones(1, 1, 32, 32), [[0, 1, 2]]).warnings)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"grid": 0}, "grid must be a positive integer or a pair (down, across) of them, got 0."),
    ({"grid": (2, 2, 2)}, "grid must be a positive integer or a pair (down, across) of them, got (2, 2, 2)."),
    ({"grid": 33}, "grid (33, 33) is finer than the picture, (32, 40)."),
    ({"smallest_cell": 0}, "smallest_cell must be a positive integer, got 0."),
    ({"smallest_cell": 2.5}, "smallest_cell must be a positive integer, got 2.5."),
    ({"baseline": None}, "baseline must be a number, 'mean', 'blur' or a tensor, got None."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": -1}, "perturbation_per_eval must be a positive integer or 'auto', got -1."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items()))) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        HierarchicalPerturbation(build(networks.Pooled), **parameters)(pictures(height=32, width=40))


def test_one_level_is_said_and_the_authors_settings_have_five_at_224() -> None:
    network = build(networks.Pooled)
    small = HierarchicalPerturbation(network).run(pictures(1, height=64, width=64), 1)
    said = (
        "8 x 8 cells of 8 x 8 pixels are not halved, since cells stay larger than 4: there is one level, which is "
        "plain occlusion. Use a smaller grid or smallest_cell."
    )
    assert said in small.warnings
    two = HierarchicalPerturbation(network, smallest_cell=2).run(pictures(1, height=64, width=64), 1)
    assert not any("one level" in text for text in two.warnings)
    authors = HierarchicalPerturbation(network, grid=6, smallest_cell=2, baseline="mean")
    assert authors._grids(224, 224) == [(6, 6), (12, 12), (24, 24), (48, 48), (96, 96)]

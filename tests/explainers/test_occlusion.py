"""Occlusion against closed forms, a slow twin and Captum."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

from seewhy.errors import BadOutput, InvalidInput
from seewhy.explainers import Occlusion
from support import networks
from support.networks import build, pictures

close = torch.testing.assert_close


def starts(length: int, window: int, stride: int) -> list[int]:
    found, at = [], 0
    while at + window <= length:
        found.append(at)
        at += stride
    return found if found[-1] + window == length else [*found, length - window]


def slow(
    network: Any, x: Tensor, cover: Tensor, window: tuple[int, int], stride: tuple[int, int], target: int
) -> Tensor:
    """One image, one window and one forward pass at a time."""
    n, _, height, width = x.shape
    maps = torch.zeros(n, 1, height, width)
    for image in range(n):
        before = network(x[image : image + 1]).softmax(1)[0, target]
        total, count = torch.zeros(height, width), torch.zeros(height, width)
        for i in starts(height, window[0], stride[0]):
            for j in starts(width, window[1], stride[1]):
                box = (slice(i, i + window[0]), slice(j, j + window[1]))
                changed = x[image : image + 1].clone()
                changed[0, :, *box] = cover[image, :, *box]
                total[box] += (before - network(changed).softmax(1)[0, target]).item()
                count[box] += 1
        maps[image, 0] = total / count
    return maps


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Each pixel a weighted mean of all within four sigma, those outside the picture being the border's."""
    reach = round(4 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = torch.outer(weights, weights) / weights.sum() ** 2
    out = torch.zeros_like(x)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            rows, columns = (i + offsets).clamp(0, x.shape[2] - 1), (j + offsets).clamp(0, x.shape[3] - 1)
            out[..., i, j] = (x[:, :, rows][..., columns] * weights).sum((2, 3))
    return out


SETTINGS = [((4, 4), (4, 4)), ((5, 3), (2, 3)), ((16, 24), (1, 1)), ((7, 7), (7, 7)), ((1, 24), (1, 5))]


@pytest.mark.parametrize(("window", "stride"), SETTINGS)
def test_it_is_the_definition(window: tuple[int, int], stride: tuple[int, int]) -> None:
    network, x = build(networks.Pooled), pictures(2, height=16, width=24)
    got = Occlusion(network, window=window, stride=stride).attribute(x, 2)
    close(got, slow(network, x, torch.zeros_like(x), window, stride, 2), atol=1e-5, rtol=0)


def test_every_baseline() -> None:
    network, x = build(networks.Pooled), pictures(2, height=16, width=24)
    picture = pictures(1, height=16, width=24, seed=5)
    mean = torch.stack([torch.stack([c.mean() for c in image]) for image in x])[..., None, None].expand_as(x)
    colours = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    covers = [(0.0, torch.zeros_like(x)), (3, torch.full_like(x, 3)), ("mean", mean), ("blur", gaussian(x, 1.0)),
              (picture, picture.expand_as(x)), (torch.tensor(0.5), torch.full_like(x, 0.5)),
              (colours, colours.expand_as(x))]  # fmt: skip
    maps = []
    for baseline, cover in covers:
        maps.append(Occlusion(network, window=6, stride=5, baseline=baseline).attribute(x, 1))
        close(maps[-1], slow(network, x, cover, (6, 6), (5, 5), 1), atol=1e-5, rtol=0)
    assert all(not torch.allclose(maps[0], other, atol=1e-4) for other in maps[1:])


def test_the_blur_grows_with_the_picture() -> None:
    x = pictures(1, height=75, width=80)
    network = build(networks.Linear, 3, 75, 80)
    got = Occlusion(network, activation_fn=None, window=(75, 80), baseline="blur").attribute(x, 0)
    rows = gaussian(x[:, :, :, :], 3.0)
    close(got[0, 0, 0, 0], ((x - rows) * network.weight.detach()[0]).sum(), atol=1e-2, rtol=1e-4)


def test_closed_form_of_a_linear_network() -> None:
    network, x = build(networks.Linear), pictures(height=8, width=12)
    drops = torch.einsum("nchw,kchw->nkhw", x, network.weight.detach())
    close(Occlusion(network, activation_fn=None, window=1, stride=1).attribute(x, "all"), drops, atol=1e-5, rtol=1e-5)
    blocks = F.avg_pool2d(drops, 4) * 16
    want = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    close(Occlusion(network, activation_fn=None, window=4, stride=4).attribute(x, "all"), want, atol=1e-5, rtol=1e-5)


def test_it_is_captums_where_windows_do_not_overlap() -> None:
    network, x = build(networks.Pooled), pictures(3, height=16, width=24)

    def probabilities(inputs: Tensor) -> Tensor:
        return network(inputs).softmax(1)

    theirs = attr.Occlusion(probabilities).attribute(x, (3, 4, 4), strides=(3, 4, 4), target=1)[:, :1]
    close(Occlusion(network, window=4, stride=4).attribute(x, 1), theirs.float(), atol=1e-5, rtol=0)


def test_the_last_window_ends_at_the_border() -> None:
    network, x = build(networks.Linear, 1, 5, 5), torch.zeros(1, 1, 5, 5)
    x[0, 0, 4, 4] = 1.0  # with windows of 2 at 0 and 2 alone, the last row and column would never be covered
    got = Occlusion(network, activation_fn=None, window=2, stride=2).attribute(x, 0)[0, 0]
    assert got[4, 4] == network.weight[0, 0, 4, 4]
    assert got[3, 3] == network.weight[0, 0, 4, 4] / 4  # four windows cover it, one of them also the corner
    assert float(got[:3].abs().max()) == 0


def test_the_default_window_is_a_seventh_of_the_short_side() -> None:
    network, x = build(networks.Pooled), pictures(1, height=28, width=42)
    want = Occlusion(network, window=4, stride=2).run(x)
    got = Occlusion(network).run(x)
    assert torch.equal(got.raw, want.raw)
    assert got.passes.forward == 1 + 13 * 20


def test_the_activation() -> None:
    network, x = build(networks.Linear), pictures(1, height=8, width=12)
    whole = {"window": (8, 12), "stride": 1}
    before, after = network(x).detach(), torch.zeros(1, 5)
    for name, function in (
        ("softmax", lambda s: s.softmax(1)),
        ("sigmoid", torch.sigmoid),
        (torch.tanh, torch.tanh),
        (None, lambda s: s),
    ):
        got = Occlusion(network, activation_fn=name, **whole).attribute(x, "all")[..., 0, 0]
        close(got, function(before) - function(after), atol=1e-5, rtol=1e-5)


def test_scores_that_no_window_changes() -> None:
    found = Occlusion(build(networks.Constant), window=8).run(pictures(), 1)
    assert [w for w in found.warnings if "window" in w] == [
        f"Image {i}, class 1: its score did not change under any window." for i in (0, 1)
    ]
    many = Occlusion(build(networks.Constant), window=8).run(pictures(3), "all")
    assert "... and 7 more: score that did not change." in many.warnings


_SIDES = "{} must be a positive integer or a pair (height, width) of them, or three of volumes, got {}."
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"window": 0}, _SIDES.format("window", "0")),
    ({"window": (3,)}, _SIDES.format("window", "(3,)")),
    ({"window": True}, _SIDES.format("window", "True")),
    ({"stride": 1.5}, _SIDES.format("stride", "1.5")),
    ({"stride": (2, -1)}, _SIDES.format("stride", "(2, -1)")),
    ({"window": 33}, "window (33, 33) is larger than the picture, (32, 40)."),
    ({"window": 4, "stride": 5}, "stride (5, 5) is larger than window (4, 4): some pixels would never be covered."),
    ({"baseline": "grey"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'grey'."),
    ({"baseline": None}, "baseline must be a number, 'mean', 'blur' or a tensor, got None."),
    ({"baseline": True}, "baseline must be a number, 'mean', 'blur' or a tensor, got True."),
    ({"baseline": float("nan")}, "baseline has NaN or infinite values."),
    ({"baseline": torch.zeros(2, 2)}, "The baseline must broadcast to the inputs, (2, 3, 32, 40), got (2, 2)."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"activation_fn": 3}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 3."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
    ({"perturbation_per_eval": "big"}, "perturbation_per_eval must be a positive integer or 'auto', got 'big'."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items())))[:40] for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        Occlusion(build(networks.Pooled), **parameters)(pictures(height=32, width=40))


def test_arrays_are_no_baseline() -> None:
    import numpy as np

    with pytest.raises(InvalidInput, match=r"^baseline must be a number, 'mean', 'blur' or a tensor, got array\("):
        Occlusion(build(networks.Pooled), baseline=np.zeros(3))


def test_the_softmax_of_a_single_score() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    said = "The network has one output, and the softmax of one score is always 1. Use activation_fn='sigmoid' or None."
    x = pictures(height=2, width=2)
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        Occlusion(network, window=1, activation_fn="softmax")(x)
    assert Occlusion(network, window=1, activation_fn="sigmoid")(x).shape == (2, 1, 2, 2)

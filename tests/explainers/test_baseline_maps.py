"""The maps that look at nothing: what they are, and that they are nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from seewhy.errors import InvalidInput, InvalidTarget
from seewhy.explainers import CentreMap, RandomMap
from seewhy.targets import ClassTarget
from support import networks
from support.networks import build, pictures

close = torch.testing.assert_close


def test_noise_is_uniform_and_every_pixel_is_on_its_own() -> None:
    noise = RandomMap(build(networks.Pooled)).attribute(pictures(1, height=128, width=160), 0)[0, 0]
    counts = torch.histc(noise, 10, 0, 1)
    assert float((counts / counts.sum() - 0.1).abs().max()) < 0.01
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[:64], noise[64:])):
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.03


def test_every_picture_has_its_own_noise() -> None:
    network, x = build(networks.Pooled), pictures(3, height=64, width=64)
    maps = RandomMap(network).attribute(x, 0).flatten(1)
    apart = torch.corrcoef(maps) - torch.eye(3)
    assert float(apart.abs().max()) < 0.06
    changed = x.clone()
    changed[1, 0, 5, 5] += 1e-3
    again = RandomMap(network).attribute(changed, 0).flatten(1)
    assert torch.equal(again[[0, 2]], maps[[0, 2]])
    assert abs(float(torch.corrcoef(torch.stack([again[1], maps[1]]))[0, 1])) < 0.06


def test_the_same_picture_has_the_same_noise() -> None:
    network, x = build(networks.Pooled), pictures(1)
    twice = RandomMap(network).attribute(x.repeat(2, 1, 1, 1), "all")
    assert torch.equal(twice, RandomMap(build(networks.Deep)).attribute(x, 3).expand(2, networks.CLASSES, -1, -1))


def test_seeds() -> None:
    network, x = build(networks.Pooled), pictures(1)
    maps = [RandomMap(network, seed=s).attribute(x, 0) for s in (0, 0, 1, -1, 10**30)]
    assert torch.equal(maps[0], maps[1])
    for i, j in ((0, 2), (0, 3), (2, 3), (0, 4)):
        assert float((maps[i] - maps[j]).abs().mean()) > 0.2


@pytest.mark.parametrize(("height", "width", "sigma"), [(32, 32, 0.25), (16, 41, 0.1), (33, 20, 2)])
def test_the_centre_is_a_gaussian(height: int, width: int, sigma: float) -> None:
    raw = CentreMap(build(networks.Pooled), sigma=sigma).attribute(pictures(2, height=height, width=width), "all")
    assert raw.shape == (2, networks.CLASSES, height, width)
    for i, j in ((0, 0), (height // 2, width // 2), (height - 1, 3)):
        u, v = (i + 0.5) / height - 0.5, (j + 0.5) / width - 0.5
        want = torch.tensor(-(u**2 + v**2) / (2 * sigma**2)).exp()
        close(raw[:, :, i, j], want.expand(2, networks.CLASSES), atol=1e-6, rtol=1e-5)
    close(raw, raw.flip(2, 3), atol=1e-6, rtol=0)
    row, column = divmod(int(raw[0, 0].argmax()), width)
    assert abs(row - (height - 1) / 2) <= 0.5
    assert abs(column - (width - 1) / 2) <= 0.5


@pytest.mark.parametrize("method", [CentreMap, RandomMap])
def test_they_cost_one_pass_and_say_what_they_are(method: Any) -> None:
    found = method(build(networks.Pooled)).run(pictures(3), [ClassTarget(label=1), ClassTarget(label=2)])
    assert found.passes.forward == 3
    assert found.raw.shape == (3, 2, 32, 32)
    assert found.targets.classes.tolist() == [[1, 2]] * 3
    said = f"{method.__name__} is a baseline: its map says nothing about the picture or the network."
    assert found.warnings[0] == said
    assert "The map is the same for every class: this method does not look at the target." in found.warnings
    with pytest.raises(InvalidTarget, match=r"^Target 5 is out of range: the network has 5 classes, 0 to 4\.$"):
        method(build(networks.Pooled))(pictures(), 5)


WRONG = [
    (CentreMap, {"sigma": 0}, "sigma must be a positive number, got 0."),
    (CentreMap, {"sigma": float("nan")}, "sigma must be a positive number, got nan."),
    (CentreMap, {"sigma": "wide"}, "sigma must be a positive number, got 'wide'."),
    (CentreMap, {"sigma": True}, "sigma must be a positive number, got True."),
    (RandomMap, {"seed": 0.5}, "seed must be an integer, got 0.5."),
    (RandomMap, {"seed": None}, "seed must be an integer, got None."),
]


@pytest.mark.parametrize(("method", "parameters", "said"), WRONG, ids=[str(p) for _, p, _ in WRONG])
def test_wrong_parameters(method: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        method(build(networks.Pooled), **parameters)

"""LIME against scikit-learn's ridge regression, cosines written out, and a linear network."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.errors import InvalidInput
from seewhy.explainers import LIME
from support import networks
from support.networks import build, pictures

close = torch.testing.assert_close


def stripes(parts: int, height: int = 16, width: int = 24) -> Tensor:
    return (torch.arange(height).unsqueeze(1) // 3 + torch.arange(width) // 2) % parts


def slow(
    network: Any, x: Tensor, cover: Tensor, labels: Tensor, coalitions: np.ndarray, width: float, alpha: float
) -> np.ndarray:
    """The weights of one image's parts for class 2, by scikit-learn; the picture itself is one of the samples."""
    parts = coalitions.shape[1]
    samples = np.concatenate([coalitions, np.ones((1, parts))])
    scores, weights = [], []
    for sample in samples:
        shown = torch.zeros_like(labels, dtype=torch.bool)
        for j in range(parts):
            shown |= (labels == j) & bool(sample[j])
        scores.append(network(torch.where(shown, x, cover)[None]).softmax(1)[0, 2].item())
        norm = np.linalg.norm(sample) * np.sqrt(parts)
        distance = 1 - (sample.sum() / norm if norm else 0.0)
        weights.append(np.exp(-(distance**2) / (2 * width**2)))
    return Ridge(alpha=alpha).fit(samples, np.array(scores), sample_weight=np.array(weights)).coef_


def drawn(count: int, parts: int, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((count, parts), generator=generator, dtype=torch.float64) < 0.5).double().numpy()


@pytest.mark.parametrize(("width", "alpha", "baseline"), [(0.25, 1.0, 0.0), (0.6, 0.01, "mean")])
def test_it_is_ridge_regression(width: float, alpha: float, baseline: Any) -> None:
    network, x, labels = build(networks.Pooled), pictures(2, height=16, width=24), stripes(9)
    cover = baselines.make(baseline, x)
    explainer = LIME(network, num_masks=80, segments=labels, width=width, alpha=alpha, baseline=baseline, seed=5)
    found = explainer.run(x, 2)
    assert found.passes.forward == 2 + 2 * 80
    for i in range(2):
        want = slow(network, x[i], cover[i], labels, drawn(80, 9, 5), width, alpha)
        close(found.raw[i, 0], torch.from_numpy(want).float()[labels], atol=1e-6, rtol=1e-3)


def test_every_coalition_once_where_there_are_so_few() -> None:
    network, x, labels = build(networks.Pooled), pictures(1, height=16, width=24), stripes(5)
    found = LIME(network, num_masks=31, segments=labels).run(x, 2)
    assert found.passes.forward == 1 + 31
    every = np.array([c for c in itertools.product((0.0, 1.0), repeat=5) if not all(c)])
    want = slow(network, x[0], torch.zeros_like(x[0]), labels, every, 0.25, 1.0)
    close(found.raw[0, 0], torch.from_numpy(want).float()[labels], atol=1e-6, rtol=1e-3)
    assert LIME(network, num_masks=30, segments=labels).run(x, 2).passes.forward == 1 + 30


def test_a_linear_network_gives_back_its_coefficients() -> None:
    network, x, labels = build(networks.Linear), pictures(height=8, width=12), stripes(12, 8, 12)
    cover = pictures(1, height=8, width=12, seed=9)
    pixels = torch.einsum("nchw,kchw->nkhw", x - cover, network.weight.detach())
    want = torch.stack([(pixels * (labels == j)).sum((2, 3)) for j in range(12)], 2)[..., labels]
    explainer = LIME(network, activation_fn=None, segments=labels, baseline=cover, num_masks=200, alpha=1e-9)
    close(explainer.attribute(x, "all"), want, atol=1e-4, rtol=1e-4)


def test_the_penalty_draws_towards_zero() -> None:
    network, x = build(networks.Linear), pictures(1, height=8, width=12)
    sizes = [
        float(LIME(network, activation_fn=None, num_masks=200, grid=4, alpha=a).attribute(x, 0).abs().mean())
        for a in (1e-6, 1.0, 100.0)
    ]
    assert sizes[0] > 1.01 * sizes[1]
    assert sizes[1] > 2 * sizes[2]


def test_samples_near_the_picture_count_more() -> None:
    """The score falls only where fewer than half of the parts are shown: a narrow kernel hardly sees that."""

    def network(inputs: Tensor) -> Tensor:
        score = (inputs.mean((1, 2, 3)) - 0.5).clamp_max(0)
        return torch.stack([score, -score], 1)

    x = torch.ones(1, 1, 16, 16)
    narrow, wide = (
        float(LIME(network, activation_fn=None, num_masks=500, grid=4, width=w).attribute(x, 0).mean())
        for w in (0.1, 2.0)
    )
    assert 0 <= narrow < 0.35 * wide


WRONG = [
    ({"width": 0}, "width must be a positive number, got 0."),
    ({"width": float("inf")}, "width must be a positive number, got inf."),
    ({"alpha": -1.0}, "alpha must be a positive number, got -1.0."),
    ({"alpha": "1"}, "alpha must be a positive number, got '1'."),
    ({"alpha": True}, "alpha must be a positive number, got True."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        LIME(build(networks.Pooled), **parameters)

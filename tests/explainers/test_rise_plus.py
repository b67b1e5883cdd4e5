"""RISEPlus against the paper written out slowly, RISE, and out-of-distribution networks whose answers are known."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, InvalidType, UnknownParameter
from seewhy.explainers import RISE, RISEPlus
from seewhy.explainers._masks import Masks
from seewhy.explainers._regression import STRENGTHS, regress
from seewhy.explainers.rise_plus import _inlier_scores, _regressed
from seewhy.models.adapters import as_model
from seewhy.ood.ood_net import OoDNet
from seewhy.targets import BoxTarget, ClassTarget
from seewhy.types import Note
from support import networks
from support.networks import CLASSES, build, detector, pictures
from support.typed import unchecked

close = torch.testing.assert_close


class Asked(networks.Pooled):
    """The documented protocol; its last layer takes the features, or with ``twice`` their double."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.num_features, self.output_features, self.twice, self.images = 16, False, twice, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        vector = self.pool(self.features(x)).flatten(1)
        return vector if self.output_features else self.fc(vector * 2 if self.twice else vector)


class Bright(nn.Module):
    """Features (mean brightness, 1): the brighter, the nearer to a class vector (1, 0). Scores for left and right."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.images = nn.Linear(2, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        mean = x.mean((1, 2, 3))
        self.fc(torch.stack([mean, torch.ones_like(mean)], 1))
        half = x.shape[3] // 2
        return torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], 1) + 1


def knowing(network: nn.Module, vector: Any = None, classes: int = CLASSES) -> OoDNet:
    """Pictures whose features are near ``vector``, by default all the same, are familiar."""
    ood_net = OoDNet(network, classes)
    vectors = ood_net.class_vectors.data
    vectors.copy_(torch.ones_like(vectors) if vector is None else torch.tensor(vector).expand_as(vectors))
    return ood_net


def slow(ood_net: OoDNet, x: Tensor, masks: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """(N, masks) scores and inlier scores, one masked copy at a time."""
    network, scores, weights = ood_net.underlying, [], []
    with torch.no_grad():
        blank = ood_net(torch.zeros_like(x[:1])).max()
        for image in x:
            top = ood_net(image[None]).max()
            copies = [image[None] * m for m in masks]
            scores.append([float(network(c)[0].softmax(0)[target]) for c in copies])
            weights.append([min(1.0, max(0.0, float((ood_net(c).max() - blank) / (top - blank)))) for c in copies])
    return torch.tensor(scores), torch.tensor(weights)


SHAPES = [((32, 32), 7, 0.5), ((24, 40), (3, 5), 0.3)]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_both_sums_written_out(size: tuple[int, int], grid: Any, p: float, paired: bool) -> None:
    network, x = build(networks.Pooled), pictures(2, height=size[0], width=size[1])
    ood_net = knowing(network)
    drawn = Masks.draw(40, grid if isinstance(grid, tuple) else (grid, grid), p, 3, size, paired=paired)
    masks = drawn.at(torch.arange(40))
    scores, weights = slow(ood_net, x, masks, 1)
    assert 0.1 < float(weights.mean()) < 0.9
    plain, centred = torch.zeros(2, 1, *size), torch.zeros(2, 1, *size)
    for i in range(2):
        average = (weights[i] * scores[i]).sum() / weights[i].sum()
        for m in range(40):
            plain[i, 0] += weights[i, m] * scores[i, m] * masks[m] / (40 * p)
            centred[i, 0] += weights[i, m] * (scores[i, m] - average) * masks[m] / weights[i].sum()
    centred /= drawn.variance()
    options = {"num_masks": 40, "grid": grid, "p": p, "seed": 3, "paired": paired}
    close(RISEPlus(ood_net, estimator="plain", **options).attribute(x, 1), plain, atol=1e-5, rtol=1e-4)
    close(RISEPlus(ood_net, estimator="centred", **options).attribute(x, 1), centred, atol=1e-5, rtol=1e-3)


def test_the_regression_is_the_weighted_one() -> None:
    """Its weights solve (A' S A + strength) w = A' S y for one of the strengths, A and y centred with the weights S."""
    generator = torch.Generator().manual_seed(0)
    nodes, weights = torch.rand((60, 9), generator=generator), torch.rand(60, generator=generator).sub(0.2).clamp_min(0)
    scores = torch.rand((2, 60), generator=generator) + nodes.sum(1) * weights
    found = _regressed(nodes, scores, weights)
    known = weights > 0
    s = (weights / weights.sum() * known.sum()).double()
    a, y = nodes.double(), scores.double().T
    a, y = a - (s @ a) / s.sum(), y - (s @ y) / s.sum()
    gram, right = a.T @ (s[:, None] * a), a.T @ (s[:, None] * y)
    size = torch.linalg.eigvalsh(gram).mean()
    strengths = [gram + strength * size * torch.eye(9) for strength in STRENGTHS]
    ways = torch.stack([torch.linalg.solve(matrix, right).T for matrix in strengths])
    off = (ways - found.weights.double()).abs().amax(2).amin(0)
    assert float(off.max()) < 1e-5
    assert float((ways[0] - ways[-1]).abs().max()) > 0.1
    unweighted = regress(nodes, scores).weights
    assert float((unweighted - found.weights).abs().max()) > 0.05


def test_masks_of_weight_0_are_as_if_they_were_not_there() -> None:
    generator = torch.Generator().manual_seed(0)
    nodes, scores = torch.rand((60, 9), generator=generator), torch.rand((2, 60), generator=generator)
    weights = (torch.arange(60) % 3 > 0).float() * 0.7
    found, want = _regressed(nodes, scores, weights), regress(nodes[weights > 0], scores[:, weights > 0])
    close(found.weights, want.weights)
    close(found.explained, want.explained)


def test_inlier_scores_lie_between_the_blank_and_the_photo() -> None:
    familiar = torch.tensor([[0.1, 0.2, 0.4, 0.6, 0.9], [0.1, 0.2, 0.4, 0.6, 0.9]])
    weights, said = _inlier_scores(familiar.repeat(1, 3), torch.tensor([0.6, 0.9]), torch.tensor([0.2]))
    close(weights, torch.tensor([[0, 0, 0.5, 1, 1], [0, 0, 2 / 7, 4 / 7, 1]]).repeat(1, 3))
    assert said == []


@pytest.mark.parametrize("estimator", ["plain", "centred", "regression"])
def test_it_is_rise_where_every_copy_is_familiar(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build(networks.Pooled), pictures(2)

    def ones(familiar: Tensor, *_: Any) -> tuple[Tensor, list[str]]:
        return torch.ones_like(familiar), []

    monkeypatch.setattr("seewhy.explainers.rise_plus._inlier_scores", ones)
    options = {"num_masks": 60, "grid": 3, "seed": 2, "estimator": estimator}
    got = RISEPlus(knowing(network), **options).attribute(x, "all")
    close(got, RISE(network, **options).attribute(x, "all"), atol=1e-6, rtol=1e-4)


def test_a_strange_copy_does_not_count() -> None:
    """Where copies without the left half are strange, the score of the right half has no say without the left."""
    network, x = Bright(), torch.ones(1, 1, 16, 24)
    ood_net = knowing(network, [1.0, 0.0], classes=2)
    assert ood_net(x).max() > ood_net(x * 0.5).max() > ood_net(x * 0).max() == 0
    found = RISEPlus(ood_net, activation_fn=None, num_masks=400, estimator="centred").attribute(x, "all")[0]
    left, right = found[..., :12].mean((1, 2)), found[..., 12:].mean((1, 2))
    assert float(left[0]) > 3 * abs(float(right[0]))
    assert float(right[1]) > 3 * abs(float(left[1]))


@pytest.mark.parametrize("estimator", ["centred", "regression"])
def test_familiarity_alone_makes_no_map(estimator: Any) -> None:
    """The network always answers the same: the map is zero, though some copies are more familiar than others."""
    network = Bright()
    unchecked(network).forward = lambda x: Bright.forward(network, x) * 0 + 1
    ood_net = knowing(network, [1.0, 0.0], classes=2)
    found = RISEPlus(ood_net, num_masks=50, estimator=estimator).run(torch.ones(1, 1, 16, 24), 0)
    assert float(found.raw.abs().max()) < 1e-6
    assert "Image 0, class 0: its score did not change under any mask." in found.warnings


@pytest.mark.compile
def test_one_pass_gives_both_scores() -> None:
    network, x = Bright(), torch.rand(3, 1, 16, 24)
    ood_net = knowing(network, [1.0, 0.0], classes=2)
    for explained in (None, network, as_model(network), torch.compile(network, backend="eager")):
        network.images = 0
        found = RISEPlus(ood_net, network=explained, num_masks=20).run(x, "all")
        assert found.passes.forward == network.images == 3 + 1 + 3 * 20  # pictures, the blank one, copies


def test_another_network_costs_a_second_pass() -> None:
    watched, explained, x = Bright(), build(networks.Pooled, channels=1), torch.rand(2, 1, 16, 24)
    ood_net = knowing(watched, [1.0, 0.0], classes=2)
    found = RISEPlus(ood_net, network=explained, num_masks=20).run(x, 3)
    assert watched.images == 2 + 1 + 2 * 20
    assert found.passes.forward == 2 * watched.images
    assert found.outputs.num_classes == CLASSES


def test_any_black_box_can_be_explained() -> None:
    ood_net, x = knowing(Bright(), [1.0, 0.0], classes=2), torch.rand(1, 1, 16, 24)
    red, right = BoxTarget(box=(0, 0, 12, 8), label=0), ClassTarget(label=1)
    found = RISEPlus(ood_net, network=lambda x: detector(x.expand(-1, 3, -1, -1)), num_masks=30).run(x, [red, right])
    assert found.raw.shape == (1, 2, 16, 24)
    assert float(found.raw.std((2, 3)).min()) > 0


def test_the_documented_protocol() -> None:
    x = pictures()
    want = RISEPlus(knowing(build(networks.Pooled)), num_masks=20).run(x, 1)
    asked, otherwise = build(Asked), build(Asked, twice=True)
    found = RISEPlus(knowing(asked), num_masks=20).run(x, 1)
    close(found.raw, want.raw)
    assert found.passes.forward == asked.images == want.passes.forward + 2  # to see that both are the same features
    apart = RISEPlus(knowing(otherwise), num_masks=20).run(x, 1)
    assert apart.passes.forward == otherwise.images == 2 + 2 * want.passes.forward
    assert asked.output_features is otherwise.output_features is False


def test_all_targets_come_from_the_same_passes() -> None:
    ood_net, x = knowing(build(networks.Pooled)), pictures()
    for targets in (1, "all", [[0, 1, 2]] * 2, [ClassTarget(label=0), ClassTarget(label=4)]):
        assert RISEPlus(ood_net, num_masks=16).run(x, targets).passes.forward == 2 + 1 + 2 * 16


def test_it_says_so_when_photo_and_blank_cannot_be_told_apart() -> None:
    network = Bright()
    dark = knowing(network, [0.0, 1.0], classes=2)  # the darker, the more familiar
    x = torch.stack([torch.full((1, 16, 24), 0.5), torch.zeros(1, 16, 24)])
    found = RISEPlus(dark, num_masks=20).run(x, 0)
    said = (
        "Image {}: to the out-of-distribution network it is no more familiar ({}) than a blank one (1.000), so no "
        "masked copy can be weighted and its maps are zero. Train that network on such pictures, or use RISE."
    )
    assert found.warnings[:2] == (said.format(0, "0.894"), said.format(1, "1.000"))
    assert torch.equal(found.raw, torch.zeros(2, 1, 16, 24))
    bright = RISEPlus(knowing(network, [1.0, 0.0], classes=2), num_masks=20).run(x, 0)
    assert said.format(1, "0.000").replace("(1.000)", "(0.000)") in bright.warnings
    assert float(bright.raw[0].std()) > 0
    assert float(bright.raw[1].abs().max()) == 0


def test_many_blind_images_are_counted() -> None:
    dark = knowing(Bright(), [0.0, 1.0], classes=2)
    found = RISEPlus(dark, num_masks=4).run(torch.rand(11, 1, 16, 24), 0)
    assert sum("no more familiar" in w for w in found.warnings) == 8
    assert "... and 3 more: image that is not familiar." in found.warnings


def test_it_says_so_when_few_copies_count() -> None:
    """Only copies that show nearly everything are more familiar than a blank picture."""
    photo, blank, familiar = torch.tensor([0.5]), torch.tensor([0.1]), torch.full((1, 1000), 0.1)
    familiar[0, :20] = 0.5
    weights, said = _inlier_scores(familiar, photo, blank)
    assert float(weights.sum()) == 20
    text = (
        "its masked copies are so unfamiliar that only about 20 of 1000 count, and the map is noisy. Use more masks, "
        "or a larger p."
    )
    assert said == [Note(text=text, kind="few masked copies count", image=0)]
    familiar[0, :60] = 0.5
    assert _inlier_scores(familiar, photo, blank)[1] == []
    assert len(_inlier_scores(familiar[:, 57:67], photo, blank)[1]) == 1  # three of ten


def test_it_says_so_when_the_map_is_noise() -> None:
    def noise(x: Tensor) -> Tensor:
        answer = (x.sum((1, 2, 3)) * 1e3).sin()
        return torch.stack([answer, -answer], 1)

    ood_net = knowing(Bright(), [1.0, 0.0], classes=2)
    found = RISEPlus(ood_net, network=noise, num_masks=100, grid=3).run(torch.ones(1, 1, 16, 24), 0)
    said = (
        "Image 0, class 0: the masks explain 0% of how its score changes, so the map is hardly more than noise. Use "
        "more masks or a coarser grid."
    )
    assert said in found.warnings


def test_both_networks_are_left_as_they_were_found() -> None:
    watched, explained = build(networks.Pooled).train(), build(networks.Counting).train()
    ood_net = knowing(watched).train()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (ood_net, explained)]
    state = torch.get_rng_state()
    RISEPlus(ood_net, network=explained, num_masks=10)(pictures(), "all")
    RISEPlus(ood_net, num_masks=10)(pictures(), "all")
    assert all(m.training for net in (ood_net, explained) for m in net.modules())
    for old, net in zip(before, (ood_net, explained), strict=True):
        assert all(torch.equal(v, old[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for net in (ood_net, explained) for m in net.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_training_mode_of_the_ood_net_does_not_matter() -> None:
    ood_net = knowing(build(networks.Pooled))
    want = RISEPlus(ood_net, num_masks=10).attribute(pictures(), 1)
    ood_net.train().prepare_train(train_underlying=True)
    assert torch.equal(RISEPlus(ood_net, num_masks=10).attribute(pictures(), 1), want)
    apart = RISEPlus(ood_net, network=copy.deepcopy(ood_net.underlying), num_masks=10).attribute(pictures(), 1)
    close(apart, want)


def test_the_network_may_be_named_or_left_out() -> None:
    network = build(networks.Pooled)
    ood_net = knowing(network)
    assert RISEPlus(ood_net).network is network
    assert RISEPlus(ood_net) == RISEPlus(ood_net, network=network) == RISEPlus(ood_net=ood_net, network=network)
    other = build(networks.Pooled)
    assert RISEPlus(ood_net, network=other) != RISEPlus(ood_net)
    assert RISEPlus(ood_net, network=other).network is other
    assert repr(RISEPlus(ood_net)).startswith("RISEPlus(Pooled, ood_net=OoDNet(Pooled, num_classes=5), activation_fn=")


def test_what_is_no_ood_net() -> None:
    network = build(networks.Pooled)
    said = (
        "RISEPlus takes a trained OoDNet first, got {}. Make one: ood_net = OoDNet(network, num_classes); "
        "ood_net.fit(dataset, loss_fn); RISEPlus(ood_net)."
    )
    for made, name in ((lambda: RISEPlus(network), "Pooled"), (lambda: RISEPlus(network=network), "NoneType")):
        with pytest.raises(InvalidType, match="^" + re.escape(said.format(name)) + "$"):
            made()
    said = "RISEPlus takes the ood_net, and parameters by name: network, activation_fn, "
    with pytest.raises(UnknownParameter, match="^" + re.escape(said)):
        RISEPlus(knowing(network), network)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_masks": 3}, "num_masks must be an integer of at least 4, got 3."),
    ({"num_masks": 1, "estimator": "centred"}, "num_masks must be an integer of at least 2, got 1."),
    ({"num_masks": 0, "estimator": "plain"}, "num_masks must be a positive integer, got 0."),
    ({"grid": (7, 0)}, "grid must be a positive integer or a pair (down, across) of them, got (7, 0)."),
    ({"p": 1.0}, "p must lie between 0 and 1, both excluded, got 1.0."),
    ({"p": True}, "p must lie between 0 and 1, both excluded, got True."),
    ({"estimator": "center"}, "estimator must be 'regression', 'centred' or 'plain', got 'center'."),
    ({"paired": "yes"}, "paired must be True, False or None, got 'yes'."),
    ({"seed": 1.5}, "seed must be an integer, got 1.5."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items()))) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        RISEPlus(knowing(build(networks.Pooled)), **parameters)

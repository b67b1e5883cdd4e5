"""EpistemicUncertainty: its numbers against formulas, scipy and slow twins."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

from seewhy.uncertainty.epistemic_uncertainty import beta_quantile
from support import networks
from support.networks import build, pictures
from support.uncertainty_cases import Early, Head, ask, close


class Kept(networks.Pooled):
    """Code between the modules changes their results in place, and a module is used before and behind the dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.drop = nn.Linear(16, 16), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        v = self.pool(self.features(x)).flatten(1)
        first = self.both(v)
        first += v
        first.mul_(2)
        return self.fc(self.both(self.drop(first)))


class Nested(networks.Pooled):
    """A module that runs inside another one before the dropout, and by itself behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.drop = nn.Linear(16, 16), nn.Dropout(0.5)
        self.block = nn.Sequential(nn.Linear(16, 16), self.both)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.both(self.drop(self.block(self.pool(self.features(x)).flatten(1)))))


class Twice(Head):
    """A module whose result changes from call to call, before the dropout."""

    def vector(self, x: Tensor) -> Tensor:
        self.images += 1
        return super().vector(x) * self.images


def test_dropout_in_the_head_is_the_sampling_formula() -> None:
    """All 2^6 ways of dropping 6 units, each with its probability: the mean and deviation that sampling must reach."""
    torch.manual_seed(3)
    x, p = torch.rand(3, 1, 2, 3) * 2, 0.3
    network = nn.Sequential(nn.Flatten(), nn.Dropout(p), nn.Linear(6, 4)).eval()
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)))
    chance = ((1 - p) ** masks.sum(1) * p ** (6 - masks.sum(1))).view(-1, 1, 1)
    with torch.no_grad():
        every = network[2](x.flatten(1) * masks.unsqueeze(1) / (1 - p)).softmax(-1)
    mean = (chance * every).sum(0)
    deviation = (chance * (every - mean) ** 2).sum(0).sqrt()
    found = ask(network, x, samples=1500)
    close(found.mean, mean, atol=0.008, rtol=0)
    close(found.std, deviation, atol=0.006, rtol=0)
    entropy = torch.special.entr(mean).sum(-1)
    information = entropy - (chance.squeeze(-1) * torch.special.entr(every).sum(-1)).sum(0)
    close(found.entropy, entropy, atol=0.01, rtol=0)
    close(found.mutual_information, information, atol=0.01, rtol=0)
    close(found.plain, network(x).softmax(-1).detach())


def test_linear_scores_have_the_variance_of_the_formula() -> None:
    """Without an activation: mean w v + b and variance p / (1 - p) sum (w v)^2."""
    last = nn.Linear(12, 3)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), last).eval()
    with torch.no_grad():
        last.weight.uniform_(0, 0.03)
        last.bias.fill_(0.3)
    x = torch.rand(2, 3, 2, 2)
    parts = last.weight * x.flatten(1).unsqueeze(1)
    found = ask(network, x, samples=1500, activation_fn=None)
    close(found.mean, (parts.sum(2) + 0.3).detach(), atol=0.002, rtol=0)
    close(found.std, (parts.square().sum(2) * 0.2 / 0.8).sqrt().detach(), atol=0, rtol=0.06)


def test_the_statistics_are_those_of_the_same_samples() -> None:
    """A slow twin: the same thinned networks, one by one."""
    network, x = build(Head), pictures(3)
    seeds = torch.randint(2**31, (7,), generator=torch.Generator().manual_seed(5)).tolist()
    drawn = []
    with torch.no_grad():
        vector = network.vector(x)
        for seed in seeds:
            keep = (torch.rand(16, generator=torch.Generator().manual_seed(seed)) >= 0.4).float()
            drawn.append(network.fc(vector * keep / 0.6).softmax(-1))
    want = torch.stack(drawn)
    found = ask(network, x, samples=7, seed=5)
    close(found.mean, want.mean(0))
    close(found.std, want.std(0), atol=1e-6, rtol=1e-4)
    close(found.entropy, torch.special.entr(want.mean(0)).sum(1))
    close(found.mutual_information, found.entropy - torch.special.entr(want).sum(2).mean(0), atol=1e-6, rtol=1e-3)


def test_classes_that_do_not_exclude_each_other_have_entropies_of_their_own() -> None:
    network, x = build(Head), pictures(2)
    found = ask(network, x, activation_fn="sigmoid", samples=20)
    want = sum(torch.special.entr(p) for p in (found.mean, 1 - found.mean)).sum(1)
    close(found.entropy, want)
    close(ask(network, x, activation_fn=torch.sigmoid, samples=20).entropy, want)
    with torch.no_grad():  # two classes whose probabilities happen to sum to 1
        network.fc.weight, network.fc.bias = (nn.Parameter(torch.stack([w[0], -w[0]])) for w in network.fc.parameters())
    pair = ask(network, x, activation_fn="sigmoid", samples=20)
    close(pair.entropy, 2 * ask(network, x, activation_fn=torch.sigmoid, samples=20).entropy)
    network = build(Head)
    softmax = ask(network, x, activation_fn=lambda scores: scores.softmax(-1), samples=20)
    close(softmax.entropy, ask(network, x, samples=20).entropy)


def test_a_sure_and_an_unsure_picture() -> None:
    """Dropping pixels of a picture with one bright pixel matters; of a picture without any it does not."""
    last = nn.Linear(4, 2)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), last).eval()
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0]]))
        last.bias.zero_()
    found = ask(network, torch.tensor([[[[1.0, 0], [0, 0]]], [[[0.0, 0], [0, 0]]]]), samples=200)
    assert float(found.std[0].min()) > 0.2
    assert torch.equal(found.std[1], torch.zeros(2))
    assert float(found.mutual_information[0]) > 0.1
    assert float(found.mutual_information[1]) < 1e-9
    close(found.entropy[1], torch.tensor(2.0).log())
    close(found.interval[1], torch.full((2, 2), 0.5))
    assert float(found.interval[0, 0, 0]) < 0.5 < float(found.interval[0, 0, 1])


def test_the_interval_is_the_middle_95_percent_of_a_beta() -> None:
    found = ask(build(Head), pictures(3), samples=30)
    m, v = found.mean.double(), found.std.double() ** 2
    size = m * (1 - m) / v - 1
    for end, share in enumerate((0.025, 0.975)):
        want = torch.from_numpy(stats.beta.ppf(share, (m * size).numpy(), ((1 - m) * size).numpy()))
        close(found.interval[..., end].double(), want, atol=1e-5, rtol=0)


def test_beta_quantiles_belong_to_the_mean_and_variance_that_are_given() -> None:
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-1, 3, 500), 10 ** rng.uniform(-1, 3, 500)
    variance = a * b / (a + b + 1) / (a + b) ** 2
    for share in (0.025, 0.5, 0.975):
        off = beta_quantile(share, a / (a + b), variance) - special.betaincinv(a, b, share)
        assert np.abs(off).max() < 1e-8


def test_beta_quantiles_at_the_ends() -> None:
    mean = np.array([0.0, 1.0, 0.4, 0.4, 0.5, 0.5])
    variance = np.array([0.0, 0.0, 0.0, 0.3, 1 / 12, 0.25])
    want = [0.0, 1.0, 0.4, 0.0, 0.025, 0.0]  # the fifth is uniform
    np.testing.assert_allclose(beta_quantile(0.025, mean, variance), want, atol=1e-8)


def test_behind_the_features_the_trunk_runs_once() -> None:
    network, x = build(Head), pictures(5)
    network.conv1 = networks.Counted(network.conv1)
    network.conv2 = networks.Counted(network.conv2)
    found = ask(network, x, samples=20, perturbation_per_eval=2)
    assert network.conv1.images == network.conv2.images == found.passes.forward == 5
    assert found.warnings == ()


def test_before_the_features_each_sample_is_a_pass() -> None:
    network, x = build(Early), pictures(5)
    network.conv1 = networks.Counted(network.conv1)
    found = ask(network, x, samples=4, perturbation_per_eval=3)
    assert network.conv1.images == found.passes.forward == 5 + 20


@pytest.mark.parametrize(
    "kind", [Head, Early, networks.Dropout, Kept, lambda: Head(inplace=True), lambda: Early(nn.Dropout)]
)
def test_neither_neighbours_nor_the_size_of_passes_matter(kind: Any) -> None:
    network, x = build(kind), pictures(4)
    together = ask(network, x, samples=5)
    assert float(together.std.min()) > 0
    for size in (1, 3, "auto"):
        close(ask(network, x, samples=5, perturbation_per_eval=size).mean, together.mean, atol=1e-6, rtol=0)
    alone = [ask(network, x[i : i + 1], samples=5) for i in range(4)]
    for name in ("mean", "std", "interval", "entropy", "mutual_information", "plain"):
        close(torch.cat([getattr(a, name) for a in alone]), getattr(together, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [Kept, Nested])
def test_what_is_kept_is_what_would_be_computed(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build(kind), pictures(3)
    apart = ask(network, x, samples=5)
    assert (apart.passes.forward, apart.warnings) == (3, ())
    monkeypatch.setattr("seewhy.uncertainty.epistemic_uncertainty._Draws._agrees", lambda *_: False)
    whole = ask(network, x, samples=5)
    assert whole.passes.forward == 3 + 15
    close(apart.mean, whole.mean)
    close(apart.std, whole.std, atol=1e-6, rtol=1e-4)


def test_a_trunk_that_changes_is_run_again_and_that_is_said() -> None:
    found = ask(build(Twice), pictures(2), samples=3)
    assert found.warnings == ("The part before the dropout gave another result the second time; all of it is run.",)
    assert found.passes.forward == 2 + 6


def test_functional_dropout_is_dropout() -> None:
    functional, module = build(networks.Dropout), build(Head, p=0.5)
    module.load_state_dict(functional.state_dict())
    x = pictures()
    found, want = ask(functional, x), ask(module, x)
    assert torch.equal(found.mean, want.mean)
    assert (found.warnings, found.passes.forward) == ((), 2)


def test_dropout_in_place_is_in_place() -> None:
    class Ignored(Head):
        def forward(self, x: Tensor) -> Tensor:
            z = self.vector(x)
            self.drop(z)
            return self.fc(z)

    close(ask(build(Ignored, inplace=True), pictures()).std, ask(build(Head), pictures()).std)
    assert float(ask(build(Ignored), pictures()).std.max()) == 0


@pytest.mark.parametrize("kind", [nn.Dropout2d, nn.Dropout3d])
def test_channels_are_dropped_whole(kind: type[nn.Module]) -> None:
    seen: list[Tensor] = []
    network = build(Early, kind) if kind is nn.Dropout2d else build(_Volume)
    network.pool.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().clone()))
    ask(network, pictures().abs(), samples=8)
    plain, *drawn = seen
    factors = torch.cat(drawn).flatten(2) / plain.flatten(2).repeat(8, 1, 1)
    factors = factors.where(~factors.isnan(), factors.nan_to_num(0).amax(2, keepdim=True))  # 0 / 0 says nothing
    close(factors, factors[..., :1].expand_as(factors), atol=1e-5, rtol=0)
    close(factors.unique().round(decimals=3).unique(), torch.tensor([0.0, 1.429]), atol=1e-3, rtol=0)


class _Volume(Early):
    def __init__(self) -> None:
        super().__init__(nn.Dropout3d)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.drop(self.features(x).unsqueeze(2)).squeeze(2)).flatten(1))

"""ActivationMap against its definition."""

from __future__ import annotations

import torch

from seewhy.explainers import ActivationMap
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close


def test_it_is_the_mean_over_channels() -> None:
    network, x = build(networks.Pooled), pictures(2, height=32, width=48)
    values = network.features(x).detach()
    slow = torch.zeros(2, 1, 8, 12)
    for n in range(2):
        for i in range(8):
            for j in range(12):
                slow[n, 0, i, j] = sum(values[n, k, i, j] for k in range(16)) / 16
    close(ActivationMap(network, layer="act2").attribute(x, native=True), slow)


def test_the_input_itself() -> None:
    x = pictures()
    close(ActivationMap(build(networks.Pooled), layer="").attribute(x), x.mean(1, keepdim=True))


def test_a_layer_with_the_channels_last() -> None:
    network, x = build(networks.ChannelsLast), pictures(height=32, width=48)
    want = network.stage(network.embed(x).permute(0, 2, 3, 1)).detach().mean(3)[:, None]
    close(ActivationMap(network, layer="stage").attribute(x, native=True), want)


def test_a_layer_before_an_activation_in_place() -> None:
    network, x = build(networks.Inplace), pictures()
    want = network.bn1(network.conv1(x)).detach().mean(1, keepdim=True)
    close(ActivationMap(network, layer="bn1").attribute(x, native=True), want)
    assert float(want.min()) < 0


def test_it_says_that_it_does_not_look_at_the_class() -> None:
    found = ActivationMap(build(networks.Pooled)).run(pictures(), "all")
    assert "The map is the same for every class: this method does not look at the target." in found.warnings
    for t in range(CLASSES):
        assert torch.equal(found.raw[:, t], found.raw[:, 0])

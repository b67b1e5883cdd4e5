"""LeGrad, attention rollout and TIS against slow twins, and on the trained transformer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidInput, MissingCapability, NoSpatialOutput
from seewhy.explainers import TIS, AttentionRollout, LeGrad
from seewhy.explainers.tis import _clusters
from seewhy.models.torch.model import TorchModel
from support import networks, token_networks
from support.networks import CLASSES, build, pictures
from support.token_cases import evidence
from support.typed import unchecked

close = torch.testing.assert_close
KINDS = [{}, {"prefix": 5}, {"prefix": 0, "mean": True}, {"prefix": 2, "mean": True}, {"fused": False}]


class Explicit:
    """The network of `token_networks` written out once more, one picture at a time, with its attention in view."""

    def __init__(self, network: token_networks.Pooled) -> None:
        self.network = network

    def enter(self, x: Tensor) -> Tensor:
        net = self.network
        maps = 2 * net.conv2(net.act1(net.bn1(net.conv1(x))))
        return torch.cat([net.first, maps.flatten(2).transpose(1, 2)], 1)

    def weights(self, block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = block.attn.qkv(block.norm1(tokens)).view(tokens.shape[1], 3, 2, -1).permute(1, 2, 0, 3)
        return (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1), v

    def finish(self, block: Any, tokens: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        out = block.attn.proj((weights @ values).transpose(0, 1).flatten(1)).unsqueeze(0)
        tokens = tokens + block.scale * out
        return tokens + block.mlp(block.norm2(tokens))

    def head(self, tokens: Tensor) -> Tensor:
        return self.network.fc(self.network.pool(tokens))[0]


def slow_le_grad(network: Any, x: Tensor, label: int) -> Tensor:
    """(L,) from the paper."""
    explicit, maps = Explicit(network), []
    tokens = explicit.enter(x)
    for block in network.blocks:
        weights, values = explicit.weights(block, tokens)
        weights = weights.detach().requires_grad_()
        after = explicit.finish(block, tokens, weights, values)
        (gradient,) = torch.autograd.grad(explicit.head(after)[label], weights)
        maps.append(gradient.clamp_min(0).mean((0, 1)))
        tokens = after.detach()
    return torch.stack(maps).mean(0)


def slow_rollout(network: Any, x: Tensor, label: int, plain: bool) -> Tensor:
    """(L, L) from the papers."""
    explicit, kept = Explicit(network), []
    tokens = explicit.enter(x)
    for block in network.blocks:
        weights, values = explicit.weights(block, tokens)
        kept.append(weights)
        tokens = explicit.finish(block, tokens, weights, values)
    gradients = torch.autograd.grad(explicit.head(tokens)[label], kept)
    product = torch.eye(tokens.shape[1])
    for weights, gradient in zip(kept, gradients, strict=True):
        if plain:
            product = (weights.mean(0) + torch.eye(len(product))) / 2 @ product
        else:
            product = product + (weights * gradient).clamp_min(0).mean(0) @ product
    return product.detach()


def _rows(network: Any, product: Tensor) -> Tensor:
    first = network.first.shape[1]
    row = product[first:].mean(0) if network.mean else product[0]
    return row[first:].view(4, 6)


@pytest.mark.parametrize("options", KINDS)
def test_le_grad_is_the_definition(options: dict[str, Any]) -> None:
    network, x = build(token_networks.Pooled, **options), pictures(3, height=16, width=24)
    got = LeGrad(network).run(x, "all")
    for n in range(3):
        for label in range(CLASSES):
            want = slow_le_grad(network, x[n : n + 1], label)[network.first.shape[1] :].view(4, 6)
            close(got.raw[n, label], want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("relevance", ["gradient", "attention"])
@pytest.mark.parametrize("options", KINDS)
def test_rollout_is_the_definition(options: dict[str, Any], relevance: str) -> None:
    network, x = build(token_networks.Pooled, **options), pictures(3, height=16, width=24)
    got = AttentionRollout(network, relevance=relevance).run(x, "all")
    for n in range(3):
        for label in range(CLASSES):
            product = slow_rollout(network, x[n : n + 1], label, relevance == "attention")
            close(got.raw[n, label], _rows(network, product), atol=1e-6, rtol=1e-4)
    assert ("the same for every class" in " ".join(got.warnings)) == (relevance == "attention")


@pytest.mark.parametrize("method", [LeGrad, AttentionRollout])
def test_a_head_that_reads_the_pictures_own_tokens_is_said(method: Any) -> None:
    said = (
        "The head reads the picture's own tokens: what they tell it without attention is not in this map. "
        "ViTReciproCAM and GradCAM see it."
    )
    assert said in method(build(token_networks.Pooled, mean=True)).run(pictures()).warnings
    assert said not in method(build(token_networks.Pooled)).run(pictures()).warnings


def test_the_last_blocks_alone() -> None:
    network, x = build(token_networks.Pooled), pictures(1, height=16, width=24)
    last = LeGrad(network, blocks=1).attribute(x, 2, native=True)
    explicit = Explicit(network)
    with torch.no_grad():
        tokens = explicit.enter(x)
        tokens = explicit.finish(network.blocks[0], tokens, *explicit.weights(network.blocks[0], tokens))
    weights, values = explicit.weights(network.blocks[1], tokens)
    after = explicit.finish(network.blocks[1], tokens, weights, values)
    (gradient,) = torch.autograd.grad(explicit.head(after)[2], weights)
    close(last[0, 0].flatten(), gradient.clamp_min(0).mean((0, 1))[1:], atol=1e-6, rtol=1e-4)


def slow_sampled(network: Any, x: Tensor, kept: list[int]) -> Tensor:
    """(K,) logits when the row of tokens is really shorter."""
    explicit, first = Explicit(network), network.first.shape[1]
    tokens = explicit.enter(x)[:, [*range(first), *(first + t for t in kept)]]
    for block in network.blocks:
        tokens = explicit.finish(block, tokens, *explicit.weights(block, tokens))
    return explicit.head(tokens).detach()


@pytest.mark.parametrize("options", KINDS)
def test_tis_is_the_definition(options: dict[str, Any]) -> None:
    network, x = build(token_networks.Pooled, **options), pictures(2, height=16, width=24)
    explainer = TIS(network, num_masks=9, p=0.4, activation_fn=None)
    got = explainer.run(x, "all").raw
    model = TorchModel(network)
    with model.opened():
        _, maps = model.transformer(x).streams(x)
    for n in range(2):
        sets = explainer._sets(maps[n].flatten(0, 1).flatten(1))
        assert sets.shape == (9, 10)  # 0.4 x 24 tokens
        scores = torch.stack([slow_sampled(network, x[n : n + 1], s.tolist()) for s in sets])
        for t in range(24):
            holds = (sets == t).any(1)
            want = scores[holds].mean(0) if bool(holds.any()) else scores.mean(0)
            close(got[n, :, t // 6, t % 6], want, atol=1e-4, rtol=1e-4)


def test_clusters_are_those_of_k_means() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4) * 10
    maps = centres.repeat_interleave(25, 0) + 0.1 * torch.randn((100, 4), generator=generator)
    found = _clusters(maps, 12, seed=0)
    assert float(torch.cdist(centres, found).amin(1).max()) < 0.2
    assert torch.equal(_clusters(maps, 100, 0), maps)


class Positions(token_networks.Pooled):
    """Attention with a bias for each pair of positions, so that a row of tokens has one length only."""

    def __init__(self, mean: bool = False) -> None:
        super().__init__(mean=mean)
        self.bias = nn.Parameter(torch.randn(25, 25))
        for block in self.blocks:
            attn = unchecked(block).attn
            attn.forward = self._attention(attn)

    def _attention(self, attn: Any) -> Any:
        def forward(x: Tensor) -> Tensor:
            n, length, _ = x.shape
            q, k, v = attn.qkv(x).view(n, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
            return attn.proj(F.scaled_dot_product_attention(q, k, v, self.bias).transpose(1, 2).flatten(2))

        return forward


def test_tokens_are_hidden_where_they_cannot_be_removed() -> None:
    network, x = build(Positions), pictures(1, height=16, width=24)
    model, kept = TorchModel(network), torch.tensor([[1, 4, 7, 20]])
    with model.opened():
        body = model.transformer(x)
        got = body.sampled(x, kept).classes[0]
        assert body.look.known.checked == {"removed": False, "hidden": True}
    shown = torch.zeros(25, dtype=torch.bool)
    shown[[0, 2, 5, 8, 21]] = True
    with torch.no_grad():
        network.bias.masked_fill_(~shown, -torch.inf)  # nobody looks at the others
    close(got, network(x)[0].detach(), atol=1e-5, rtol=1e-5)


class Far(Positions):
    """The bias is made for any length: a shorter row runs through, but its tokens are not where they were."""

    def _attention(self, attn: Any) -> Any:
        def forward(x: Tensor) -> Tensor:
            n, length, _ = x.shape
            q, k, v = attn.qkv(x).view(n, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
            away = (torch.arange(length)[:, None] - torch.arange(length)).abs()
            return attn.proj(F.scaled_dot_product_attention(q, k, v, -0.3 * away).transpose(1, 2).flatten(2))

        return forward


def test_a_removal_that_moves_the_other_tokens_is_noticed() -> None:
    model, x = TorchModel(build(Far)), pictures(1, height=16, width=24)
    with model.opened():
        body = model.transformer(x)
        body.sampled(x, torch.tensor([[1, 4, 7, 20]]))
        assert body.look.known.checked == {"removed": False, "hidden": True}


def test_tokens_that_can_neither_be_removed_nor_hidden_are_an_error() -> None:
    said = (
        r"^Positions cannot be shown a part of its tokens: its attention knows positions, and its head reads all "
        r"tokens\. Use RISE or Occlusion\.$"
    )
    with pytest.raises(NoSpatialOutput, match=said):
        TIS(build(Positions, mean=True), num_masks=4)(pictures(1, height=16, width=24))


class Registers(token_networks.Pooled):
    """The head reads a token that is put in after the blocks, for as many pictures as went in."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.features(x)
        return self.fc(self.norm(tokens)[:, 0] + self.first[:, 0].repeat(len(x), 1))


def test_a_head_that_takes_no_more_rows_is_an_error() -> None:
    x = pictures(2, height=16, width=24)
    with pytest.raises(NoSpatialOutput, match=r"^The network's head cannot be put on the tokens of its earlier blocks"):
        LeGrad(build(Registers))(x)
    assert AttentionRollout(build(Registers))(x).shape == (2, 1, 16, 24)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [(LeGrad, {}), (AttentionRollout, {}), (AttentionRollout, {"relevance": "attention"}),
     (TIS, {"num_masks": 32, "activation_fn": None})],
)  # fmt: skip
@pytest.mark.slow
def test_the_map_lies_on_the_object_and_falls_without_it(method: Any, parameters: dict[str, Any]) -> None:
    on, falls = evidence(method, **parameters)
    assert on >= 0.9
    assert falls >= 0.9


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 0.03), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("method", [LeGrad, AttentionRollout])
def test_half_precision(method: Any, dtype: torch.dtype, atol: float) -> None:
    x = pictures(3)
    want = method(build(token_networks.Pooled))(x, 1)
    got = method(build(token_networks.Pooled).to(dtype))(x.to(dtype), 1)
    assert float((got - want).abs().mean()) < atol


def test_passes() -> None:
    network, x = build(token_networks.Pooled), pictures(3)
    for method, parameters, forward, backward in (
        (LeGrad, {}, 3, 15), (AttentionRollout, {}, 3, 15), (AttentionRollout, {"relevance": "attention"}, 3, 0),
        (TIS, {"num_masks": 8}, 3 + 3 * 8, 0),
    ):  # fmt: skip
        explainer = method(network, **parameters)
        explainer(x)
        passes = explainer.run(x, "all").passes
        assert (passes.forward, passes.backward) == (forward, backward)


ERRORS = [
    (LeGrad, {"blocks": 0}, "blocks must be a positive integer or None, got 0."),
    (LeGrad, {"blocks": True}, "blocks must be a positive integer or None, got True."),
    (AttentionRollout, {"relevance": "lrp"}, "relevance must be 'gradient' or 'attention', got 'lrp'."),
    (TIS, {"num_masks": 1}, "num_masks must be an integer of at least 2, got 1."),
    (TIS, {"p": 1.0}, "p must lie between 0 and 1, both excluded, got 1.0."),
    (TIS, {"seed": 0.5}, "seed must be an integer, got 0.5."),
]


@pytest.mark.parametrize(("method", "parameters", "said"), ERRORS)
def test_parameters_that_cannot_be_used(method: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        method(build(token_networks.Pooled), **parameters)
    assert str(error.value) == said


def test_networks_that_are_no_transformers() -> None:
    x = pictures()
    for method in (LeGrad, AttentionRollout, TIS):
        with pytest.raises(NoSpatialOutput, match=r"^No block with an attention among tokens was found in Pooled"):
            method(build(networks.Pooled))(x)
        with pytest.raises(MissingCapability):
            method(lambda x: x.mean((2, 3)))(x)

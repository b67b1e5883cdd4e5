"""Where tokens lie in the picture, and which layer's tokens matter: found by trying, refused where it does not hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import NoSpatialOutput
from seewhy.explainers import (
    AblationCAM,
    ActivationMap,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ReciproCAM,
)
from seewhy.models.torch.model import TorchModel
from support import token_networks
from support.networks import CLASSES, Tokens, build, pictures
from support.token_cases import evidence

close = torch.testing.assert_close


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (24, 16), (64, 96), (4, 40)])
@pytest.mark.parametrize(("prefix", "mean"), [(1, False), (2, False), (5, False), (0, True), (1, True)])
def test_prefix_and_grid(size: tuple[int, int], prefix: int, mean: bool) -> None:
    model, x = (
        TorchModel(build(token_networks.Pooled, prefix=prefix, mean=mean)),
        pictures(3, height=size[0], width=size[1]),
    )
    with model.opened():
        body, found = model.transformer(x), model.features(x, "blocks.0")
    assert (body.prefix, body.grid, found.prefix) == (prefix, (size[0] // 4, size[1] // 4), prefix)
    tokens: list[Tensor] = []
    model.module.get_submodule("blocks.0").register_forward_hook(lambda _m, _a, out: tokens.append(out))
    model.module(x)
    for i, j in ((0, 0), (0, 1), (size[0] // 4 - 1, size[1] // 4 - 2)):
        close(found.maps[:, :, i, j], tokens[0][:, prefix + i * (size[1] // 4) + j])


class _Unfold(nn.Module):
    """No convolution: patches are cut out and put through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Linear(3 * 64, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.block, self.fc = token_networks.Block(16), nn.Linear(16, CLASSES)

    def rows(self, tokens: Tensor) -> Tensor:
        """Tokens with their first ones, in the order that the network has them in."""
        return torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = nn.functional.unfold(x, 8, stride=8).transpose(1, 2)
        tokens = self.block(self.rows(self.embed(tokens)))
        return self.fc(tokens.mean(1))


def test_tokens_that_no_map_was_made_into() -> None:
    model, x = TorchModel(build(_Unfold)), pictures(2, height=32, width=48)
    with model.opened():
        found = model.features(x, "auto")
    assert (found.layer, found.prefix, found.maps.shape) == ("block", 1, (2, 16, 4, 6))


class _Shuffled(_Unfold):
    def rows(self, tokens: Tensor) -> Tensor:
        order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))
        return super().rows(tokens[:, order])


class _Turned(_Unfold):
    def rows(self, tokens: Tensor) -> Tensor:
        return super().rows(tokens.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2))


class _LastToken(_Unfold):
    """The class token comes last."""

    def rows(self, tokens: Tensor) -> Tensor:
        return super().rows(tokens).roll(-1, 1)


class _Halved(_Unfold):
    """Every second token is dropped."""

    def rows(self, tokens: Tensor) -> Tensor:
        return super().rows(tokens)[:, ::2]


@pytest.mark.parametrize("kind", [_Shuffled, _Turned, _LastToken, _Halved])
@pytest.mark.parametrize("layer", ["auto", "block"])
def test_tokens_that_do_not_lie_row_by_row_are_refused(kind: type[nn.Module], layer: str) -> None:
    length = 9 if kind is _Halved else 17
    said = (
        f"The network's tokens ({length} of them from layer 'block' on) do not lie in the picture row by row, so a "
        "map cannot be read from them. Use a method that needs scores only: RISE or Occlusion."
    )
    for method in (GradCAM, ActivationMap, ReciproCAM):
        with pytest.raises(NoSpatialOutput, match=f"^{re.escape(said)}$"):
            method(build(kind), layer=layer)(pictures(height=32, width=32))


class _Heads(token_networks.Pooled):
    """Queries go through a module: (N, 2, 16, 16), as high and wide as the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.query, self.out = nn.Linear(16, 32), nn.Identity(), nn.Linear(32, 16)

    def pool(self, tokens: Tensor) -> Tensor:
        wide = self.widen(self.norm(tokens[:, 1:]))
        heads = self.query(wide.unflatten(2, (2, 16)).transpose(1, 2))
        return self.out(heads.transpose(1, 2).flatten(2)).mean(1)


def test_queries_are_not_taken_for_a_map() -> None:
    model, x = TorchModel(build(_Heads)), pictures(1, height=16, width=16)
    with model.opened():
        found = model.features(x, "auto")
    assert (found.layer, found.maps.shape) == ("blocks.1", (1, 16, 4, 4))


class _OneQuery(token_networks.Pooled):
    """One query sums the tokens up with three heads: (N, 3, 1, d) and (N, 3, 1, L), a column of three positions."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.query, self.drop = nn.Linear(16, 48), nn.Identity(), nn.Identity()
        self.fc = nn.Linear(48, CLASSES)

    def pool(self, tokens: Tensor) -> Tensor:
        heads = self.widen(self.norm(tokens)).unflatten(2, (3, 16)).transpose(1, 2)
        query = self.query(heads[:, :, :1])
        weights = self.drop((query @ heads.transpose(2, 3)).softmax(3))
        return (weights @ heads).flatten(1)


def test_one_query_and_its_weights_are_not_taken_for_a_map() -> None:
    model, x = TorchModel(build(_OneQuery)), pictures(1)
    with model.opened():
        found = model.features(x, "auto")
    assert (found.layer, found.maps.shape) == ("norm", (1, 16, 8, 8))


class _Channels(nn.Module):
    """Gives (N, C, L): no row of vectors of positions, although one dimension is as long."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat, self.fc = nn.Conv2d(3, 16, 8, 8), nn.Flatten(2), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flat(self.conv(x)).mean(2))


def test_channels_are_not_taken_for_positions() -> None:
    with pytest.raises(NoSpatialOutput, match="do not lie in the picture row by row"):
        GradCAM(build(_Channels), layer="flat")(pictures(height=32, width=32))


def test_grad_cam_on_tokens_is_the_formula() -> None:
    network, x = build(token_networks.Pooled, prefix=2), pictures(3, height=16, width=24)
    kept: list[Tensor] = []
    network.blocks[1].norm1.register_forward_hook(lambda _m, _a, out: kept.append(out))
    found = GradCAM(network).run(x, [1, 0, 4])
    assert found.layer == "blocks.1.norm1"
    scores = network(x)
    (gradient,) = torch.autograd.grad(scores[range(3), [1, 0, 4]].sum(), kept[-1])
    weights = gradient[:, 2:].mean(1)
    want = torch.einsum("nc,nlc->nl", weights, kept[-1][:, 2:]).relu().view(3, 1, 4, 6)
    close(found.raw, want.detach(), atol=1e-5, rtol=1e-5)


def test_layers_are_chosen_where_tokens_matter() -> None:
    x = pictures(height=16, width=16)
    for network, graded, active in (
        (build(token_networks.Pooled), "blocks.1.norm1", "blocks.0"),
        (build(token_networks.Pooled, mean=True), "norm", "blocks.1"),
        (build(Tokens), "blocks.0", "blocks.0"),
    ):
        size = pictures() if isinstance(network, Tokens) else x
        assert GradCAM(network).run(size).layer == graded
        assert ActivationMap(network).run(size).layer == active
        assert EigenCAM(network).run(size).layer == active


def test_tokens_that_do_not_matter_are_an_error_not_an_empty_map() -> None:
    said = (
        "The scores do not depend on the picture's tokens after layer 'blocks.1': what follows reads other tokens "
        "alone, such as the class token. Use layer='auto' or an earlier layer."
    )
    for method in (GradCAM, LayerCAM, HiResCAM, GradCAMPlusPlus):
        with pytest.raises(NoSpatialOutput, match=f"^{re.escape(said)}$"):
            method(build(token_networks.Pooled), layer="blocks.1")(pictures())


class Sure(token_networks.Pooled):
    """Gives probabilities that are exactly 0 or 1, which have no slope."""

    def forward(self, x: torch.Tensor) -> Any:
        return torch.sigmoid(1e4 * super().forward(x))


def test_scores_without_a_slope_are_no_question_of_tokens() -> None:
    found = GradCAM(build(Sure, mean=True), layer="blocks.1").run(pictures())
    assert not found.raw.any()
    assert [w for w in found.warnings if w.endswith("the map is constant, nothing stands out.")]


def test_recipro_cam_points_to_the_method_for_tokens() -> None:
    said = "ReciproCAM is defined for a spatial map; layer 'blocks.1.norm1' gives tokens. Use ViTReciproCAM."
    with pytest.raises(NoSpatialOutput, match=f"^{re.escape(said)}$"):
        ReciproCAM(build(token_networks.Pooled))(pictures())


def test_tokens_with_a_mean_and_a_linear_layer_after_them_are_a_closed_form() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("mixer_s32_224", img_size=128, num_classes=CLASSES).eval()
    nn.init.normal_(network.head.weight)
    x = pictures(2, height=128, width=128)
    model = TorchModel(network)
    with model.opened():
        features = model.features(x, "auto")
    assert (features.layer, features.prefix) == ("norm", 0)
    assert features.linear is not None
    raw = ReciproCAM(network).attribute(x, "all", native=True)
    alone = torch.zeros_like(features.maps[:1])
    alone[..., 2, 3] = features.maps[:1, :, 2, 3]
    close(raw[0, :, 2, 3], network.head(alone.mean((2, 3)))[0].detach(), atol=1e-5, rtol=1e-5)


def test_a_mean_that_takes_in_the_class_token_is_no_closed_form() -> None:
    model, x = TorchModel(build(_Unfold)), pictures(2, height=32, width=32)
    with model.opened():
        assert model.features(x, "block").linear is None


def test_ablation_keeps_the_class_token() -> None:
    network, x = build(token_networks.Pooled), pictures(1, height=16, width=16)
    found = AblationCAM(network, layer="blocks.0").run(x, 2)
    kept: list[Tensor] = []
    handle = network.blocks[0].register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    before = network(x)[0, 2]
    handle.remove()
    cam = torch.zeros(16)
    for channel in range(16):
        without = kept[0].clone()
        without[:, 1:, channel] = 0
        handle = network.blocks[0].register_forward_hook(lambda _m, _a, _o, without=without: without)
        cam += (before - network(x)[0, 2]) / before.abs() * kept[0][0, 1:, channel]
        handle.remove()
    close(found.raw[0, 0].flatten(), cam.relu().detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [GradCAM, LayerCAM, HiResCAM])
def test_the_map_lies_on_the_object_and_falls_without_it(method: Any) -> None:
    on, falls = evidence(method)
    assert on >= 0.8
    assert falls >= 0.8


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision(dtype: torch.dtype, atol: float) -> None:
    x = pictures(3)
    for method in (GradCAM, LayerCAM, ActivationMap):
        want = method(build(token_networks.Pooled))(x, 1)
        got = method(build(token_networks.Pooled).to(dtype))(x.to(dtype), 1)
        assert float((got - want).abs().mean()) < atol


SMALL = {"num_classes": CLASSES, "depth": 2, "embed_dim": 48, "num_heads": 3}
LAYERS = [
    ("vit_tiny_patch16_224", SMALL, "blocks.1.norm1", 1),
    ("deit_tiny_distilled_patch16_224", SMALL, "blocks.1.norm1", 2),
    ("vit_small_patch14_reg4_dinov2", {**SMALL, "patch_size": 16}, "blocks.1.norm1", 5),
    ("beit_base_patch16_224", SMALL, "norm", 1), ("eva02_tiny_patch14_224", {**SMALL, "patch_size": 16}, "norm", 1),
    ("xcit_nano_12_p16_224", {**SMALL, "num_heads": 4}, "blocks.1", 0), ("cait_xxs24_224", SMALL, "blocks", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "layer", "prefix"), LAYERS)
def test_well_known_transformers(name: str, options: dict[str, Any], layer: str, prefix: int) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, img_size=(64, 96), **options).eval()
    for parameter in network.parameters():
        parameter.data.normal_(0.3 if parameter.ndim == 1 else 0, 0.2)
    model, x = TorchModel(network), pictures(1, height=64, width=96)
    with model.opened():
        found = model.features(x, "auto")
    assert (found.layer, found.prefix, found.maps.shape[2:]) == (layer, prefix, (4, 6))

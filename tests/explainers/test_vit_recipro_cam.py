"""ViTReciproCAM: the shortcut and the cut network must agree with the definition, one position at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidInput, MissingCapability, NoSpatialOutput
from seewhy.explainers import ViTReciproCAM
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.transformer import TorchBlock
from support import networks, token_networks
from support.networks import CLASSES, build, pictures
from support.token_cases import evidence
from support.typed import unchecked

close = torch.testing.assert_close
KERNEL = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def weights(grid: tuple[int, int], i: int, j: int, gaussian: bool) -> Tensor:
    """(h w,) of the position (i, j): the Gaussian around it, cut off at the borders, or the position alone."""
    found = torch.zeros(grid)
    for a in range(grid[0]):
        for b in range(grid[1]):
            if gaussian and abs(a - i) <= 1 and abs(b - j) <= 1:
                found[a, b] = KERNEL[a - i + 1][b - j + 1] / 16
            if not gaussian and (a, b) == (i, j):
                found[a, b] = 1
    return found.flatten()


@torch.no_grad()
def slow(
    rest: Rest, tokens: Tensor, normed: Tensor, prefix: int, grid: tuple[int, int], *, gaussian: bool = True,
    keep: bool = True,
) -> Tensor:  # fmt: skip
    """(N, K, h, w) by the definition: for each position the rest of the block and the head, on weighted tokens.

    Args:
        rest: (residual, normed tokens) -> scores.
        tokens: (N, L, C) that enter the last block.
        normed: of them, by the block's first LayerNorm.
    """
    rows = []
    for i in range(grid[0]):
        for j in range(grid[1]):
            first = torch.full((prefix,), float(keep))
            weight = torch.cat([first, weights(grid, i, j, gaussian)])[None, :, None]
            rows.append(rest(tokens * weight, normed * weight))
    return torch.stack(rows, 2).unflatten(2, grid)


Rest = Callable[[Tensor, Tensor], Tensor]


def of_pooled(network: token_networks.Pooled, x: Tensor, block: int = 1) -> tuple[Rest, Tensor, Tensor]:
    """The parts of a network of `token_networks` from one of its blocks on."""
    own, kept = unchecked(network.blocks[block]), list[Tensor]()
    handle = own.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone()))
    network(x)
    handle.remove()

    def rest(residual: Tensor, normed: Tensor) -> Tensor:
        y = residual + own.scale * own.attn(normed)
        y = y + own.mlp(own.norm2(y))
        for after in network.blocks[block + 1 :]:
            y = after(y)
        return network.fc(network.pool(y))

    return rest, kept[0], own.norm1(kept[0])


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("prefix", "mean"), [(1, False), (2, False), (5, False), (0, True), (1, True)])
def test_it_is_the_definition(prefix: int, mean: bool, keep: bool, gaussian: bool) -> None:
    network, x = build(token_networks.Pooled, prefix=prefix, mean=mean), pictures(3, height=16, width=24)
    got = ViTReciproCAM(network, use_gaussian=gaussian, cls_token=keep).run(x, "all")
    want = slow(*of_pooled(network, x), prefix, (4, 6), gaussian=gaussian, keep=keep)
    close(got.raw, want, atol=1e-5, rtol=1e-5)
    assert got.layer == "blocks.1.norm1"
    known = TorchModel(network).look(x).known.checked
    assert known == {("counted" if mean else "reweighted", keep, 4 if gaussian else 2): True}
    again = ViTReciproCAM(network, use_gaussian=gaussian, cls_token=keep).run(x, "all")
    assert again.passes.forward == 3


def test_the_gaussian_reaches_the_attention() -> None:
    """Weights of neighbours half as large change the map, as they would not before the LayerNorm."""
    network, x = build(token_networks.Pooled), pictures(1, height=16, width=24)
    alone, spread = (ViTReciproCAM(network, use_gaussian=g).attribute(x, 0, native=True) for g in (False, True))
    quarter = slow(*of_pooled(network, x), 1, (4, 6), gaussian=True)[:, :1]
    close(spread, quarter, atol=1e-5, rtol=1e-5)
    assert float((spread - alone).abs().amax()) > 0.01 * float(alone.abs().amax())


def test_every_position_of_a_batch_larger_than_the_chunk() -> None:
    network, x = build(token_networks.Pooled, mean=True), pictures(3, height=16, width=24)
    want = ViTReciproCAM(network, perturbation_per_eval=72).run(x, "all").raw
    for step in (1, 5, 32, "auto"):
        close(ViTReciproCAM(network, perturbation_per_eval=step).run(x, "all").raw, want, atol=1e-5, rtol=1e-5)


def _timm(name: str, **options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(
            name, num_classes=CLASSES, **{"depth": 2, "embed_dim": 48, "num_heads": 3, **options}
        )
        for parameter in network.parameters():
            parameter.data.normal_(0.3 if parameter.ndim == 1 else 0, 0.2)
    return network.eval()


ZOO = [
    ("vit_tiny_patch16_224", {}, 1), ("deit_tiny_distilled_patch16_224", {}, 2),
    ("vit_small_patch14_reg4_dinov2", {"patch_size": 16}, 5),  # registers and LayerScale
    ("vit_tiny_patch16_224", {"depth": 1}, 1), ("vit_tiny_patch16_224", {"global_pool": "avg"}, 1),
    ("vit_base_patch16_siglip_224", {}, 0),  # pooled by attention
    ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}, 0),
]  # fmt: skip


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("name", "options", "prefix"), ZOO)
def test_vision_transformers_of_timm(name: str, options: dict[str, Any], prefix: int, keep: bool) -> None:
    network, x = unchecked(_timm(name, img_size=(32, 48), **options)), pictures(2, height=32, width=48)
    block, kept = network.blocks[-1], list[Tensor]()
    handle = block.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone()))
    network(x)
    handle.remove()

    def rest(residual: Tensor, normed: Tensor) -> Tensor:
        y = residual + block.ls1(block.attn(normed))
        y = y + block.ls2(block.mlp(block.norm2(y)))
        return network.forward_head(network.norm(y))

    for gaussian in (True, False):
        got = ViTReciproCAM(network, cls_token=keep, use_gaussian=gaussian).run(x, "all")
        assert got.layer == f"blocks.{len(network.blocks) - 1}.norm1"
        want = slow(rest, kept[0], block.norm1(kept[0]), prefix, (2, 3), keep=keep, gaussian=gaussian)
        close(got.raw, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "layer", "prefix"),
    [
        ("beit_base_patch16_224", {"global_pool": "token"}, "blocks.1.norm1", 1),  # a bias
        ("eva02_tiny_patch14_224", {"patch_size": 16, "global_pool": "token"}, "blocks.1.norm1", 1),  # rotary
        ("cait_xxs24_224", {}, "blocks.1.norm1", 0),  # class attention comes after
        ("vit_relpos_small_patch16_224", {}, "blocks.1.norm1", 0),
    ],
)
def test_other_transformers_of_timm(name: str, options: dict[str, Any], layer: str, prefix: int) -> None:
    """The shortcuts say what the whole network says, run on each weighting."""
    network, x = _timm(name, img_size=(32, 48), **options), pictures(2, height=32, width=48)
    got = ViTReciproCAM(network).run(x, "all")
    assert got.raw.shape == (2, CLASSES, 2, 3)
    assert got.layer == layer
    close(got.raw, hooked(network, "blocks.1", layer, x, prefix, (2, 3)), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def hooked(network: nn.Module, block: str, norm: str, x: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """(N, K, h, w): the whole network for each position, with the weights put in by hooks."""
    own: list[Tensor] = []
    first, before = network.get_submodule(norm), network.get_submodule(block)
    handle = first.register_forward_hook(lambda _m, _a, out: own.append(out.clone()))
    network(x)
    handle.remove()
    rows = []
    for i in range(grid[0]):
        for j in range(grid[1]):
            weight = torch.cat([torch.ones(prefix), weights(grid, i, j, True)])[None, :, None]
            handles = [
                before.register_forward_pre_hook(lambda _m, args, weight=weight: (args[0] * weight, *args[1:])),
                first.register_forward_hook(lambda _m, _a, _o, weight=weight: own[0] * weight),
            ]
            rows.append(network(x))
            for handle in handles:
                handle.remove()
    return torch.stack(rows, 2).unflatten(2, grid)


def test_torchvisions_transformer() -> None:
    models = pytest.importorskip("torchvision").models
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES).eval()
    nn.init.normal_(network.heads[0].weight)  # zeros as it is made
    x = pictures()
    got = ViTReciproCAM(network).run(x, "all")
    assert got.layer == "encoder.layers.encoder_layer_1.ln_1"
    want = hooked(network, "encoder.layers.encoder_layer_1", got.layer, x, 1, (4, 4))
    close(got.raw, want, atol=1e-5, rtol=1e-5)


def test_one_pass_serves_all_positions_and_classes() -> None:
    explainer, x = ViTReciproCAM(build(token_networks.Pooled, prefix=2)), pictures(3)
    explainer(x)
    for targets in (None, 1, "all", [[0, 1]] * 3):
        assert explainer.run(x, targets).passes.forward == 3


def test_attention_that_the_network_computes_itself_is_run_for_each_position() -> None:
    network, x = build(token_networks.Pooled, fused=False), pictures(2, height=16, width=24)
    found = ViTReciproCAM(network).run(x, "all")
    close(found.raw, slow(*of_pooled(network, x), 1, (4, 6)), atol=1e-5, rtol=1e-5)
    same = build(token_networks.Pooled)
    close(ViTReciproCAM(same).run(x, "all").raw, found.raw, atol=1e-5, rtol=1e-5)


class _Reading(token_networks.Pooled):
    """Other ways for a head to read the picture's tokens, and blocks in which a token's place counts."""

    def __init__(self, how: str) -> None:
        super().__init__(mean=True, prefix=0 if how in ("class", "attention", "moved") else 1)
        self.how, self.query = how, nn.Parameter(torch.randn(1, 1, 16))
        self.key, self.side = nn.Linear(16, 16), nn.Conv1d(16, 16, 3, padding=1)
        self.attend, self.last = nn.MultiheadAttention(16, 2, batch_first=True), token_networks.SelfAttention(16)
        if how == "moved":  # a block that mixes neighbours in the row of tokens
            self.blocks[1].register_module("side", self.side)
            self.blocks[1].forward = self._moved  # type: ignore[assignment]

    def _moved(self, x: Tensor) -> Tensor:
        block: Any = self.blocks[1]
        x = x + block.attn(self.side(block.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + block.mlp(block.norm2(x))

    def pool(self, tokens: Tensor) -> Tensor:
        tokens, n = self.norm(tokens), len(tokens)
        query = self.query.expand(n, -1, -1)
        if self.how == "attention":
            return F.scaled_dot_product_attention(query[:, None], self.key(tokens)[:, None], tokens[:, None])[:, 0, 0]
        if self.how == "softmax":
            scores = (query @ self.key(tokens).mT)[:, None]
            return (scores.softmax(-1)[:, 0] @ tokens)[:, 0]
        if self.how == "class":
            return self.last(torch.cat([query, tokens], 1))[:, 0]
        if self.how == "sum":
            return tokens.sum(dim=1) / 30
        if self.how == "largest":
            return tokens[:, 1:].amax(1)
        if self.how == "product":
            return (tokens / 8 + 1).prod(1)
        return tokens.mean(1)


@pytest.mark.parametrize(
    ("how", "shared"),
    [("attention", True), ("softmax", True), ("class", True), ("sum", True), ("largest", True), ("product", False),
     ("moved", False)],
)  # fmt: skip
def test_heads_that_read_the_tokens_of_the_picture(how: str, shared: bool) -> None:
    network, x = build(_Reading, how), pictures(2, height=24, width=24)
    wrapped = TorchModel(network)
    explainer = ViTReciproCAM(wrapped)
    with wrapped.opened():
        body = wrapped.transformer(x)
        block = body.weighted(x, body.last, explainer._weightings(body.grid, x.device))
        assert isinstance(block, TorchBlock)
        count = len(block.weightings)
        rows, which = torch.arange(2 * count) // count, torch.arange(2 * count) % count
        want = block._whole(x, rows, which).classes
        assert (block.all() is not None) is shared
    got = explainer.run(x, "all")
    close(got.raw, want.view(2, *body.grid, -1).permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_replayed_is_run_whole_and_that_is_said() -> None:
    network, x = build(token_networks.Pooled, mean=True), pictures(2, height=16, width=24)
    with mock.patch("seewhy.models.torch.passed.discover", return_value=None):
        found = ViTReciproCAM(network).run(x, "all")
    close(found.raw, slow(*of_pooled(network, x), 1, (4, 6)), atol=1e-5, rtol=1e-5)
    said = "The network could not be cut at layer 'blocks.1'; the whole network was run for each change."
    assert found.warnings == (said,)


@pytest.mark.parametrize(("mean", "way"), [(False, "_shortcut"), (True, "_shortcut"), (True, "_defined")])
def test_a_shortcut_that_disagrees_with_the_network_is_not_taken(mean: bool, way: str) -> None:
    network, x = build(token_networks.Pooled, mean=mean), pictures(2, height=16, width=24)
    real = getattr(TorchBlock, way)

    def wrong(self: TorchBlock, *args: Any) -> Any:
        found = real(self, *args)
        return None if way == "_shortcut" and found is None else type(found)(scores=found.scores * 1.01)

    with mock.patch.object(TorchBlock, way, wrong):
        found = ViTReciproCAM(network).run(x, "all")
    close(found.raw, slow(*of_pooled(network, x), 1, (4, 6)), atol=1e-5, rtol=1e-5)


def test_an_earlier_block() -> None:
    network, x = build(token_networks.Deep), pictures(2, height=16, width=16)
    found = ViTReciproCAM(network, layer="blocks.0.norm1").run(x, "all")
    close(found.raw, slow(*of_pooled(network, x, 0), 2, (4, 4)), atol=1e-5, rtol=1e-5)
    assert found.layer == "blocks.0.norm1"


@torch.no_grad()
def test_any_other_layer_is_weighted_alone() -> None:
    network, x = build(token_networks.Pooled), pictures(1, height=16, width=16)
    found = ViTReciproCAM(network, layer="blocks.0").run(x, 2)
    assert found.warnings[-1] == (
        "The LayerNorm that follows the layer cancels the weights of single tokens. layer='auto' begins after it."
    )
    kept: list[Tensor] = []
    network.blocks[0].register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    network(x)
    weight = torch.cat([torch.ones(1), weights((4, 4), 1, 2, True)])[None, :, None]
    want = network.fc(network.pool(network.blocks[1](kept[0] * weight)))[0, 2]
    close(found.raw[0, 0, 1, 2], want, atol=1e-5, rtol=1e-5)


class _Outside(token_networks.Pooled):
    """The residual of attention is added in the network's own forward."""

    def features(self, x: Tensor) -> Tensor:
        maps = 2 * self.conv2(self.act1(self.bn1(self.conv1(x))))
        tokens = torch.cat([self.first.expand(len(x), -1, -1), maps.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return tokens


def test_a_block_without_its_residual_is_refused() -> None:
    said = (
        r"^What passes around block 'blocks\.1' is added outside of it, so it cannot be shown a part of its tokens\. "
        r"Use GradCAM, RISE or Occlusion\.$"
    )
    with pytest.raises(NoSpatialOutput, match=said):
        ViTReciproCAM(build(_Outside))(pictures())


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-2), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("mean", [True, False])
def test_half_precision(dtype: torch.dtype, atol: float, mean: bool) -> None:
    network, x = build(token_networks.Pooled, prefix=2, mean=mean), pictures(3)
    want = ViTReciproCAM(network)(x, 1)
    half = build(token_networks.Pooled, prefix=2, mean=mean).to(dtype)
    before = {name: id(tensor) for name, tensor in half.state_dict(keep_vars=True).items()}
    got = ViTReciproCAM(half)(x.to(dtype), 1)
    assert float((got - want).abs().mean()) < atol
    assert {name: id(tensor) for name, tensor in half.state_dict(keep_vars=True).items()} == before


class _Casts(token_networks.Pooled):
    """Its own code insists on half precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16())


def test_half_precision_that_the_network_insists_on() -> None:
    network, x = build(_Casts, prefix=2).bfloat16(), pictures(1).bfloat16()
    found = ViTReciproCAM(network).attribute(x, 1, native=True)
    want = ViTReciproCAM(build(token_networks.Pooled, prefix=2)).attribute(x.float(), 1, native=True)
    assert float((found - want).abs().amax()) < 2e-2 * float(want.abs().amax())


@pytest.mark.parametrize("parameters", [{}, {"use_gaussian": False}])
def test_it_lies_on_the_object_and_falls_without_it(parameters: dict[str, Any]) -> None:
    on, falls = evidence(ViTReciproCAM, **parameters)
    assert on >= 0.8
    assert falls >= 0.9


def test_errors() -> None:
    x = pictures()
    with pytest.raises(InvalidInput, match=r"^use_gaussian must be True or False, got 1\.$"):
        ViTReciproCAM(build(token_networks.Pooled), use_gaussian=1)
    said = (
        r"^No block with an attention among tokens was found in Pooled\. Use a method for other networks: GradCAM, "
        r"ReciproCAM, RISE or Occlusion\.$"
    )
    with pytest.raises(NoSpatialOutput, match=said):
        ViTReciproCAM(build(networks.Pooled))(x)
    said = r"^ViTReciproCAM shows a transformer a few of its tokens; layer 'conv2' gives a map\. Use ReciproCAM\.$"
    with pytest.raises(NoSpatialOutput, match=said):
        ViTReciproCAM(build(token_networks.Pooled), layer="conv2")(x)
    with pytest.raises(MissingCapability, match="ViTReciproCAM needs features"):
        ViTReciproCAM(lambda x: x.mean((2, 3)))(x)


def test_a_backend_that_is_no_torch_module_is_cut_where_a_layer_is_named() -> None:
    network, x = build(token_networks.Pooled), pictures(1, height=16, width=16)
    other = _Features(TorchModel(network))
    with pytest.raises(MissingCapability, match=r"^ViTReciproCAM looks at a transformer's blocks, which 'other' does"):
        ViTReciproCAM(other)(x)
    found = ViTReciproCAM(other, layer="blocks.0").run(x, 0)
    close(found.raw, ViTReciproCAM(network, layer="blocks.0").run(x, 0).raw, atol=1e-5, rtol=1e-5)


class _Features:
    """A model with features and nothing more."""

    name = "other"

    def __init__(self, inner: TorchModel) -> None:
        self._inner = inner
        for part in ("passes", "opened", "check", "layers", "auto_layer", "features", "from_features"):
            setattr(self, part, getattr(inner, part))

    def __call__(self, inputs: Tensor) -> Any:
        return self._inner(inputs)

"""ViTReciproCAM: the shortcut and the cut network must agree with the definition, one position at a time."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, MissingCapability, NoSpatialOutput
from seewhy.explainers import ViTReciproCAM
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.transformer import TorchTransformer
from support import networks, token_networks
from support.networks import CLASSES, build, pictures
from support.token_cases import evidence

close = torch.testing.assert_close
KERNEL = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def slow(
    network: nn.Module, layer: str, x: Tensor, prefix: int, grid: tuple[int, int], *, gaussian: bool = True,
    keep: bool = True,
) -> Tensor:  # fmt: skip
    """(N, K, h, w) from the paper: for each position a new row of tokens, and the whole network on it."""
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    classes = network(x).shape[1]
    handle.remove()
    maps = torch.zeros(len(x), classes, *grid)
    for n, tokens in enumerate(kept[-1]):
        for i in range(grid[0]):
            for j in range(grid[1]):
                shown = torch.zeros_like(tokens)
                if keep:
                    shown[:prefix] = tokens[:prefix]
                for a in range(grid[0]):
                    for b in range(grid[1]):
                        t = prefix + a * grid[1] + b
                        if gaussian and abs(a - i) <= 1 and abs(b - j) <= 1:
                            shown[t] = tokens[t] * KERNEL[a - i + 1][b - j + 1] / 16
                        if not gaussian and (a, b) == (i, j):
                            shown[t] = tokens[t]
                handle = network.get_submodule(layer).register_forward_hook(
                    lambda _m, _a, _o, shown=shown: shown.unsqueeze(0)
                )
                maps[n, :, i, j] = network(x[n : n + 1])[0].detach()
                handle.remove()
    return maps


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("prefix", "mean"), [(1, False), (2, False), (5, False), (0, True), (1, True)])
def test_it_is_the_definition(prefix: int, mean: bool, keep: bool, gaussian: bool) -> None:
    network, x = build(token_networks.Pooled, prefix=prefix, mean=mean), pictures(3, height=16, width=24)
    got = ViTReciproCAM(network, use_gaussian=gaussian, cls_token=keep).run(x, "all")
    want = slow(network, "blocks.0", x, prefix, (4, 6), gaussian=gaussian, keep=keep)
    close(got.raw, want, atol=1e-5, rtol=1e-5)
    assert got.layer == "blocks.0"
    known = TorchModel(network).look(x).known.checked
    assert known == ({} if mean else {("reweighted", keep): True})  # where the head reads first tokens only


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
    ("vit_tiny_patch16_224", {"depth": 1}, 1), ("beit_base_patch16_224", {"global_pool": "token"}, 1),  # a bias
    ("eva02_tiny_patch14_224", {"patch_size": 16, "global_pool": "token"}, 1),  # rotary embeddings
    ("vit_tiny_patch16_224", {"global_pool": "avg"}, 1), ("cait_xxs24_224", {}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "prefix"), ZOO)
def test_well_known_transformers(name: str, options: dict[str, Any], prefix: int) -> None:
    network, x = _timm(name, img_size=(32, 48), **options), pictures(2, height=32, width=48)
    got = ViTReciproCAM(network).run(x, "all")
    assert got.raw.shape == (2, CLASSES, 2, 3)
    assert got.layer is not None
    close(got.raw, slow(network, got.layer, x, prefix, (2, 3)), atol=1e-4, rtol=1e-4)


def test_torchvisions_transformer() -> None:
    models = pytest.importorskip("torchvision").models
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES).eval()
    nn.init.normal_(network.heads[0].weight)  # zeros as it is made
    x = pictures()
    got = ViTReciproCAM(network).run(x, "all")
    assert got.layer == "encoder.layers.encoder_layer_0"
    close(got.raw, slow(network, got.layer, x, 1, (4, 4)), atol=1e-5, rtol=1e-5)


def test_one_pass_serves_all_positions_and_classes() -> None:
    explainer, x = ViTReciproCAM(build(token_networks.Pooled, prefix=2)), pictures(3)
    explainer(x)
    for targets in (None, 1, "all", [[0, 1]] * 3):
        assert explainer.run(x, targets).passes.forward == 3


def test_attention_that_the_network_computes_itself_is_run_for_each_position() -> None:
    network, x = build(token_networks.Pooled, fused=False), pictures(2, height=16, width=24)
    found = ViTReciproCAM(network).run(x, "all")
    close(found.raw, slow(network, "blocks.0", x, 1, (4, 6)), atol=1e-5, rtol=1e-5)
    same = build(token_networks.Pooled)
    close(ViTReciproCAM(same).run(x, "all").raw, found.raw, atol=1e-5, rtol=1e-5)


def test_a_shortcut_that_disagrees_with_the_network_is_not_taken() -> None:
    network, x = build(token_networks.Pooled), pictures(2, height=16, width=24)
    real = TorchTransformer._shortcut

    def wrong(self: TorchTransformer, *args: Any) -> Any:
        own, shown = real(self, *args)
        return own, type(shown)(scores=shown.scores * 1.01)

    with mock.patch.object(TorchTransformer, "_shortcut", wrong):
        found = ViTReciproCAM(network).run(x, "all")
    close(found.raw, slow(network, "blocks.0", x, 1, (4, 6)), atol=1e-5, rtol=1e-5)


def test_an_earlier_layer() -> None:
    network, x = build(token_networks.Deep), pictures(1, height=16, width=16)
    found = ViTReciproCAM(network, layer="blocks.0.norm1").run(x, 2)
    close(found.raw, slow(network, "blocks.0.norm1", x, 2, (4, 4))[:, 2:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-2), (torch.bfloat16, 0.15)])
def test_half_precision(dtype: torch.dtype, atol: float) -> None:
    network, x = build(token_networks.Pooled, prefix=2), pictures(3)
    want = ViTReciproCAM(network)(x, 1)
    got = ViTReciproCAM(build(token_networks.Pooled, prefix=2).to(dtype))(x.to(dtype), 1)
    assert float((got - want).abs().mean()) < atol


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
        r"^No block with an attention among tokens was found in Pooled\. Use a method for other networks: ReciproCAM, "
        r"GradCAM, RISE or Occlusion\.$"
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
    close(found.raw, slow(network, "blocks.0", x, 1, (4, 4))[:, :1], atol=1e-5, rtol=1e-5)


class _Features:
    """A model with features and nothing more."""

    name = "other"

    def __init__(self, inner: TorchModel) -> None:
        self._inner = inner
        for part in ("passes", "opened", "check", "layers", "auto_layer", "features", "from_features"):
            setattr(self, part, getattr(inner, part))

    def __call__(self, inputs: Tensor) -> Any:
        return self._inner(inputs)

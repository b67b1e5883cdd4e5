"""A torch module as a model: features, heads, gradients, the choice of a layer, and being left alone."""

from __future__ import annotations

import copy
import gc
import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, InvalidInput, InvalidType, NoSpatialOutput, UnknownLayer
from seewhy.explainers.grad_cam import GradCAM
from seewhy.models import FeatureModel, GradientModel, Model
from seewhy.models.adapters import as_model
from seewhy.models.function import FunctionModel
from seewhy.models.layout import spatial
from seewhy.models.torch.model import TorchModel
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close


def test_the_ladder() -> None:
    model, function = as_model(build(networks.Pooled)), as_model(lambda x: x.mean((2, 3)))
    assert isinstance(model, TorchModel)
    assert isinstance(model, GradientModel)
    assert isinstance(function, FunctionModel)
    assert isinstance(function, Model)
    assert not isinstance(function, FeatureModel)
    assert as_model(model) is model
    said = "A network is a torch.nn.Module, a seewhy model or a callable (N,C,H,W) -> (N,K), got int."
    with pytest.raises(InvalidType, match="^" + re.escape(said) + "$"):
        as_model(3)


@pytest.mark.parametrize("kind", [networks.Pooled, networks.Residual, networks.Deep, networks.ChannelsLast])
def test_features_put_back_give_the_outputs(kind: Any) -> None:
    model, x = TorchModel(build(kind)), pictures(3, height=48, width=80)
    names = [n for n, m in model.module.named_modules() if isinstance(m, nn.Conv2d)]
    for layer in [*names, *(["stage"] if kind is networks.ChannelsLast else [])]:
        with model.opened():
            found = model.features(x, layer)
            order = torch.tensor([2, 0, 0, 1])
            again = model.from_features(found, found.maps[order], order)
        close(again.scores, model(x).scores[order], atol=1e-5, rtol=1e-5)
        assert found.warnings == []


def test_gradients_are_those_of_autograd_and_images_do_not_mix() -> None:
    network, x = build(networks.Residual), pictures(3)
    model = TorchModel(network)
    with model.opened():
        found = model.gradients(x, lambda outputs: outputs.classes[:, [1, 3]], "")
        gradients = [found.of(t) for t in range(2)]
    for t, target in enumerate((1, 3)):
        for i in range(3):
            one = x[i : i + 1].clone().requires_grad_()
            network(one)[0, target].backward()
            close(gradients[t][i : i + 1], one.grad, atol=1e-6, rtol=1e-5)
    assert model.passes.forward == 3
    assert model.passes.backward == 6


FORMS = [("dict", None), ("object", None), ("tuple", None), ("only", None), ("only", "out"), ("tuple", 0),
         ("object", "logits"),
         ("dict", lambda r: r["logits"])]  # fmt: skip


@pytest.mark.parametrize(("form", "output"), FORMS)
def test_outputs_that_hold_the_scores(form: str, output: Any) -> None:
    network = build(networks.Wrapped, form)
    want = build(networks.Pooled)(pictures())
    model = TorchModel(network, output=output)
    close(model(pictures()).classes, want)
    assert model.features(pictures(), "act2").linear is not None or callable(output)


class _Says(nn.Module):
    """Answers with what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(3, 4, 3), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.conv(x).mean((2, 3)))


LOAD = "Wrap it with seewhy.load(network, output=NAME, INDEX or CALLABLE)."
ANSWERS = [
    (lambda s: s[0], None, "The network must return scores of shape (2, K), got (4,)."),
    (lambda s: s[:, 0], None, "The network must return scores of shape (2, K), got (2,). One score an image: "
     "return scores.unsqueeze(1)."),
    (lambda s: s[:, :, None, None].expand(-1, -1, 8, 8), None,
     "The network must return scores of shape (2, K), got (2, 4, 8, 8). If it is a map of scores for each "
     "class, pass seewhy.load(network, output=seewhy.heads.Segmentation()); for key points seewhy.heads.Heatmaps()."),
    (lambda s: s[:, :0], None, "The network must return scores of shape (2, K), got (2, 0)."),
    (lambda s: s[:1], None, "The network must return scores of shape (2, K), got (1, 4)."),
    (lambda s: s.long(), None, "The network must return floating-point scores, got torch.int64."),
    (lambda s: s / 0, None, "The network returned NaN or infinite scores. Its weights or the input are out of range."),
    (lambda s: None, None, f"The network returned a NoneType, in which no scores of shape (N, K) were found. {LOAD}"),
    (lambda s: {"a": s[:, 0]}, None, f"The network returned a dict with 'a', in which no scores of shape (N, K) "
     f"were found. {LOAD}"),
    (lambda s: (s, s), None, "The network returned a tuple of 2: a tensor of shape (2, 4), a tensor of shape "
     "(2, 4), in which 2 "
     f"matrices could be the scores. {LOAD}"),
    (lambda s: {"a": s}, "b", "The network's output has no 'b': it is a dict with 'a'."),
    (lambda s: (s,), 1, "The network's output has no 1: it is a tuple of 1: a tensor of shape (2, 4)."),
    (lambda s: s, "logits", "The network's output has no 'logits': it is a tensor of shape (2, 4)."),
    (lambda s: (s,), lambda r: r, "The network must return a tensor of scores (N, K), got a tuple of 1: a "
     "tensor of shape (2, 4)."),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "output", "said"), ANSWERS)
def test_answers_that_cannot_be_used(answer: Any, output: Any, said: str) -> None:
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        TorchModel(build(_Says, answer), output=output)(pictures())


def test_a_network_that_refuses_the_input() -> None:
    model = TorchModel(build(networks.Pooled))
    start = (
        "Pooled refuses an input of 2 x 4 channels x 32 x 40 pixels. Its first convolution takes 3 channels. "
        "It says: Given groups=1"
    )
    with pytest.raises(InputRefused, match="^" + re.escape(start)):
        model(pictures(channels=4, height=32, width=40))
    linear = TorchModel(build(networks.Linear), title="mine")
    with pytest.raises(
        InputRefused, match=r"^mine refuses an input of 2 x 3 channels x 9 x 9 pixels\. It says: einsum"
    ):
        linear(pictures(height=9, width=9))


def test_running_out_of_memory_stays_what_it_is() -> None:
    def full(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    for model in (TorchModel(build(_Says, full)), FunctionModel(full)):
        with pytest.raises(torch.OutOfMemoryError):
            model(pictures())


def test_type_and_device_are_checked() -> None:
    model = TorchModel(build(networks.Pooled))
    with pytest.raises(
        InvalidInput, match=r"^The network is float32, the input float64\. Use inputs\.to\(torch\.float32\)\.$"
    ):
        model.check(pictures().double())
    with pytest.raises(InvalidInput, match=r"^The network is on cpu, the input on meta\. Use inputs\.to\('cpu'\)\.$"):
        model.check(pictures().to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        model.check(pictures())


LAYERS = [
    ("act3", UnknownLayer, "The network has no layer 'act3'. Did you mean 'act2' or 'act1'?"),
    ("", None, ""),
    ("fc", NoSpatialOutput, "Layer 'fc' has no spatial map: it gives (2, 5) for an input of (2, 3, 32, 32). "
     "Choose a layer with an output (N, C, h, w), or layer='auto'."),
    ("pool", NoSpatialOutput, "Layer 'pool' has no spatial map: it gives (2, 16, 1, 1) for an input of (2, 3, 32, 32). "
     "Choose a layer with an output (N, C, h, w), or layer='auto'."),
    (3, InvalidType, "layer is the name of a module, a string, got int."),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "error", "said"), LAYERS)
def test_layers_that_cannot_be_taken(layer: Any, error: Any, said: str) -> None:
    model = TorchModel(build(networks.Pooled))
    if error is None:
        assert model.features(pictures(), layer).maps is not None
        return
    for ask in (
        lambda: model.features(pictures(), layer),
        lambda: model.gradients(pictures(), lambda o: o.classes, layer),
    ):
        with pytest.raises(error, match="^" + re.escape(said) + "$"):
            ask()


def test_a_module_as_the_layer_is_told_its_name() -> None:
    network = build(networks.Pooled)
    with pytest.raises(InvalidType, match=r"^layer is the name of a module, a string, got Conv2d\. Pass 'conv2'\.$"):
        TorchModel(network).features(pictures(), network.conv2)


def test_a_layer_that_did_not_run() -> None:
    network = build(networks.Shared)
    with pytest.raises(UnknownLayer, match=r"^Layer 'act2' did not run in the forward pass\. Choose one that does\.$"):
        TorchModel(network).features(pictures(), "act2")


class _NoGrad(networks.Pooled):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


def test_scores_that_cannot_be_differentiated() -> None:
    for layer, what in (("", "the input"), ("conv2", "layer 'conv2'")):
        said = (
            f"The scores do not depend on {what} through operations that torch can differentiate (the network "
            f"may run under "
            "torch.no_grad() itself). Use ReciproCAM, RISE or Occlusion."
        )
        with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
            TorchModel(build(_NoGrad)).gradients(pictures(), lambda o: o.classes, layer)


def test_networks_made_in_inference_mode() -> None:
    with torch.inference_mode():
        network = build(networks.Pooled)
    model, flags = TorchModel(network), [p.requires_grad for p in network.parameters()]
    said = (
        "Pooled was made inside torch.inference_mode(), so torch cannot differentiate it. Make or load it "
        "outside, or use "
        "ReciproCAM, RISE or Occlusion."
    )
    with model.opened(), pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        model.gradients(pictures(), lambda o: o.classes, "")
    with model.opened():
        close(model.features(pictures(), "act2").outputs.classes, build(networks.Pooled)(pictures()).detach())
    assert [p.requires_grad for p in network.parameters()] == flags


class _Attention(nn.Module):
    """(N, heads, L, L) and windows (N x windows, heads, L, L), as high and wide as a map, but no maps."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self.conv, self.soft, self.drop, self.fc = (
            nn.Conv2d(3, 4, 8, 8),
            nn.Softmax(-1),
            nn.Dropout(),
            nn.Linear(4, CLASSES),
        )
        self.windows = windows

    def forward(self, x: Tensor) -> Tensor:
        q = self.conv(x).flatten(2).view(len(x) * self.windows, 1, 4, -1).transpose(2, 3)
        weights = self.drop(self.soft(q @ q.transpose(2, 3)))
        return self.fc((weights @ q).transpose(2, 3).reshape(len(x), 4, -1).mean(2))


@pytest.mark.parametrize("windows", [1, 4])
def test_attention_is_no_map(windows: int) -> None:
    model, x = TorchModel(build(_Attention, windows)), pictures(height=64, width=64)
    for layer in ("soft", "drop"):
        with pytest.raises(NoSpatialOutput, match=f"^Layer '{layer}' has no spatial map: it gives "):
            model.features(x, layer)
    assert model.auto_layer(x) == "conv"


@pytest.mark.parametrize(
    ("shape", "want"),
    [((2, 8, 4, 6), "first"), ((2, 4, 6, 9), "both"), ((2, 8, 1, 1), None), ((2, 8, 24), None), ((2, 96, 6, 4), None),
     ((1, 8, 4, 6), None), ((8, 8, 4, 6), None), ((2, 197, 64), None), ((2, 5, 7, 900), "last")],
)  # fmt: skip
def test_which_shapes_are_maps(shape: tuple[int, ...], want: str | None) -> None:
    assert spatial(torch.randn(shape), pictures(2, height=32, width=48)) == want


def test_order_of_dimensions_where_either_fits() -> None:
    network, x = build(networks.ChannelsLast), pictures(2, height=16, width=24)
    found = TorchModel(network).features(
        x, "stage"
    )  # (2, 4, 6, 8): 16 x 24 is four times 4 x 6, and nearly 2.8 times 6 x 8
    assert found.maps.shape == (2, 8, 4, 6)
    assert found.warnings == ["The output of layer 'stage', (2, 4, 6, 8), was read as (N, h, w, C)."]


ZOO = [("torchvision:resnet18", "layer4", 2), ("torchvision:vgg11", "avgpool", 7),
       ("torchvision:mobilenet_v3_small", "features", 2),
       ("torchvision:densenet121", "features", 2), ("timm:tf_efficientnet_lite0", "bn2", 2),
       ("timm:convnext_atto", "norm_pre", 2)]  # fmt: skip


def _load(name: str) -> nn.Module:
    kind, _, model = name.partition(":")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "timm":
            return pytest.importorskip("timm").create_model(model, num_classes=7).eval()
        return pytest.importorskip("torchvision").models.get_model(model, num_classes=7).eval()


@pytest.mark.parametrize(("name", "layer", "size"), ZOO)
def test_the_automatic_layer_of_well_known_networks(name: str, layer: str, size: int) -> None:
    model, x = TorchModel(_load(name)), pictures(1, height=64, width=64)
    chosen = model.auto_layer(x)
    assert chosen.startswith(layer)
    with model.opened():
        assert model.features(x, "auto").maps.shape[2:] == (size, size)


def test_the_automatic_layer_of_transformers() -> None:
    timm = pytest.importorskip("timm")
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 1, 1), num_classes=7
    ).eval()
    model, x = TorchModel(swin), pictures(1, height=64, width=64)
    with model.opened():
        found = model.features(x, "auto")
    assert found.maps.shape == (1, 768, 2, 2)
    assert found.layer == "norm"
    vit = TorchModel(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=7).eval())
    for network, layer in ((vit, "blocks.1.norm1"), (TorchModel(build(networks.Tokens)), "blocks.0")):
        with network.opened():
            assert network.auto_layer(x) == layer  # the last whose tokens of the picture matter to the class token


def test_no_layer_with_a_map_at_all() -> None:
    said = (
        "No layer of the network has a spatial map (N, C, h, w). Use a method that needs scores only: "
        "RISE or Occlusion."
    )
    with pytest.raises(NoSpatialOutput, match="^" + re.escape(said) + "$"):
        TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))).auto_layer(pictures())


def test_a_replaced_module_is_seen() -> None:
    network = build(networks.Pooled)
    assert TorchModel(network).auto_layer(pictures()) == "act2"
    network.pool = nn.Sequential(nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(1))
    assert TorchModel(network).auto_layer(pictures()) == "pool.0"


def test_nothing_keeps_the_network_alive() -> None:
    network = build(networks.Deep)
    model = TorchModel(network)
    found = model.features(pictures(), "auto")
    model.from_features(found, found.maps, torch.arange(2))
    ghost = weakref.ref(network)
    del network, model, found
    gc.collect()
    assert ghost() is None


def test_copies_do_not_share_their_cuts() -> None:
    network = build(networks.Deep)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.head[4].weight.mul_(-1)
    for one in (network, twin):
        model = TorchModel(one)
        found = model.features(pictures(), "body")
        close(model.from_features(found, found.maps, torch.arange(2)).classes, one(pictures()).detach())


class _TwoAnswers(nn.Module):
    """A deep answer, and one from the middle, past a layer that only hands the map on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle, self.second = nn.Conv2d(3, 6, 3), nn.Identity(), nn.Conv2d(6, 7, 3)
        self.deep, self.side = nn.Linear(7, 4), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        early = self.first(x).relu()
        late = self.second(self.idle(early)).relu()
        return self.deep(late.mean((2, 3))), self.side(early.mean((2, 3)) + self.idle(early).amax((2, 3)) * 0)


def test_each_answer_of_a_network_has_its_own_automatic_layer() -> None:
    network, x = _TwoAnswers().eval(), torch.rand(2, 3, 16, 20)
    for output, layer, own in ((0, "second", network.deep), (1, "first", network.side), (0, "second", network.deep)):
        model = TorchModel(network, output=output)
        found = GradCAM(model).run(x, 2)  # maps of the layer's size
        assert found.layer == layer
        maps = model.features(x, layer).maps
        slope = (maps > 0).float().mean((2, 3), keepdim=True) / maps[0, 0].numel()  # of the ReLU and the mean
        want = (own.weight[2].detach().view(1, -1, 1, 1) * slope * maps).sum(1).relu()
        torch.testing.assert_close(found.raw[:, 0], want)


def test_a_layer_that_hands_a_map_on_is_named_by_what_made_it() -> None:
    class Handed(_TwoAnswers):
        def forward(self, x: Tensor) -> Any:
            early = self.first(x)
            return self.side(self.idle(early).mean((2, 3)) + early.amax((2, 3)))

    with TorchModel(Handed().eval()).opened():
        assert TorchModel(Handed().eval()).auto_layer(torch.rand(1, 3, 16, 20)) == "first"

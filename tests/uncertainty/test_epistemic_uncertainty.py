"""EpistemicUncertainty: networks of every kind, left as found, and errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, InvalidInput, MissingCapability
from seewhy.models.adapters import as_model
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty
from support import networks
from support.networks import CLASSES, build, detector, pictures
from support.uncertainty_cases import Early, Head, ask, close


class SequenceFirst(nn.Module):
    """Tokens (L, N, C), in the order that torch's transformers have by default."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.drop, self.fc = nn.Conv2d(3, 8, 16, 16), nn.Dropout(0.5), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))


def test_a_network_without_dropout_gets_one_and_is_told_so() -> None:
    network, x = build(networks.Pooled), pictures(3)
    found = ask(network, x, samples=6, rate=0.4, seed=2)
    said = (
        "The network has no dropout that acts: one of rate 0.4, with which it was never trained, was placed before its "
        "last linear layer, 'fc'. Take the result as a rough guess."
    )
    assert found.warnings == (said,)
    assert found.passes.forward == 3
    with_dropout = build(Head)
    with_dropout.load_state_dict(network.state_dict())
    close(found.mean, ask(with_dropout, x, samples=6, seed=2).mean)
    chunked = ask(network, x, samples=6, rate=0.4, seed=2, perturbation_per_eval=1)
    close(chunked.mean, found.mean)
    assert chunked.passes.forward == 3


@pytest.mark.parametrize("kind", [lambda: nn.Conv2d(3, 4, 3), lambda: nn.Linear(32, 7)])
def test_no_dropout_and_no_linear_layer_at_the_end(kind: Any) -> None:
    network = nn.Sequential(kind(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    said = (
        "Sequential has no dropout that acts, and does not end in a linear layer before which one could be placed. "
        "Put nn.Dropout into the network and train it so."
    )
    with pytest.raises(MissingCapability, match="^" + re.escape(said) + "$"):
        ask(network, pictures())


def test_dropout_inside_attention_is_named() -> None:
    found = ask(build(networks.Tokens), pictures(), samples=3)
    said = (
        "Dropout that did not act, inside attention or in a part that did not run: 'blocks.0.self_attn', "
        "'blocks.1.self_attn'. The uncertainty is the rest's."
    )
    assert found.warnings == (said,)
    assert float(found.std.min()) > 0


def test_tokens_before_images_are_not_taken_for_images() -> None:
    network = build(SequenceFirst)
    found = ask(network, pictures(4), samples=300, perturbation_per_eval=4)  # 4 tokens of 4 images
    said = (
        "Dropout acts on tensors such as (4, 4, 8), which do not begin with the images: the draws depend on how many "
        "images go through at a time."
    )
    assert found.warnings == (said,)
    apart = ask(network, pictures(4), samples=300, perturbation_per_eval=7)
    close(found.std, apart.std, atol=0.03, rtol=0)
    assert float((found.mean - apart.mean).abs().max()) > 0


def test_stochastic_depth_stays_off() -> None:
    class Depth(Head):
        def features(self, x: Tensor) -> Tensor:
            x = super().features(x)
            return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.1) / 0.1 if self.training else x

    with_depth, without, x = build(Depth), build(Head), pictures()
    close(ask(with_depth.train(), x).mean, ask(without, x).mean)


@pytest.mark.parametrize("kind", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_alpha_dropout_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(
        MissingCapability, match=r"^The network has alpha dropout, which is not supported\. Use nn\.Dropout\.$"
    ):
        ask(build(Head, 0.4, kind), pictures())


def test_dropout_of_rate_0_and_1() -> None:
    assert len(ask(build(Head, p=0.0), pictures()).warnings) == 1  # none that acts
    network = build(Head, p=1.0)
    found = ask(network, pictures())
    close(found.mean, network.fc.bias.detach().softmax(0).expand(2, -1))
    assert float(found.std.max()) == 0


def _state(network: nn.Module) -> dict[str, Any]:
    return {
        "training": [m.training for m in network.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "own": [sorted(vars(m)) for m in network.modules()],
        "chance": torch.get_rng_state().tolist(),
        "weights": {name: value.tolist() for name, value in network.state_dict().items()},
    }


@pytest.mark.parametrize("kind", [Head, Early, networks.Counting, networks.Tokens])
def test_the_network_is_left_as_it_was_found(kind: type[nn.Module]) -> None:
    """With BatchNorm's statistics, in training mode too."""
    network = build(kind).train()
    next(network.children()).eval()
    before = _state(network)
    ask(network, pictures())
    assert _state(network) == before


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_the_network_is_left_as_it_was_found_after_an_error(calls: int) -> None:
    class Breaking(Head):
        def forward(self, x: Tensor) -> Tensor:
            self.images += 1
            if self.images == calls:
                raise RuntimeError("broken on purpose")
            return super().forward(x)

    network = build(Breaking).train()
    before = _state(network)
    with pytest.raises(InputRefused, match="It says: broken on purpose"):
        ask(network, pictures())
    assert _state(network) == before


def test_an_own_forward_is_put_back() -> None:
    network = build(Head)
    own = network.conv1.forward
    network.conv1.forward = lambda x: own(x) * 2
    mine = network.conv1.forward
    found = ask(network, pictures())
    assert network.conv1.forward is mine
    close(found.plain, network(pictures()).softmax(1).detach())


def test_seeds() -> None:
    network, x = build(Head), pictures()
    first, again, other = (ask(network, x, seed=s).mean for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    torch.manual_seed(99)
    assert torch.equal(ask(network, x).mean, first)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 0.01), (torch.bfloat16, 0.05), (torch.float64, 1e-5)])
def test_other_floating_point_types(dtype: torch.dtype, atol: float) -> None:
    want, found = ask(build(Head), pictures()), ask(build(Head).to(dtype), pictures().to(dtype))
    assert found.mean.dtype == found.interval.dtype == torch.float32
    close(found.mean, want.mean, atol=atol, rtol=0)
    assert found.passes.forward == 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(mode: Any) -> None:
    network, want = build(Head), ask(build(Head), pictures()).mean
    with mode():
        assert torch.equal(ask(network, pictures()).mean, want)


@pytest.mark.compile
@pytest.mark.parametrize("way", networks.WAYS)
def test_compiled_networks(way: str) -> None:
    x = pictures()
    network = networks.compiled(build(Head), way, x)
    close(ask(network, x).mean, ask(build(Head), x).mean)


def test_a_model_and_its_way_of_giving_scores() -> None:
    x = pictures()
    close(ask(as_model(build(Head)), x).mean, ask(build(Head), x).mean)
    close(ask(build(networks.Wrapped, "dict"), x).mean, ask(build(networks.Pooled), x).mean)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"samples": 1}, "samples must be an integer of at least 2, got 1."),
    ({"samples": 10.0}, "samples must be an integer of at least 2, got 10.0."),
    ({"rate": 1}, "rate must lie between 0 and 1, both excluded, got 1."),
    ({"rate": True}, "rate must lie between 0 and 1, both excluded, got True."),
    ({"seed": None}, "seed must be an integer, got None."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items()))) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        EpistemicUncertainty(build(Head), **parameters)


def test_what_cannot_be_asked() -> None:
    said = "EpistemicUncertainty needs a torch module, whose dropout can be switched on; 'black_box' is none."

    def black_box(x: Tensor) -> Tensor:
        return x.mean((2, 3))

    with pytest.raises(MissingCapability, match="^" + re.escape(said) + "$"):
        ask(black_box, pictures())
    with pytest.raises(InvalidInput, match=r"^inputs must have shape \(N, C, H, W\), got \(3, 32, 32\)."):
        ask(build(Head), pictures()[0])
    said = r"^Probabilities lie in \[0, 1\], got .* to .*\. Use activation_fn='softmax' or 'sigmoid'\.$"
    with pytest.raises(BadOutput, match=said):
        ask(build(Head), pictures() * 9, activation_fn=None)


def test_detectors_are_refused() -> None:
    class Detector(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return detector(F.dropout(x, 0.5, self.training))

    said = "EpistemicUncertainty is for classifiers; this model gives several candidates an image."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        ask(Detector(), pictures())

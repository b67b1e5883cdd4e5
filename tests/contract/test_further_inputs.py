"""Networks that take more than pictures: each picture's own values follow it through everything."""

from __future__ import annotations

import re
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import registry
from seewhy.counterfactuals import HierarchicalOcclusion
from seewhy.errors import InputRefused, InvalidInput
from seewhy.explainers import GradCAM, Occlusion, ReciproCAM
from seewhy.models import at, bound
from seewhy.models.torch.model import TorchModel
from seewhy.ood.ood_net import OoDNet
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty
from support import uncertainty_cases
from support.explainer_cases import BATCHED, NAMES, SMALL, close, zoo
from support.networks import CLASSES, Parts, Pooled, build, pictures

META = torch.tensor([[-1.0, 0.3, 0.8], [0.9, -0.7, 0.1], [0.0, 1.5, -1.2], [2.0, 0.2, -0.4]])


class Tinted(nn.Module):
    """A network that sees each channel of a picture as strong as the picture's own metadata say."""

    def __init__(self, inner: nn.Module, width: int = 3) -> None:
        super().__init__()
        self.inner, self.gain = inner, nn.Linear(width, 3)

    def forward(self, x: Tensor, meta: Tensor) -> Any:
        return self.inner(x * self.gain(meta)[:, :, None, None].to(x))


class Joined(Parts):
    """Metadata beside the pooled features, as tabular data are joined to a picture's: rows must be as many."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Sequential(nn.Linear(19, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.last(torch.cat([self.pool(self.features(x)).flatten(1), meta], 1))


def tinted(name: str = "") -> Tinted:
    return build(lambda: Tinted(zoo(name).Pooled()))


def explainer(name: str, network: nn.Module, meta: Any, **parameters: Any) -> Any:
    model = TorchModel(network, forward_kwargs={"meta": meta})
    kind, options = registry.load("explainers", name), {**SMALL.get(name, {}), **parameters}
    return kind(familiar(network), network=model, **options) if name == "rise_plus" else kind(model, **options)


def familiar(network: nn.Module) -> OoDNet:
    with torch.random.fork_rng():
        found = OoDNet(network, CLASSES)
    nn.init.ones_(found.class_vectors)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_batch_has_the_maps_of_its_pictures_alone(name: str) -> None:
    network, x = tinted(name), pictures(4)
    together = explainer(name, network, META).attribute(x, [0, 1, 2, 3])
    for i in range(4):
        close(together[i : i + 1], explainer(name, network, META[i : i + 1]).attribute(x[i : i + 1], i), 2e-5)
    if name not in ("random_map", "centre_map"):
        other = explainer(name, network, META.roll(1, 0)).attribute(x, [0, 1, 2, 3])
        assert float((other - together).abs().max()) > 1e-4 * float(together.abs().max()), "metadata do not matter"


@pytest.mark.parametrize(
    "name", [n for n in BATCHED if n not in ("det_class_probability_map", "vit_recipro_cam", "tis")]
)
def test_chunks_as_long_as_the_batch_do_not_mix_pictures_up(name: str) -> None:
    network, x = tinted(name), pictures(4)
    want = explainer(name, network, META).attribute(x, [[0, 1]] * 4)
    close(explainer(name, network, META, perturbation_per_eval=4).attribute(x, [[0, 1]] * 4), want, 2e-5)


@pytest.mark.parametrize("method", [GradCAM, ReciproCAM, Occlusion])
def test_rows_that_are_joined_to_features(method: Any) -> None:
    network, x = build(Joined), pictures(4)
    together = method(TorchModel(network, forward_kwargs={"meta": META})).attribute(x, "all")
    for i in range(4):
        alone = method(TorchModel(network, forward_kwargs={"meta": META[i : i + 1]}))
        close(together[i : i + 1], alone.attribute(x[i : i + 1], "all"))


def test_one_row_for_all_is_given_to_every_picture() -> None:
    network, x = build(Joined), pictures(4)
    one = Occlusion(TorchModel(network, forward_kwargs={"meta": META[:1]}), window=8, stride=8).attribute(x, 1)
    same = Occlusion(TorchModel(network, forward_kwargs={"meta": META[:1].expand(4, -1)}), window=8, stride=8)
    close(one, same.attribute(x, 1))
    assert TorchModel(network, forward_kwargs={"meta": META[:1]})(x).scores.shape == (4, 1, CLASSES)


class Nested(Pooled):
    """Values inside dictionaries, lists and tuples, arrays, words and flags."""

    def forward(self, x: Tensor, info: Any = None, flag: bool = False) -> Tensor:
        names, (table, scale) = info["words"], info["both"]
        first = torch.tensor([float(len(word)) for word in names])
        assert isinstance(table, np.ndarray)
        assert flag
        weight = first + torch.from_numpy(table).sum(1).float() + info["list"][0][:, 0]
        return super().forward(x * weight[:, None, None, None] * scale)


def test_values_inside_dictionaries_lists_and_tuples() -> None:
    network, x, words = build(Nested), pictures(4), ["a", "bcd", "ef", "ghijk"]

    def info(rows: slice) -> Any:
        table = META.numpy()[rows].astype(np.float64)
        return {"info": {"words": words[rows], "both": (table, 0.5), "list": [META[rows]]}, "flag": True}

    together = Occlusion(TorchModel(network, forward_kwargs=info(slice(None))), window=8, stride=8).attribute(x, 1)
    for i in range(4):
        alone = TorchModel(network, forward_kwargs=info(slice(i, i + 1)))
        close(together[i : i + 1], Occlusion(alone, window=8, stride=8).attribute(x[i : i + 1], 1))


class Prompted(Parts):
    """Scores are similarities to prompts: a matrix whose number of rows has nothing to do with the pictures."""

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        return self.pool(self.features(x)).flatten(1) @ prompts.T


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_matrix_as_long_as_the_batch_is_no_row_for_each(n: int, count: int) -> None:
    network, x = build(Prompted), pictures(n)
    prompts = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))
    model = TorchModel(network, forward_kwargs={"prompts": prompts})
    want = Occlusion(lambda x: network(x, prompts), window=16, stride=16, activation_fn=None).attribute(x, "all")
    close(Occlusion(model, window=16, stride=16, activation_fn=None).attribute(x, "all"), want)
    assert want.shape[1] == count


class Turned(Parts):
    """Metadata with the pictures in the second dimension, which nobody can guess."""

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.scores(x * meta.mean(0)[:, None, None, None])


def test_what_goes_with_no_picture_is_an_error_that_names_it() -> None:
    model = TorchModel(build(Turned), forward_kwargs={"meta": META[:, :3]})
    said = (
        "How the further inputs go with the images is not clear: meta (4, 3), for 3 images. What the network says of "
        "an image changes with the number of its copies. Give each a first dimension of 3 (one row an image) or of 1 "
        "(the same for all)."
    )
    with pytest.raises(InvalidInput, match=re.escape(said)):
        Occlusion(model).attribute(pictures(3), 0)


def test_other_numbers_of_pictures_than_rows() -> None:
    model = TorchModel(tinted(), forward_kwargs={"meta": META})
    with pytest.raises(InputRefused, match=re.escape("3 x 3 channels x 32 x 32 pixels with meta (4, 3).")):
        Occlusion(model).attribute(pictures(3), 0)
    own = bound(model, pictures(4))
    said = "have a row for each of 4 images, and 2 images came. Say which: model.at(rows)"
    with pytest.raises(InvalidInput, match=re.escape(said)):
        own(pictures(2))
    both = torch.tensor([3, 1])
    close(at(own, both)(pictures(4)[both]).scores, own(pictures(4)).scores[both])


def test_the_values_are_left_as_they_were() -> None:
    class Careless(Tinted):
        def forward(self, x: Tensor, meta: Tensor) -> Any:
            return super().forward(x, meta.mul_(2))

    meta = META.clone()
    Occlusion(TorchModel(build(lambda: Careless(Pooled())), forward_kwargs={"meta": meta})).attribute(pictures(4), 0)
    assert torch.equal(meta, META)


def test_the_search_for_the_rows_costs_a_pass_of_the_batch_and_three_copies_once() -> None:
    model = TorchModel(tinted(), forward_kwargs={"meta": META})
    passes = [GradCAM(model, layer="inner.act2").run(pictures(4), 0).passes.forward for _ in range(2)]
    assert passes == [4 + 3 + 4, 4]


# ------------------------------------------------------------------------------------- metrics, uncertainty and others

METRICS = registry.names("metrics")
FEW = {
    "deletion_auc": {"steps": 6}, "insertion_auc": {"steps": 6}, "naive_faithfulness": {"steps": 6},
    "faithfulness": {"steps": 6}, "deletion": {"pixels_per_step": 256}, "insertion": {"pixels_per_step": 256},
    "infidelity": {"samples": 8}, "max_sensitivity": {"samples": 3}, "robustness": {"samples": 3}, "mprt": {"steps": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_a_batch_are_those_of_its_pictures(name: str) -> None:
    metric, network, x = registry.load("metrics", name)(**FEW.get(name, {})), tinted(), pictures(4)
    mask = torch.zeros(4, 32, 32, dtype=torch.bool)
    mask[:, 4:20, 8:24] = True
    options = {"window": 16, "stride": 16}
    together = metric.evaluate(explainer("occlusion", network, META, **options), x, [0, 1, 2, 3], mask=mask)
    alone = [
        metric.evaluate(explainer("occlusion", network, META[i : i + 1], **options), x[i : i + 1], [i], mask=mask[:1])
        for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4, equal_nan=True)


def test_uncertainty() -> None:
    network, x = build(lambda: Tinted(uncertainty_cases.Head())), pictures(4)
    together = EpistemicUncertainty(TorchModel(network, forward_kwargs={"meta": META}), samples=4)(x)
    for i in range(4):
        model = TorchModel(network, forward_kwargs={"meta": META[i : i + 1]})
        alone = EpistemicUncertainty(model, samples=4, perturbation_per_eval=3)(x[i : i + 1])
        close(together.mean[i : i + 1], alone.mean)
        close(together.std[i : i + 1], alone.std)


class Bright(nn.Module):
    """A class for each channel, the likelier the brighter it is."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.mean((2, 3))


def test_hierarchical_occlusion() -> None:
    network, x = build(lambda: Tinted(Bright())), pictures(4, height=64, width=64).abs()
    options: Any = {"threshold": 0.7, "window": 32, "num_layers": 1, "perturbation_per_eval": 4, "fill": 0.0}
    together = HierarchicalOcclusion(TorchModel(network, forward_kwargs={"meta": META}), **options)(x)
    assert sum(row[0].found for row in together) >= 2
    for i in range(4):
        model = TorchModel(network, forward_kwargs={"meta": META[i : i + 1]})
        alone, own = HierarchicalOcclusion(model, **options)(x[i : i + 1])[0][0], together[i][0]
        assert alone.probability == pytest.approx(own.probability, abs=1e-4)
        assert alone.found == own.found
        if alone.found:
            assert [node.box for node in alone.root.walk()] == [node.box for node in own.root.walk()]


def test_compare_and_runs_take_one_row_a_picture_of_the_data() -> None:
    network, x = tinted(), pictures(3)
    data = [x[i] for i in range(3)]
    model = TorchModel(network, forward_kwargs={"meta": META[:3]})
    options: Any = {"baselines": False, "progress": False, "resamples": 100}
    found = seewhy.compare(model, data, "occlusion(window=16, stride=16)", "deletion_auc(steps=5)", **options)
    assert not found.failures
    for i in range(3):
        own = TorchModel(network, forward_kwargs={"meta": META[i : i + 1]})
        one = seewhy.compare(
            own, data[i : i + 1], "occlusion(window=16, stride=16)", "deletion_auc(steps=5)", **options
        )
        assert found.values[0, 0, i] == pytest.approx(one.values[0, 0, 0], abs=1e-5)


# ------------------------------------------------------------------------------------------- the picture's own argument


class Late(Parts):
    def forward(self, meta: Tensor, image: Tensor) -> Tensor:
        return self.scores(image * meta[:, :, None, None])


class Hugging(Pooled):
    def forward(self, input_ids: Any = None, pixel_values: Any = None, flag: bool = True) -> Tensor:
        assert input_ids is None or len(input_ids) == len(pixel_values)
        return super().forward(pixel_values)


class Boxed(Parts):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.scores(batch["photo"] * batch["meta"][:, :, None, None])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Late, {"forward_kwargs": {"meta": META}}),
        (Hugging, {}),
        (Hugging, {"forward_kwargs": {"input_ids": torch.ones(4, 2)}}),
        (Boxed, {"forward_kwargs": {"meta": META}, "input_name": "photo"}),
    ],
)
def test_the_argument_that_takes_the_picture(kind: Any, options: Any) -> None:
    network, x = build(kind), pictures(4)
    model = seewhy.load(network, **options)
    tint = META[:, :, None, None] if kind in (Late, Boxed) else 1
    close(model(x).classes, build(Pooled)(x * tint).detach())
    for method in ("grad_cam", "recipro_cam", "occlusion"):
        close(seewhy.explain(model, x, 1, method, progress=False).saliency[2:3],
              seewhy.explain(_alone(network, options), x[2:3], 1, method, progress=False).saliency)  # fmt: skip


def _alone(network: nn.Module, options: dict[str, Any]) -> Any:
    values = {name: value[2:3] for name, value in options.get("forward_kwargs", {}).items()}
    return seewhy.load(network, **{**options, "forward_kwargs": values})


def test_a_dictionary_as_processors_return_it() -> None:
    class Encoding(UserDict[str, Any]):
        pass

    network, x = build(Late), pictures(4)
    given = Encoding({"image": x, "meta": META})
    want = seewhy.explain(seewhy.load(network, forward_kwargs={"meta": META}), x, 1, "occlusion", progress=False)
    close(seewhy.explain(network, given, 1, "occlusion", progress=False).raw, want.raw)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "The forward of Tinted takes the pictures as 'x' and also needs 'meta'. Pass seewhy.load(network, "
             "forward_kwargs={'meta': ...}), each with one row an image or one for all"),
        ({"forward_kwargs": {"mta": META}}, "The forward of Tinted has no argument 'mta'. Did you mean 'meta'?"),
        ({"forward_kwargs": {"meta": META}, "input_name": "picture"},
         "The forward of Tinted has no argument 'picture' for the pictures."),
        ({"forward_kwargs": {"meta": META[:, :2]}}, "Tinted refuses an input of 4 x 3 channels x 32 x 32 pixels with "
         "meta (4, 2). It failed in 'gain' (Linear). It says: mat1 and mat2 shapes"),
        ({"forward_kwargs": {"meta": None}}, "with meta None. It failed in 'gain' (Linear). It says: linear()"),
    ],
)  # fmt: skip
def test_the_refusal_blames_what_is_at_fault(options: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        seewhy.explain(seewhy.load(tinted(), **options), pictures(4), 1, "occlusion", progress=False)

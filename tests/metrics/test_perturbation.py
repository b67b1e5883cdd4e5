"""What every metric that changes pixels must hold to, whatever it makes of the scores."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers import Gradient
from seewhy.maps import scale
from seewhy.metrics import (
    IDSDS,
    IROF,
    ROAD,
    Deletion,
    DeletionAUC,
    Faithfulness,
    Insertion,
    InsertionAUC,
    Metric,
    NaiveFaithfulness,
)
from seewhy.progress import listening
from seewhy.targets import BoxTarget, ClassTarget, SimilarityTarget
from support import networks
from support.metric_cases import Rough, case, rough
from support.networks import build, detector, pictures
from support.typed import unchecked

ALL: dict[str, Metric] = {
    "deletion": Deletion(pixels_per_step=20),
    "insertion": Insertion(pixels_per_step=20),
    "deletion_auc": DeletionAUC(steps=9),
    "insertion_auc": InsertionAUC(steps=9),
    "naive": NaiveFaithfulness(steps=9),
    "faithfulness": Faithfulness(metric="DeletionAUC", steps=9),
    "road": ROAD(percentiles=(20, 60)),
    "road morf": ROAD(percentiles=(20, 60), order="MoRF"),
    "road lerf": ROAD(percentiles=(20, 60), order="LeRF"),
    "irof": IROF(segments=12),
    "idsds": IDSDS(grid=3),
}
every = pytest.mark.parametrize("metric", ALL.values(), ids=ALL.keys())


@every
@pytest.mark.parametrize("size", [(8, 12), (3, 5), (31, 17)])
def test_passes_are_as_many_as_said(metric: Metric, size: tuple[int, int]) -> None:
    images = 0

    def network(x: Tensor) -> Tensor:
        nonlocal images
        images += len(x)
        return Rough()(x)

    one = rough(*size)
    metric(case(network, one.saliency, one.image))
    assert images == metric.cost(*size).forward
    assert metric.cost(*size).explanations == 0


def test_costs_of_the_defaults() -> None:
    assert DeletionAUC().cost(224, 224).forward == 101
    assert DeletionAUC().cost(5, 5).forward == 26
    assert Faithfulness().cost(224, 224).forward == 101
    assert Deletion().cost(224, 224).forward == 225
    assert Insertion().cost(224, 225).forward == 226
    assert IDSDS().cost(224, 224).forward == 17
    assert IROF().cost(224, 224).forward == 17 * 18 + 1


def _tell(told: list[tuple[int, int]], done: int, total: int) -> None:
    told.append((done, total))


@every
def test_the_size_of_the_passes_does_not_matter_and_progress_is_told(metric: Metric) -> None:
    one, count = rough(8, 12), metric.cost(8, 12).forward
    want = metric(one)
    sizes: tuple[int | str, ...] = (1, 3, 1000, "auto")
    for size in sizes:
        told: list[tuple[int, int]] = []
        with listening(partial(_tell, told)):
            assert replace(unchecked(metric), perturbation_per_eval=size)(one) == pytest.approx(want, abs=2e-5)
        assert told[-1] == (count, count)
        if isinstance(size, int):
            assert len(told) == math.ceil(count / size)


@every
def test_scaled_maps_are_judged_as_raw_ones(metric: Metric) -> None:
    one = rough(8, 12)
    assert metric(case(Rough(), scale(one.saliency), one.image, 2)) == pytest.approx(metric(one), abs=1e-6)


@every
def test_flat_maps_give_numbers_and_only_the_seed_decides(metric: Metric) -> None:
    image = pictures(1, 3, 12, 18)[0]
    found: dict[int, list[float]] = {seed: [] for seed in (0, 1)}
    for flat in (torch.zeros(12, 18), torch.full((12, 18), 0.7), 5 + 3e-6 * torch.rand(12, 18)):
        for seed in found:
            judge = replace(unchecked(metric), seed=seed) if hasattr(metric, "seed") else metric
            found[seed].append(judge(case(Rough(), flat, image, 1)))
    assert len(set(found[0])) == len(set(found[1])) == 1
    assert not math.isnan(found[0][0])
    assert (found[0] != found[1]) == (hasattr(metric, "seed") and not isinstance(metric, NaiveFaithfulness))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types(metric: Metric, dtype: torch.dtype) -> None:
    network, x = build(networks.Pooled), pictures(1, height=16, width=24)
    saliency = torch.randn(1, 16, 24)
    want = metric.evaluate(Gradient(network), x, 1, saliency=saliency)
    turned = metric.evaluate(Gradient(network.to(dtype)), x.to(dtype), 1, saliency=saliency.to(dtype))
    assert math.isfinite(float(turned))
    if dtype == torch.float64:
        assert float(turned) == pytest.approx(float(want), abs=1e-3)


@every
def test_one_channel_and_pictures_that_are_not_square(metric: Metric) -> None:
    """Turning the picture, the map and the network gives the same number."""
    one = rough(12, 18, channels=1)
    turned = case(lambda x: Rough()(x.transpose(2, 3)), one.saliency.T, one.image.transpose(1, 2), 2)
    if isinstance(metric, ROAD):
        metric = replace(metric, noise=0.0)
    assert metric(turned) == pytest.approx(metric(one), abs=1e-5)


@every
def test_boxes_classes_and_embeddings(metric: Metric) -> None:
    image = torch.zeros(3, 16, 24)
    image[0, :8, :12] = 1
    saliency = image[0] + 0.01 * torch.rand(16, 24)
    box = BoxTarget(box=(0, 0, 12, 8), label=0)
    assert math.isfinite(metric(case(detector, saliency, image, box)))
    one = rough(8, 12, target=ClassTarget(label=2))
    assert metric(one) == metric(rough(8, 12))
    own = SimilarityTarget(embedding=one.model(one.image[None]).classes[0])
    assert math.isfinite(metric(rough(8, 12, target=own)))


def test_every_form_of_the_baseline() -> None:
    one = rough(8, 12)
    mean = one.image.mean((1, 2)).view(1, 3, 1, 1)
    for kind in (DeletionAUC, InsertionAUC, NaiveFaithfulness, Deletion, Insertion, IROF, IDSDS):
        assert kind(baseline="mean")(one) == pytest.approx(kind(baseline=mean)(one), abs=1e-6)
        assert kind(baseline=0)(one) != pytest.approx(kind(baseline="blur")(one), abs=1e-6)
        with pytest.raises(InvalidInput, match=re.escape("The baseline must broadcast to the inputs, (1, 3, 8, 12)")):
            kind(baseline=torch.zeros(5, 5))(one)


def test_which_end_is_better() -> None:
    assert {name: (m.better, m.range) for name, m in ALL.items()} == {
        "deletion": ("lower", (-math.inf, math.inf)),
        "insertion": ("higher", (-math.inf, math.inf)),
        "deletion_auc": ("higher", (0.0, 1.0)),
        "insertion_auc": ("higher", (0.0, 1.0)),
        "naive": ("higher", (0.0, 1.0)),
        "faithfulness": ("higher", (0.0, 1.0)),
        "road": ("higher", (-math.inf, math.inf)),
        "road morf": ("higher", (-math.inf, math.inf)),
        "road lerf": ("higher", (-math.inf, math.inf)),
        "irof": ("higher", (-math.inf, 1.0)),
        "idsds": ("higher", (-1.0, 1.0)),
    }


ACTIVATION = "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."
BASELINE = "baseline must be a number, 'mean', 'blur' or a tensor, got 'black'."
WRONG = [
    (DeletionAUC, {"steps": 1}, "steps must be an integer of at least 2, got 1."),
    (NaiveFaithfulness, {"steps": True}, "steps must be an integer of at least 2, got True."),
    (InsertionAUC, {"steps": 5.0}, "steps must be an integer of at least 2, got 5.0."),
    (Faithfulness, {"steps": 0}, "steps must be an integer of at least 2, got 0."),
    (DeletionAUC, {"seed": 0.5}, "seed must be an integer, got 0.5."),
    (Deletion, {"seed": None}, "seed must be an integer, got None."),
    (IROF, {"seed": False}, "seed must be an integer, got False."),
    (Deletion, {"pixels_per_step": 0}, "pixels_per_step must be a positive integer, got 0."),
    (DeletionAUC, {"baseline": "black"}, BASELINE),
    (Deletion, {"baseline": "black"}, BASELINE),
    (Insertion, {"baseline": "black"}, BASELINE),
    (IDSDS, {"baseline": "black"}, BASELINE),
    (IROF, {"baseline": "black"}, BASELINE),
    (Faithfulness, {"baseline": "black"}, BASELINE),
    (Deletion, {"baseline": None}, "baseline must be a number, 'mean', 'blur' or a tensor, got None."),
    (Faithfulness, {"metric": "Deletion"},
     "metric must be 'NaiveFaithfulness', 'DeletionAUC' or 'InsertionAUC', got 'Deletion'."),
    (Faithfulness, {"num_labels": 0}, "num_labels must be a positive integer or None, got 0."),
    (Faithfulness, {"activation_fn": "relu"}, ACTIVATION),
    (IDSDS, {"activation_fn": "relu"}, ACTIVATION),
    (Insertion, {"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
    (IDSDS, {"grid": (3, 0)}, "grid must be a positive integer or a pair (down, across) of them, got (3, 0)."),
    (IDSDS, {"grid": 2.0}, "grid must be a positive integer or a pair (down, across) of them, got 2.0."),
    (IROF, {"segments": 1}, "segments must be an integer of at least 2, got 1."),
    (IROF, {"method": "SLIC"}, "method must be 'grid' or 'slic', got 'SLIC'."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "parameters", "said"), WRONG, ids=[f"{k.__name__} {p}" for k, p, _ in WRONG])
def test_wrong_parameters(kind: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        kind(**parameters)

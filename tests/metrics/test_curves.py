"""Deletion, insertion and faithfulness against closed forms and slow twins, at both ends of the scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.metrics import Case, Deletion, DeletionAUC, Faithfulness, Insertion, InsertionAUC, NaiveFaithfulness
from seewhy.metrics._curves import cells, edges, places
from seewhy.targets import BoxTarget
from support.metric_cases import all_network, any_network, blind_network, case, mean_network, patch, rough, slow_score
from support.networks import detector, pictures


def slow_curve(one: Case, start: Tensor, end: Tensor, bounds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel after pixel, the most salient first; the score at every bound."""
    now = start.numpy().copy()
    order = np.argsort(-one.saliency.numpy().ravel(), kind="stable")
    shares, found = [0.0], [slow_score(one, now)]
    for low, high in itertools.pairwise(bounds):
        for pixel in order[low:high]:
            now[:, pixel // now.shape[2], pixel % now.shape[2]] = end[:, pixel // now.shape[2], pixel % now.shape[2]]
        shares.append(high / len(order))
        found.append(slow_score(one, now))
    return np.array(shares), np.array(found)


def bounds_of(pixels: int, steps: int) -> list[int]:
    return [k * pixels // steps for k in range(steps + 1)]


@pytest.mark.parametrize(("count", "parts"), [(80, 8), (81, 8), (7, 3), (5, 100), (1, 2), (50176, 224)])
def test_slabs_hold_every_pixel_and_are_as_equal_as_can_be(count: int, parts: int) -> None:
    found = edges(count, parts)
    assert (int(found[0]), int(found[-1]), len(found)) == (0, count, min(count, parts) + 1)
    sizes = found.diff()
    assert int(sizes.min()) >= 1
    assert int(sizes.max()) - int(sizes.min()) <= 1


def test_places_fall_with_the_values_and_ties_are_drawn_from_the_seed() -> None:
    values = torch.tensor([[0.0, 3.0, 1.0], [1.0, -2.0, 1.0]])
    found = places(values, 0)
    assert (int(found[0, 1]), int(found[0, 0]), int(found[1, 1])) == (0, 4, 5)
    assert sorted(found.flatten().tolist()) == list(range(6))
    tied = {tuple(places(values, seed)[[0, 1, 1], [2, 0, 2]].tolist()) for seed in range(60)}
    assert tied == set(itertools.permutations([1, 2, 3]))
    assert torch.equal(found, places(values, 0))


def test_cells_of_a_grid() -> None:
    assert cells(2, 4, 1, 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert cells(3, 5, 3, 5).flatten().tolist() == list(range(1, 16))
    sizes = cells(10, 13, 4, 3).flatten().bincount()[1:]
    assert len(sizes) == 12
    assert set(sizes.tolist()) <= {a * b for a in (2, 3) for b in (4, 5)}


def test_deletion_on_a_linear_score() -> None:
    """Removing the patch first takes the score down in a straight line over 1/8 of the pixels."""
    perfect, inverted = case(mean_network, patch()), case(mean_network, -patch())
    options = {"activation_fn": None, "steps": 80}
    assert DeletionAUC(**options)(perfect) == pytest.approx(1 - 1 / 16)
    assert DeletionAUC(**options)(inverted) == pytest.approx(1 / 16)
    assert Deletion(activation_fn=None, pixels_per_step=1)(perfect) == pytest.approx(1 / 16)
    assert Deletion(activation_fn=None, pixels_per_step=1)(inverted) == pytest.approx(1 - 1 / 16)


def test_insertion_on_a_linear_score() -> None:
    perfect, inverted = case(mean_network, patch()), case(mean_network, -patch())
    for metric in (
        InsertionAUC(activation_fn=None, steps=80, baseline=0.0),
        Insertion(activation_fn=None, pixels_per_step=1, baseline=0.0),
        Faithfulness(None, None, "InsertionAUC", steps=80),
    ):
        assert metric(perfect) == pytest.approx(1 - 1 / 16)
        assert metric(inverted) == pytest.approx(1 / 16)


def test_a_map_whose_deletion_kills_the_score_at_once_is_near_1_and_a_useless_one_near_0() -> None:
    """Also where the untouched image's probability is 0.6 only: not the other way round, and not 0.4."""
    for metric in (DeletionAUC(activation_fn=None, steps=80), Faithfulness(None, None, "DeletionAUC", steps=80)):
        assert metric(case(all_network, patch())) == pytest.approx(1 - 1 / 160)
        assert metric(case(any_network, -patch())) == pytest.approx(1 / 160)
    assert DeletionAUC(activation_fn=None)(case(blind_network, patch())) == 0


def test_insertion_that_brings_the_score_at_once_is_near_1_and_the_last_pixel_near_0() -> None:
    metric = InsertionAUC(activation_fn=None, steps=80, baseline=0.0)
    assert metric(case(any_network, patch())) == pytest.approx(1 - 1 / 160)
    assert metric(case(all_network, -patch())) == pytest.approx(1 / 160)


def test_all_pixels_are_covered() -> None:
    """A score that is gone only with the very last pixel: half of the pixels would not do."""
    saliency = torch.arange(80.0, 0, -1).view(8, 10)
    last = case(lambda x: x[:, :, -1, -1].repeat(1, 2), saliency)
    assert DeletionAUC(activation_fn=None, steps=80)(last) == pytest.approx(1 / 160)
    assert Deletion(activation_fn=None, pixels_per_step=1)(last) == pytest.approx(1 - 1 / 160)
    assert Insertion(activation_fn=None, pixels_per_step=1, baseline=0.0)(last) == pytest.approx(1 / 160)
    whole = case(lambda x: x.mean((2, 3)).repeat(1, 2), saliency)
    for steps in (2, 7, 80, 1000):
        assert DeletionAUC(activation_fn=None, steps=steps)(whole) == pytest.approx(0.5, abs=1e-6)


def test_naive_faithfulness_at_both_ends() -> None:
    """The drop of a slab alone is its share of the weights: proportional to the saliency, or to its opposite."""
    weight = torch.rand(80, generator=torch.Generator().manual_seed(3)).view(8, 10)

    def network(x: Tensor) -> Tensor:
        return (x[:, 0] * weight).sum((1, 2))[:, None].repeat(1, 2) / 80

    for steps in (5, 8, 80):
        metric = NaiveFaithfulness(activation_fn=None, steps=steps)
        assert metric(case(network, 4 * weight - 1)) == pytest.approx(1, abs=1e-5)
        assert metric(case(network, -weight)) == pytest.approx(0, abs=1e-5)


def test_naive_faithfulness_removes_one_slab_at_a_time() -> None:
    """A score that saturates: with all earlier slabs removed too, the drops would not be those of the slabs alone."""
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.mean((2, 3)).repeat(1, 2)

    NaiveFaithfulness(activation_fn=None, steps=8, perturbation_per_eval=9)(case(network, torch.rand(8, 10)))
    removed = 1 - torch.cat(seen)[:, 0]
    assert removed.sum((1, 2)).tolist() == [0] + [10] * 8
    assert torch.equal(removed.sum(0), torch.ones(8, 10))


def test_constants_give_one_half() -> None:
    metric = NaiveFaithfulness(activation_fn=None, steps=8)
    for flat in (torch.zeros(8, 10), torch.full((8, 10), 0.1), 3 + 2e-6 * torch.rand(8, 10)):
        assert metric(case(mean_network, flat)) == 0.5
    jitter = case(lambda x: blind_network(x) + 1e-7 * torch.rand(len(x), 2), patch())
    for one in (case(blind_network, patch()), jitter):
        assert metric(one) == 0.5
        assert Faithfulness(None, None, steps=8)(one) == 0.5


def test_the_area_is_the_published_one_and_not_divided_by_the_first_probability() -> None:
    one = case(lambda x: 0.4 * mean_network(x), patch())
    assert Deletion(activation_fn=None, pixels_per_step=1)(one) == pytest.approx(0.4 / 16)
    assert DeletionAUC(activation_fn=None, steps=80)(one) == pytest.approx(1 - 1 / 16)


def test_scores_above_the_untouched_images_count_as_it() -> None:
    """Every pixel taken away raises this score: nothing is lost, and nothing is gained for it."""
    one = case(lambda x: 2 - x.mean((2, 3)).repeat(1, 2), patch())
    assert DeletionAUC(activation_fn=None)(one) == 0
    assert InsertionAUC(activation_fn=None, baseline=0.0)(one) == 1


def test_no_score_is_no_data() -> None:
    for value in (0.0, -2.0):
        one = case(lambda x, value=value: torch.full((len(x), 2), value), patch())
        assert math.isnan(DeletionAUC(activation_fn=None)(one))
        assert math.isnan(InsertionAUC(activation_fn=None)(one))


def test_logits_have_areas_of_any_size() -> None:
    one = case(lambda x: 40 * mean_network(x) - 30, patch())
    assert Deletion(activation_fn=None, pixels_per_step=1)(one) == pytest.approx(40 / 16 - 30)
    assert 0 <= DeletionAUC(activation_fn=None)(one) <= 1


@pytest.mark.parametrize(("height", "width", "channels", "step"), [(8, 12, 3, 10), (9, 7, 1, 7), (6, 4, 2, 224)])
def test_deletion_and_insertion_of_rise_against_a_slow_twin(height: int, width: int, channels: int, step: int) -> None:
    one = rough(height, width, channels)
    bounds = [*range(0, height * width, step), height * width]
    x, y = slow_curve(one, one.image, torch.zeros_like(one.image), bounds)
    assert Deletion(pixels_per_step=step)(one) == pytest.approx(np.trapezoid(y, x), abs=1e-6)
    x, y = slow_curve(one, slow_blur(one.image), one.image, bounds)
    assert Insertion(pixels_per_step=step)(one) == pytest.approx(np.trapezoid(y, x), abs=1e-6)


def slow_blur(image: Tensor) -> Tensor:
    """The authors' kernel: a point in a window of 11 x 11, blurred there by scipy with sigma 5."""
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.from_numpy(scipy.ndimage.gaussian_filter(point, 5)).float()[None, None]
    return F.conv2d(image.unsqueeze(1), kernel, padding=5)[:, 0]


def test_the_blur_of_insertion_is_the_published_one() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.mean((2, 3))

    for size in ((32, 40), (4, 6)):
        image = pictures(1, 3, *size)[0]
        Insertion()(case(network, torch.rand(size), image))
        torch.testing.assert_close(seen[-1][0], slow_blur(image), atol=1e-5, rtol=0)
        assert torch.equal(seen[-1][-1], image)


def test_equal_steps_give_the_mean_of_the_curve_with_half_its_ends() -> None:
    """The formula of the authors' evaluation, where the pixels are a multiple of the step."""
    one = rough(8, 12)
    _, y = slow_curve(one, one.image, torch.zeros_like(one.image), [*range(0, 97, 12)])
    want = (y.sum() - y[0] / 2 - y[-1] / 2) / (len(y) - 1)
    assert Deletion(pixels_per_step=12)(one) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(("height", "width", "steps"), [(8, 12, 10), (9, 7, 100), (5, 5, 3)])
def test_faithfulness_against_a_slow_twin(height: int, width: int, steps: int) -> None:
    one = rough(height, width)
    count = min(steps, height * width)
    bounds, zero = bounds_of(height * width, count), torch.zeros_like(one.image)
    x, y = slow_curve(one, one.image, zero, bounds)
    deletion = 1 - np.trapezoid(np.minimum(y / y[0], 1), x)
    x, y = slow_curve(one, zero, one.image, bounds)
    insertion = np.trapezoid(np.minimum(y / y[-1], 1), x)
    naive = slow_naive(one, bounds)
    for name, want in (("DeletionAUC", deletion), ("InsertionAUC", insertion), ("NaiveFaithfulness", naive)):
        assert Faithfulness(5, "softmax", name, steps=steps)(one) == pytest.approx(want, abs=2e-5)
    assert DeletionAUC(steps=steps)(one) == pytest.approx(deletion, abs=1e-5)
    assert InsertionAUC(steps=steps, baseline=0.0)(one) == pytest.approx(insertion, abs=1e-5)
    assert NaiveFaithfulness(steps=steps)(one) == pytest.approx(naive, abs=2e-5)


def slow_naive(one: Case, bounds: list[int]) -> float:
    order, before = np.argsort(-one.saliency.numpy().ravel()), slow_score(one, one.image)
    means, drops = [], []
    for low, high in itertools.pairwise(bounds):
        now = one.image.numpy().copy().reshape(len(one.image), -1)
        now[:, order[low:high]] = 0
        means.append(one.saliency.numpy().ravel()[order[low:high]].mean())
        drops.append(before - slow_score(one, now.reshape(one.image.shape)))
    return (np.corrcoef(means, drops)[0, 1] + 1) / 2


def test_the_documented_form_uses_zero_and_the_plain_one_a_blurred_image() -> None:
    one = rough(8, 12)
    insertion = Faithfulness(metric="InsertionAUC")(one)
    assert insertion == InsertionAUC(baseline=0.0)(one)
    assert insertion != pytest.approx(InsertionAUC()(one), abs=1e-4)
    assert (
        InsertionAUC()(one)
        == InsertionAUC(baseline="blur")(one)
        == Faithfulness(metric="InsertionAUC", baseline="blur")(one)
    )
    assert DeletionAUC()(one) == Faithfulness(metric="DeletionAUC")(one)


def test_faithfulness_takes_its_documented_arguments_by_position() -> None:
    metric = Faithfulness(20, torch.sigmoid, "DeletionAUC")
    assert (metric.num_labels, metric.activation_fn, metric.metric, metric.baseline) == (
        20, torch.sigmoid, "DeletionAUC", 0.0,
    )  # fmt: skip
    assert Faithfulness(num_labels=20, metric="InsertionAUC", activation_fn=nn.Softmax(-1))(rough(8, 12)) == (
        Faithfulness(metric="InsertionAUC")(rough(8, 12))
    )
    with pytest.raises(TypeError):
        Faithfulness(20, "softmax", "DeletionAUC", 32)


def test_a_box_is_found_by_its_own_map() -> None:
    image = torch.zeros(3, 16, 24)
    image[0, :8, :12] = 1
    right, wrong = image[0], image[0].flip(1)
    box = BoxTarget(box=(0, 0, 12, 8), label=0)
    assert DeletionAUC()(case(detector, right, image, box)) > 0.85
    assert DeletionAUC()(case(detector, wrong, image, box)) < 0.6


def test_the_protocol_is_said_with_every_number() -> None:
    assert Deletion().describe() == (
        "Deletion: pixels replaced by 0.0 in network space, 224 pixels a step, probability, trapezoid"
    )
    assert Insertion().describe() == (
        "Insertion: pixels shown on the image blurred with 11 x 11 pixels, sigma 5, 224 pixels a step, "
        "probability, trapezoid"
    )
    coloured = Deletion(baseline="mean", pixels_per_step=50)
    given = Insertion(baseline=torch.zeros(3, 1, 1), activation_fn=torch.sigmoid)
    other = [
        (coloured, "pixels replaced by the image's mean colour, 50 pixels a step, probability"),
        (given, "pixels shown on a given tensor (3, 1, 1), 224 pixels a step, score after sigmoid"),
        (Insertion(baseline="blur", activation_fn="sigmoid"), "image blurred, 224 pixels a step, sigmoid probability"),
        (Deletion(activation_fn=None), "0.0 in network space, 224 pixels a step, logit"),
        (Deletion(activation_fn=nn.Softmax(-1)), "224 pixels a step, score after Softmax"),
    ]
    for metric, said in other:
        assert f"{said}, trapezoid" in metric.describe()

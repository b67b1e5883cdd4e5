"""Textured shapes: the truth is exact, and two trained networks that go by it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seewhy.datasets import shapes
from seewhy.datasets.shapes import NAMES, Shapes
from seewhy.errors import InvalidInput
from seewhy.explainers import RISE, GradCAM, ReciproCAM
from seewhy.metrics import RelevanceMass
from support.shape_networks import inputs, mean_average_precision, trained
from support.typed import unchecked

SIZES = [(64, 64), (64, 96), (150, 90), (32, 33)]


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_does_not_depend_on_its_neighbours(size: tuple[int, int]) -> None:
    alone = Shapes(seed=5, size=size)[7]
    pixels, labels, masks = Shapes(seed=5, size=size).batch([9, 7, 2])
    assert pixels.shape == (3, *size, 3)
    assert masks.shape == (3, len(NAMES), *size)
    assert [str(one.dtype) for one in (pixels, masks, labels)] == ["uint8", "bool", "bool"]
    assert alone.pixels.tobytes() == pixels[1].tobytes()
    assert np.array_equal(alone.masks, masks[1])
    assert np.array_equal(alone.labels, labels[1])


def test_pictures_differ_by_number_and_by_seed() -> None:
    data = Shapes(seed=5)
    for other in (data[8], Shapes(seed=6)[7]):
        assert (data[7].pixels != other.pixels).mean() > 0.9


def test_the_first_pictures_come_first() -> None:
    for number, picture in zip(range(3), unchecked(Shapes()), strict=False):
        assert np.array_equal(picture.pixels, Shapes()[number].pixels)


@pytest.mark.parametrize("size", SIZES)
def test_outside_of_every_mask_the_picture_is_its_background(size: tuple[int, int]) -> None:
    data = Shapes(seed=1, size=size)
    for number in range(30):
        picture, ground = data[number], data.background(number)
        covered = picture.masks.any(0)
        assert np.array_equal(picture.pixels[~covered], ground[~covered])
        assert (picture.pixels != ground).any(2)[covered].mean() > 0.98


@pytest.mark.parametrize("kind", shapes._CLASSES, ids=NAMES)
def test_every_outline_has_the_area_of_a_disc_and_keeps_within_its_reach(kind: shapes._Class) -> None:
    y, x = np.mgrid[-2:2:1001j, -2:2:1001j]
    inside = kind.outline(x, y)
    assert inside.mean() * 16 == pytest.approx(np.pi, rel=0.01)
    assert np.hypot(x, y)[inside].max() == pytest.approx(kind.reach, abs=0.015)


@pytest.mark.parametrize("kind", shapes._CLASSES, ids=NAMES)
def test_every_texture_is_half_of_either_colour(kind: shapes._Class) -> None:
    y, x = np.mgrid[-1:1:401j, -1:1:401j] * 2.2
    share = np.clip(0.5 + kind.texture(x, y), 0, 1)[kind.outline(x / 2.2, y / 2.2)]
    assert share.mean() == pytest.approx(0.5, abs=0.06)


def test_the_shapes_of_a_picture_lie_inside_and_apart_and_are_of_different_classes() -> None:
    counts, classes = np.zeros(4, int), np.zeros(len(NAMES), int)
    for number in range(300):
        picture = Shapes(seed=3)[number]
        masks = np.pad(picture.masks, ((0, 0), (1, 1), (1, 1)))
        wider = masks | np.roll(masks, 1, 1) | np.roll(masks, -1, 1) | np.roll(masks, 1, 2) | np.roll(masks, -1, 2)
        assert not (wider.sum(0) > 1).any()
        assert all(shape.mask.sum() > 50 for shape in picture.shapes)
        assert len({shape.label for shape in picture.shapes}) == len(picture.shapes) == picture.labels.sum()
        counts[len(picture.shapes)] += 1
        classes += picture.labels
    assert counts[0] == 0
    assert (counts[1:] > 70).all()
    assert (classes > 70).all()


def test_shapes_lie_everywhere_in_a_wide_picture() -> None:
    where = np.asarray(Shapes(seed=4, size=(40, 120)).batch(range(200)).masks.any((0, 1)))
    assert where[8:-8, 8:-8].all()


def test_most_limits_the_number_of_shapes() -> None:
    assert all(len(Shapes(most=1)[number].shapes) == 1 for number in range(20))


def samples(seed: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """(S, 7): mean and deviation of each shape's colours, and its area; (S,) its class."""
    shapes = [(p.pixels[s.mask] / 255, s.label) for p in islice(unchecked(Shapes(seed=seed)), count)
              for s in p.shapes]  # fmt: skip
    known = [np.concatenate([colours.mean(0), colours.std(0), [len(colours) / 400]]) for colours, _ in shapes]
    return np.stack(known), np.array([label for _, label in shapes])


def test_neither_colour_nor_size_gives_the_class_away() -> None:
    known, labels = samples(1, 350)
    asked, truth = samples(2, 200)
    nearest = ((asked[:, None] - known) ** 2).sum(2).argsort(1)[:, :9]
    votes = np.stack([np.bincount(row, minlength=len(NAMES)) for row in labels[nearest]])
    assert (votes.argmax(1) == truth).mean() < 0.28  # by chance: 0.17


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be an integer that is not negative, got -1."),
        ({"size": (64, 31)}, "size must be (height, width), integers of at least 32 pixels, got (64, 31)."),
        ({"size": (64, 64, 3)}, "size must be (height, width), integers of at least 32 pixels, got (64, 64, 3)."),
        ({"most": 4}, "most must be 1, 2 or 3 shapes a picture, got 4."),
        ({"most": 0}, "most must be 1, 2 or 3 shapes a picture, got 0."),
    ],
)
def test_unusable_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as said:
        Shapes(**wrong)
    assert str(said.value) == message


def test_an_unusable_number() -> None:
    with pytest.raises(InvalidInput) as said:
        Shapes()[-1]
    assert str(said.value) == "A picture's number must be an integer that is not negative, got -1."


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize(("size", "count"), [((64, 64), 200), ((64, 96), 80)])
def test_the_networks_know_the_shapes(name: str, size: tuple[int, int], count: int) -> None:
    pixels, labels, _ = Shapes(seed=404, size=size).batch(range(count))
    with torch.no_grad():
        scores = trained(name)(inputs(pixels))
    assert mean_average_precision(scores, labels) > 0.97


def test_mean_average_precision() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 0]], dtype=bool)
    assert mean_average_precision(torch.tensor([[3.0, 0], [1, 5], [2, 1]]), labels) == 1
    assert mean_average_precision(torch.tensor([[3.0, 2], [2, 0], [1, 1]]), labels) == pytest.approx(
        ((1 + 2 / 3) / 2 + 1 / 3) / 2
    )


PARAMETERS = {RISE: {"num_masks": 50, "activation_fn": "sigmoid", "perturbation_per_eval": 64}}


@pytest.mark.parametrize("method", [GradCAM, ReciproCAM, RISE])
def test_explanations_of_the_cnn_lie_on_their_own_class(method: type) -> None:
    """Of two classes on a picture, each has its map; chance is the mask's share of the picture, 0.08."""
    pictures = list(islice((p for p in unchecked(Shapes(seed=99)) if len(p.shapes) > 1), 30))
    targets = torch.tensor([[shape.label for shape in p.shapes[:2]] for p in pictures])
    truth = torch.from_numpy(np.stack([[shape.mask for shape in p.shapes[:2]] for p in pictures]))
    x = inputs(np.stack([p.pixels for p in pictures]))
    explainer = method(trained("cnn"), **PARAMETERS.get(method, {}))
    maps = explainer.attribute(x, targets)

    def mass(saliency: torch.Tensor, where: torch.Tensor) -> float:
        found = [RelevanceMass().evaluate(explainer, x, targets[:, t], where[:, t], saliency[:, t]) for t in (0, 1)]
        return float(torch.stack(found).nanmean())

    chance = mass(torch.rand(maps.shape, generator=torch.Generator().manual_seed(0)), truth)
    assert chance == pytest.approx(float(truth.float().mean()), abs=0.003)
    assert mass(maps, truth) > 4 * chance
    assert mass(maps, truth.flip(1)) < chance  # on the other shape

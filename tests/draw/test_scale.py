"""One rule says which values the ends of a map's colours stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy.draw.scale import Scale, scale_of, white
from seewhy.plain import Meaning


def ramp(low: float, high: float, side: int = 10) -> Any:
    return np.linspace(low, high, side * side, dtype=np.float32).reshape(side, side)


@pytest.mark.parametrize(
    ("low", "high", "values", "expected"),
    [
        (0.0, 2.0, "change", (0.0, 2.0, False)),
        (-2.0, 1.0, "change", (-2.0, 2.0, True)),
        (-2.0, -1.0, "part", (-2.0, 2.0, True)),  # all of it is against
        (-0.2, 2.0, "slope", (-2.0, 2.0, True)),  # a tenth is clear
        (-0.19, 2.0, "slope", (-0.19, 2.0, False)),
        (-3.0, 2.0, "unknown", (-3.0, 3.0, True)),
        (-3.0, 2.0, "alone", (-3.0, 2.0, False)),  # logits below 0 are not against
        (-3.0, 2.0, "level", (-3.0, 2.0, False)),
        (-3.0, 2.0, "size", (-3.0, 2.0, False)),
        (0.1, 0.2, "score", (0.0, 1.0, False)),
        (-3.0, 2.0, "from a later version", (-3.0, 2.0, False)),
    ],
)
def test_the_ends_follow_from_what_values_are(low: float, high: float, values: Meaning, expected: Any) -> None:
    found = scale_of(ramp(low, high), values)
    assert (found.low, found.high, found.signed) == pytest.approx(expected)
    assert not found.clipped
    assert found.words == (("against", "for") if found.signed else ("least", "most"))


def test_the_white_point_of_many_cells_is_a_percentile_of_the_side_that_is_shown() -> None:
    values = ramp(0, 1, 40)
    assert white(ramp(0, 1, 32)) is None
    assert white(values) == pytest.approx(np.percentile(values, 99.5))
    values[0, 0] = -50
    found = scale_of(values, "size")
    assert found == Scale(-50, found.high, False, True)
    assert found.high == pytest.approx(np.percentile(values, 99.5))
    signed, most = scale_of(values, "part"), float(np.percentile(np.abs(values), 99.5))
    assert signed == Scale(-most, most, True, True)
    assert signed.places(values)[0, 0] == 0
    assert white(ramp(0, 1), clip=50) == pytest.approx(0.5)
    assert white(np.ones((40, 40), np.float32)) is None
    spiky = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    spiky[3, 5] = 50
    assert white(spiky) == pytest.approx(np.percentile(spiky, 99.5))
    assert white((np.arange(4096) < 4090).astype(np.float32).reshape(64, 64)) is None  # the percentile is the maximum


def test_a_map_that_shows_nothing_goes_a_quarter_of_the_way() -> None:
    values = ramp(0, 4e-6)
    found = scale_of(values, "change", faint=True)
    assert found.places(values).max() == pytest.approx(0.25)
    assert found.high == pytest.approx(1.6e-5)
    both = scale_of(ramp(-4e-6, 2e-6), "change", faint=True)
    assert both.places(ramp(-4e-6, 2e-6)).min() == pytest.approx(0.375)
    assert not both.clipped


def test_both_signs_may_be_asked_for_and_refused() -> None:
    assert Scale.of(-1, 3, signed=True) == (-3, 3, True, False)
    assert Scale.of(-1, 9, 3.0, signed=True) == (-3, 3, True, True)
    assert Scale.of(-8, 9, 3.0, signed=True) == (-8, 8, True, True)  # what is below 0 is not cut off
    assert Scale.of(-2, 3, meaning="part", signed=False) == (-2, 3, False, False)
    assert Scale.of(-2, 3, 2.5, meaning="part", signed=False) == (-2, 2.5, False, True)


@pytest.mark.parametrize(("value", "signed", "place"), [(5.0, False, 0), (0.0, True, 0.5), (-5.0, True, 0)])
def test_a_flat_map_has_one_colour(value: float, signed: bool, place: float) -> None:
    assert np.unique(Scale.of(value, value, signed=signed).places(np.full((3, 3), value))).tolist() == [place]


def test_places_of_the_largest_numbers_are_finite() -> None:
    values = ramp(-3e38, 3e38)
    for faint in (False, True):
        places = scale_of(values, "part", faint=faint).places(values)
        assert (places.min() >= 0) & (places.max() <= 1)

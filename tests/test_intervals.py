"""Bootstrap, sign-flip test and Holm's adjustment against closed forms and slow twins."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from seewhy.intervals import bootstrap, holm, sign_flip


def test_the_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(2000, 2))
    low, high = bootstrap(values, confidence=0.95, resamples=4000, seed=1)
    half = 1.96 * values.std(0) / np.sqrt(2000)
    np.testing.assert_allclose(low, values.mean(0) - half, atol=0.01)
    np.testing.assert_allclose(high, values.mean(0) + half, atol=0.01)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_cover_the_truth_as_often_as_they_say(confidence: float) -> None:
    values = np.random.default_rng(2).exponential(1, size=(60, 400))
    low, high = bootstrap(values, confidence=confidence, resamples=1000, seed=3)
    assert np.mean((low <= 1) & (high >= 1)) == pytest.approx(confidence, abs=0.07)


def test_the_interval_of_the_same_value_is_that_value_and_of_one_picture_there_is_none() -> None:
    low, high = bootstrap(np.full((5, 1), 0.25), confidence=0.95, resamples=100, seed=0)
    assert (low, high) == (0.25, 0.25)
    assert all(np.isnan(bound).all() for bound in bootstrap(np.ones((1, 3)), confidence=0.95, resamples=100, seed=0))


def test_many_numbers_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    whole = sign_flip(values + 0.3, resamples=3000, seed=0)
    monkeypatch.setattr("seewhy.intervals.ROOM", 50 * 7)
    parts = sign_flip(values + 0.3, resamples=3000, seed=0)
    assert parts == pytest.approx(whole, abs=0.02)
    assert len(bootstrap(values, confidence=0.9, resamples=100, seed=0)) == 2


def test_the_sign_flip_test_is_exact_for_few_pictures() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, size=(8, 3))
    for column, p in zip(values.T, sign_flip(values, resamples=1000, seed=0), strict=True):
        sums = [abs(sum(s * v for s, v in zip(signs, column, strict=True))) for signs in product((-1, 1), repeat=8)]
        assert p == sum(s >= abs(column.sum()) - 1e-9 for s in sums) / 256


def test_the_random_sign_flip_test_is_the_exact_one_but_for_chance() -> None:
    values = np.random.default_rng(4).normal(0.4, 1, size=(12, 3))
    exact = sign_flip(values, resamples=5000, seed=0)
    np.testing.assert_allclose(sign_flip(values, resamples=4000, seed=0), exact, atol=0.03)


def test_no_difference_is_never_significant_and_a_sure_one_is() -> None:
    assert sign_flip(np.zeros((30, 1)), resamples=1000, seed=0) == 1
    assert sign_flip(np.empty((0, 2)), resamples=1000, seed=0).tolist() == [1, 1]
    assert sign_flip(np.ones((30, 1)), resamples=1000, seed=0) == pytest.approx(1 / 1001)


def test_holm_by_hand() -> None:
    # sorted .01 x 4, .02 x 3, .03 x 2, .5 x 1; each at least as large as the one before
    assert holm(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []

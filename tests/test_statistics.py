"""Intervals and tests of differences: what they promise is simulated, what is exact is computed by a slow twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats

from seewhy.errors import InvalidInput
from seewhy.statistics import Difference, Floats, Judged, interval

Draw = Callable[[np.random.Generator, int], Floats]
DRAWS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "skewed": (lambda rng, n: rng.exponential(size=n), 1.0),
    "a long tail": (lambda rng, n: rng.lognormal(size=n), math.exp(0.5)),
    "skewed to the left, bounded": (lambda rng, n: rng.beta(8, 2, size=n), 0.8),
    "tied": (lambda rng, n: np.round(rng.random(n) * 4) / 4, 0.5),
}


def judged(values: Floats, *, hits: bool = False, better: str = "higher", **more: object) -> Judged:
    """(explainers, metrics, pictures)"""
    e, m, _ = values.shape
    return Judged(
        explainers=tuple("abcdefgh"[:e]), metrics=tuple(f"m{i}" for i in range(m)), better=(better,) * m,
        values=values, ends=((0.0, 1.0),) * m if hits else (), **more,  # type: ignore[arg-type]
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ one mean


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [2, 5, 6, 8, 12, 20, 50])
def test_95_percent_means_93_to_98_or_nothing_is_said(name: str, n: int) -> None:
    draw, truth = DRAWS[name]
    rng = np.random.default_rng(n)
    found = [interval(draw(rng, n)) for _ in range(1500)]
    told = [one for one in found if not one.why]
    if n < 6:
        assert told == []
        assert all(math.isnan(one.low) and math.isnan(one.high) for one in found)
        return
    assert len(told) > 1480
    noise = 0.01  # of 1500 draws: 1.5 standard deviations
    assert 0.93 - noise <= np.mean([one.low <= truth <= one.high for one in told]) <= 0.98 + noise


UNEVEN: dict[str, tuple[Draw, float]] = {
    "three levels": (lambda rng, n: rng.integers(0, 3, size=n) / 2, 0.5),
    "skewed levels": (lambda rng, n: np.minimum(rng.poisson(1, size=n), 3) / 3, (3 - 5.5 / math.e) / 3),
    "at both ends": (lambda rng, n: rng.beta(0.5, 0.5, size=n), 0.5),
    "half zeros": (lambda rng, n: np.where(rng.random(n) < 0.5, 0, rng.random(n)), 0.25),
}


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("n", [6, 8, 12, 50])
def test_few_levels_and_values_at_the_ends_are_covered_in_93_percent_at_least(name: str, n: int) -> None:
    draw, truth = UNEVEN[name]
    rng = np.random.default_rng(n)
    told = [one for one in (interval(draw(rng, n)) for _ in range(1000)) if not one.why]
    assert np.mean([one.low <= truth <= one.high for one in told]) >= 0.93 - 0.012


@pytest.mark.parametrize("n", [5, 6, 8, 10, 15, 20, 30, 50])
def test_hits_and_misses_are_covered_as_often_on_average_over_their_true_shares(n: int) -> None:
    """Counts are few, so that the coverage at one true share jumps; exact, no simulation."""
    found = [interval((np.arange(n) < k).astype(float), ends=(0.0, 1.0)) for k in range(n + 1)]
    shares = np.linspace(0.05, 0.95, 181)
    inside = np.array([[one.low <= p <= one.high for one in found] for p in shares])
    coverage = (stats.binom.pmf(np.arange(n + 1), n, shares[:, None]) * inside).sum(1)
    assert 0.93 <= coverage.mean() <= 0.98
    assert coverage.min() > 0.85


def test_five_of_five_is_not_certain_and_the_interval_is_wilsons() -> None:
    found = interval(np.ones(5), ends=(0.0, 1.0))
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(stats.binomtest(5, 5).proportion_ci(method="wilson").low)
    wide = interval(np.array([10.0] * 7 + [-10.0] * 3), ends=(-10.0, 10.0), confidence=0.9)
    want = stats.binomtest(7, 10).proportion_ci(0.9, method="wilson")
    assert (wide.mean, wide.low, wide.high) == pytest.approx((4.0, want.low * 20 - 10, want.high * 20 - 10))


def test_what_tells_nothing_gets_a_sentence() -> None:
    few, same = interval(np.array([0.2, 0.4, np.nan])), interval(np.full(9, 0.25), ends=(0.0, 1.0))
    assert few.mean == pytest.approx(0.3)
    assert (few.n, few.why) == (2, "Fewer than 6 pictures tell no interval.")
    assert same.why == "All pictures have the same value, which tells no interval."
    assert math.isnan(same.low)
    assert math.isnan(same.high)
    nothing = interval(np.array([np.nan, np.nan]))
    assert math.isnan(nothing.mean)
    assert nothing.n == 0


def test_many_values_give_students_interval_and_a_range_ends_it() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=3000)
    found = interval(values, confidence=0.9)
    want = stats.t.interval(0.93, 2999, values.mean(), values.std(ddof=1) / math.sqrt(3000))
    assert (found.low, found.high) == pytest.approx(want, abs=5e-3)
    cut = interval(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.2]), ends=(0.0, 1.0))
    assert cut.high == 1.0
    assert 0 < cut.low < cut.mean


def test_an_interval_of_turned_values_is_turned() -> None:
    values = np.random.default_rng(1).exponential(size=9)
    one, other = interval(values), interval(-values)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.high - one.mean > 1.2 * (one.mean - one.low)  # the long tail


# --------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize("kind", ["normal", "skewed", "tied", "hits"])
@pytest.mark.parametrize("n", [6, 10, 20])
@pytest.mark.slow
def test_a_table_of_equal_explainers_names_a_difference_in_5_percent_at_most(kind: str, n: int) -> None:
    """8 metrics, 4 explainers, 48 pairs. 2.3 deviations above 5 % is what 150 tables may show."""
    rng, hits = np.random.default_rng(n), kind == "hits"
    draws = {
        "normal": lambda: rng.normal(size=(4, 8, n)), "skewed": lambda: rng.exponential(size=(4, 8, n)),
        "tied": lambda: np.round(rng.random((4, 8, n)) * 4) / 4, "hits": lambda: (rng.random((4, 8, n)) < 0.6) * 1.0,
    }  # fmt: skip
    named = [
        any(d.real for d in judged(np.asarray(draws[kind](), float), hits=hits, resamples=400).differences)
        for _ in range(150)
    ]  # fmt: skip
    assert np.mean(named) <= 0.09


@pytest.mark.parametrize("n", [6, 10, 20])
def test_the_test_keeps_its_level_for_one_skewed_pair(n: int) -> None:
    rng = np.random.default_rng(n)
    pairs = [np.stack([rng.exponential(size=n), np.ones(n)])[:, None] for _ in range(1000)]
    assert np.mean([judged(pair, resamples=300).differences[0].real for pair in pairs]) <= 0.06


def test_clear_differences_are_found() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 8, 12))
    values[0, 0] += 4
    found = judged(values)
    assert found.beaten("a", "m0") == ["b", "c", "d"]
    assert found.best("m0").explainer == "a"


def test_an_interval_and_its_verdict_never_disagree() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for n in (6, 7, 9, 15, 40):
        for _ in range(12):
            values = rng.normal(size=(3, 2, n)) + rng.normal(size=(3, 2, 1))
            values[:, 1] = values[:, 1] > 0.4
            for d in judged(values, hits=bool(rng.integers(2))).differences:
                seen.add(d.verdict)
                if d.verdict == "cannot be told":
                    assert math.isnan(d.low)
                    assert math.isnan(d.p)
                    assert d.why
                else:
                    assert d.real == (d.p <= 0.05 + 1e-12) == (not d.low <= 0 <= d.high) == (d.verdict == "real"), d
                    assert d.low <= d.difference + 1e-12
                    assert d.difference <= d.high + 1e-12
    assert seen == {"real", "may be chance", "cannot be told"}


def test_intervals_of_one_difference_cover_it() -> None:
    rng = np.random.default_rng(5)
    for n in (8, 20):
        shift = np.array([[[0.5]], [[0.0]]])
        found = [judged(rng.normal(size=(2, 1, n)) + shift, resamples=500).differences[0] for _ in range(300)]
        covered = [d.low <= (0.5 if d.better == "a" else -0.5) <= d.high for d in found]
        assert 0.93 <= np.mean(covered) <= 0.99


def smallest_by_hand(values: Floats) -> float:
    """The adjusted p-value of the clearest pair, flip by flip, with scipy's t test."""
    e, m, n = values.shape
    pairs = [values[a, k] - values[b, k] for k in range(m) for a in range(e) for b in range(a)]
    own = min(stats.ttest_1samp(d, 0).pvalue for d in pairs)
    every = [
        min(stats.ttest_1samp(d * signs, 0).pvalue for d in pairs) for signs in product((1, -1), repeat=n)
    ]  # fmt: skip
    return float(np.mean([p <= own * (1 + 1e-9) for p in every]))


def test_all_flips_of_the_whole_table_are_taken_together() -> None:
    values = np.random.default_rng(8).normal(size=(3, 2, 6))
    values[0, 0] += 2.0
    assert min(d.p for d in judged(values).differences) >= smallest_by_hand(values)
    values[0, 0] = values[1, 0] + 5 + np.array([0.1, -0.1, 0.2, -0.2, 0.05, -0.05])  # h says so, too
    assert min(d.p for d in judged(values).differences) == smallest_by_hand(values) == 2 / 64


def test_drawn_flips_say_what_all_flips_say() -> None:
    values = np.random.default_rng(4).normal(size=(3, 2, 12))
    values[0] += 0.9
    exact, drawn = judged(values, resamples=4096).differences, judged(values, resamples=4000).differences
    np.testing.assert_allclose([d.p for d in drawn], [d.p for d in exact], atol=0.03)
    again = judged(values, resamples=4000).differences
    assert again == drawn
    assert judged(values, resamples=4000, seed=1).differences != drawn


def test_many_pictures_are_flipped_in_blocks() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(2, 1, 5000))
    values[0] += 0.03
    found = judged(values).differences[0]
    assert found.p == pytest.approx(stats.ttest_rel(values[0, 0], values[1, 0]).pvalue, abs=0.02)
    values[0] += 0.1
    assert judged(values).differences[0].real


def only(one: list[float], other: list[float], **more: object) -> Difference:
    values = np.array([one, other])[:, None]
    return judged(values, **more).differences[0]  # type: ignore[arg-type]


def test_what_cannot_be_told_says_why() -> None:
    few, tied = only([1.0, 2, 3, 4, 5], [0.0] * 5), only([0.5] * 9, [0.5] * 9)
    assert (few.verdict, few.why) == ("cannot be told", "5 pictures are too few, 6 are needed.")
    assert (tied.verdict, tied.why) == ("cannot be told", "The two differ on 0 of 9 pictures, 6 are needed.")
    same = only([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (same.real, same.why) == (False, "The difference is the same on every picture.")
    strict = only([1.0, 2, 3, 4, 5, 6], [0.0] * 6, confidence=0.99)
    assert strict.why == "6 pictures are too few, 8 are needed."
    assert only([1.0], [0.0]).why == "1 picture is too few, 6 are needed."


def test_ten_hits_against_ten_misses_are_real_and_not_certain() -> None:
    found = only([1.0] * 10, [0.0] * 10, hits=True)
    assert (found.difference, found.real, found.p) == (1.0, True, 2 / 1024)
    assert 0.3 < found.low < 0.8
    mixed = only([1, 1, 1, 1, 1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1], hits=True)
    assert mixed.verdict == "may be chance"


def test_the_interval_of_hits_and_misses_is_bonett_and_prices() -> None:
    one, other = [1.0] * 14 + [0.0] * 4 + [1.0] * 6, [0.0] * 14 + [1.0] * 4 + [1.0] * 6
    found = only(one, other, hits=True)
    more, less, n = 15 / 26, 5 / 26, 26
    half = 1.959964 * math.sqrt((more + less - (more - less) ** 2) / n)
    assert found.low <= more - less - half + 1e-6
    assert found.high == pytest.approx(more - less + half, abs=0.06)


def test_the_better_end_decides_who_is_better() -> None:
    rng = np.random.default_rng(2)
    one, other = (rng.normal(size=20) + 3).tolist(), rng.normal(size=20).tolist()
    high, low = only(one, other), only(one, other, better="lower")
    assert (high.better, low.better) == ("a", "b")
    assert (low.difference, low.low, low.high) == pytest.approx((-high.difference, -high.high, -high.low))


def test_a_difference_takes_the_pictures_that_both_have() -> None:
    values = np.random.default_rng(0).normal(size=(2, 1, 12))
    values[0, 0, :3] = values[1, 0, 3:5] = np.nan
    found = judged(values)
    assert [m.n for m in found.means] == [9, 10]
    assert [m.missing for m in found.means] == [3, 2]
    assert found.differences[0].n == 7
    values[0] = np.nan
    assert judged(values).differences == []


# ---------------------------------------------------------------------------------------------- best and weighted


def test_what_does_not_beat_every_baseline_is_not_called_best() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(4, 2, 20))
    values[0, 0] += 3
    values[2, 1] += 3  # a baseline
    found = judged(values, baselines=("c", "d"))
    assert (found.best("m0").explainer, found.best("m0").why) == ("a", "")
    against = found.best("m0").against
    assert against is not None
    assert {against.better, against.worse} == {"a", "b"}
    nothing = found.best("m1")
    assert nothing.explainer is None
    assert nothing.leader in ("a", "b")
    assert nothing.why == f"{nothing.leader} has the best mean, but is not shown to be better than chance (c, d)."


def test_a_weighted_score_is_that_of_pictures_that_have_every_metric() -> None:
    values = np.full((2, 3, 8), 0.25)
    values[0, 0] = np.linspace(0.5, 0.9, 8)
    values[1, 1, 2] = np.nan
    table = Judged(
        explainers=("a", "b"), metrics=("up", "down", "open"), better=("higher", "lower", "higher"), values=values,
        ends=((0.0, 1.0), (0.0, 0.5), (0.0, math.inf)),
    )  # fmt: skip
    found = table.weighted([3, 1, 0])
    assert found.values[:, 0, 0] == pytest.approx([(3 * 0.5 + 0.5) / 4, (3 * 0.25 + 0.5) / 4])
    assert [m.n for m in found.means] == [8, 7]
    assert found.best("weighted score").explainer == "a"
    with pytest.raises(InvalidInput, match=r"^Metrics without two ends cannot be weighted: open\.$"):
        table.weighted([1, 1, 1])
    with pytest.raises(InvalidInput, match=r"^weights must be one a metric, not negative and not all 0, got \[0, 0\]"):
        table.weighted([0, 0])

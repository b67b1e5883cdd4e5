"""How sure a mean is, and which of two explainers is better: the one place that says so, for tables, runs and pages.

The unit is the image: images are independent of each other, the maps of one image are not. With t the t statistic
of n images, g their skewness and a = g / (3 sqrt(n)), Hall's transformation takes the skewness out of it:

    h = a / 2 + ((1 + a t)^3 - 1) / (3 a)

A mean's interval has all values for which h stays within the quantiles of Student's t with n - 1 degrees of freedom,
at 1 - 0.7 (1 - confidence): few images show too little of their skewness, and the rest is for that. Of fewer than 15
images, no two alike (levels have no long tail), the rest is more, up to 0.65. It goes at most twice as far as t. Images
all at the ends of the metric's range are hits and misses; their interval is Wilson's. Fewer than six images (five of
hits and misses), or equal ones, tell nothing: there is no interval.

Two explainers are compared image by image. Whether a difference is real is decided for the whole table at once: the
signs of all differences of an image are flipped together, and a p-value (of t) is as large as the share of flips of
which the smallest p-value of the table is as small. The chance to call any difference real where there is none is thus
1 - confidence. Of each pair, h has to say so, too. The interval of a difference has what one of the two tests does not
exclude, so it leaves 0 out exactly where the difference is real. To hits and misses two images are added, one more
hit for either side, and h is not asked. With more than 256 images, blocks of images are flipped.

Source: Hall, "On the removal of skewness by transformation", 1992; Wilson, "Probable inference, the law of succession,
and statistical inference", 1927; Westfall and Young, "Resampling-based multiple testing", 1993 (smallest p, in one
step); Fisher, "The design of experiments", 1935 (sign flips); Bonett and Price, "Adjusted Wald confidence interval for
a difference of binomial proportions based on paired data", 2012. How often it holds is measured in docs/statistics.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from seewhy.checks import check_count, check_inside
from seewhy.errors import InvalidInput

__all__ = ["FEWEST", "FEWEST_PAIRS", "Best", "Difference", "Interval", "Judged", "Mean", "check", "interval"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FEWEST = 6  # images of which a mean's interval can be told
FEWEST_HITS = 5  # where each is a hit or a miss
FEWEST_PAIRS = 6  # images on which two explainers must differ: 5 have one sign in a case of 16
BLOCKS = 256  # groups of images whose signs are flipped
AT_ONCE = 500_000  # statistics that are computed at a time
STRETCH = 2  # times as far as t goes, h goes at most: beyond, the few images say nothing about their skewness
KEPT = (0.35, 0.7)  # of 6, of 15 images: share of the error for t; the rest is for skewness that was not seen


class Interval(NamedTuple):
    """A mean with its interval; NaN where there is none, and then ``why`` says why."""

    mean: float
    low: float
    high: float
    n: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One explainer's average under one metric.

    Attributes:
        explainer: its label.
        metric: its label.
        mean: over the images with data; NaN without any.
        low: of the confidence interval; NaN where it cannot be told.
        high: the same.
        n: images with data.
        missing: images without data, failures included.
        why: why there is no interval; "" where there is one.
    """

    explainer: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    missing: int
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two explainers under one metric, on the images that both have; ``better`` has the better mean.

    Attributes:
        metric: its label.
        better: explainer.
        worse: explainer.
        difference: mean of better minus worse, image by image.
        low: of its interval, adjusted over the whole table; NaN where nothing can be told.
        high: the same.
        p: adjusted over the whole table; NaN where nothing can be told.
        n: images.
        real: whether chance alone would name any difference of such a table less often than 1 - confidence. The
            interval leaves 0 out exactly where this is true.
        verdict: "real", "may be chance" or "cannot be told".
        why: what stands against a verdict; "" where there is one.
    """

    metric: str
    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float
    n: int
    real: bool
    verdict: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The explainer with the best mean under one metric, baselines aside.

    Attributes:
        explainer: its label; None where no mean is known, or where it is not really better than every baseline.
        leader: the label of the best mean, whether or not it may be called best; None where no mean is known.
        against: the difference to the next explainer; None where there is no other.
        why: why nothing is called best; "" where something is.
    """

    explainer: str | None
    leader: str | None
    against: Difference | None
    why: str = ""


def check(confidence: float, resamples: int) -> None:
    """Raises InvalidInput unless intervals and tests can be made with these."""
    check_inside("confidence", confidence)
    check_count("resamples", resamples, 100)


# ------------------------------------------------------------------------------------------------------ one mean


def interval(values: Floats, *, ends: tuple[float, float] = (-np.inf, np.inf), confidence: float = 0.95) -> Interval:
    """Returns the mean of ``values`` (n,) with its confidence interval; NaN is left out.

    Args:
        values: one number an image.
        ends: lowest and highest value that there can be; the interval ends there.
        confidence: how often the interval has the true mean in it.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    n = len(known)
    low, high = ends
    hits = n > 0 and bool(_at_ends(known, ends).all())
    if n < (fewest := FEWEST_HITS if hits else FEWEST):
        mean = float(known.mean()) if n else np.nan
        return Interval(mean, np.nan, np.nan, n, f"Fewer than {fewest} pictures tell no interval.")
    if hits:
        share, span = float((known - low).mean() / (high - low)), high - low
        least, most = _wilson(share, n, confidence)
        return Interval(low + share * span, low + least * span, low + most * span, n, "")
    mean = float(known.mean())
    if np.ptp(known) <= 1e-9 * np.abs(known).max():
        return Interval(mean, np.nan, np.nan, n, "All pictures have the same value, which tells no interval.")
    below, above = _hall(known, _kept(known) * (1 - confidence))
    return Interval(mean, max(low, below), min(high, above), n, "")


def _at_ends(values: Floats, ends: tuple[float, float]) -> Bools:
    """Which values are an end of a range that has two."""
    low, high = ends
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        return np.zeros(np.shape(values), dtype=bool)
    found: Bools = np.minimum(np.abs(values - low), np.abs(values - high)) <= 1e-9 * (high - low)
    return found


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return max(0.0, float(low)), min(1.0, float(high))


def _kept(values: Floats) -> float:
    """Returns the share of the error that the t distribution may use."""
    return float(np.interp(len(values), (FEWEST, 15), KEPT)) if len(np.unique(values)) == len(values) else KEPT[1]


def _hall(values: Floats, p: float) -> tuple[float, float]:
    """Between which true means h of ``values`` (n,), which are not all equal, has a two-sided p-value over ``p``."""
    n, mean, a = len(values), float(values.mean()), _skewed(values)
    quantile, error = -float(stdtrit(n - 1, p / 2)), float(values.std(ddof=1)) / math.sqrt(n)
    if abs(a) < 1e-9:
        return mean - error * quantile, mean + error * quantile
    ends = [(float(np.cbrt(1 + 3 * a * (q - a / 2))) - 1) / a for q in (quantile, -quantile)]
    most = STRETCH * quantile
    return mean - error * min(ends[0], most), mean - error * max(ends[1], -most)


def _hall_p(values: Floats) -> float:
    """Returns the two-sided p-value that the true mean of ``values`` (n,), which are not all equal, is 0."""
    n, a = len(values), _skewed(values)
    t = float(values.mean() / values.std(ddof=1)) * math.sqrt(n)
    h = t if abs(a) < 1e-9 else a / 2 + ((1 + a * t) ** 3 - 1) / (3 * a)
    return float(2 * stdtr(n - 1, -max(abs(h), abs(t) / STRETCH)))


def _skewed(values: Floats) -> float:
    """Returns the number a = g / (3 sqrt(n)), with Fisher's g, which has no bias for normal values."""
    n, centred = len(values), values - values.mean()
    skewness = float((centred**3).mean() / (centred @ centred / n) ** 1.5)
    return skewness * math.sqrt(n * (n - 1)) / (n - 2) / (3 * math.sqrt(n))


# ---------------------------------------------------------------------------------------------- a table of means


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What metrics gave to explainers on the same images, and what that tells.

    Attributes:
        explainers: labels.
        metrics: labels.
        better: "higher" or "lower" for each metric.
        values: (explainers, metrics, images) float64, NaN where there is no data.
        ends: lowest and highest value of each metric, infinite where it has none; () for none at all.
        baselines: labels of the explainers that do not look at the network.
        confidence: of the intervals, and 1 - confidence the level of the tests.
        resamples: how often signs are flipped; few images are flipped in all ways.
        seed: of the flips.
    """

    explainers: tuple[str, ...]
    metrics: tuple[str, ...]
    better: tuple[str, ...]
    values: Floats
    ends: tuple[tuple[float, float], ...] = ()
    baselines: tuple[str, ...] = ()
    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0

    def range_of(self, m: int) -> tuple[float, float]:
        """Lowest and highest value of the metric of this number."""
        return self.ends[m] if self.ends else (-np.inf, np.inf)

    @cached_property
    def means(self) -> list[Mean]:
        """Every explainer under every metric."""
        return [self._mean(e, m) for m in range(len(self.metrics)) for e in range(len(self.explainers))]

    def _mean(self, e: int, m: int) -> Mean:
        values = self.values[e, m]
        found = interval(values, ends=self.range_of(m), confidence=self.confidence)
        return Mean(
            explainer=self.explainers[e], metric=self.metrics[m], mean=found.mean, low=found.low, high=found.high,
            n=found.n, missing=len(values) - found.n, why=found.why,
        )  # fmt: skip

    @cached_property
    def differences(self) -> list[Difference]:
        """Every pair of explainers under every metric that have images in common, adjusted over all of them."""
        pairs = [
            _Pair.of(self, m, first, second)
            for m in range(len(self.metrics))
            for first, second in combinations(range(len(self.explainers)), 2)
        ]
        known = [pair for pair in pairs if len(pair.known)]
        against = [pair.why(1 - self.confidence) for pair in known]
        tests = iter(_tested([pair for pair, why in zip(known, against, strict=True) if not why], self))
        return [
            self._difference(pair, None if why else next(tests), why) for pair, why in zip(known, against, strict=True)
        ]

    def _difference(self, pair: _Pair, test: _Test | None, why: str) -> Difference:
        turned = (pair.mean >= 0) != (self.better[pair.metric] == "higher")
        names = [self.explainers[pair.first], self.explainers[pair.second]]
        better, worse = names[::-1] if turned else names
        ends = (np.nan, np.nan) if test is None else (test.low, test.high)
        low, high = (-ends[1], -ends[0]) if turned else ends
        verdict = "cannot be told" if test is None else "real" if test.real else "may be chance"
        return Difference(
            metric=self.metrics[pair.metric], better=better, worse=worse, low=low, high=high, n=len(pair.known),
            difference=-pair.mean if turned else pair.mean, p=np.nan if test is None else test.p,
            real=test is not None and test.real, verdict=verdict, why=why,
        )  # fmt: skip

    def beaten(self, explainer: str, metric: str) -> list[str]:
        """Returns the explainers that this one is really better than."""
        return [d.worse for d in self.differences if d.real and (d.better, d.metric) == (explainer, metric)]

    def best(self, metric: str) -> Best:
        """Which explainer may be called the best; what does not really beat every baseline may not."""
        sign = 1 if self.better[self.metrics.index(metric)] == "higher" else -1
        known = [m for m in self.means if m.metric == metric and m.n]
        ranked = sorted((m for m in known if m.explainer not in self.baselines), key=lambda m: -sign * m.mean)
        if not ranked:
            return Best(explainer=None, leader=None, against=None, why="There are no data.")
        leader, others = ranked[0].explainer, [m.explainer for m in ranked[1:2]]
        against = next((self._between(leader, other, metric) for other in others), None)
        chance = [m.explainer for m in known if m.explainer in self.baselines]
        above = [name for name in chance if name not in self.beaten(leader, metric)]
        if not above:
            return Best(explainer=leader, leader=leader, against=against)
        why = f"{leader} has the best mean, but is not shown to be better than chance ({', '.join(above)})."
        return Best(explainer=None, leader=leader, against=against, why=why)

    def _between(self, one: str, other: str, metric: str) -> Difference | None:
        wanted = {one, other}
        return next((d for d in self.differences if d.metric == metric and {d.better, d.worse} == wanted), None)

    def weighted(self, weights: Sequence[float], name: str = "weighted score") -> Judged:
        """One score of several metrics, 1 the better end: the weighted mean of an image's places on their scales.

        Only images that have every metric with a weight are in it.

        Args:
            weights: one a metric; those of metrics without two ends have to be 0, and one has to be more.
            name: what the new metric is called.

        Raises:
            InvalidInput: weights that cannot be used.
        """
        chosen = [m for m, weight in enumerate(weights) if weight]
        if len(weights) != len(self.metrics) or not chosen or min(weights) < 0:
            raise InvalidInput(f"weights must be one a metric, not negative and not all 0, got {list(weights)}.")
        if without := [self.metrics[m] for m in chosen if not np.isfinite(self.range_of(m)).all()]:
            raise InvalidInput(f"Metrics without two ends cannot be weighted: {', '.join(without)}.")
        total = sum(weights)
        found = sum(weights[m] / total * self.place(m, self.values[:, m]) for m in chosen)
        return Judged(
            explainers=self.explainers, metrics=(name,), better=("higher",), values=np.asarray(found)[:, None],
            ends=((0.0, 1.0),), baselines=self.baselines, confidence=self.confidence, resamples=self.resamples,
            seed=self.seed,
        )  # fmt: skip

    def place(self, m: int, values: Any) -> Any:
        """Where values of the metric of this number, which has two ends, lie: from 0 to 1, 1 the better end."""
        low, high = self.range_of(m)
        place = np.clip((values - low) / (high - low), 0, 1)
        return place if self.better[m] == "higher" else 1 - place


# ------------------------------------------------------------------------------------------- differences, tested


class _Test(NamedTuple):
    p: float
    low: float
    high: float
    real: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """First minus second of two explainers under a metric, image by image.

    Attributes:
        metric: its number.
        first: number of an explainer.
        second: the same.
        values: (images,) differences, NaN where one of them has no data.
        span: of hits and misses the difference between them, else 0.
    """

    metric: int
    first: int
    second: int
    values: Floats
    span: float

    @classmethod
    def of(cls, table: Judged, metric: int, first: int, second: int) -> _Pair:
        one, other, ends = table.values[first, metric], table.values[second, metric], table.range_of(metric)
        found = one - other
        known = ~np.isnan(found)
        hits = bool((_at_ends(one[known], ends) & _at_ends(other[known], ends)).all()) and bool(known.any())
        return cls(metric=metric, first=first, second=second, values=found, span=ends[1] - ends[0] if hits else 0.0)

    @cached_property
    def known(self) -> Floats:
        """(n,) the differences that there are."""
        return self.values[~np.isnan(self.values)]

    @cached_property
    def mean(self) -> float:
        """The mean of the differences."""
        return float(self.known.mean())

    @property
    def added(self) -> int:
        """Hits and misses get an image more that one of the two hits, for each of them."""
        return 2 if self.span else 0

    @cached_property
    def size(self) -> int:
        """Images, and those that are added."""
        return len(self.known) + self.added

    @cached_property
    def scale(self) -> float:
        """What the sum of the differences is at most, whatever their signs."""
        return math.sqrt(self.size * (float(self.known @ self.known) + self.added * self.span**2))

    @property
    def freedom(self) -> int:
        """What the variance is divided by: all, where the statistic is judged by the normal distribution."""
        return self.size if self.span else self.size - 1

    def why(self, level: float) -> str:
        """Why nothing can be said about the differences at this level; "" where something can."""
        n, size = len(self.known), np.abs(self.known)
        needed = max(FEWEST_PAIRS, math.ceil(1 - math.log2(level) - 1e-9))  # 2 of 2^n flips have all signs alike
        if n < needed:
            return f"{n} {'picture is' if n == 1 else 'pictures are'} too few, {needed} are needed."
        if (other := int((size > 1e-9 * size.max()).sum())) < needed:
            return f"The two differ on {other} of {n} pictures, {needed} are needed."
        if not self.span and np.ptp(self.known) <= 1e-9 * size.max():
            return "The difference is the same on every picture."
        return ""

    def p(self, part: Any) -> Any:
        """Two-sided p-values of the t statistic, from sums of differences as parts of `scale`."""
        part = np.minimum(np.abs(part), 1)
        with np.errstate(divide="ignore"):
            t = part * math.sqrt(self.freedom) / np.sqrt(1 - part * part)
        return 2 * (ndtr(-t) if self.span else stdtr(self.freedom, -t))

    def own_p(self) -> float:
        """Returns the larger of the p-values of t and of h."""
        found = float(self.p(self.known.sum() / self.scale))
        return found if self.span else max(found, _hall_p(self.known) / _kept(self.known))

    def around(self, p: float, real: bool) -> tuple[float, float]:
        """Between which true differences the larger p-value is more than ``p``; 0 is one unless they are real."""
        middle = float(self.known.sum()) / self.size
        variance = max(0.0, (self.scale / self.size) ** 2 - middle**2)
        quantile = float(ndtri(p / 2) if self.span else stdtrit(self.freedom, p / 2))
        reach = -quantile * math.sqrt(variance / self.freedom)
        low, high = (middle, middle) if self.span else _hall(self.known, _kept(self.known) * p)
        low, high = min(low, middle - reach), max(high, middle + reach)
        return (low, high) if real else (min(low, 0.0), max(high, 0.0))


def _tested(pairs: Sequence[_Pair], table: Judged) -> list[_Test]:
    """p-values adjusted over all pairs, and the intervals that go with them."""
    if not pairs:
        return []
    least, level = np.sort(_smallest(pairs, table)), 1 - table.confidence
    critical = float(least[min(int(level * len(least) * (1 + 1e-12)), len(least) - 1)])
    own = np.array([pair.own_p() for pair in pairs])
    beyond = np.searchsorted(least, own * (1 + 1e-9), side="right") / len(least)
    adjusted = np.minimum(np.maximum(beyond, own), 1).tolist()
    return [_Test(p, *pair.around(min(critical, level), p <= level), p <= level)
            for pair, p in zip(pairs, adjusted, strict=True)]  # fmt: skip


def _smallest(pairs: Sequence[_Pair], table: Judged) -> Floats:
    """(flips,) the smallest p-value of the table for each way to flip the images' signs, the unflipped included."""
    alike: dict[tuple[bool, int], list[_Pair]] = defaultdict(list)
    for pair in pairs:  # of these the largest part has the smallest p-value
        alike[pair.span > 0, pair.size].append(pair)
    blocks = [np.stack([_blocks(pair.values) / pair.scale for pair in group]) for group in alike.values()]
    found = []
    for signs in _signs(blocks[0].shape[1], table.resamples, table.seed, max(1, AT_ONCE // len(pairs))):
        parts = [np.abs(signs @ some.T).max(1) for some in blocks]
        found.append(np.minimum.reduce([g[0].p(part) for g, part in zip(alike.values(), parts, strict=True)]))
    return np.concatenate(found)


def _blocks(values: Floats) -> Floats:
    """Sums over every 256th value, which are the values themselves where there are no more; NaN counts as 0."""
    values = np.nan_to_num(values, nan=0.0)
    if len(values) <= BLOCKS:
        return values
    found: Floats = np.pad(values, (0, -len(values) % BLOCKS)).reshape(-1, BLOCKS).sum(0)
    return found


def _signs(count: int, resamples: int, seed: int, size: int) -> Iterator[Floats]:
    """(size, count) of +1 and -1, in all ways where these are no more than ``resamples``, else drawn."""
    if count < 30 and 2**count <= resamples:
        every = np.array(list(product((1.0, -1.0), repeat=count)))
        yield from (every[at : at + size] for at in range(0, len(every), size))
        return
    rng = np.random.default_rng(seed)
    yield np.ones((1, count), dtype=np.float64)
    for at in range(0, resamples - 1, size):
        drawn: Floats = rng.integers(0, 2, size=(min(size, resamples - 1 - at), count)).astype(np.float64)
        yield 2 * drawn - 1

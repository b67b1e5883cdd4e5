"""How often intervals and tests of `seewhy.statistics` hold what they promise: the tables of docs/statistics.md.

python benchmarks/intervals.py            # about ten minutes
python benchmarks/intervals.py --fast     # a tenth of the draws
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import numpy as np
from scipy import stats

from seewhy.statistics import Floats, Judged, interval

COUNTS = (2, 5, 6, 8, 10, 15, 20, 30, 50)
TABLES = (6, 8, 10, 20, 50)
RNG = np.random.default_rng(20)
Draw = Callable[[int], Floats]


def _poisson(most: int) -> float:
    """The mean of a Poisson number with mean 1 that ends at ``most``."""
    return float(sum(stats.poisson.sf(k, 1) for k in range(most)))


MEANS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda n: RNG.normal(size=n), 0.0),
    "uniform": (RNG.random, 0.5),
    "Student's t, 3 degrees of freedom": (lambda n: RNG.standard_t(3, size=n), 0.0),
    "Beta(8, 2): near the upper end": (lambda n: RNG.beta(8, 2, size=n), 0.8),
    "Beta(0.5, 5): near the lower end": (lambda n: RNG.beta(0.5, 5, size=n), 0.5 / 5.5),
    "Beta(0.5, 0.5): at both ends": (lambda n: RNG.beta(0.5, 0.5, size=n), 0.5),
    "exponential": (lambda n: RNG.exponential(size=n), 1.0),
    "lognormal, sigma 0.5": (lambda n: RNG.lognormal(0, 0.5, size=n), float(np.exp(0.125))),
    "lognormal, sigma 1": (lambda n: RNG.lognormal(size=n), float(np.exp(0.5))),
    "tied: five levels": (lambda n: np.round(RNG.random(n) * 4) / 4, 0.5),
    "tied: three levels": (lambda n: np.floor(RNG.random(n) * 3) / 2, 0.5),
    "tied and skewed: Poisson, 4 at most": (lambda n: np.minimum(RNG.poisson(1, size=n), 4) / 4, _poisson(4) / 4),
    "half zeros, half uniform": (lambda n: np.where(RNG.random(n) < 0.5, 0, RNG.random(n)), 0.25),
}
EQUAL: dict[str, Callable[[int], Floats]] = {
    "normal": lambda n: RNG.normal(size=(4, 8, n)),
    "normal, pictures alike for all": lambda n: RNG.normal(size=(4, 8, n)) + 3 * RNG.normal(size=(1, 1, n)),
    "exponential": lambda n: RNG.exponential(size=(4, 8, n)),
    "tied: five levels": lambda n: np.round(RNG.random((4, 8, n)) * 4) / 4,
    "hits and misses": lambda n: (RNG.random((4, 8, n)) < 0.6) * 1.0,
    "exponential against a constant": lambda n: _against(RNG.exponential(size=(4, 8, n)), 1.0),
    "lognormal (sigma 1) against a constant": lambda n: _against(RNG.lognormal(size=(4, 8, n)), float(np.exp(0.5))),
}


def _against(values: Floats, constant: float) -> Floats:
    values[1::2] = constant + RNG.normal(size=values[1::2].shape) / 100
    return values


def judged(values: Floats, hits: bool = False) -> Judged:
    """(explainers, metrics, pictures)"""
    e, m, _ = values.shape
    return Judged(
        explainers=tuple("abcd"[:e]), metrics=tuple(f"m{i}" for i in range(m)), better=("higher",) * m, values=values,
        ends=((0.0, 1.0),) * m if hits else (), resamples=2000,
    )  # fmt: skip


def covered(draw: Draw, truth: float, n: int, draws: int) -> str:
    """The share of intervals that have the true mean in them, of those that are given."""
    found = [interval(draw(n)) for _ in range(draws)]
    told = [one.low <= truth <= one.high for one in found if not one.why]
    return f"{np.mean(told):.3f}" if len(told) > draws / 2 else "none"


def hits(n: int) -> str:
    """Exact: the mean over true shares from .05 to .95, and the lowest."""
    found = [interval(np.arange(n) < k, ends=(0.0, 1.0)) for k in range(n + 1)]
    if any(one.why for one in found):
        return "none"
    shares = np.linspace(0.05, 0.95, 181)
    inside = np.array([[one.low <= p <= one.high for one in found] for p in shares])
    each = (stats.binom.pmf(np.arange(n + 1), n, shares[:, None]) * inside).sum(1)
    return f"{each.mean():.3f} ({each.min():.2f})"


def named(name: str, n: int, tables: int) -> str:
    """The share of tables of equal explainers in which a difference is called real."""
    found = [any(d.real for d in judged(EQUAL[name](n), name == "hits and misses").differences) for _ in range(tables)]
    return f"{np.mean(found):.3f}"


def one_pair(draw: Callable[[int], Floats], n: int, draws: int) -> str:
    """The share of single pairs that are called real."""
    return f"{np.mean([judged(draw(n)).differences[0].real for _ in range(draws)]):.3f}"


def power(effect: float, metrics: int, n: int, draws: int) -> str:
    """How often an explainer that is ``effect`` deviations of the difference ahead of three is found, pair by pair."""
    found = []
    for _ in range(draws):
        values = RNG.normal(size=(4, metrics, n))
        values[0, 0] += effect * np.sqrt(2)
        found.append(len(judged(values).beaten("a", "m0")) / 3)
    return f"{np.mean(found):.2f}"


def table(title: str, counts: Iterable[int], rows: Iterable[tuple[str, list[str]]]) -> None:
    """Markdown."""
    print(f"\n{title}\n\n| | {' | '.join(f'n = {n}' for n in counts)} |\n|---|{'---|' * len(list(counts))}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """All tables."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fast", action="store_true")
    few = asked.parse_args().fast
    draws, tables = (1000, 100) if few else (10_000, 1000)
    rows = [(name, [covered(draw, truth, n, draws) for n in COUNTS]) for name, (draw, truth) in MEANS.items()]
    table(f"Coverage of 95 % intervals, {draws} draws", COUNTS, rows)
    table("Hits and misses, exact: mean over true shares (lowest)", COUNTS, [("Wilson", [hits(n) for n in COUNTS])])
    equal = [(name, [named(name, n, tables) for n in TABLES]) for name in EQUAL]
    table(f"Tables with a difference called real, 8 metrics, 4 equal explainers, {tables} tables", TABLES, equal)
    pairs = {
        "exponential": lambda n: _against(RNG.exponential(size=(2, 1, n)), 1.0),
        "lognormal, sigma 1": lambda n: _against(RNG.lognormal(size=(2, 1, n)), float(np.exp(0.5))),
    }
    single = [(name, [one_pair(draw, n, 2 * tables) for n in TABLES]) for name, draw in pairs.items()]
    table("One pair, skewed against a constant of the same mean", TABLES, single)
    found = [
        (f"{effect} deviations, {m} metrics", [power(effect, m, n, tables // 5) for n in TABLES])
        for effect in (1, 1.5, 2, 3) for m in (1, 8)
    ]  # fmt: skip
    table("True differences that are found", TABLES, found)


if __name__ == "__main__":
    main()

"""What a comparison of explainers found: averages with intervals, differences that are real, costs and failures.

Every number belongs to one explainer, one metric and one picture. Averages leave out what has no data (NaN) and say how
many pictures they rest on. A difference is taken over the pictures that both explainers have, see `intervals`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.csv_cells import guarded
from seewhy.draw import chart
from seewhy.errors import InvalidInput
from seewhy.intervals import bootstrap, holm, sign_flip

__all__ = ["Comparison", "Difference", "Failure", "Mean"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One explainer's average under one metric.

    Attributes:
        explainer: its label.
        metric: its label.
        mean: NaN where there is no data.
        low: of the confidence interval; NaN with fewer than two pictures.
        high: the same.
        n: pictures with data.
        missing: pictures without data, failures included.
    """

    explainer: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two explainers under one metric, on the pictures that both have; ``better`` has the better mean.

    Attributes:
        metric: its label.
        better: explainer.
        worse: explainer.
        difference: mean of better minus worse, picture by picture.
        low: of its confidence interval.
        high: the same.
        p: of the sign-flip test, adjusted for all pairs under this metric.
        n: pictures.
        real: whether chance alone would make such a difference less often than 1 - confidence.
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


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What could not be done: a picture, one explainer's map of it (``explainer``), or its number (``metric``)."""

    picture: str
    reason: str
    explainer: str | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Explainers, judged by metrics on the same pictures.

    Attributes:
        explainers: labels, in the caller's order; the baselines come last.
        metrics: labels.
        better: "higher" or "lower" for each metric.
        values: (explainers, metrics, pictures) float64, NaN where there is no data.
        forward: (explainers, pictures) images that went through the network to make a map.
        backward: (explainers, pictures) the same, backward.
        seconds: (explainers, pictures) time to make a map.
        judging: (metrics,) images that went through the network to judge all maps.
        pictures: names.
        baselines: labels of the explainers that do not look at the network.
        failures: what could not be done.
        settings: everything that is needed to do it again.
        confidence: of the intervals.
        resamples: of bootstrap and sign-flip test.
        seed: of both.
    """

    explainers: tuple[str, ...]
    metrics: tuple[str, ...]
    better: tuple[str, ...]
    values: Floats
    forward: Floats
    backward: Floats
    seconds: Floats
    judging: Floats
    pictures: tuple[str, ...]
    baselines: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0

    def mean(self, explainer: str, metric: str) -> Mean:
        """One cell of the table.

        Raises:
            InvalidInput: there is no such explainer or metric.
        """
        found = [m for m in self.means if (m.explainer, m.metric) == (explainer, metric)]
        if not found:
            raise InvalidInput(
                f"The comparison has no {explainer!r} under {metric!r}. Explainers: {', '.join(self.explainers)}; "
                f"metrics: {', '.join(self.metrics)}."
            )
        return found[0]

    @cached_property
    def means(self) -> list[Mean]:
        """Every explainer under every metric."""
        return [self._mean(e, m) for m in range(len(self.metrics)) for e in range(len(self.explainers))]

    @cached_property
    def differences(self) -> list[Difference]:
        """Every pair of explainers under every metric."""
        return [d for m in range(len(self.metrics)) for d in self._pairs(m)]

    def _mean(self, e: int, m: int) -> Mean:
        values = self.values[e, m]
        known = values[~np.isnan(values)]
        low, high = bootstrap(known[:, None], **self._chance(resampled=True))
        return Mean(
            explainer=self.explainers[e], metric=self.metrics[m], mean=float(known.mean()) if len(known) else np.nan,
            low=float(low[0]), high=float(high[0]), n=len(known), missing=len(values) - len(known),
        )  # fmt: skip

    def _chance(self, *, resampled: bool) -> dict[str, Any]:
        chance: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed}
        return {**chance, "confidence": self.confidence} if resampled else chance

    def _pairs(self, m: int) -> list[Difference]:
        pairs = list(combinations(range(len(self.explainers)), 2))
        found = [self._against(m, a, b) for a, b in pairs]
        kept = [(pair, one) for pair, one in zip(pairs, found, strict=True) if one is not None]
        adjusted = holm(np.array([one["p"] for _, one in kept]))
        return [self._difference(m, pair, one, float(p)) for (pair, one), p in zip(kept, adjusted, strict=True)]

    def _against(self, m: int, a: int, b: int) -> dict[str, Any] | None:
        both = self.values[a, m] - self.values[b, m]
        known = both[~np.isnan(both)][:, None]
        if not len(known):
            return None
        low, high = bootstrap(known, **self._chance(resampled=True))
        p = sign_flip(known, **self._chance(resampled=False))
        return {"mean": float(known.mean()), "low": float(low[0]), "high": float(high[0]), "p": p[0], "n": len(known)}

    def _difference(self, m: int, pair: tuple[int, int], one: dict[str, Any], p: float) -> Difference:
        wins = (one["mean"] >= 0) == (self.better[m] == "higher")
        first, second = pair if wins else pair[::-1]
        turned = -1 if first != pair[0] else 1
        low, high = sorted((turned * one["low"], turned * one["high"]))
        return Difference(
            metric=self.metrics[m], better=self.explainers[first], worse=self.explainers[second],
            difference=turned * one["mean"], low=low, high=high, p=p, n=one["n"], real=p < 1 - self.confidence,
        )  # fmt: skip

    def beaten(self, explainer: str, metric: str) -> list[str]:
        """The explainers that this one is really better than."""
        return [d.worse for d in self.differences if d.real and (d.better, d.metric) == (explainer, metric)]

    def cost(self, explainer: str) -> tuple[float, float, float]:
        """Forward passes, backward passes and seconds of one map, averaged over the pictures; NaN without any."""
        e = self.explainers.index(explainer)
        known = ~np.isnan(self.seconds[e])
        if not known.any():
            return np.nan, np.nan, np.nan
        forward, backward, seconds = (v[e, known].mean() for v in (self.forward, self.backward, self.seconds))
        return float(forward), float(backward), float(seconds)

    def __str__(self) -> str:
        """The table and the real differences, as text."""
        return "\n".join([*self._table(), "", *self._verdicts(), *self._failed()])

    def _table(self) -> list[str]:
        head = ["explainer", *(f"{m} ({'^' if b == 'higher' else 'v'})" for m, b in zip(self.metrics, self.better,
                strict=True)), "forward", "backward", "seconds"]  # fmt: skip
        rows = [[e, *(_cell(self.mean(e, m)) for m in self.metrics), *_spent(self.cost(e))] for e in self.explainers]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
        ]
        said = (
            f"Means over {len(self.pictures)} pictures with {self.confidence:.0%} bootstrap intervals; ^ higher is "
            "better, v lower is better; passes and seconds are those of one map."
        )
        return [lines[0], "-" * len(lines[0]), *lines[1:], said]

    def _verdicts(self) -> list[str]:
        lines = [f"Real differences (paired sign-flip test, Holm-adjusted, p < {1 - self.confidence:.2g}):"]
        for metric in self.metrics:
            beats = {e: self.beaten(e, metric) for e in self.explainers}
            said = [f"{e} beats {', '.join(worse)}" for e, worse in beats.items() if worse]
            lines += [f"  {metric}: {'; '.join(said) if said else 'none' + self._hopeless(metric)}"]
        return lines

    def _hopeless(self, metric: str) -> str:
        """Says where even the clearest difference would not be called real: few pictures, many pairs."""
        counts = [d.n for d in self.differences if d.metric == metric]
        least = [2 / 2**n if 2**n <= self.resamples else 1 / (self.resamples + 1) for n in counts]
        if not counts or min(least) * len(counts) < 1 - self.confidence:
            return ""
        return f" (nor could there be: {max(counts)} pictures are too few for {len(counts)} pairs)"

    def _failed(self) -> list[str]:
        if not self.failures:
            return []
        shown = [f"  {' / '.join(p for p in (f.picture, f.explainer, f.metric) if p)}: {f.reason}"
                 for f in self.failures[:20]]  # fmt: skip
        rest = [f"  ... and {len(self.failures) - 20} more."] if len(self.failures) > 20 else []
        return ["", f"Failures ({len(self.failures)}):", *shown, *rest]

    def to_csv(self, path: str | Path) -> Path:
        """Writes one row a cell of the table; returns the path."""
        out = io.StringIO()
        names = ["explainer", "metric", "better", "mean", "low", "high", "n", "missing", "forward", "backward",
                 "seconds"]  # fmt: skip
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        better = dict(zip(self.metrics, self.better, strict=True))
        for m in self.means:
            writer.writerow(map(guarded, [m.explainer, m.metric, better[m.metric], m.mean, m.low, m.high, m.n,
                                          m.missing, *self.cost(m.explainer)]))  # fmt: skip
        return _write(path, out.getvalue())

    def to_json(self, path: str | Path) -> Path:
        """Writes everything, each picture's numbers included; NaN becomes null. Returns the path."""
        found = {
            "settings": self.settings,
            "explainers": self.explainers,
            "baselines": self.baselines,
            "metrics": [{"name": n, "better": b} for n, b in zip(self.metrics, self.better, strict=True)],
            "pictures": self.pictures,
            "means": [vars(m) for m in self.means],
            "differences": [vars(d) for d in self.differences],
            "cost": {e: dict(zip(("forward", "backward", "seconds"), self.cost(e), strict=True)) for e in
                     self.explainers},
            "judging_forward": dict(zip(self.metrics, self.judging.tolist(), strict=True)),
            "values": {e: {m: self.values[i, j].tolist() for j, m in enumerate(self.metrics)} for i, e in
                       enumerate(self.explainers)},
            "failures": [vars(f) for f in self.failures],
        }  # fmt: skip
        return _write(path, json.dumps(_plain(found), indent=1, ensure_ascii=False, allow_nan=False))

    def picture(self) -> Image.Image:
        """The averages as points with their intervals, one panel a metric; baselines are grey."""
        panels = [
            chart.Panel(
                title=f"{metric} ({better} is better)",
                bars=tuple(
                    chart.Bar(label=m.explainer, value=m.mean, low=m.low, high=m.high, muted=m.explainer in
                              self.baselines)
                    for m in self.means if m.metric == metric
                ),
                descending=better == "higher",
            )
            for metric, better in zip(self.metrics, self.better, strict=True)
        ]  # fmt: skip
        said = (
            f"Means over {len(self.pictures)} pictures with {self.confidence:.0%} bootstrap intervals. "
            "Grey: baselines, which do not look at the network."
        )
        return chart.draw(panels, footer=said)

    def to_png(self, path: str | Path) -> Path:
        """Writes `picture`; returns the path."""
        where = Path(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        self.picture().save(where)
        return where

    def save(self, folder: str | Path) -> list[Path]:
        """Writes comparison.csv, .json, .png and .txt; returns their paths."""
        stem = Path(folder) / "comparison"
        return [
            self.to_csv(stem.with_suffix(".csv")), self.to_json(stem.with_suffix(".json")),
            self.to_png(stem.with_suffix(".png")), _write(stem.with_suffix(".txt"), str(self) + "\n"),
        ]  # fmt: skip


def _cell(mean: Mean) -> str:
    if not mean.n:
        return "no data"
    interval = f" [{mean.low:.3f}, {mean.high:.3f}]" if mean.n > 1 else ""
    return f"{mean.mean:.3f}{interval} n={mean.n}"


def _spent(cost: Sequence[float]) -> list[str]:
    return ["-" if c != c else f"{c:.1f}" if i < 2 else f"{c:.3f}" for i, c in enumerate(cost)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def _write(path: str | Path, text: str) -> Path:
    where = Path(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(text, encoding="utf-8")
    return where

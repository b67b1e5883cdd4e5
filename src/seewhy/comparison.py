"""What a comparison of explainers found: averages with intervals, differences that are real, costs and failures.

Every number belongs to one explainer, one metric and one image. Averages leave out what has no data (NaN) and say how
many images they rest on. Intervals and differences are those of `statistics`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.csv_cells import guarded
from seewhy.draw import chart, document
from seewhy.errors import InvalidInput
from seewhy.statistics import Best, Difference, Judged, Mean

__all__ = ["Comparison", "Difference", "Failure", "Mean"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What could not be done: an image, one explainer's map of it (``explainer``), or its number (``metric``)."""

    picture: str
    reason: str
    explainer: str | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Explainers, judged by metrics on the same images.

    Attributes:
        explainers: labels, in the caller's order; the baselines come last.
        metrics: labels.
        better: "higher" or "lower" for each metric.
        values: (explainers, metrics, images) float64, NaN where there is no data.
        forward: (explainers, images) images that went through the network to make a map.
        backward: (explainers, images) the same, backward.
        seconds: (explainers, images) time to make a map.
        judging: (metrics,) images that went through the network to judge all maps.
        pictures: names.
        baselines: labels of the explainers that do not look at the network.
        failures: what could not be done.
        settings: everything that is needed to do it again.
        ranges: lowest and highest value of each metric, infinite where it has none; () for none at all.
        confidence: of the intervals.
        resamples: how often signs are flipped to test differences.
        seed: of the flips.

    Example:
        >>> data = [(image, 1, mask) for image, mask in zip(inputs, masks)]
        >>> table = seewhy.compare(network, data, ["grad_cam"], ["relevance_mass"], baselines=False, progress=False)
        >>> table.better, table.pictures
        (('higher',), ('image 0', 'image 1'))
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
    ranges: tuple[tuple[float, float], ...] = ()
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
    def judged(self) -> Judged:
        """The numbers and what they tell."""
        return Judged(
            explainers=self.explainers, metrics=self.metrics, better=self.better, values=self.values, ends=self.ranges,
            baselines=self.baselines, confidence=self.confidence, resamples=self.resamples, seed=self.seed,
        )  # fmt: skip

    @property
    def means(self) -> list[Mean]:
        """Every explainer under every metric."""
        return self.judged.means

    @property
    def differences(self) -> list[Difference]:
        """Every pair of explainers under every metric, adjusted over the whole table."""
        return self.judged.differences

    def beaten(self, explainer: str, metric: str) -> list[str]:
        """Returns the explainers that this one is really better than."""
        return self.judged.beaten(explainer, metric)

    def failed(self, explainer: str, metric: str) -> int:
        """How many images have no number because something failed, rather than because there was nothing to judge."""
        about = ((None, None), (explainer, None), (explainer, metric))
        return len({f.picture for f in self.failures if (f.explainer, f.metric) in about})

    def best(self, metric: str) -> Best:
        """Which explainer may be called the best under a metric; what does not beat the baselines may not."""
        return self.judged.best(metric)

    def cost(self, explainer: str) -> tuple[float, float, float]:
        """Forward passes, backward passes and seconds of one map, averaged over the images; NaN without any."""
        e = self.explainers.index(explainer)
        known = ~np.isnan(self.seconds[e])
        if not known.any():
            return np.nan, np.nan, np.nan
        forward, backward, seconds = (v[e, known].mean() for v in (self.forward, self.backward, self.seconds))
        return float(forward), float(backward), float(seconds)

    def __str__(self) -> str:
        """Returns the table and the real differences, as text."""
        return "\n".join([*self._table(), "", *self._verdicts(), *self._failed()])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, the real differences, failures."""
        head, rows = self._cells()
        *_, said = self._table()
        text = escape("\n".join([*self._verdicts(), *self._failed()]))
        return f'{document.table(head, rows, caption=said)}<pre style="white-space:pre-wrap">{text}</pre>'

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Returns the head of the table, and its rows."""
        head = ["explainer", *(f"{m} ({'^' if b == 'higher' else 'v'})" for m, b in zip(self.metrics, self.better,
                strict=True)), "forward", "backward", "seconds"]  # fmt: skip
        return head, [
            [e, *(self._cell(self.mean(e, m)) for m in self.metrics), *_spent(self.cost(e))] for e in self.explainers
        ]

    def _table(self) -> list[str]:
        head, rows = self._cells()
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
        ]
        said = (
            f"Means over {len(self.pictures)} pictures with {self.confidence:.0%} intervals; ^ higher is "
            "better, v lower is better; passes and seconds are those of one map."
        )
        return [lines[0], "-" * len(lines[0]), *lines[1:], said]

    def _cell(self, mean: Mean) -> str:
        failed = self.failed(mean.explainer, mean.metric)
        lost = f", {failed} failed" if failed else ""
        if not mean.n:
            return f"no data{lost}"
        interval = "" if mean.why else f" [{mean.low:.3f}, {mean.high:.3f}]"
        return f"{mean.mean:.3f}{interval} n={mean.n}{lost}"

    def _verdicts(self) -> list[str]:
        lines = [
            f"Real differences (paired by picture, adjusted over the whole table, level {1 - self.confidence:.2g}):"
        ]
        for metric in self.metrics:
            beats = {e: self.beaten(e, metric) for e in self.explainers}
            said = [f"{e} beats {', '.join(worse)}" for e, worse in beats.items() if worse]
            lines += [f"  {metric}: {'; '.join(said) or 'none'}{self._untold(metric) or self._chance(metric)}"]
        return lines

    def _untold(self, metric: str) -> str:
        """Says of which pairs nothing can be told, and why."""
        every = [d for d in self.differences if d.metric == metric]
        open_ = [d for d in every if d.verdict == "cannot be told"]
        if not open_:
            return ""
        reasons = dict.fromkeys(d.why for d in open_)
        what = "no pair" if len(open_) == len(every) else f"not all pairs, {len(every) - len(open_)} of {len(every)},"
        return f" ({what} can be told: {' '.join(list(reasons)[:2]).rstrip('.')})"

    def _chance(self, metric: str) -> str:
        why = self.best(metric).why if self.baselines and set(self.explainers) - set(self.baselines) else ""
        return f" ({why.rstrip('.')})" if why else ""

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
        names = ["explainer", "metric", "better", "mean", "low", "high", "n", "missing", "failed", "forward",
                 "backward", "seconds"]  # fmt: skip
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        better = dict(zip(self.metrics, self.better, strict=True))
        for m in self.means:
            writer.writerow(map(guarded, [m.explainer, m.metric, better[m.metric], m.mean, m.low, m.high, m.n,
                                          m.missing, self.failed(m.explainer, m.metric),
                                          *self.cost(m.explainer)]))  # fmt: skip
        return _write(path, out.getvalue())

    def to_json(self, path: str | Path) -> Path:
        """Writes everything, each image's numbers included; NaN becomes null. Returns the path."""
        found = {
            "settings": self.settings,
            "explainers": self.explainers,
            "baselines": self.baselines,
            "metrics": [{"name": n, "better": b} for n, b in zip(self.metrics, self.better, strict=True)],
            "ranges": [[end if np.isfinite(end) else None for end in ends] for ends in self.ranges],
            "pictures": self.pictures,
            "means": [{**vars(m), "failed": self.failed(m.explainer, m.metric)} for m in self.means],
            "differences": [vars(d) for d in self.differences],
            "cost": {e: dict(zip(_COSTS, self.cost(e), strict=True)) for e in
                     self.explainers},
            "each": {e: {name: getattr(self, name)[i].tolist() for name in _COSTS} for i, e in
                     enumerate(self.explainers)},
            "statistics": {"confidence": self.confidence, "resamples": self.resamples, "seed": self.seed},
            "judging_forward": dict(zip(self.metrics, self.judging.tolist(), strict=True)),
            "values": {e: {m: self.values[i, j].tolist() for j, m in enumerate(self.metrics)} for i, e in
                       enumerate(self.explainers)},
            "failures": [vars(f) for f in self.failures],
        }  # fmt: skip
        return _write(path, json.dumps(_plain(found), indent=1, ensure_ascii=False, allow_nan=False))

    @classmethod
    def from_json(cls, path: str | Path) -> Comparison:
        """Returns the comparison that `to_json` wrote: its table, files and image come out the same to the last bit.

        Raises:
            InvalidInput: the file is not there, or holds no comparison of this version.
        """
        try:
            return _restored(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InvalidInput(
                f"{str(path)!r} holds no comparison with each picture's numbers, as seewhy compare writes it to "
                f"comparison.json ({type(error).__name__}: {error})."
            ) from error

    @property
    def how(self) -> list[str]:
        """The model, and all parameters of explainers (also where published defaults differ) and metrics."""
        about = self.settings
        lines = [f"model: {about.get('model')}, activation {about.get('activation')}"]
        for kind in ("explainers", "metrics"):
            lines += [f"{kind[:-1]} {label}: {text}" for label, text in about.get(kind, {}).items()]
        lines += [f"the authors' program of {label}: {text}" for label, text in about.get("published", {}).items()]
        said = f"confidence {self.confidence:g}, {self.resamples} flips, seed {self.seed}"
        lines += [about["accelerate"]] if "accelerate" in about else []
        return [*lines, f"{said}; seewhy {about.get('seewhy')}, torch {about.get('torch')}"]

    def picture(self) -> Image.Image:
        """Returns the averages as points with their intervals, one panel a metric; baselines are grey."""
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
            f"Means over {len(self.pictures)} pictures with {self.confidence:.0%} intervals. "
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


def _spent(cost: Sequence[float]) -> list[str]:
    return ["-" if c != c else f"{c:.1f}" if i < 2 else f"{c:.3f}" for i, c in enumerate(cost)]


_COSTS = ("forward", "backward", "seconds")


def _restored(found: dict[str, Any]) -> Comparison:
    explainers, metrics = tuple(found["explainers"]), [one["name"] for one in found["metrics"]]
    values = [[_numbers(found["values"][e][m]) for m in metrics] for e in explainers]
    each: dict[str, Any] = {name: np.stack([_numbers(found["each"][e][name]) for e in explainers]) for name in _COSTS}
    infinite = (-math.inf, math.inf)
    return Comparison(
        explainers=explainers, metrics=tuple(metrics), better=tuple(one["better"] for one in found["metrics"]),
        values=np.array(values), **each, judging=_numbers([found["judging_forward"][m] for m in metrics]),
        pictures=tuple(found["pictures"]), baselines=tuple(found["baselines"]), settings=dict(found["settings"]),
        ranges=tuple(
            (infinite[0] if low is None else low, infinite[1] if high is None else high)
            for low, high in found["ranges"]
        ),
        failures=tuple(Failure(**one) for one in found["failures"]), **found["statistics"],
    )  # fmt: skip


def _numbers(values: list[float | None]) -> Floats:
    return np.array([math.nan if one is None else one for one in values], dtype=np.float64)


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

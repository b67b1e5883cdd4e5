"""Bars that scores must reach, for checks that run by themselves: ``--fail-under`` and `assert_looks_at`.

A bar is a metric and a number. It is missed where an explainer's mean over the images is worse than the number (below
it where more is better, above it where less is better), and where nothing could be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.api import explain
from seewhy.comparing import compare
from seewhy.errors import InvalidInput, nearest
from seewhy.models.loading import load

__all__ = ["Bar", "assert_looks_at", "bars", "missed"]


@dataclass(frozen=True)
class Bar:
    """What the mean of a metric must reach.

    Attributes:
        metric: its label.
        number: the bar.
    """

    metric: str
    number: float

    def misses(self, mean: float | None, better: str) -> str:
        """Why a mean does not reach the bar; empty where it does.

        Args:
            mean: None or NaN where nothing was measured.
            better: "higher" or "lower".
        """
        if mean is None or math.isnan(mean):
            return f"no {self.metric} could be measured, expected {self._asked(better)}"
        worse = mean < self.number if better == "higher" else mean > self.number
        return f"{self.metric} is {mean:.3f}, expected {self._asked(better)}" if worse else ""

    def _asked(self, better: str) -> str:
        return f"at {'least' if better == 'higher' else 'most'} {self.number:g}"


def bars(texts: Iterable[str], metrics: Sequence[str]) -> list[Bar]:
    """Bars from texts METRIC=NUMBER.

    Args:
        texts: what was typed.
        metrics: labels of the metrics that are measured.

    Raises:
        InvalidInput: not of this form, not a number, or a metric that is not measured.

    Example:
        >>> bars(["pointing_game=0.8"], ["pointing_game", "deletion_auc"])
        [Bar(metric='pointing_game', number=0.8)]
    """
    found = []
    for text in texts:
        metric, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or math.isnan(value):
            raise InvalidInput(f"--fail-under takes METRIC=NUMBER, such as pointing_game=0.8, got {text!r}.")
        if metric not in metrics:
            raise InvalidInput(f"--fail-under: {metric!r} is not measured. {nearest(metric, metrics)}")
        found.append(Bar(metric, value))
    return found


def missed(
    asked: Iterable[Bar], scores: Mapping[str, Mapping[str, float | None]], better: Mapping[str, str]
) -> list[str]:
    """Returns a sentence for each explainer that misses a bar.

    Args:
        asked: the bars.
        scores: explainer -> label of a metric -> mean.
        better: label of a metric -> "higher" or "lower".
    """
    return [
        f"{explainer}: {why}."
        for bar in asked
        for explainer, means in scores.items()
        if (why := bar.misses(means.get(bar.metric), better[bar.metric]))
    ]


def assert_looks_at(
    model: Any, samples: Iterable[Any], *, metric: str = "pointing_game", at_least: float = 0.8,
    explainer: str = "auto", **options: Any,
) -> None:  # fmt: skip
    """Asserts that a model looks at what it should, for a test of your own.

    Args:
        model: what `seewhy.load` takes.
        samples: what `seewhy.compare` takes: images with targets and masks of where to look.
        metric: the name of a metric.
        at_least: its mean over the samples must reach; where less is better, must not exceed.
        explainer: the name of an explainer; "auto" for the one that `seewhy.explain` chooses for the first sample.
        options: of `seewhy.compare`.

    Raises:
        AssertionError: the mean does not reach the bar; says the mean, its interval and what failed.
        SeewhyError: what cannot be judged at all.

    Example:
        >>> data = [(image, 1, mask) for image, mask in zip(inputs, masks)]
        >>> assert_looks_at(network, data, metric="relevance_mass", at_least=0.0, explainer="grad_cam")
    """
    network, given = load(model), list(samples)
    if not given:
        raise InvalidInput("There is no sample to look at: the list is empty.")
    if explainer == "auto":
        first = given[0][0] if isinstance(given[0], tuple) else getattr(given[0], "image", given[0])
        explainer = explain(network, first, progress=False).method
    found = compare(network, given, [explainer], [metric], **{"baselines": False, "progress": False, **options})
    mean = found.mean(found.explainers[0], found.metrics[0])
    why = Bar(metric, at_least).misses(mean.mean if mean.n else None, found.better[0])
    if why:
        raise AssertionError(f"{explainer} over {mean.n} of {len(given)} images: {why}.\n{found}")

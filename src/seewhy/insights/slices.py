"""Where is the network worse than elsewhere: groups of images with an error rate above that of the others.

Numbers are cut at their quartiles, texts are taken as they are; groups are one such part, or two of different
properties. Whether a group's error rate is really above that of all other images is Fisher's exact test, one-sided,
adjusted over all groups that were looked at (Holm 1979). The interval of the rise is Newcombe's (1998, from Wilson's).
A group of two parts is told only where it says more than either part alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from seewhy.checks import check_count, check_inside
from seewhy.errors import InvalidInput
from seewhy.insights.properties import Value, chosen, metadata, of_metadata, properties, wrong
from seewhy.runs.query.run import Run
from seewhy.statistics import interval

__all__ = ["Slice", "Slices", "associated", "slices"]

Bools = NDArray[np.bool_]
FEWEST = 20  # images of which a group can be told
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A group of images.

    Attributes:
        parts: property -> which of its values, in words.
        images: how many.
        errors: how many of them are wrong.
        rate: errors / images.
        elsewhere: the error rate of all other images.
        rise: rate - elsewhere.
        low: of the interval of the rise.
        high: the same.
        p: adjusted over all groups that were looked at.
        samples: keys of the images that are wrong, then of the others.
    """

    parts: dict[str, str]
    images: int
    errors: int
    rate: float
    elsewhere: float
    rise: float
    low: float
    high: float
    p: float
    samples: tuple[str, ...]

    def __str__(self) -> str:
        what = " and ".join(f"{name} {value}" for name, value in self.parts.items())
        return (
            f"{what}: {self.errors} of {self.images} wrong ({self.rate:.1%}), elsewhere {self.elsewhere:.1%}; "
            f"+{self.rise:.1%} [{self.low:+.1%}, {self.high:+.1%}], p {self.p:.2g}"
        )


@dataclass(frozen=True, kw_only=True)
class Slices:
    """The groups in which a network is worse than elsewhere, the largest reliable rise first.

    Attributes:
        run: address of the run.
        images: with a known truth and answer.
        errors: how many of them are wrong.
        looked: groups that were looked at.
        found: those whose rise is reliable.

    Example:
        >>> seewhy.slices(run).found  # four images: too few to tell any group
        ()
    """

    run: str
    images: int
    errors: int
    looked: int
    found: tuple[Slice, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.run}: {self.errors} of {self.images} images wrong; {self.looked} groups looked at"
        return "\n".join([head, *(f"  {one}" for one in self.found)] if self.found else [f"{head}; nothing stands out"])


def slices(
    run: Run | str | os.PathLike[str], *, table: str | os.PathLike[str] | None = None, explainer: str | None = None,
    least: int = FEWEST, level: float = 0.05,
) -> Slices:  # fmt: skip
    """Finds groups of images on which the network is worse than on the others.

    Args:
        run: a run, or its folder, over data with truth.
        table: a CSV file of metadata with a column "sample", "name" or "image"; its other columns are properties.
        explainer: whose maps are looked at, by its label; None for the first of the run.
        least: images that a group has at least.
        level: below which an adjusted p-value is reliable.

    Raises:
        InvalidInput: no truth is known, or the table cannot be read.
        UnknownName: the run has no such explainer.

    Example:
        >>> seewhy.slices(run).images, seewhy.slices(run).looked
        (4, 0)
    """
    check_count("least", least)
    check_inside("level", level)
    opened = run if isinstance(run, Run) else Run(run)
    known = metadata(table) if table is not None else {}
    keys, errors, rows = _collected(opened, known, chosen(opened, explainer))
    if not keys:
        raise InvalidInput(
            f"Of no image in {opened.address!r} it is known what is truly there and what the network says. Expected a "
            "run over data with labels."
        )
    bad = np.array(errors)
    parts = {key: inside for key, inside in _parts(rows) if _fit(inside, least)}
    groups = [({name: value}, inside) for (name, value), inside in parts.items()]
    for (one, inside), (other, within) in combinations(parts.items(), 2):
        if one[0] != other[0] and _fit(both := inside & within, least):
            groups.append(({one[0]: one[1], other[0]: other[1]}, both))
    told = _told(groups, bad, np.array(keys), level)
    return Slices(
        run=opened.address, images=len(keys), errors=int(bad.sum()), looked=len(groups),
        found=tuple(sorted(told, key=lambda group: (-group.low, -group.rise))),
    )  # fmt: skip


def _collected(
    run: Run, known: Mapping[str, Mapping[str, Value]], explainer: str | None
) -> tuple[list[str], list[bool], list[dict[str, Value]]]:
    keys, errors, rows = [], [], []
    for record in run.records():
        bad = wrong(run, record)
        if bad is not None:
            keys.append(record.sample)
            errors.append(bad)
            rows.append(properties(run, record, explainer) | dict(of_metadata(known, record)))
    return keys, errors, rows


def _parts(rows: list[dict[str, Value]]) -> Iterator[tuple[tuple[str, str], Bools]]:
    """((property, value in words), which images)."""
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        numbers = np.array([v if isinstance(v, float) else np.nan for v in values])
        if np.isfinite(numbers).any():
            yield from (((name, words), inside) for words, inside in _quarters(numbers))
        for text in dict.fromkeys(v for v in values if isinstance(v, str)):
            yield (name, f"= {text}"), np.array([v == text for v in values])


def _quarters(numbers: NDArray[np.float64]) -> Iterator[tuple[str, Bools]]:
    known = numbers[np.isfinite(numbers)]
    edges = np.quantile(known, (0.25, 0.5, 0.75))
    if np.ptp(known) == 0:
        return
    places = np.searchsorted(edges, numbers, side="left")
    for number, words in enumerate(QUARTERS):
        inside = (places == number) & np.isfinite(numbers)
        if inside.any():
            yield f"in its {words} ({numbers[inside].min():.3g} to {numbers[inside].max():.3g})", inside


def associated(rows: list[dict[str, Value]], members: Bools, level: float = 0.05) -> tuple[str, ...]:
    """Returns the properties that some images have reliably more often than the others, in words, the surest first.

    Args:
        rows: property -> value of each image.
        members: (n,) which images.
        level: below which a p-value (Fisher, one-sided, adjusted over all values) is reliable.
    """
    parts = [(name, words, inside) for (name, words), inside in _parts(rows) if 0 < inside.sum() < len(inside)]
    if not parts or not members.any() or members.all():
        return ()
    both = np.array([int((inside & members).sum()) for *_, inside in parts])
    sizes = np.array([int(inside.sum()) for *_, inside in parts])
    adjusted = _holm(hypergeom.sf(both - 1, len(members), int(members.sum()), sizes))
    count, others = int(members.sum()), int((~members).sum())
    return tuple(
        f"{parts[i][0]} {parts[i][1]}: {both[i]} of {count}, of the others {sizes[i] - both[i]} of {others}"
        for i in np.argsort(adjusted, kind="stable")
        if adjusted[i] <= level
    )


def _fit(inside: Bools, least: int) -> bool:
    count = int(inside.sum())
    return least <= count <= len(inside) - least


def _told(groups: list[tuple[dict[str, str], Bools]], bad: Bools, keys: NDArray[Any], level: float) -> list[Slice]:
    """Returns the reliable ones, without pairs that say no more than one of their parts."""
    if not groups:
        return []
    sizes = np.array([int(inside.sum()) for _, inside in groups])
    wrongs = np.array([int((inside & bad).sum()) for _, inside in groups])
    p = hypergeom.sf(wrongs - 1, len(bad), int(bad.sum()), sizes)
    adjusted = _holm(p)
    made = [
        _slice(parts, inside, bad, keys, float(q))
        for (parts, inside), q in zip(groups, adjusted, strict=True)
        if q <= level
    ]
    single = {next(iter(one.parts.items())): one.rise for one in made if len(one.parts) == 1}
    return [
        one for one in made
        if len(one.parts) == 1 or one.low > max((single.get(part, 0.0) for part in one.parts.items()), default=0.0)
    ]  # fmt: skip


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(p)
    steps = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    found = np.empty_like(steps)
    found[order] = steps
    return found


def _slice(parts: dict[str, str], inside: Bools, bad: Bools, keys: NDArray[Any], p: float) -> Slice:
    here, there = (interval(bad[which].astype(float), ends=(0, 1)) for which in (inside, ~inside))
    rise = here.mean - there.mean
    return Slice(
        parts=parts, images=int(inside.sum()), errors=int((inside & bad).sum()), rate=here.mean,
        elsewhere=there.mean, rise=rise, low=rise - math.hypot(here.mean - here.low, there.high - there.mean),
        high=rise + math.hypot(here.high - here.mean, there.mean - there.low), p=p,
        samples=(*keys[inside & bad].tolist(), *keys[inside & ~bad].tolist()),
    )  # fmt: skip

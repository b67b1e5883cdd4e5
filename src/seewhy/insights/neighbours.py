"""Images that the network sees alike: most similar ones, duplicates, and labels that their neighbours contradict.

Features of the automatic layer (a run with ``features``) are standardised, and images compared by their cosine.
Candidates come from the first 64 principal components, and are compared with all features.

A label is doubted where the network says another class and most of the most similar images have that class, too: after
Northcutt, Jiang and Chuang, "Confident Learning", 2021, who ask where label and prediction disagree. The neighbours are
the second witness.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from seewhy.checks import check_count, check_inside
from seewhy.errors import UnknownName, nearest
from seewhy.insights.properties import Value, metadata, of_metadata
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run

__all__ = ["Doubted", "Duplicates", "Neighbours", "neighbours"]

COUNT = 10  # neighbours that are asked about a label
KEPT = 32  # neighbours that are found of each image
ALIKE = 0.98  # cosine from which on two images are called duplicates
COMPONENTS, BLOCK = 64, 256


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Images that look the same to the network.

    Attributes:
        samples: their keys.
        classes: what is truly there, a list of class names for each; empty where it is not known.
        likeness: the smallest cosine by which one of them was joined to the others.
        disagree: whether their labels differ.
        across: the values of the column that was asked for, where they differ.
    """

    samples: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    likeness: float
    disagree: bool
    across: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{', '.join(self.samples)} (likeness {self.likeness:.3f})"]
        said += ["labelled differently"] if self.disagree else []
        said += [f"in {' and '.join(self.across)}"] if self.across else []
        return "; ".join(said)


@dataclass(frozen=True, kw_only=True)
class Doubted:
    """A label that the network and the most similar images contradict.

    Attributes:
        sample: key of the image.
        label: the class name that it has.
        instead: the one that the network says, and most neighbours have.
        probability: of it.
        share: of the neighbours that have it.
        own: share of the neighbours that have the label.
    """

    sample: str
    label: str
    instead: str
    probability: float
    share: float
    own: float

    def __str__(self) -> str:
        return (
            f"{self.sample}: labelled {self.label}, the network says {self.instead} ({self.probability:.3f}), and so "
            f"are {self.share:.0%} of its neighbours ({self.own:.0%} are {self.label})"
        )


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What images of a run are like.

    Attributes:
        run: address of the run.
        layer: whose features were compared.
        images: how many were.
        duplicates: groups of images that look the same, labelled differently first.
        doubted: labels that are probably wrong, the surest first.
        nearest: key -> (key, cosine) of the most similar images, the most similar first.

    Example:
        >>> found = seewhy.neighbours(run)
        >>> found.images, len(found.of("000000", 2)), found.doubted
        (4, 2, ())
    """

    run: str
    layer: str
    images: int
    duplicates: tuple[Duplicates, ...]
    doubted: tuple[Doubted, ...]
    nearest: Mapping[str, tuple[tuple[str, float], ...]] = field(repr=False)

    def of(self, sample: str, count: int = COUNT) -> tuple[tuple[str, float], ...]:
        """Returns the most similar images of one, (key, cosine) each, the most similar first; at most 32.

        Raises:
            UnknownName: no features are kept of it.
        """
        if sample not in self.nearest:
            raise UnknownName(f"No features are kept of {sample!r}. {nearest(sample, self.nearest)}")
        return self.nearest[sample][:count]

    def as_dict(self) -> dict[str, Any]:
        """Returns duplicates and doubted labels as plain values for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "nearest"}

    def __str__(self) -> str:
        lines = [f"{self.run}: {self.images} images compared by {self.layer}"]
        lines += [f"Duplicates ({len(self.duplicates)} groups):", *(f"  {one}" for one in self.duplicates)]
        lines += [f"Doubted labels ({len(self.doubted)}):", *(f"  {one}" for one in self.doubted)]
        return "\n".join(lines)


def neighbours(
    run: Run | str | os.PathLike[str], *, count: int = COUNT, alike: float = ALIKE,
    table: str | os.PathLike[str] | None = None, across: str | None = None,
) -> Neighbours:  # fmt: skip
    """Finds similar images, duplicates and labels that are probably wrong.

    Args:
        run: a run that keeps features (``seewhy run --features``), or its folder.
        count: neighbours that are asked about a label, at most 32.
        alike: the cosine from which on two images are called duplicates.
        table: a CSV file of metadata with a column "sample", "name" or "image".
        across: a column of it ("split"): groups of duplicates say where its values differ.

    Raises:
        InvalidInput: the features cannot be read, or the table cannot.
        UnknownName: the run keeps no features, or the table has no such column.

    Example:
        >>> seewhy.neighbours(run).images
        4
    """
    check_count("count", count)
    check_inside("alike", alike)
    opened = run if isinstance(run, Run) else Run(run)
    kept = opened.vectors()
    records = {record.sample: record for record in opened.records()}
    columns = _column(table, across, list(records.values()))
    places, cosines = _nearest(torch.from_numpy(kept.values), min(max(KEPT, count), len(kept.samples) - 1))
    keys = kept.samples
    found = {
        key: tuple((keys[p], float(c)) for p, c in zip(row, near, strict=True))
        for key, row, near in zip(keys, places.tolist(), cosines.tolist(), strict=True)
    }
    return Neighbours(
        run=opened.address, layer=kept.layer, images=len(keys),
        duplicates=tuple(_duplicates(opened, [records[k] for k in keys], places, cosines, alike, columns)),
        doubted=tuple(_doubted(opened, [records[k] for k in keys], places, cosines, count, alike)),
        nearest=found,
    )  # fmt: skip


def _column(
    table: str | os.PathLike[str] | None, across: str | None, records: list[SampleRecord]
) -> dict[str, Value]:  # fmt: skip
    """Sample -> value of the column that was asked for."""
    if table is None or across is None:
        return {}
    known = metadata(table)
    names = {name for row in known.values() for name in row}
    if across not in names:
        raise UnknownName(f"The table {str(table)!r} has no column {across!r}. {nearest(across, names)}")
    rows = {record.sample: of_metadata(known, record) for record in records}
    return {sample: row[across] for sample, row in rows.items() if across in row}


def _nearest(values: torch.Tensor, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n, count) places of the most similar rows and their cosines, the most similar first."""
    if count < 1:
        return np.zeros((len(values), 0), np.int64), np.zeros((len(values), 0), np.float32)
    spread = values.std(0)
    scaled = (values - values.mean(0)) / spread.where(spread > 1e-6 * spread.max().clamp_min(1e-30), torch.inf)
    scaled = torch.nn.functional.normalize(scaled)
    short = scaled
    if scaled.shape[1] > COMPONENTS:  # of many features the main directions find the candidates
        _, vectors = torch.linalg.eigh(scaled.T.double() @ scaled.double())
        short = torch.nn.functional.normalize(scaled @ vectors[:, -COMPONENTS:].float())
    places, cosines = [], []
    more = min(2 * count, len(values) - 1)
    for start in range(0, len(values), BLOCK):
        rows = torch.arange(start, min(start + BLOCK, len(values)))
        near = short[rows] @ short.T
        near[torch.arange(len(rows)), rows] = -torch.inf
        candidates = near.topk(more, 1).indices
        exact = (scaled[candidates] * scaled[rows][:, None]).sum(2)
        order = exact.argsort(dim=1, descending=True, stable=True)[:, :count]
        places.append(candidates.gather(1, order))
        cosines.append(exact.gather(1, order))
    return torch.cat(places).numpy(), torch.cat(cosines).numpy()


def _duplicates(
    run: Run, records: list[SampleRecord], places: NDArray[np.int64], cosines: NDArray[np.float32], alike: float,
    columns: Mapping[str, Value],
) -> list[Duplicates]:  # fmt: skip
    first, second = np.nonzero(cosines >= alike)
    n = len(records)
    pairs = coo_matrix((np.ones(len(first)), (first, places[first, second])), shape=(n, n))
    _, group = connected_components(pairs, directed=False)
    likeness = dict[int, float]()
    for f, s in zip(first, second, strict=True):
        likeness[int(group[f])] = min(likeness.get(int(group[f]), 1.0), float(cosines[f, s]))
    members: dict[int, list[SampleRecord]] = {g: [] for g in likeness}
    for record, g in zip(records, group.tolist(), strict=True):
        if g in members:
            members[g].append(record)
    made = [_group(run, some, min(1.0, likeness[g]), columns) for g, some in members.items()]
    return sorted(made, key=lambda one: (not one.disagree, not one.across, -one.likeness))


def _group(run: Run, records: list[SampleRecord], likeness: float, columns: Mapping[str, Value]) -> Duplicates:
    truths = [None if one.truth is None else tuple(sorted(one.truth)) for one in records]
    values = sorted({str(columns[one.sample]) for one in records if one.sample in columns})
    return Duplicates(
        samples=tuple(one.sample for one in records), likeness=likeness,
        classes=tuple(tuple(run.class_name(label) for label in truth or ()) for truth in truths),
        disagree=len({truth for truth in truths if truth is not None}) > 1,
        across=tuple(values) if len(values) > 1 else (),
    )  # fmt: skip


def _doubted(
    run: Run, records: list[SampleRecord], places: NDArray[np.int64], cosines: NDArray[np.float32], count: int,
    alike: float,
) -> list[Doubted]:  # fmt: skip
    """Returns the doubted labels; a duplicate is no witness, for it may have the same wrong label."""
    if run.detects:
        return []
    found = []
    for record, row, near in zip(records, places.tolist(), cosines.tolist(), strict=True):
        label = _label(record)
        if label is None or record.predicted in (None, label):
            continue
        others = [_label(records[p]) for p, c in zip(row, near, strict=True) if c < alike]
        votes = Counter([one for one in others if one is not None][:count])
        asked = votes.total()
        if asked and record.predicted is not None and votes[record.predicted] * 2 > asked:
            found.append(
                Doubted(
                    sample=record.sample,
                    label=run.class_name(label),
                    instead=run.class_name(record.predicted),
                    probability=float(record.probability or 0.0),
                    share=votes[record.predicted] / asked,
                    own=votes[label] / asked,
                )
            )
    return sorted(found, key=lambda one: (-(one.share - one.own), -one.probability, one.sample))


def _label(record: SampleRecord) -> int | None:
    """Returns the one class that is truly there; None where it is not known, or there are several."""
    return record.truth[0] if record.truth is not None and len(record.truth) == 1 else None

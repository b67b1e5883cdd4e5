"""Vectors of features that a run keeps, as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import InvalidInput
from seewhy.runs.folder.store import Store
from seewhy.runs.query.choosing import choose
from seewhy.runs.query.snapshot import Moment

__all__ = ["Stored", "Vectors", "stored"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Features of one layer, a row each.

    Attributes:
        layer: its name.
        samples: n keys of images, in the order of the data.
        labels: n labels whose maps were the weights; None where the rows are plain means.
        values: (n, C) float32.
    """

    layer: str
    samples: list[str]
    labels: list[int] | None
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Where the vectors of a run lie.

    Attributes:
        entries: (sample, part, entry) in the order of the data.
    """

    entries: list[tuple[str, str, Mapping[str, Any]]]

    @property
    def layers(self) -> list[str]:
        """Names of the layers that weighted means are of, first to last."""
        return list(dict.fromkeys(one["layer"] for _, _, one in self.entries if one["label"] is not None))

    def read(self, store: Store, layer: str | None) -> Vectors:
        """Returns the weighted means of a layer, or with None the plain means of the automatic one.

        Raises:
            InvalidInput: a pack is damaged, or the vectors have several lengths.
        """
        wanted = [e for e in self.entries if (e[2]["label"] is None) == (layer is None)]
        if layer is not None:
            wanted = [e for e in wanted if e[2]["layer"] == layer]
        rows = [_values(store, part, one) for _, part, one in wanted]
        if len({len(row) for row in rows}) > 1:
            raise InvalidInput("The run's features have several lengths: its images went through different layers.")
        return Vectors(
            layer=layer or (wanted[0][2]["layer"] if wanted else ""),
            samples=[sample for sample, _, _ in wanted],
            labels=None if layer is None else [one["label"] for _, _, one in wanted],
            values=np.stack(rows) if rows else np.zeros((0, 0), np.float32),
        )


def stored(now: Moment) -> Stored:
    """Returns where the vectors lie of every image whose features are there."""
    task = now.state.plan.features
    if task < 0 or not len(now.state.rows):
        return Stored(entries=[])
    choice = choose(now.state.rows, now.state.plan, now.state.words)
    taken = choice.chosen[task][choice.good[task]]
    rows = now.state.rows.select(["sample", "position", "part", "vectors"]).take(taken).to_pylist()
    rows.sort(key=lambda row: (row["position"], row["sample"]))
    return Stored(entries=[(row["sample"], row["part"], one) for row in rows for one in row["vectors"] or ()])


def _values(store: Store, part: str, one: Mapping[str, Any]) -> NDArray[np.float32]:
    data = store.read(part, one["offset"], one["size"], one["checksum"])
    if len(data) % 2:
        raise InvalidInput(f"{part}.pack has a vector of {len(data)} bytes, which are no float16 numbers.")
    return np.frombuffer(data, "<f2").astype(np.float32) * np.float32(one["scale"])

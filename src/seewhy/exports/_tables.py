"""The columns that the table formats share: one line for each image and label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from seewhy.runs.query.run import Failure, Run

__all__ = ["COLUMNS", "FAILURES", "failure_lines", "failures_beside", "label_batches", "schema"]

COLUMNS = {
    "sample": pa.string(), "name": pa.string(), "source": pa.string(), "position": pa.int64(), "label": pa.int32(),
    "class": pa.string(), "truth": pa.bool_(), "flag": pa.string(), "probability": pa.float32(),
    "predicted": pa.int32(), "predicted_class": pa.string(), "mean": pa.float32(), "std": pa.float32(),
    "low": pa.float32(), "high": pa.float32(), "entropy": pa.float32(), "mutual_information": pa.float32(),
    "warnings": pa.string(),
}  # fmt: skip
BOXES = {"detection": pa.int32(), **dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float64()), "overlap": pa.float32()}
FAILURES = Failure._fields


def schema(run: Run) -> pa.Schema:
    """Returns the columns: one for each explainer and metric; what reviewers say; of a detector where each box is."""
    scores = {f"{explainer}/{metric}": pa.float64() for explainer in run.explainers for metric in run.metrics}
    said = {"reviews": pa.string()} if run.reviews else {}
    return pa.schema({**_named(run), **said, **scores, **(BOXES if run.detects else {})})


def _named(run: Run) -> dict[str, pa.DataType]:
    """Returns the columns; the network's number is called what it is: probability, logit or value."""
    return {run.quantity if name == "probability" else name: kind for name, kind in COLUMNS.items()}


def label_batches(run: Run) -> Iterator[pa.RecordBatch]:
    """All labels of all images, block by block."""
    for batch in run.batches():
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["class"] = _class_names(run, columns["label"])
        columns["predicted_class"] = _class_names(run, columns["predicted"])
        if run.detects:
            columns |= _boxes(run, columns["sample"].to_pylist(), columns["detection"].to_pylist())
        first = _named(run)
        order = [*first, *(name for name in columns if name not in first)]
        yield pa.RecordBatch.from_arrays([columns[name] for name in order], order)


def _boxes(run: Run, samples: Sequence[str], numbers: Sequence[int]) -> dict[str, pa.Array]:
    """Where the boxes are, in pixels of the image."""
    known = {key: record for key in dict.fromkeys(samples) if (record := run.sample(key)) is not None}
    found = [known[key].detections.get(number) for key, number in zip(samples, numbers, strict=True)]
    return {
        name: pa.array([getattr(one, name, None) for one in found], kind)
        for name, kind in BOXES.items()
        if name != "detection"
    }


def _class_names(run: Run, labels: pa.Array) -> pa.Array:
    coded = labels.dictionary_encode()
    names = [None if label is None else run.class_name(label) for label in coded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(coded.indices)


def failure_lines(run: Run) -> Iterator[Failure]:
    """All failures, in order."""
    offset, size = 0, 5000
    while page := run.failures(offset, size).items:
        yield from page
        offset += size


def failures_beside(out: Path) -> Path:
    """Where failures go: labels.csv -> labels-failures.csv."""
    return out.with_name(f"{out.stem}-failures{out.suffix}")

"""All labels of a run as a flat table, block by block, for exports and people who work with tables."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from seewhy.runs.query.snapshot import Moment

__all__ = ["batches"]

_SAID = (
    "SELECT s, string_agg(text, '; ' ORDER BY place, text) AS text FROM "
    "(SELECT DISTINCT s, 0 AS place, text FROM warnings UNION ALL "
    "SELECT DISTINCT s, 1 + e, ?[e + 1] || ': ' || kind FROM notes) GROUP BY s"
)
_REVIEWED = "SELECT sample, string_agg(line, '; ' ORDER BY written, author) AS line FROM reviews GROUP BY sample"


def batches(now: Moment, quantity: str, *, detects: bool) -> Iterator[pa.RecordBatch]:
    """All labels in the order of the data; the columns are those of `Run.batches`.

    Args:
        now: a moment of the run.
        quantity: what the column of the network's numbers is called.
        detects: whether the labels are boxes of a detector, which have numbers.
    """
    plan = now.state.plan
    unsure = ["mean", "std", "low", "high", "entropy", "mutual_information"]
    columns = {
        "sample": "labels.sample", "name": "name", "source": "source", "position": "labels.position",
        "label": "class_index", "truth": "labels.truth", "flag": "flag", quantity: "labels.probability",
        "predicted": "predicted", **{name: f"labels.{name}" for name in unsure}, "warnings": "said.text",
        **({"reviews": "reviewed.line"} if now.state.reviews else {}),
        **{f"{e}/{m}": f"m{number}" for number, (e, m) in enumerate(plan.score)},
        **({"detection": "labels.label"} if detects else {}),
    }  # fmt: skip
    reader = pa.RecordBatchReader.from_stream(
        now.cursor.sql(
            f"SELECT {', '.join(columns.values())} FROM labels JOIN pictures USING (s) "
            f"LEFT JOIN ({_SAID}) AS said USING (s) "
            f"LEFT JOIN ({_REVIEWED}) AS reviewed ON labels.sample = reviewed.sample "
            "ORDER BY labels.position, labels.sample, labels.label",
            params=[list(plan.explainers)],
        )
    )
    for batch in reader:
        yield pa.RecordBatch.from_arrays(batch.columns, list(columns))

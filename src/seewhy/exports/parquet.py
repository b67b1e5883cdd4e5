"""Parquet: one row for each image and label, the columns typed and without data null."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seewhy.exports._tables import FAILURES, failure_lines, failures_beside, label_batches, schema
from seewhy.runs.query.run import Run

__all__ = ["Parquet"]


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Parquet: one row for each image and label, failures in a second file."""

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes ``out`` with the columns of the CSV export, and NAME-failures.parquet where something failed."""
        out, columns = Path(out), schema(run)
        out.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(out, columns, compression="zstd") as writer:
            for batch in label_batches(run):
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=columns))
        if not run.counts().failures:
            return [out]
        lines = [failure._asdict() for failure in failure_lines(run)]
        kinds = {name: pa.string() for name in FAILURES} | {"position": pa.int64(), "label": pa.int32()}
        beside = failures_beside(out)
        pq.write_table(pa.Table.from_pylist(lines, pa.schema(kinds)), beside, compression="zstd")
        return [out, beside]

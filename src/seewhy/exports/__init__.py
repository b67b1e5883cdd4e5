"""Run folders in the formats of others. A folder is a protocol, a file in it is one format.

    Csv()(Run("out"), Path("labels.csv"))
    Coco(threshold=0.2)(Run("out"), Path("salient.json"))

An exporter is a frozen dataclass whose fields are the format's choices; it takes a run and where to write, and gives
the files it wrote. A new format is one new file: the registry finds it by the file's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from seewhy.runs.query.run import Run

__all__ = ["Exporter"]


class Exporter(Protocol):
    """What every format can do."""

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes what the run knows now, in the order of the data.

        Args:
            run: what is exported; it may still be written.
            out: a file, or for formats of several files a folder, which must be new or empty.

        Returns:
            The files (or folders) that were written, the main one first.
        """
        ...

"""The run folder: immutable parts, one pair of files for each finished chunk of pictures. No server and no lock.

    run.json                            what the run is: versions, model, explainers and metrics with their parameters
    parts/<chunk>-<writer>.pack         maps and thumbnails, one after the other
    parts/<chunk>-<writer>.parquet      one row a picture; its appearance commits the chunk
    index/<name>.parquet                the rows of many parts in one file, so that reading stays fast; may be deleted

Any number of writers may work at once, on one machine or many: each chunk has a name of its own, and of two attempts at
the same chunk readers take one. A writer that is killed leaves at most a pack without rows, which nobody reads.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seewhy.errors import InvalidInput
from seewhy.runs._files import LocalFiles, files
from seewhy.runs.rows import SCHEMA, Row, table

__all__ = ["FORMAT", "Store"]

FORMAT = 1
LOOSE = 128  # parts outside of an index before they are put into one
INDEXES = 16  # index files before they become one
_RUN, _CHUNK, _COVERS = b"seewhy.run", b"seewhy.chunk", b"seewhy.covers"
_PARTS, _INDEX = "parts", "index"


class Store:
    """A run folder, for reading and writing.

    Args:
        place: a path, or an address that fsspec knows (``s3://...``).
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.files = files(place)

    @property
    def address(self) -> str:
        """Where it lies."""
        return self.files.address

    # ------------------------------------------------------------------------------------------------- run.json

    def exists(self) -> bool:
        """Whether there is a run."""
        try:
            self.files.get("run.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def settings(self) -> dict[str, Any]:
        """What stands in run.json.

        Raises:
            InvalidInput: there is none, it cannot be read, or it was written by a later version.
        """
        try:
            found = json.loads(self.files.get("run.json"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidInput(f"{self.address!r} is not a run folder: it has no run.json.") from error
        except ValueError as error:
            raise InvalidInput(f"run.json in {self.address!r} cannot be read: {error}.") from error
        if not isinstance(found, dict) or "id" not in found:
            raise InvalidInput(f"run.json in {self.address!r} does not describe a run.")
        if found.get("format", 0) > FORMAT:
            raise InvalidInput(
                f"The run folder {self.address!r} has format {found['format']}, this version reads up to {FORMAT}. "
                "Use the version of seewhy that wrote it, or a later one."
            )
        return found

    def create(self, settings: dict[str, Any]) -> bool:
        """Writes run.json if there is none; False where another writer was first."""
        return self.files.put("run.json", [_json(settings)], replace=False)

    def update(self, settings: dict[str, Any]) -> None:
        """Replaces run.json in one step."""
        self.files.put("run.json", [_json(settings)])

    # ---------------------------------------------------------------------------------------------------- parts

    def write(self, run: str, chunk: str, rows: list[Row], pack: Sequence[bytes]) -> str:
        """Commits a chunk: first its pack, then its rows. Gives the part's name.

        Args:
            run: the identity that stands in run.json; parts of another one are not read.
            chunk: the chunk's name, which says what is in it.
            rows: one a picture.
            pack: what the rows' offsets point into, one after the other.
        """
        part = f"{chunk}-{secrets.token_hex(6)}"
        about = {_RUN: run.encode(), _CHUNK: chunk.encode()}
        self.files.put(f"{_PARTS}/{part}.pack", pack)
        self.files.put(f"{_PARTS}/{part}.parquet", [_bytes(table(rows).replace_schema_metadata(about))])
        return part

    def parts(self) -> list[str]:
        """The committed parts, sorted; of several attempts at a chunk the first by name that can be read."""
        names = set(self.files.names(_PARTS))
        attempts: dict[str, list[str]] = {}
        for name in sorted(names):
            part, _, ending = name.rpartition(".")
            if ending == "parquet" and f"{part}.pack" in names:
                attempts.setdefault(part.rpartition("-")[0], []).append(part)
        return sorted(parts[0] if len(parts) == 1 else self._whole(parts) for parts in attempts.values())

    def _whole(self, parts: list[str]) -> str:
        readable = (part for part in parts if self._open(f"{_PARTS}/{part}.parquet", ["sample"]) is not None)
        return next(readable, parts[0])

    def read(self, part: str, offset: int, size: int) -> bytes:
        """A range of a part's pack.

        Raises:
            InvalidInput: the pack is shorter.
        """
        found = self.files.read(f"{_PARTS}/{part}.pack", offset, size)
        if len(found) != size:
            raise InvalidInput(f"{part}.pack in {self.address!r} is damaged: it ends before byte {offset + size}.")
        return found

    def rows(self, run: str, columns: list[str] | None = None, without: Iterable[str] = ()) -> tuple[pa.Table, int]:
        """The rows of all parts, with the column ``part``; and the number of parts of another run.

        Args:
            run: only parts with this identity are read.
            columns: of the rows; None for all.
            without: parts that are known already.
        """
        wanted = set(self.parts()) - set(without)
        tables: list[pa.Table] = []
        for name, covers in self._indexes():
            if fresh := wanted.intersection(covers):
                found = self._open(f"{_INDEX}/{name}", [*columns, "part", "run"] if columns else None)
                if found is None:  # replaced by a larger one a moment ago: its parts are read one by one
                    continue
                tables.append(found.filter(pc.is_in(found["part"], pa.array(sorted(fresh)))))
                wanted -= fresh
        tables += self._loose(sorted(wanted), columns)
        together = pa.concat_tables(tables) if tables else _empty(columns)
        own = pc.equal(together["run"], run)
        mine = together.filter(own).drop_columns(["run"])
        strange = together.filter(pc.invert(own))
        return mine, len(pc.unique(strange["part"]))

    def _loose(self, parts: list[str], columns: list[str] | None) -> list[pa.Table]:
        def one(part: str) -> pa.Table | None:
            found = self._open(f"{_PARTS}/{part}.parquet", columns)
            if found is None:
                return None
            run = (found.schema.metadata or {}).get(_RUN, b"").decode()
            found = found.replace_schema_metadata(None)
            found = found.append_column("part", pa.array([part] * len(found), pa.string()))
            return found.append_column("run", pa.array([run] * len(found), pa.string()))

        if len(parts) < 8:
            return [found for found in map(one, parts) if found is not None]
        with ThreadPoolExecutor(4) as pool:
            return [found for found in pool.map(one, parts) if found is not None]

    def _open(self, name: str, columns: list[str] | None) -> pa.Table | None:
        """A file's rows; None where the file is gone or damaged, which makes its chunk one that is yet to be done."""
        try:
            return pq.ParquetFile(io.BytesIO(self.files.get(name))).read(columns=columns)
        except (FileNotFoundError, pa.ArrowInvalid, OSError):
            return None

    # ---------------------------------------------------------------------------------------------------- index

    def compact(self, *, everything: bool = False) -> int:
        """Puts the rows of loose parts into one file where they are many; gives how many parts that were.

        Args:
            everything: makes one file of all rows there are.
        """
        indexes, parts = self._indexes(), self.parts()
        covered = {part for _, covers in indexes for part in covers}
        loose = [part for part in parts if part not in covered]
        merge = everything or len(indexes) > INDEXES
        if len(loose) < (1 if everything else LOOSE) and not (merge and len(indexes) > 1):
            return 0
        old = indexes if merge else []
        tables = self._loose(loose, None)
        seen = {part for found in tables for part in found["part"].unique().to_pylist()}
        names = sorted({*seen, *(part for _, covers in old for part in covers)} & set(parts))
        if not names:
            return 0
        for name, covers in old:
            found = self._open(f"{_INDEX}/{name}", None)
            if found is None:
                return 0  # another process is at it
            fresh = [part for part in covers if part not in seen]
            tables.append(found.filter(pc.is_in(found["part"], pa.array(fresh, pa.string()))))
            seen.update(fresh)
        together = pa.concat_tables(tables).replace_schema_metadata({_COVERS: json.dumps(names).encode()})
        name = hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
        self.files.put(f"{_INDEX}/{name}.parquet", [_bytes(together)])
        self.files.remove(f"{_INDEX}/{old_name}" for old_name, _ in old if old_name != f"{name}.parquet")
        return len(set(loose) & seen)

    def sweep(self) -> int:
        """Removes unfinished files of processes of this machine that live no more; says how many."""
        return self.files.sweep(_PARTS) if isinstance(self.files, LocalFiles) else 0

    def _indexes(self) -> list[tuple[str, list[str]]]:
        found = []
        for name in self.files.names(_INDEX):
            try:
                about = pq.ParquetFile(io.BytesIO(self.files.get(f"{_INDEX}/{name}"))).schema_arrow.metadata or {}
                found.append((name, json.loads(about[_COVERS])))
            except (FileNotFoundError, KeyError, ValueError, OSError):
                continue  # replaced or damaged: its parts are read one by one
        return found


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _bytes(rows: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd")
    return out.getvalue()


def _empty(columns: list[str] | None) -> pa.Table:
    kinds = [SCHEMA.field(name) for name in columns or SCHEMA.names]
    return pa.schema([*kinds, pa.field("part", pa.string()), pa.field("run", pa.string())]).empty_table()

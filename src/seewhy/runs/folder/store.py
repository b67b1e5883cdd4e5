"""The run folder: immutable parts, one pair of files for each finished chunk of pictures. No server and no lock.

    run.json                            what the run is: versions, model, explainers and metrics with their parameters
    settings/<id>.json                  what was added to it: one file an addition
    parts/<chunk>-<writer>.pack         maps and thumbnails, one after the other
    parts/<chunk>-<writer>.parquet      one row a picture; its appearance commits the chunk
    index/<name>.parquet                the rows of many parts in one file, so that reading stays fast; may be deleted

Any number of writers may work at once, on one machine or many: each chunk has a name of its own, and of two attempts at
the same chunk readers take one. A writer that is killed leaves at most a pack without rows, which nobody reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seewhy.errors import InvalidInput, StorageError
from seewhy.runs.folder.filesystem import LocalFiles, files
from seewhy.runs.folder.parts import Damaged, as_bytes, checksum, guarded_name, opened, rows_of
from seewhy.runs.folder.rows import SCHEMA, Row, table
from seewhy.runs.folder.settings import ADDED, RESERVED, addition, checked, merged, parsed, reservation

__all__ = ["FORMAT", "PLAIN", "Store"]

FORMAT = 2
PLAIN = 1  # of a run over a classifier: its layout is the first one
LOOSE = 128  # parts outside of an index before they are put into one
INDEXES = 4  # small index files before they become one
MOST = 8_192  # rows of an index file, about: no more are put together in memory
_RUN, _CHUNK, _COVERS = b"seewhy.run", b"seewhy.chunk", b"seewhy.covers"
_PARTS, _INDEX, _SETTINGS = "parts", "index", "settings"


class Store:
    """A run folder, for reading and writing.

    Args:
        place: a path, or an address that fsspec knows (``s3://...``).

    Attributes:
        damaged: the parts that could not be read when they were asked for the last time, and why.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.files = files(place)
        self.damaged: dict[str, str] = {}
        self._seen: dict[str, _Known] = {}

    @property
    def address(self) -> str:
        """The path or address of the folder."""
        return self.files.address

    # ------------------------------------------------------------------------------------------------- run.json

    def exists(self) -> bool:
        """Says whether there is a run."""
        try:
            self.files.get("run.json")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def check_there(self) -> None:
        """Raises StorageError where the run is gone: an unmounted disk leaves an empty folder, not to be filled."""
        if not self.exists():
            raise StorageError(
                f"{self.address!r} is no run folder any more: its run.json is gone. Was it removed, or the disk "
                "unmounted? Bring it back, then give the same command again: what is finished is not lost."
            )

    def settings(self) -> dict[str, Any]:
        """Returns what stands in run.json, with all that was added to it.

        Raises:
            InvalidInput: there is none, it cannot be read, or it was written by a later version.
        """
        try:
            first = self._read_json("run.json")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidInput(f"{self.address!r} is not a run folder: it has no run.json.") from error
        found = checked(first, f"run.json in {self.address!r}", FORMAT)
        additions = []
        for name in self.files.names(_SETTINGS):
            if name.endswith(".json") and not name.startswith(RESERVED):
                path = f"{_SETTINGS}/{name}"
                additions.append((f"{path} in {self.address!r}", self._read_json(path)))
        return checked(merged(found, additions), f"What was added to the run in {self.address!r}", FORMAT)

    def _read_json(self, name: str) -> Any:
        try:
            return parsed(self.files.get(name), f"{name} in {self.address!r}")
        except (FileNotFoundError, NotADirectoryError, StorageError):
            raise
        except OSError as error:
            raise InvalidInput(f"{name} in {self.address!r} cannot be read: {error}.") from error

    def create(self, settings: dict[str, Any]) -> bool:
        """Writes run.json if there is none; returns False where another writer was first."""
        return self.files.put("run.json", [_json(settings)], replace=False)

    def add(self, kind: str, label: str, value: Mapping[str, Any]) -> str | None:
        """Adds an explainer or metric by its label, or uncertainty and the like; of several writers the first counts.

        Returns:
            The id of the thing that has this label already, if that is another thing; else None. `settings` says which
            label a thing has got: another writer may have added the same thing under another label.
        """
        if kind in ADDED:
            name, body = reservation(kind, label, value["id"])
            self.files.put(name, [_json(body)], replace=False)
            holder = self._read_json(name)
            if not isinstance(holder, dict) or holder.get("id") != value["id"]:
                return str(holder.get("id")) if isinstance(holder, dict) else "?"
        name, body = addition(kind, label, value)
        self.files.put(name, [_json(body)], replace=False)
        return None

    def tell(self, **latest: Any) -> None:
        """Notes the data and the command of this call; readers use the newest note."""
        now = time.time()
        name, body = addition("latest", "", {**latest, "written": now, "id": os.urandom(8).hex()})
        del body["id"]
        self.files.put(name, [_json(body)], replace=False)

    # ---------------------------------------------------------------------------------------------------- parts

    def write(self, run: str, chunk: str, rows: list[Row], pack: Sequence[bytes]) -> str:
        """Commits a chunk: writes first its pack, then its rows; returns the part's name.

        Args:
            run: the identity that stands in run.json; parts of another one are not read.
            chunk: the chunk's name, which says what is in it.
            rows: one a picture.
            pack: what the rows' offsets point into, one after the other.

        Raises:
            StorageError: the part cannot be written, or the run vanished meanwhile; nothing of the part is left.
        """
        about = {_RUN: run.encode(), _CHUNK: chunk.encode()}
        data = as_bytes(table(rows).replace_schema_metadata(about))
        part = guarded_name(chunk, data)
        try:
            self.files.put(f"{_PARTS}/{part}.pack", pack)
            self.files.put(f"{_PARTS}/{part}.parquet", [data])
            if isinstance(self.files, LocalFiles):
                self.check_there()  # what is written after the disk was unmounted lies in the empty folder
        except StorageError:
            with contextlib.suppress(StorageError):  # a file that nobody reads must not keep a full disk full
                self.files.remove(f"{_PARTS}/{part}.{ending}" for ending in ("parquet", "pack"))
            self.check_there()  # says why, where the folder vanished while it was written
            raise
        return part

    def parts(self) -> list[str]:
        """Returns the committed parts, sorted; of several attempts at a chunk the first by name that can be read."""
        names = set(self.files.names(_PARTS))
        attempts: dict[str, list[str]] = {}
        for name in sorted(names):
            part, _, ending = name.rpartition(".")
            if ending == "parquet" and f"{part}.pack" in names:
                attempts.setdefault(part.rpartition("-")[0], []).append(part)
        return sorted(parts[0] if len(parts) == 1 else self._whole(parts) for parts in attempts.values())

    def _whole(self, parts: list[str]) -> str:
        readable = (part for part in parts if self._open(part, None) is not None)
        return next(readable, parts[0])

    def read(self, part: str, offset: int, size: int, wanted: int | None = None) -> bytes:
        """Returns a range of a part's pack.

        Args:
            part: its name.
            offset: place of the first byte.
            size: in bytes.
            wanted: the checksum that the row gives; None where it gives none.

        Raises:
            InvalidInput: the pack is gone or shorter, or the bytes are not those that were written.
        """
        name, end = f"{part}.pack in {self.address!r}", offset + size
        try:
            found = self.files.read(f"{_PARTS}/{part}.pack", offset, size)
        except StorageError:
            raise
        except (OSError, OverflowError, ValueError) as error:
            raise InvalidInput(f"{name} cannot be read: {error}.") from error
        if len(found) != size:
            raise InvalidInput(f"{name} is damaged: it ends before byte {end}.")
        if wanted is not None and checksum(found) != wanted:
            raise InvalidInput(f"{name} is damaged: bytes {offset} to {end} are not those that were written.")
        return found

    def rows(self, run: str, columns: list[str] | None = None, without: Iterable[str] = ()) -> tuple[pa.Table, int]:
        """Returns the rows of all parts, with the column ``part``; and the number of parts of another run.

        Args:
            run: only parts with this identity are read.
            columns: of the rows; None for all.
            without: parts that are known already.
        """
        parts = self.parts()
        wanted = set(parts) - set(without)
        tables: list[pa.Table] = []
        for one in self._indexes():
            if fresh := wanted.intersection(one.covers):
                found = _index_rows(one, columns)
                if found is None:
                    continue  # damaged: its parts are read one by one
                whole = len(fresh) == len(one.covers)
                tables.append(found if whole else found.filter(pc.is_in(found["part"], pa.array(sorted(fresh)))))
                wanted -= fresh
        tables += self._loose(sorted(wanted), columns)
        together = pa.concat_tables(tables) if tables else _empty(columns)
        own = pc.equal(together["run"], run)
        if pc.all(own, min_count=0).as_py():
            return together.drop_columns(["run"]), 0
        strange = together.filter(pc.invert(own))
        return together.filter(own).drop_columns(["run"]), len(pc.unique(strange["part"]))

    def blocks(self, run: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yields all rows with the column ``part``, as `rows` gives them, a few thousand at a time.

        Args:
            run: only parts with this identity are read.
            columns: of the rows; None for all.
        """
        wanted = set(self.parts())
        for one in self._indexes():
            if fresh := wanted.intersection(one.covers):
                chosen = pa.array(sorted(fresh))
                found = _index_rows(one, columns)
                if found is not None:
                    wanted -= fresh
                    yield _own(found.filter(pc.is_in(found["part"], chosen)), run)
        rest = sorted(wanted)
        for at in range(0, len(rest), LOOSE):
            for found in self._loose(rest[at : at + LOOSE], columns):
                yield _own(found, run)

    def rows_of(self, part: str, columns: list[str]) -> pa.Table:
        """Returns the rows of one part; an empty table where the part is gone or damaged."""
        found = self._loose([part], columns)
        return found[0] if found else _empty(columns)

    def has(self, chunk: str) -> str | None:
        """Returns the name of the part in which a chunk was committed; None where it was not."""
        return next((part for part in self.parts() if part.rpartition("-")[0] == chunk), None)

    def _loose(self, parts: list[str], columns: list[str] | None) -> list[pa.Table]:
        def one(part: str) -> pa.Table | None:
            return self._open(part, columns)

        if len(parts) < 8:
            return [found for found in map(one, parts) if found is not None]
        with ThreadPoolExecutor(4) as pool:
            return [found for found in pool.map(one, parts) if found is not None]

    def _open(self, part: str, columns: list[str] | None) -> pa.Table | None:
        """Returns a part's rows; None where it is gone or damaged, which makes its chunk one that is yet to be done."""
        try:
            file = opened(part, self.files.get(f"{_PARTS}/{part}.parquet"))
            found = rows_of(file, columns)
        except (Damaged, OSError) as error:
            self.damaged[part] = str(error)
            return None
        self.damaged.pop(part, None)
        run = (file.schema_arrow.metadata or {}).get(_RUN, b"").decode(errors="replace")
        for name, text in (("part", part), ("run", run)):
            found = found.append_column(name, pa.array([text] * len(found), pa.string()))
        return found

    # ---------------------------------------------------------------------------------------------------- index

    def compact(self, *, everything: bool = False) -> int:
        """Puts the rows of parts outside of the index into one file if there are many; returns how many parts it took.

        Args:
            everything: puts all rows of the run into one file, however few there are.
        """
        known, parts = self._known(), self.parts()
        covered = {part for one in known for part in one.covers}
        loose = [part for part in parts if part not in covered]
        small = [one for one in known if everything or one.rows < MOST // 2]
        merge = len(small) > (1 if everything else INDEXES)
        if len(loose) < (1 if everything else LOOSE) and not merge:
            return 0
        if everything:
            return self._index(self._loose(loose, None), set(parts), [one.name for one in small])
        groups = [loose[at : at + LOOSE] for at in range(0, len(loose), LOOSE)]
        done = sum(self._index(self._loose(group, None), set(parts), []) for group in groups)
        if merge:
            self._index([], set(parts), _few(small))
        return done

    def _index(self, tables: list[pa.Table], parts: set[str], old: list[str]) -> int:
        """Writes an index file of these rows and of older ones, which it replaces; returns how many parts are new."""
        seen = {part for found in tables for part in found["part"].unique().to_pylist()}
        new = len(seen)
        for one in self._indexes(old):
            found = _index_rows(one, None)
            if found is None:
                return 0
            fresh = [part for part in one.covers if part not in seen]
            tables.append(found.filter(pc.is_in(found["part"], pa.array(fresh, pa.string()))))
            seen.update(fresh)
        if not (names := sorted(seen & parts)):
            return 0
        together = pa.concat_tables(tables).replace_schema_metadata({_COVERS: json.dumps(names).encode()})
        data = as_bytes(together)
        name = guarded_name(hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest(), data) + ".parquet"
        self.files.put(f"{_INDEX}/{name}", [data])
        self.files.remove(f"{_INDEX}/{one}" for one in old if one != name)
        pa.default_memory_pool().release_unused()  # the pool would else keep as much memory as this ever took
        return new

    def sweep(self) -> int:
        """Removes the unfinished files of processes of this machine that have ended; returns how many there were."""
        return self.files.sweep(_PARTS) if isinstance(self.files, LocalFiles) else 0

    def _known(self) -> list[_Known]:
        """Returns what each index file covers; each file is read once, because none is ever changed."""
        names = self.files.names(_INDEX)
        for one in self._indexes([name for name in names if name not in self._seen]):
            self._seen[one.name] = _Known(one.name, one.covers, one.file.metadata.num_rows)
        return [self._seen[name] for name in names if name in self._seen]

    def _indexes(self, names: list[str] | None = None) -> Iterator[_Index]:
        """Yields the index files that can be read, one by one: together they may not fit into memory."""
        for name in self.files.names(_INDEX) if names is None else names:
            try:
                data = self.files.get(f"{_INDEX}/{name}")
                file = opened(name.removesuffix(".parquet"), data, MOST)
                covers = [str(part) for part in json.loads((file.schema_arrow.metadata or {})[_COVERS])]
            except (Damaged, KeyError, TypeError, ValueError, OSError, RecursionError):
                continue  # replaced or damaged: its parts are read one by one
            yield _Index(name, covers, file)


class _Index(NamedTuple):
    """An index file: its name, the parts whose rows it has, and the opened Parquet file."""

    name: str
    covers: list[str]
    file: pq.ParquetFile


class _Known(NamedTuple):
    """What is remembered of an index file."""

    name: str
    covers: list[str]
    rows: int


def _few(small: list[_Known]) -> list[str]:
    """Returns the names of the first index files, as many as may be put together in memory."""
    total = np.cumsum([one.rows for one in small])
    return [one.name for one, rows in zip(small, total, strict=True) if rows <= MOST]


def _index_rows(index: _Index, columns: list[str] | None) -> pa.Table | None:
    """Returns the rows with "part" and "run"; None where they are damaged."""
    try:
        found = rows_of(index.file, [*columns, "part", "run"] if columns else None)
    except Damaged:
        return None
    return found if {"part", "run"} <= set(found.column_names) else None


def _own(rows: pa.Table, run: str) -> pa.Table:
    """Returns the rows of one run alone."""
    return rows.filter(pc.equal(rows["run"], run)).drop_columns(["run"])


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _empty(columns: list[str] | None) -> pa.Table:
    kinds = [SCHEMA.field(name) for name in columns or SCHEMA.names]
    return pa.schema([*kinds, pa.field("part", pa.string()), pa.field("run", pa.string())]).empty_table()

"""The rows of a run folder in memory, in step with the folder: Arrow tables, and the flat tables in DuckDB.

Readers see the state of one moment: a transaction of the database and the rows that belong to it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from seewhy.runs.folder import reviews
from seewhy.runs.folder.reviews import Review
from seewhy.runs.folder.rows import SCHEMA
from seewhy.runs.folder.store import Store
from seewhy.runs.query.choosing import Plan, Words, packed
from seewhy.runs.query.records import SampleRecord, records
from seewhy.runs.query.tables import flat_tables

__all__ = ["Base", "Moment", "State"]

_BLOCK = 20_000  # rows that are packed at a time
_CHUNKS = 128  # pieces that the rows may be in before they are put together
_REMEMBERED = 256  # pictures, so that the maps of one page need no search each


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What was read.

    Attributes:
        settings: run.json.
        plan: what it asks for.
        rows: of all parts that were read; ``rid`` is the place in it.
        words: of the rows.
        parts: that were read, and those of other runs.
        foreign: how many parts are of other runs.
        damaged: those that could not be read, and why; they are tried again.
        pictures: how many numbers of pictures are taken.
        reviews: sample -> what reviewers say of it.
        unread: files of reviews that cannot be read, and why.
        numbers: SQL -> the number of the whole run that it asks for, once somebody asked.
    """

    settings: dict[str, Any]
    plan: Plan
    rows: pa.Table
    words: Words
    parts: frozenset[str] = frozenset()
    foreign: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    pictures: int = 0
    reviews: dict[str, tuple[Review, ...]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """A state and a transaction that sees it."""

    state: State
    cursor: duckdb.DuckDBPyConnection

    def fetch(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns all lines of the answer to a question in SQL."""
        return self.cursor.execute(sql, list(values)).fetchall()

    def number(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Returns the one number of an answer."""
        return int(self.fetch(sql, values)[0][0])

    def known(self, sql: str) -> float | None:
        """Returns the one number of an answer about the whole run, which is asked for once for each state."""
        if sql not in self.state.numbers:
            self.state.numbers[sql] = self.fetch(sql)[0][0]
        return self.state.numbers[sql]

    def records(self, pictures: Iterable[int]) -> dict[int, SampleRecord]:
        """Returns the pictures of these numbers."""
        found = self.fetch(
            "SELECT s, sample, rows FROM pictures WHERE s IN (SELECT unnest(?::BIGINT[]))", [list(pictures)]
        )
        made = self.of_rows([rid for *_, rids in found for rid in rids])
        return {s: made[sample] for s, sample, _ in found}

    def of_rows(self, rids: list[int]) -> dict[str, SampleRecord]:
        """Returns the pictures that these rows are about, by key."""
        if not rids:
            return {}
        rows = pa.concat_tables([self.state.rows.slice(rid, 1) for rid in rids])
        made = records(rows, self.state.plan, self.state.words)
        said = {sample: self.state.reviews[sample] for sample in made if sample in self.state.reviews}
        return made | {sample: replace(made[sample], reviews=own) for sample, own in said.items()}


class Base:
    """A run folder in memory."""

    def __init__(self, place: str | os.PathLike[str], threads: int) -> None:
        self.store = Store(place)
        self._database = duckdb.connect(
            ":memory:",
            config={
                "threads": threads, "autoinstall_known_extensions": False, "autoload_known_extensions": False,
                "enable_external_access": False, "python_enable_replacements": False,
            },
        )  # fmt: skip
        self._database.execute("SET lock_configuration = true")
        self._refreshing, self._lock = threading.Lock(), threading.Lock()
        self._remembered: OrderedDict[str, SampleRecord] = OrderedDict()
        self._reviews: dict[str, Review | str] | None = None
        self._state: State | None = None
        self.refresh()

    @property
    def state(self) -> State:
        """The state of the last refresh."""
        assert self._state is not None
        return self._state

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """Opens a moment: inside of the block the state stays the same, whatever is read meanwhile."""
        cursor = self._database.cursor()
        try:
            with self._lock:
                cursor.begin()
                cursor.execute("SELECT s FROM pictures LIMIT 1").fetchall()  # a transaction begins with its first look
                state = self.state
            yield Moment(state=state, cursor=cursor)
        finally:
            cursor.close()

    def record(self, sample: str) -> SampleRecord | None:
        """Returns a picture by its key."""
        with self._lock:
            if sample in self._remembered:
                self._remembered.move_to_end(sample)
                return self._remembered[sample]
        with self.moment() as now:
            found = now.fetch("SELECT rows FROM pictures WHERE sample = ?", [sample])
            if not found:
                return None
            made = now.of_rows(found[0][0])[sample]
        with self._lock:
            if now.state is self._state:
                self._remembered[sample] = made
                if len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        return made

    def refresh(self) -> int:
        """Reads what appeared since; says how many parts that were."""
        with self._refreshing:
            found = self._refresh_parts()
            self._refresh_reviews()
            return found

    def _refresh_parts(self) -> int:
        settings, listed = self.store.settings(), self.store.parts()
        old = self._state
        anew = old is None or old.settings["id"] != settings["id"] or not old.parts <= set(listed)
        start = _nothing(settings, old) if old is None or anew else old
        if start is old and start.parts.issuperset(listed) and settings == start.settings:
            return 0
        state, fresh = self._read(replace(start, settings=settings, plan=Plan.of(settings)), listed)
        if old is None or anew or state.plan != old.plan:
            self._write(state, state.rows, anew=True)
        elif len(fresh):
            told = pc.is_in(state.rows["sample"], pc.unique(fresh["sample"]))
            self._write(state, state.rows.filter(told), anew=False)
        else:
            with self._lock:
                self._state = state
        return len(state.parts) - len(start.parts)

    def _refresh_reviews(self) -> None:
        """Reads the files of reviews that appeared; forgets those that are gone."""
        listed = reviews.names(self.store)
        if self._reviews is not None and listed == list(self._reviews):
            return
        known = self._reviews or {}
        read = reviews.read_all(self.store, [name for name in listed if name not in known])
        self._reviews = {name: known[name] if name in known else read[name] for name in listed}
        standing = reviews.latest(one for one in self._reviews.values() if isinstance(one, Review))
        by_sample: dict[str, tuple[Review, ...]] = {}
        for one in standing:
            by_sample[one.sample] = (*by_sample.get(one.sample, ()), one)
        unread = {name: one for name, one in self._reviews.items() if isinstance(one, str)}
        table = pa.table(
            {name: pa.array([getattr(one, name) for one in standing], kind) for name, kind in _REVIEWS.items()}
        )
        cursor = self._database.cursor()
        try:
            cursor.begin()
            cursor.register("fresh_reviews", table)
            cursor.execute("CREATE OR REPLACE TABLE reviews AS SELECT * FROM fresh_reviews")
            with self._lock:
                cursor.commit()
                self._state = replace(self.state, reviews=by_sample, unread=unread)
                self._remembered.clear()
        finally:
            cursor.close()

    def _read(self, state: State, listed: list[str]) -> tuple[State, pa.Table]:
        """Returns the state with the rows of parts that it does not know yet, and these rows alone."""
        wanted = set(listed) - state.parts
        found, strange = self.store.rows(state.settings["id"], None, without=state.parts)
        blocks = [
            packed(found.slice(at, _BLOCK).combine_chunks(), state.words, len(state.rows) + at)
            for at in range(0, len(found), _BLOCK) or (0,)
        ]
        fresh = pa.concat_tables(blocks)
        rows = pa.concat_tables([state.rows, fresh])
        if rows["rid"].num_chunks > _CHUNKS:
            rows = rows.combine_chunks()
        damaged = {part: why for part, why in sorted(self.store.damaged.items()) if part in wanted}
        read = set(pc.unique(found["part"]).to_pylist()) | (wanted - damaged.keys())
        return replace(
            state, rows=rows, parts=state.parts | read, foreign=state.foreign + strange, damaged=damaged
        ), fresh  # fmt: skip

    def _write(self, state: State, rows: pa.Table, *, anew: bool) -> None:
        """Puts the pictures that the rows are about into the flat tables, instead of what these have of them."""
        first = 0 if anew else state.pictures
        tables = flat_tables(rows, state.plan, state.words, first)
        cursor = self._database.cursor()
        try:
            cursor.begin()
            for name, table in tables.items():
                cursor.register(f"fresh_{name}", table)
            for sql in _replace_all(tables) if anew else _replace_some(tables):
                cursor.execute(sql)
            with self._lock:
                cursor.commit()
                self._state = replace(state, pictures=first + len(tables["pictures"]), numbers={})
                self._remembered.clear()
        finally:
            cursor.close()


def _nothing(settings: dict[str, Any], old: State | None) -> State:
    """A state without rows; what reviewers said stays."""
    words = Words()
    empty = pa.schema([*SCHEMA, pa.field("part", pa.string())]).empty_table()
    made = State(settings=settings, plan=Plan.of(settings), rows=packed(empty, words, 0), words=words)
    return made if old is None else replace(made, reviews=old.reviews, unread=old.unread)


_REVIEWS = {
    "sample": pa.string(), "author": pa.string(), "verdict": pa.string(), "line": pa.string(), "written": pa.float64(),
}  # fmt: skip
_SEARCH = "lower(concat_ws(chr(10), sample, name, source)) AS search"


def _fresh(name: str) -> str:
    return f"SELECT *{', ' + _SEARCH if name == 'pictures' else ''} FROM fresh_{name}"


def _replace_all(tables: Iterable[str]) -> list[str]:
    return [f"CREATE OR REPLACE TABLE {name} AS {_fresh(name)}" for name in tables]


def _replace_some(tables: Iterable[str]) -> list[str]:
    gone = "SELECT s FROM pictures WHERE sample IN (SELECT sample FROM fresh_pictures)"
    parts = [name for name in tables if name != "pictures"]
    return [
        *(f"DELETE FROM {name} WHERE s IN ({gone})" for name in parts),
        f"DELETE FROM pictures WHERE s IN ({gone})",
        *(f"INSERT INTO {name} {_fresh(name)}" for name in tables),
    ]

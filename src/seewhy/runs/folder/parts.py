"""The rows of a part as bytes, and back: written with checksums, and looked at before anybody relies on them.

A run folder may come from anywhere, and a disk may turn a bit. So what is read is compared with the schema, and every
value with what it may be; rows that pass can be used without asking again. What does not pass makes the part damaged:
it is not read, the reason is told, and the rest of the run is not affected.

Three sums guard the bytes: the file's own stands in the part's name, each page of the Parquet file has one, and each
map and thumbnail in the pack has one in its row. Parts of earlier versions have none of them and are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seewhy.runs.folder.codec import MOST_CELLS
from seewhy.runs.folder.rows import FLAGS, SCHEMA, SELDOM

__all__ = ["Damaged", "as_bytes", "checksum", "file_sum", "guarded_name", "opened", "rows_of"]

ROWS = 1_000_000  # of one part
ENTRIES = 20_000_000  # of one column of one part
BYTES = 1 << 30  # of one column of one part, once it is unpacked
TEXT = 1 << 20  # bytes of a text
TREE = 1 << 26  # bytes of a hierarchical occlusion
SIDE = 1 << 24  # pixels
AREA = 1 << 30  # pixels of a picture
_SUM = re.compile(r".*-([0-9a-f]{16})\Z", flags=re.DOTALL)
_LATER = {"checksum", "top", "notes"}  # fields of records that earlier versions did not write


class Damaged(Exception):
    """The error for a file of rows that cannot be used; its message says why."""


def checksum(data: bytes) -> int:
    """Returns the checksum of a map or a thumbnail (CRC-32)."""
    return zlib.crc32(data)


def file_sum(data: bytes) -> str:
    """Returns the checksum of a whole file, as it stands in its name: sixteen hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def guarded_name(name: str, data: bytes) -> str:
    """Returns a file's name with the checksum of its bytes at the end."""
    return f"{name}-{file_sum(data)}"


def as_bytes(rows: pa.Table) -> bytes:
    """Returns a Parquet file with a checksum for each page."""
    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def opened(name: str, data: bytes, parts: int = 1) -> pq.ParquetFile:
    """Opens a Parquet file after a check that its bytes are those that were written and that it is not too large.

    Args:
        name: its name without ".parquet"; where that ends with the file's checksum, the checksum is compared.
        data: the file.
        parts: how many parts' rows it has.

    Raises:
        Damaged: the bytes are others, or the file is too large.
    """
    told = _SUM.match(name)
    if told and told[1] != file_sum(data):
        raise Damaged("its bytes are not those that were written: the checksum in its name does not fit")
    file = _tried(lambda: pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True))
    about = file.metadata
    if about.num_rows > ROWS * parts:
        raise Damaged(f"it has {about.num_rows} rows, at most {ROWS * parts} are read")
    columns = [about.row_group(g).column(c) for g in range(about.num_row_groups) for c in range(about.num_columns)]
    most = max((one.num_values for one in columns), default=0)
    size = max((one.total_uncompressed_size for one in columns), default=0)
    if most > ENTRIES * parts or size > BYTES * parts:
        raise Damaged(f"a column has {most} entries in {size} bytes, at most {ENTRIES} in {BYTES} are read")
    return file


def rows_of(file: pq.ParquetFile, columns: list[str] | None = None) -> pa.Table:
    """Returns the rows, in the columns of the schema and then the file's own ("part" and "run" of an index).

    Args:
        file: the file of a part or of an index.
        columns: names of the columns that are wanted; None for all.

    Raises:
        Damaged: the file cannot be read, its columns are others, or a value is one that no run writes.
    """
    return _tried(lambda: _rows(file, columns))


def _rows(file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    there = set(file.schema_arrow.names)
    found = file.read(columns=None if columns is None else [name for name in columns if name in there])
    found.validate(full=True)
    made = {one.name: _column(found, one) for one in SCHEMA if columns is None or one.name in columns}
    made |= {name: _typed(found[name], pa.string(), name) for name in ("part", "run") if name in found.column_names}
    for name, column in made.items():
        for chunk in column.chunks:
            for path, values, rule in _inside(name, chunk, _OF[name]):
                _check(path, values, rule)
    fields = [SCHEMA.field(name) if name in SCHEMA.names else pa.field(name, pa.string()) for name in made]
    table = pa.Table.from_arrays(list(made.values()), schema=pa.schema(fields))
    _check_shapes(table)
    return table


def _tried(work: Callable[[], Any]) -> Any:
    """Calls a reader; whatever a hostile file makes it raise becomes `Damaged`."""
    try:
        return work()
    except Damaged:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise Damaged(f"it cannot be read: {text[:200]}") from error


# ---------------------------------------------------------------------------------------------------------- schema


def _column(found: pa.Table, one: pa.Field) -> pa.ChunkedArray:
    if one.name in found.column_names:
        return _typed(found[one.name], one.type, one.name)
    if one.name not in SELDOM:
        raise Damaged(f"it has no column {one.name!r}")
    nothing: list[Any] | None = [] if pa.types.is_list(one.type) else None
    return pa.chunked_array([pa.array([nothing] * len(found), one.type)])


def _typed(column: pa.ChunkedArray, wanted: pa.DataType, name: str) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    return pa.chunked_array([_array(chunk, wanted, name) for chunk in column.chunks], wanted)


def _array(values: Any, wanted: pa.DataType, name: str) -> Any:
    """Returns a column in the type that is wanted; fields that earlier versions did not write become null."""
    kind = values.type
    if kind == wanted:
        return values
    if pa.types.is_list(kind) and pa.types.is_list(wanted):
        inner = _array(values.values, wanted.value_type, name)
        return pa.ListArray.from_arrays(values.offsets, inner, type=wanted, mask=_mask(values))
    if pa.types.is_struct(kind) and pa.types.is_struct(wanted):
        there = {field.name for field in kind}
        if there <= {f.name for f in wanted} and {f.name for f in wanted} - there <= _LATER:
            arrays = [
                _array(values.field(f.name), f.type, f"{name}.{f.name}") if f.name in there
                else pa.nulls(len(values), f.type) for f in wanted
            ]  # fmt: skip
            return pa.StructArray.from_arrays(arrays, fields=list(wanted), mask=_mask(values))
    raise Damaged(f"column {name!r} is {str(kind)[:200]}, expected {wanted}")


def _mask(values: Any) -> Any:
    return values.is_null() if values.null_count else None


# ---------------------------------------------------------------------------------------------------------- values


class _Rule(NamedTuple):
    """What a value may be.

    Attributes:
        null: it may be missing.
        least: the smallest number.
        most: the largest number, or the most bytes of a text.
        nan: a number may be NaN, which means that there was nothing to compute.
        infinite: a number may be infinite, too.
        among: the only texts that are allowed.
        entries: how many entries a list has.
    """

    null: bool = False
    least: float | None = None
    most: float | None = None
    nan: bool = False
    infinite: bool = False
    among: tuple[str, ...] | None = None
    entries: int | None = None


_TEXT, _ANY_TEXT = _Rule(most=TEXT), _Rule(null=True, most=TEXT)
_INDEX, _ANY_INDEX = _Rule(least=0), _Rule(null=True, least=0)
_REAL, _MAYBE = _Rule(), _Rule(null=True, nan=True)
_PIXELS, _PAIR = _Rule(least=1, most=SIDE), _Rule(null=True, entries=2)
_FREE = _Rule(null=True, nan=True)
_SMALL = _Rule(least=1, most=4096)
_CORNERS = {"x0": _REAL, "y0": _REAL, "x1": _REAL, "y1": _REAL}
_SUMMED = _Rule(null=True, least=0, most=2**32 - 1)
_PLACE = {"offset": _Rule(least=0, most=2**62), "size": _Rule(least=1), "checksum": _SUMMED}
_OF: dict[str, Any] = {
    "sample": _TEXT, "position": _Rule(least=0, most=10**18 - 1), "name": _TEXT, "source": _ANY_TEXT, "stamp": _TEXT,
    "digest": _ANY_TEXT, "content": _ANY_TEXT, "size": (_PAIR, _PIXELS), "input": (_PAIR, _PIXELS),
    "box": (_Rule(null=True, entries=4), _Rule(least=-2 * SIDE, most=2 * SIDE)), "truth": (_Rule(null=True), _INDEX),
    "boxes": (_Rule(), {"label": _INDEX, **_CORNERS}),
    "predicted": _ANY_INDEX, "probability": _MAYBE, "entropy": _MAYBE, "mutual_information": _MAYBE,
    "thumbnail": {**_PLACE, "format": _Rule(among=("png", "jpeg")), **dict.fromkeys(("height", "width"), _SMALL)},
    "labels": (_Rule(), {
        "label": _INDEX, "probability": _REAL, "truth": _FREE, "flag": _Rule(null=True, among=FLAGS)
    }),
    "uncertainty": (_Rule(), {
        "label": _INDEX, **dict.fromkeys(("mean", "std", "low", "high"), _Rule(nan=True)),
    }),
    "maps": (_Rule(), {
        "label": _INDEX, "explainer": _TEXT, **_PLACE, "encoding": _TEXT, "height": _PIXELS, "width": _PIXELS,
        "low": _REAL, "high": _REAL, "top": _Rule(null=True),
    }),
    "costs": (_Rule(), {
        "explainer": _TEXT, **dict.fromkeys(("forward", "backward", "seconds"), _REAL), "layer": _ANY_TEXT,
        "warnings": (_Rule(null=True), _TEXT),
        "notes": (_Rule(null=True), {"kind": _TEXT, "text": _TEXT, "label": _ANY_INDEX}),
    }),
    "scores": (_Rule(), {
        "label": _INDEX, "explainer": _TEXT, "metric": _TEXT, "value": _Rule(null=True, nan=True, infinite=True)
    }),
    "said": (_Rule(), {"label": _INDEX, "explainer": _TEXT, "metric": _TEXT, "text": _TEXT}),
    "vectors": (_Rule(), {
        "label": _ANY_INDEX, "layer": _TEXT, **_PLACE, "scale": _Rule(least=0)
    }),
    "trees": (_Rule(), {"label": _INDEX, "tree": _Rule(most=TREE)}),
    "failures": (_Rule(), {
        "task": _TEXT, "explainer": _ANY_TEXT, "metric": _ANY_TEXT, "label": _ANY_INDEX, "reason": _TEXT
    }),
    "warnings": (_Rule(), _TEXT), "done": (_Rule(), _TEXT), "failed": (_Rule(), _TEXT), "written": _REAL,
    "detections": (_Rule(), {
        "number": _INDEX, "class_index": _INDEX, **_CORNERS, "overlap": _MAYBE, "match": _ANY_INDEX
    }),
    "crowds": (_Rule(), _INDEX), "difficult": (_Rule(), _INDEX), "part": _TEXT, "run": _TEXT,
}  # fmt: skip


def _inside(name: str, values: Any, rule: Any) -> Iterator[tuple[str, Any, _Rule]]:
    """Yields each column of plain values with the rule that it has to follow."""
    if isinstance(rule, _Rule):
        yield name, values, rule
    elif isinstance(rule, tuple):
        yield name, values, rule[0]
        yield from _inside(name, values.flatten(), rule[1])
    else:
        there = pc.drop_null(values) if values.null_count else values
        if values.null_count and name != "thumbnail":
            raise Damaged(f"{name!r} has an entry that is null")
        for inner, one in rule.items():
            yield from _inside(f"{name}.{inner}", there.field(inner), one)


def _check(name: str, values: Any, rule: _Rule) -> None:
    if values.null_count and not rule.null:
        raise Damaged(f"{name!r} is null")
    kind = values.type
    if pa.types.is_list(kind):
        lengths = pc.unique(pc.drop_null(pc.list_value_length(values))).to_pylist()
        if rule.entries is not None and set(lengths) - {rule.entries}:
            raise Damaged(f"{name!r} has {max(lengths)} entries, expected {rule.entries}")
    elif pa.types.is_string(kind):
        _check_text(name, values, rule)
    elif not pa.types.is_boolean(kind):
        _check_numbers(name, values, rule)


def _check_text(name: str, values: Any, rule: _Rule) -> None:
    if rule.most is not None and (pc.max(pc.binary_length(values)).as_py() or 0) > rule.most:
        raise Damaged(f"{name!r} has a text of more than {rule.most} bytes")
    if rule.among is not None:
        strange = set(pc.unique(pc.drop_null(values)).to_pylist()) - set(rule.among)
        if strange:
            raise Damaged(f"{name!r} is {min(strange)[:40]!r}, expected one of {', '.join(rule.among)}")


def _check_numbers(name: str, values: Any, rule: _Rule) -> None:
    numbers = pc.drop_null(values).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type):
        wrong = (np.isnan(numbers) & (not rule.nan)) | (np.isinf(numbers) & (not rule.infinite))
        if wrong.any():
            raise Damaged(f"{name!r} is {numbers[wrong][0]}, expected a number")
    for end, beyond in ((rule.least, np.less), (rule.most, np.greater)):
        if end is not None and len(numbers) and (outside := beyond(numbers, end)).any():
            side = "at least" if beyond is np.less else "at most"
            raise Damaged(f"{name!r} is {numbers[outside][0]}, expected {side} {end:g}")


def _check_shapes(rows: pa.Table) -> None:
    """Checks what several columns say together, such as width and size."""
    for name in ("size", "input"):
        if name in rows.column_names:
            _check_area(name, _pairs(rows[name], 2))
    if "box" in rows.column_names:
        box = _pairs(rows["box"], 4)
        if ((box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])).any():
            raise Damaged("'box' covers nothing")
    if "maps" in rows.column_names:
        for chunk in rows["maps"].chunks:
            _check_maps(chunk.flatten())


def _pairs(column: pa.ChunkedArray, length: int) -> Any:
    """Returns the entries, (N, length), of the lists that are not null."""
    chunks = [np.asarray(chunk.flatten()).astype(np.float64) for chunk in column.chunks]
    return np.concatenate([*chunks, np.empty(0)]).reshape(-1, length)


def _check_area(name: str, sides: Any) -> None:
    if (sides.prod(1) > AREA).any():
        raise Damaged(f"{name!r} is {sides[sides.prod(1).argmax()].astype(int).tolist()}, more than {AREA} pixels")


def _check_maps(maps: Any) -> None:
    cells = maps.field("height").to_numpy().astype(np.int64) * maps.field("width").to_numpy()
    if (cells > MOST_CELLS).any():
        raise Damaged(f"'maps' has one of {cells.max()} cells, at most {MOST_CELLS} are read")
    size = maps.field("size").to_numpy()
    for encoding, each in (("f4", 4), ("f2", 2)):
        mine = pc.equal(maps.field("encoding"), encoding).to_numpy(zero_copy_only=False)
        if (size[mine] != each * cells[mine]).any():
            raise Damaged(f"'maps' has an {encoding!r} map whose size is not that of its cells")

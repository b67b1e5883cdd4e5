"""From worked-on pictures to a committed part: maps, thumbnails and vectors are encoded, rows point at them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from seewhy.draw.scale import white
from seewhy.plain import readable
from seewhy.runs.folder.codec import encode
from seewhy.runs.folder.parts import checksum
from seewhy.runs.folder.rows import MapRow, Row, ThumbnailRow, VectorRow
from seewhy.runs.folder.tasks import PREDICT
from seewhy.runs.work.job import Tools
from seewhy.runs.work.picture import Picture

__all__ = ["commit"]


class _Pack:
    """The bytes of a part's maps, thumbnails and vectors, one after the other."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def add(self, data: bytes) -> int:
        """Adds bytes to the pack; returns where they begin."""
        self.pieces.append(data)
        self.size += len(data)
        return self.size - len(data)


def commit(tools: Tools, chunk: str, pictures: list[Picture]) -> tuple[str, int]:
    """Writes the part of a chunk; returns the part's name and how many maps are in it.

    Raises:
        StorageError: the part cannot be written, or the run is not there any more.
    """
    tools.store.check_there()
    pack, rows = _Pack(), []
    for picture in pictures:
        maps = _maps(picture, pack, tools)
        extra: dict[str, Any] = {"maps": maps, "vectors": _vectors(picture, pack), "written": time.time()}
        if picture.loaded is not None and PREDICT in picture.item.tasks:
            data, kind, (height, width) = picture.loaded.small
            extra["thumbnail"] = ThumbnailRow(pack.add(data), len(data), kind, height, width, checksum(data))
        rows.append(_row(tools, picture, extra))
    tools.store.check_there()  # again: a disk may have been unmounted while maps were encoded
    return tools.store.write(tools.run, chunk, rows, pack.pieces), sum(len(row.maps) for row in rows)


def _maps(picture: Picture, pack: _Pack, tools: Tools) -> list[MapRow]:
    found = []
    for label, explainer in sorted(picture.kept):
        values = picture.maps[label, explainer]
        kept, (height, width) = encode(values, tools.job.precision), values.shape
        row = MapRow(
            label=label, explainer=explainer, offset=pack.add(kept.data), size=len(kept.data), encoding=kept.encoding,
            height=height, width=width, low=kept.low, high=kept.high,
            top=white(values, tools.explainers[explainer].values), checksum=checksum(kept.data),
        )  # fmt: skip
        found.append(row)
    return found


def _vectors(picture: Picture, pack: _Pack) -> list[VectorRow]:
    found = []
    for label, layer, values in picture.vectors:
        scale = float(np.abs(values).max()) or 1.0
        data = (values / scale).astype("<f2").tobytes()
        found.append(VectorRow(label, layer, pack.add(data), len(data), scale, checksum(data)))
    return found


def _row(tools: Tools, picture: Picture, extra: dict[str, Any]) -> Row:
    item, loaded = picture.item, picture.loaded
    source = tools.data.source(item.index)
    if loaded is not None and loaded.original is not None:
        data, ending = loaded.original
        source = f"originals/{loaded.digest}{ending}"
        tools.store.files.put(source, [data])
    stamp = item.stamp
    if loaded is not None and loaded.stamp is not None and PREDICT in item.tasks:
        stamp = loaded.stamp  # of what was read; else the row belongs to those that the picture has
    name = (loaded.sample.name if loaded is not None else "") or item.key
    return Row(
        sample=item.key, position=item.index, name=readable(name), stamp=stamp,
        source=None if source is None else readable(source),
        **picture.row(tools.threshold), **extra,
    )  # fmt: skip

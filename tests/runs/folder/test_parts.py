"""No bit that turns changes what is read: it is noticed, or it made no difference."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InvalidInput
from seewhy.runs.folder.parts import _OF
from seewhy.runs.folder.rows import SCHEMA
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from support.run_folders import RUN, Folder, picture, three_pictures


def test_every_column_has_a_rule() -> None:
    assert set(_OF) == {*SCHEMA.names, "part", "run"}


def test_a_turned_bit_is_noticed(tmp_path: Path) -> None:
    folder = three_pictures(Folder(tmp_path))
    eye, dice = np.eye(7, dtype=np.float32), random.Random(3)
    for path in sorted((tmp_path / "parts").iterdir()):
        good = path.read_bytes()
        for _ in range(40):
            at = dice.randrange(len(good))
            path.write_bytes(good[:at] + bytes([good[at] ^ (1 << dice.randrange(8))]) + good[at + 1 :])
            if path.suffix == ".parquet":
                assert folder.store.rows(RUN)[0].num_rows == 0
                assert "the checksum in its name does not fit" in next(iter(folder.store.damaged.values()))
                continue
            run, read = Run(tmp_path), 0
            for record in run.records():
                for label, explainer in record.maps:
                    with contextlib.suppress(InvalidInput):
                        np.testing.assert_array_equal(run.map(record.sample, label, explainer), eye)
                        read += 1
            assert read == sum(len(record.maps) for record in run.records()) - 1
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {0: (float("nan"), True)}}, "'labels.probability' is nan, expected a number"),
        ({"size": (0, 0)}, "'size' is 0, expected at least 1"),
        ({"size": (1 << 20, 1 << 20)}, "more than 1073741824 pixels"),
        ({"size": (1, 2, 3)}, "'size' has 3 entries, expected 2"),
        ({"box": (4.0, 4.0, 4.0, 9.0)}, "'box' covers nothing"),
        ({"position": -1}, "'position' is -1, expected at least 0"),
        ({"warnings": [None]}, "'warnings' is null"),
    ],
)
def test_a_hostile_value_makes_its_part_damaged_and_not_the_run(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = three_pictures(Folder(tmp_path))
    known: dict[str, Any] = {"sample": "x", "position": 9, **change}
    folder.add("z", picture(**known))
    found = status(tmp_path)
    assert (found.counts.samples, found.counts.unread) == (3, 1)
    assert said in str(found)

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seewhy.errors import InvalidInput
from seewhy.runs.folder.filesystem import LocalFiles
from seewhy.runs.folder.rows import SCHEMA, SELDOM, Row, table
from seewhy.runs.folder.store import Store
from support import ROOT, TESTS
from support.run_folders import RUN, Folder, picture, settings
from support.typed import present

EYE = np.eye(3, dtype=np.float32)


def one(sample, position=0, value=1.0):
    return picture(sample, position, labels={0: (0.5, None)}, maps={(0, "one"): value * EYE})


def samples(store, run=RUN):
    return sorted(store.rows(run, ["sample"])[0]["sample"].to_pylist())


def remote():
    """A folder in memory that no other test has."""
    return f"memory://{os.urandom(6).hex()}/run"


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    return Folder(tmp_path if request.param == "disk" else remote())


# ------------------------------------------------------------------------------------------------------- run.json


def test_only_the_first_run_json_stays(folder):
    assert not folder.store.create(settings(id="later"))
    assert folder.store.settings() == settings()


def test_of_many_that_create_at_once_one_wins(tmp_path):
    gate, won = threading.Barrier(16), []

    def create(number):
        gate.wait()
        if Store(tmp_path).create(settings(id=str(number))):
            won.append(str(number))

    threads = [threading.Thread(target=create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Store(tmp_path).settings()["id"] == won[0]
    assert sorted(os.listdir(tmp_path)) == ["run.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, " is not a run folder: it has no run.json."),
        ("[]", " does not describe a run."),
        ("{", " cannot be read: "),
        ('{"id": "x", "format": 3}', " has format 3, this version reads up to 2. "),
        ('{"id": "x", "format": 1}', " does not describe a run: it has no 'created'."),
    ],
)
def test_folders_that_are_no_runs(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InvalidInput) as error:
        Store(tmp_path).settings()
    assert message in str(error.value)
    assert Store(tmp_path).exists() == (text is not None)


# ---------------------------------------------------------------------------------------------------------- parts


def test_rows_come_back_as_they_were_written(folder):
    row = Row(
        sample="ä\n'\"", position=3, name="<b>", source="/x", stamp="s", digest="d", size=(3, 4), input=(1, 2),
        box=(0.1, -2.0, 3.0, 4.5), truth=(1, 7), boxes=((1, 0.0, 1.0, 2.0, 3.5),), predicted=7, probability=0.5,
        entropy=None, warnings=["w"], done=["predict"], failed=["predict"], written=1.5,
    )  # fmt: skip
    folder.store.write(RUN, "c", [row], [b""])
    found, foreign = folder.store.rows(RUN)
    assert foreign == 0
    assert found.drop_columns(["part", *SELDOM]).to_pylist() == table([row]).to_pylist()
    (back,) = found.to_pylist()
    assert (back["sample"], back["box"], back["truth"]) == (row.sample, list(present(row.box)), [1, 7])
    assert back["boxes"] == [{"label": 1, "x0": 0.0, "y0": 1.0, "x1": 2.0, "y1": 3.5}]
    assert (back["entropy"], back["thumbnail"], back["maps"]) == (None, None, [])


def test_maps_are_read_by_range(folder):
    part = folder.add("c", one("a", value=1), one("b", value=2))
    rows = folder.store.rows(RUN)[0].to_pylist()
    for row, value in zip(rows, (1, 2), strict=True):
        place = row["maps"][0]
        data = folder.store.read(row["part"], place["offset"], place["size"])
        np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(3, 3), value * EYE)
    with pytest.raises(InvalidInput, match=rf"^{part}\.pack in .* is damaged: it ends before byte 100\.$"):
        folder.store.read(part, 90, 10)


def test_a_pack_without_rows_is_not_a_part(folder):
    folder.add("c", one("a"))
    folder.store.files.put("parts/d-1.pack", [b"x"])
    folder.store.files.put("parts/e-1.parquet", [b"rows whose pack is gone"])
    assert len(folder.store.parts()) == 1
    assert samples(folder.store) == ["a"]


@pytest.mark.parametrize("last", ["pack", "parquet"])
def test_a_writer_killed_in_the_middle_leaves_nothing_that_is_read(tmp_path, last):
    """kill -9 while a file is written but not renamed yet."""
    folder = Folder(tmp_path)
    folder.add("c", one("a"))
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from support.run_folders import Folder, picture
from seewhy.runs.folder import filesystem
sync = os.fsync
def kill(handle):
    sync(handle)
    folder, _, name = os.readlink(f"/proc/self/fd/{{handle}}").rpartition("/")
    packs = [n for n in os.listdir(folder) if n.startswith("d")]
    if folder.endswith("parts") and name.endswith(".tmp") and len(packs) == {int(last == "parquet")}:
        os.kill(os.getpid(), signal.SIGKILL)
filesystem.os.fsync = kill
Folder({str(tmp_path)!r}).add("d", picture("b"))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    left = [name for name in os.listdir(tmp_path / "parts") if name.endswith(".tmp")]
    assert len(left) == 1
    assert (len(folder.store.parts()), samples(folder.store)) == (1, ["a"])
    assert folder.store.sweep() == 1
    assert [name for name in os.listdir(tmp_path / "parts") if name.endswith(".tmp")] == []
    assert samples(folder.store) == ["a"]


def test_sweep_leaves_the_files_of_the_living_and_of_other_machines(tmp_path):
    Folder(tmp_path).add("c", one("a"))
    parts = tmp_path / "parts"
    host = "".join(c for c in os.uname().nodename if c.isalnum())[:24] or "host"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [f".{host}-{os.getpid()}-0.tmp", f".{host}-{os.getppid()}-0.tmp", f".elsewhere-{dead.pid}-0.tmp", ".x.tmp"]
    for name in (*kept, f".{host}-{dead.pid}-0.tmp"):
        (parts / name).write_bytes(b"")
    assert Store(tmp_path).sweep() == 1
    assert sorted(n for n in os.listdir(parts) if n.startswith(".")) == sorted(kept)
    assert len(Store(tmp_path).files.names("parts")) == 2


def _write_many(place, writer):
    folder = Folder(place, {**settings(), "id": RUN})
    for chunk in range(10):
        folder.add(f"{writer}x{chunk}", *(one(f"{writer}.{chunk}.{n}", value=writer + 1) for n in range(3)))


def test_eight_processes_write_at_once(tmp_path):
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [context.Process(target=_write_many, args=(str(tmp_path), n)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = Store(tmp_path)
    assert samples(store) == sorted(f"{w}.{c}.{n}" for w in range(8) for c in range(10) for n in range(3))
    for row in store.rows(RUN)[0].to_pylist():
        place = row["maps"][0]
        data = np.frombuffer(store.read(row["part"], place["offset"], place["size"]), "<f4")
        assert data.max() == int(row["sample"][0]) + 1
    assert not [name for name in os.listdir(tmp_path / "parts") if name.endswith(".tmp")]


def test_of_two_attempts_at_a_chunk_the_rows_of_one_and_its_own_pack_count(folder):
    for value in (1, 2):
        folder.add("c", one("a", value=value), one("b", value=value))
    (part,) = folder.store.parts()
    rows = folder.store.rows(RUN)[0].to_pylist()
    assert [row["sample"] for row in rows] == ["a", "b"]
    assert {row["part"] for row in rows} == {part}
    for row in rows:
        place = row["maps"][0]
        data = np.frombuffer(folder.store.read(part, place["offset"], place["size"]), "<f4")
        assert data.max() == place["high"]


def test_a_damaged_part_is_left_out_and_another_attempt_takes_its_place(tmp_path):
    folder = Folder(tmp_path)
    folder.add_as("c-1", one("a"))
    folder.add_as("d-1", one("b"))
    rows = tmp_path / "parts" / "c-1.parquet"
    rows.write_bytes(rows.read_bytes()[:-20])
    assert samples(folder.store) == ["b"]
    folder.add_as("c-2", one("a"))
    assert (samples(folder.store), folder.store.parts()) == (["a", "b"], ["c-2", "d-1"])


def test_parts_of_another_run_are_counted_and_not_read(folder):
    folder.add("c", one("a"))
    folder.add("d", one("b"), run="another")
    folder.add("e", one("c"), run="another")
    assert (samples(folder.store), folder.store.rows(RUN, ["sample"])[1]) == (["a"], 2)
    assert samples(folder.store, "another") == ["b", "c"]
    folder.store.compact(everything=True)
    assert (samples(folder.store), folder.store.rows(RUN, ["sample"])[1]) == (["a"], 2)


def test_known_parts_are_not_read_again(folder):
    known = folder.add("c", one("a"))
    folder.add("d", one("b"))
    found, _ = folder.store.rows(RUN, ["sample", "position"], without=[known])
    assert found.column_names == ["sample", "position", "part"]
    assert found["sample"].to_pylist() == ["b"]
    assert folder.store.rows(RUN, ["sample"], without=folder.store.parts())[0].num_rows == 0


def test_an_empty_run_has_no_rows(folder):
    found, foreign = folder.store.rows(RUN)
    assert (found.num_rows, foreign, folder.store.parts(), folder.store.compact()) == (0, 0, [], 0)
    assert found.schema == SCHEMA.append(pa.field("part", pa.string()))


def test_every_column_is_documented():
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    columns = page.partition("## Columns of the rows")[2]
    lines = {line.split("|")[1]: line for line in columns.splitlines() if line.startswith("| `")}
    for column in SCHEMA:
        (line,) = [line for names, line in lines.items() if f"`{column.name}`" in names]
        inner = column.type.value_type if pa.types.is_list(column.type) else column.type
        for part in inner if pa.types.is_struct(inner) else ():
            assert f"`{part.name}`" in line


# ---------------------------------------------------------------------------------------------------------- index


def everything(store):
    found = store.rows(RUN)[0]
    return sorted(map(repr, found.to_pylist()))


def test_the_index_changes_nothing_that_is_read(folder):
    for n in range(5):
        folder.add(f"c{n}", one(f"s{n}", n))
    before = everything(folder.store)
    assert folder.store.compact() == 0  # too few to be worth it
    assert folder.store.compact(everything=True) == 5
    assert len(folder.store.files.names("index")) == 1
    assert everything(folder.store) == before
    folder.add("d", one("later", 9))
    assert samples(folder.store) == [*(["later"]), *(f"s{n}" for n in range(5))]
    assert folder.store.compact(everything=True) == 1
    assert len(folder.store.files.names("index")) == 1
    whole = everything(folder.store)
    assert len(whole) == 6
    folder.store.files.remove(f"index/{name}" for name in folder.store.files.names("index"))
    assert everything(folder.store) == whole


def test_rows_are_read_from_the_index_without_their_parts_being_opened(folder, monkeypatch):
    for n in range(3):
        folder.add(f"c{n}", one(f"s{n}", n))
    folder.store.compact(everything=True)
    opened: list[str] = []
    get = folder.store.files.get

    def counted(name):
        opened.append(name)
        return get(name)

    monkeypatch.setattr(folder.store.files, "get", counted)
    assert samples(folder.store) == ["s0", "s1", "s2"]
    assert not [name for name in opened if name.startswith("parts/")]


def test_no_row_twice_where_index_files_overlap(folder):
    folder.add("c", one("a"))
    folder.store.compact(everything=True)
    first = {name: folder.store.files.get(f"index/{name}") for name in folder.store.files.names("index")}
    folder.add("d", one("b"))
    folder.store.compact(everything=True)
    for name, data in first.items():  # as left by two processes that compact at once
        folder.store.files.put(f"index/{name}", [data])
    assert len(folder.store.files.names("index")) == 2
    assert samples(folder.store) == ["a", "b"]
    folder.store.compact(everything=True)
    assert (samples(folder.store), len(folder.store.files.names("index"))) == (["a", "b"], 1)


def test_a_damaged_index_is_as_none(folder):
    folder.add("c", one("a"))
    folder.store.compact(everything=True)
    (name,) = folder.store.files.names("index")
    folder.store.files.put(f"index/{name}", [folder.store.files.get(f"index/{name}")[:-9]])
    assert samples(folder.store) == ["a"]


def test_a_part_that_could_not_be_read_is_not_covered_by_the_index(tmp_path):
    folder = Folder(tmp_path)
    part = folder.add("c", one("a"))
    folder.add("d", one("b"))
    rows = tmp_path / "parts" / f"{part}.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(b"")
    folder.store.compact(everything=True)
    rows.write_bytes(b"")
    assert folder.store.compact(everything=True) == 0
    rows.write_bytes(whole)  # the disk answers again
    assert samples(folder.store) == ["a", "b"]


def test_nothing_that_can_be_read_makes_no_index(tmp_path):
    folder = Folder(tmp_path)
    part = folder.add("c", one("a"))
    (tmp_path / "parts" / f"{part}.parquet").write_bytes(b"")
    assert (folder.store.compact(everything=True), folder.store.files.names("index")) == (0, [])


def test_many_parts_are_compacted_of_themselves(tmp_path):
    folder = Folder(tmp_path)
    for n in range(130):
        folder.store.write(RUN, f"c{n:03d}", [Row(sample=f"s{n:03d}", position=n, name="")], [b""])
    assert folder.store.compact() == 130
    assert folder.store.compact() == 0
    assert samples(folder.store) == [f"s{n:03d}" for n in range(130)]


def test_addresses(tmp_path):
    assert Store(tmp_path / "x").address == str(tmp_path / "x")
    assert Store("memory://bucket/run").address == "memory://bucket/run"
    assert LocalFiles(tmp_path).names("nothing") == []
    assert Store("~").files.root == Path.home()

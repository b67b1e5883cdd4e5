"""Disks as they are: no hard links, full, read-only, gone, names that are too long, addresses that are none.

Where this machine lets the tests mount one, a real exFAT and a real small disk are used, else limits of the process.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import cli
from seewhy.engines.local import Local
from seewhy.errors import InvalidInput, MissingDependency, StorageError, storage_error
from seewhy.runs.folder import filesystem
from seewhy.runs.folder.filesystem import LocalFiles, RemoteFiles
from seewhy.runs.folder.store import Store
from seewhy.runs.runner import Summary
from support import SRC
from support.run_jobs import content, network, run

FAST: dict[str, Any] = {"explainers": ["recipro_cam"], "metrics": ("sparseness",)}
ROOM = "Make room, then give the same command again: what is finished is not lost."


def plain(place: Path) -> list[dict[str, Any]]:
    return [row | {"part": ""} for row in content(place)]


@pytest.fixture(scope="module")
def want(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("untroubled")
    run(place / "a", **FAST)
    return plain(place / "a")


def shell(*arguments: str) -> bool:
    """Whether a command of the system is there and succeeds."""
    try:
        return subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory with these options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        if os.geteuid() != 0 or not shell("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)):
            pytest.skip("this machine lets no test mount a disk")
        return place

    yield mount
    while shell("umount", str(place)):
        pass


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A real exFAT: it has no hard links and knows no exclusive rename."""
    image, place = tmp_path / "exfat.img", tmp_path / "exfat"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    loop = ""
    if shell("mkfs.exfat", str(image)):
        asked = ["losetup", "-f", "--show", str(image)]
        loop = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    try:
        if not loop or not shell("mount.exfat-fuse", loop, str(place)):
            pytest.skip("this machine has no exFAT")
        yield place
        assert shell("umount", str(place))
    finally:
        if loop:
            shell("losetup", "-d", loop)


def no_links(self: Path, target: Any) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted", str(self))


# ------------------------------------------------------------------------------------------------ without hard links


def test_a_run_on_exfat(exfat: Path, want: list[dict[str, Any]]) -> None:
    (exfat / "a").touch()
    with pytest.raises(OSError, match="not permitted"):
        (exfat / "b").hardlink_to(exfat / "a")
    assert run(exfat / "run", **FAST).computed == 12
    assert run(exfat / "run", **FAST).computed == 0
    assert plain(exfat / "run") == want
    assert [one.name for one in (exfat / "run").iterdir() if one.name.startswith(".")] == []
    assert not Store(exfat / "run").create({"id": "another"})
    assert Store(exfat / "run").settings()["id"] != "another"


def _race(place: Path, number: int, start: Any, found: Any) -> None:
    Path.hardlink_to = no_links  # type: ignore[method-assign]
    start.wait()
    for i in range(30):
        found.put((i, number, LocalFiles(place / str(i)).put("run.json", [b"%d" % number] * 1000, replace=False)))


def test_of_several_processes_at_once_one_makes_the_run(tmp_path: Path) -> None:
    several = multiprocessing.get_context("fork")
    start, found = several.Event(), several.Queue()
    writers = [several.Process(target=_race, args=(tmp_path, number, start, found)) for number in range(1, 5)]
    for one in writers:
        one.start()
    start.set()
    said = [found.get(timeout=60) for _ in range(4 * 30)]
    for one in writers:
        one.join()
    for i in range(30):
        first = [number for where, number, made in said if where == i and made]
        assert len(first) == 1
        assert (tmp_path / str(i) / "run.json").read_bytes() == b"%d" % first[0] * 1000
        assert [one.name for one in (tmp_path / str(i)).iterdir()] == ["run.json"]


def test_what_a_killed_writer_claimed_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    monkeypatch.setattr(filesystem, "_CLAIM", 0.2)
    (tmp_path / ".run.json.claim").touch()
    files = LocalFiles(tmp_path)
    began = time.monotonic()
    assert files.put("run.json", [b"mine"], replace=False)
    assert time.monotonic() - began >= 0.2
    assert [one.name for one in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / ".run.json.claim").touch()
    assert not files.put("run.json", [b"yours"], replace=False)
    assert files.get("run.json") == b"mine"


# ------------------------------------------------------------------------------------------------- full and read-only


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(disk: Callable[[str], Path], workers: int, want: list[dict[str, Any]]) -> None:
    place = disk("size=1m")
    stone = place / "stone"
    stone.write_bytes(bytes((1 << 20) - 9 * 4096))  # room for run.json and a part, not for three
    with pytest.raises(StorageError) as found:
        run(place / "run", engine=Local(workers=workers), **FAST)
    assert str(found.value) == f"{str(place / 'run')!r} cannot be written: No space left on device. {ROOM}"
    kept = {one.name for one in (place / "run" / "parts").iterdir()}
    assert all(name.endswith((".pack", ".parquet")) for name in kept)
    assert {name.rpartition(".")[0] + ".parquet" for name in kept} <= kept  # no pack without its rows keeps room
    stone.unlink()
    again = run(place / "run", **FAST)
    assert (again.computed, again.left) == (12 - 4 * len(kept) // 2, 0)
    assert plain(place / "run") == want


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file above 4,000 bytes can be written by this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_are_not_allowed_to_grow(small_files: None, want: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(StorageError) as found:
        run(tmp_path / "run", **FAST)
    assert str(found.value) == f"{str(tmp_path / 'run')!r} cannot be written: File too large. {ROOM}"
    assert list((tmp_path / "run" / "parts").iterdir()) == []
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, soft))
    assert run(tmp_path / "run", **FAST).computed == 12
    assert plain(tmp_path / "run") == want


def test_an_index_that_cannot_be_written_is_a_note(
    want: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.runs.folder.store.LOOSE", 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "index").symlink_to("nowhere/at/all")
    found = run(tmp_path / "run", **FAST)
    assert (found.computed, found.left) == (12, 0)
    assert any(note.startswith("The index was not written: ") for note in found.notes)
    (tmp_path / "run" / "index").unlink()
    assert plain(tmp_path / "run") == want


def test_a_disk_that_may_only_be_read(disk: Callable[[str], Path]) -> None:
    place = disk("size=4m")
    run(place / "done", **FAST)
    assert shell("mount", "-o", "remount,ro", str(place))
    assert run(place / "done", **FAST).computed == 0  # nothing is to be written
    with pytest.raises(StorageError) as found:
        run(place / "new", **FAST)
    rights = "Choose a place that you may use, or change its permissions."
    assert str(found.value) == f"{str(place / 'new')!r} cannot be written: Read-only file system. {rights}"


# ------------------------------------------------------------------------------------------------------ gone meanwhile


def interrupted(place: Path, after: Callable[[], object]) -> Summary:
    """A run in which something happens once the first chunk is committed."""
    done: list[int] = []

    def told(pictures: int, total: int) -> None:
        if not done:
            after()
        done.append(pictures)

    return run(place, chunk=1, progress=told, **FAST)


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with pytest.raises(StorageError) as found:
        interrupted(place, lambda: place.rename(tmp_path / "away"))
    assert "is no run folder any more: its run.json is gone." in str(found.value)
    assert not place.exists()
    (tmp_path / "away").rename(place)
    kept = len(content(place))
    assert 0 < kept < 12
    assert run(place, chunk=1, **FAST).computed == 12 - kept


def test_an_empty_place_where_a_disk_was_is_not_filled(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def unmounted() -> None:
        place.rename(tmp_path / "away")
        place.mkdir()

    with pytest.raises(StorageError, match=r"its run\.json is gone\. Was it removed, or the disk unmounted\?"):
        interrupted(place, unmounted)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", [".pack", ".parquet"])
def test_a_folder_that_vanishes_while_a_part_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, empty: bool
) -> None:
    """Between the look for run.json and the file: it is no full disk and no fault of the file."""
    place, put, gone = tmp_path / "run", LocalFiles.put, list[Path]()

    def vanishing(self: LocalFiles, path: str, *rest: Any, **more: Any) -> bool:
        if path.endswith(name) and not gone:
            gone.append(place.rename(tmp_path / "away"))
            if empty:
                place.mkdir()
        return put(self, path, *rest, **more)

    monkeypatch.setattr(LocalFiles, "put", vanishing)
    with pytest.raises(StorageError, match=r"is no run folder any more: its run\.json is gone\."):
        run(place, chunk=1, **FAST)
    if empty:
        assert [one for one in place.rglob("*") if one.is_file()] == []
        (place / "parts").rmdir()
        place.rmdir()
    assert not place.exists()
    (tmp_path / "away").rename(place)
    assert run(place, chunk=1, **FAST).computed == 12


def test_a_sub_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "run"
    with contextlib.suppress(StorageError):  # the one that was being written
        interrupted(place, lambda: (place / "parts").rename(tmp_path / "away"))
    assert run(place, chunk=1, **FAST).computed > 0
    assert len(content(place)) == 12


# ------------------------------------------------------------------------------------------- paths that cannot be used


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    (tmp_path / "nets_of_disks.py").write_text(
        "from torch import nn\n\ndef small():\n    pool = nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))\n"
    )
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(np.full((20, 20, 3), 60 * i, np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    half = ("0.5", "0.5", "0.5")
    yield [
        "run", "--model", "nets_of_disks:small", "--size", "16", "16", "--mean", *half, "--std", *half, "--data",
        "photos", "--explainers", "activation_map", "--quiet", "--out",
    ]  # fmt: skip
    sys.modules.pop("nets_of_disks", None)
    while str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


def bad_places(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    return {
        "x" * 300: "File name too long. Choose a shorter path.",
        "file": "choose another path.",
        "file/run": "choose another path.",
        "loop": "Its symbolic links lead back to themselves: choose another path.",
        "a/run": "Its symbolic links lead back to themselves: choose another path.",
        "nope://x/run": "'nope://x/run' is no address that can be used: Protocol not known: nope.",
        "http://127.0.0.1:9/run": "'http://127.0.0.1:9/run'",
        "/proc/run": "'/proc/run' cannot be written",
        "": "A run folder is a path or an address, got ''.",
    }


@pytest.mark.parametrize("which", range(9))
def test_a_bad_place_is_an_error_that_says_what_to_do(
    which: int, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, said = list(bad_places(tmp_path).items())[which]
    assert cli.main([*command, out]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.startswith("seewhy: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    if out:
        for other in (["resume", out], ["status", out], ["export", out, "--to", "csv", "--out", "x.csv"]):
            assert cli.main(other) == 2
            told = capsys.readouterr()
            assert told.err.startswith("seewhy: ")
            assert told.err.count("\n") == 1
            assert out in told.err


def test_a_library_that_is_missing(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    assert cli.main([*command, "s3://bucket/run"]) == 2
    assert "'s3://bucket/run' needs a library that is not installed: " in (said := capsys.readouterr().err)
    assert "Install it (s3:// needs s3fs, gs:// gcsfs, az:// adlfs, http:// aiohttp), or choose a folder." in said
    with pytest.raises(MissingDependency):
        Store("s3://bucket/run")


def test_an_address_that_does_not_answer(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(filesystem, "_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/run"
        began = time.monotonic()
        assert cli.main([*command, address]) == 2
        assert time.monotonic() - began < 20
    said = capsys.readouterr().err
    assert said.startswith(f"seewhy: '{address}' cannot be ")
    assert "See whether the address, the credentials and the connection are right" in said


def test_output_that_cannot_be_written_anywhere(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "out"]) == 0
    capsys.readouterr()
    (tmp_path / "file").write_text("x")
    for out in ("file/x.csv", f"{'y' * 300}.csv"):
        assert cli.main(["export", "out", "--to", "csv", "--out", out]) == 2
        said = capsys.readouterr().err
        assert said.startswith("seewhy: ")
        assert said.endswith(("choose another path.\n", "Choose a shorter path.\n"))


def test_a_full_standard_output(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "seewhy", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=environment,
        )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr == f"seewhy: 'A file' cannot be used: No space left on device. {ROOM}\n"


def test_data_with_links_that_lead_back(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(photos / "a.png")
    (photos / "round").symlink_to(photos)
    (photos / "self.png").symlink_to("self.png")
    (photos / "x").symlink_to("y")
    (photos / "y").symlink_to("x")
    model = {"changes": {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}
    found = run(tmp_path / "run", model=network(), model_options=model, data=str(photos), **FAST)
    assert (found.computed, found.failed) == (2, 1)
    assert "self.png" in found.failures[0][0]


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.ENOSPC, ROOM),
        (errno.EIO, "See whether the disk, or the connection to it, works; then give the same command again."),
        (errno.EROFS, "Choose a place that you may use, or change its permissions."),
    ],
)
def test_what_is_said(number: int, todo: str) -> None:
    assert str(storage_error(OSError(number, "Why", "place"))) == f"'place' cannot be used: Why. {todo}"


def test_what_no_folder_can_be_called() -> None:
    for text in ("", "a\0b"):
        with pytest.raises(InvalidInput, match="A run folder is a path or an address, got"):
            Store(text)
    with pytest.raises(StorageError, match="Name a folder by its whole path"):
        Store("~nobody-is-called-so/run")


def test_a_file_address_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(Store(f"file://{tmp_path}/run").files, LocalFiles)
    assert Store(f"file://{tmp_path}/run").address == f"{tmp_path}/run"
    assert isinstance(Store("memory://x/run").files, RemoteFiles)

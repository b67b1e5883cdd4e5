"""Where a run folder lies: on a disk, or behind any of fsspec's addresses. A file appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Files", "LocalFiles", "RemoteFiles", "files"]

TEMPORARY = ".tmp"


class Files(Protocol):
    """A folder of files that are written once and never changed."""

    @property
    def address(self) -> str:
        """How a person names the folder."""
        ...

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """Makes the file in one step; False where it is there and is not to be replaced."""
        ...

    def get(self, name: str) -> bytes:
        """All of a file; FileNotFoundError where there is none."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A range of a file."""
        ...

    def names(self, folder: str) -> list[str]:
        """The finished files in a sub-folder, sorted; none where it does not exist."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are gone already do no harm."""
        ...


class LocalFiles:
    """A folder on a disk, also a shared one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.root)

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """Writes beside, waits for the disk, then renames."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.parent / f".{_writer()}-{secrets.token_hex(4)}{TEMPORARY}"
        try:
            with beside.open("xb") as file:
                file.writelines(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                beside.replace(path)
            else:
                path.hardlink_to(beside)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        _sync(path.parent)
        return True

    def get(self, name: str) -> bytes:
        """All of a file."""
        return (self.root / name).read_bytes()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A range of a file."""
        with (self.root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def names(self, folder: str) -> list[str]:
        """The finished files in a sub-folder."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith("."))
        except FileNotFoundError:
            return []

    def remove(self, names: Iterable[str]) -> None:
        """Removes files."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def sweep(self, folder: str) -> int:
        """Removes what writers of this machine that live no more left unfinished; says how many files it was."""
        left = [p for p in (self.root / folder).glob(f".*{TEMPORARY}") if _abandoned(p.name)]
        self.remove(f"{folder}/{p.name}" for p in left)
        return len(left)


class RemoteFiles:
    """A folder behind one of fsspec's addresses; a file is one upload, which object stores show whole or not at all."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.system: Any
        self.system, self.root = fsspec.core.url_to_fs(url)
        self.url = url

    @property
    def address(self) -> str:
        """The folder's address."""
        return self.url

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """One upload."""
        path = f"{self.root}/{name}"
        if not replace and self.system.exists(path):
            return False
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(path, b"".join(data))
        return True

    def get(self, name: str) -> bytes:
        """All of a file."""
        return bytes(self.system.cat_file(f"{self.root}/{name}"))

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A range of a file."""
        return bytes(self.system.cat_file(f"{self.root}/{name}", start=offset, end=offset + size))

    def names(self, folder: str) -> list[str]:
        """The files in a sub-folder."""
        self.system.invalidate_cache()
        try:
            found = self.system.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rpartition("/")[2] for path in found)

    def remove(self, names: Iterable[str]) -> None:
        """Removes files."""
        for name in names:
            if self.system.exists(path := f"{self.root}/{name}"):
                self.system.rm_file(path)


def files(place: str | os.PathLike[str]) -> LocalFiles | RemoteFiles:
    """The folder at a path, or at an address with "://"."""
    text = os.fspath(place)
    return RemoteFiles(text) if "://" in text else LocalFiles(Path(text).expanduser().absolute())


def _writer() -> str:
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return "".join(c for c in socket.gethostname() if c.isalnum())[:24] or "host"


def _abandoned(name: str) -> bool:
    """Of this machine, and its process is gone."""
    host, _, rest = name[1:].rpartition(TEMPORARY)[0].partition("-")
    pid = rest.partition("-")[0]
    if host != _host() or not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _sync(folder: Path) -> None:
    """The rename itself must survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

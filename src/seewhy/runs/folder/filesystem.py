"""Where a run folder lies: on a disk, or behind any of fsspec's addresses. A file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from seewhy.checks import check_folder
from seewhy.errors import InvalidInput, MissingDependency, SeewhyError, StorageError, storage_error

__all__ = ["Files", "LocalFiles", "RemoteFiles", "files"]

TEMPORARY = ".tmp"
_CLAIM = 10.0  # seconds after which a writer that claimed a name and did not make the file is taken for dead
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
_NO_FOLDERS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https"}  # making a folder could make a bucket
_CONNECT, _ANSWER = 15, 30  # seconds to connect and to answer, after which an address counts as dead


class Files(Protocol):
    """A folder of files that are written once and never changed."""

    @property
    def address(self) -> str:
        """The path or address by which a person names the folder."""
        ...

    def check(self) -> None:
        """Raises StorageError where it can be seen that nothing can be written here."""
        ...

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """Makes the file in one step; returns False where there is such a file already and it is not to be replaced.

        The run folder itself is made only with a file that is not to be replaced (the first one of a run): a folder
        that vanishes while the run is written is not made again.

        Raises:
            StorageError: it cannot be written.
        """
        ...

    def get(self, name: str) -> bytes:
        """Returns all bytes of a file; raises FileNotFoundError where there is no such file.

        Raises:
            StorageError: it cannot be read.
        """
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Returns a range of a file."""
        ...

    def names(self, folder: str) -> list[str]:
        """Returns the finished files in a sub-folder, sorted; none where it does not exist."""
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

    def check(self) -> None:
        """Raises StorageError unless files can be written here."""
        check_folder(self.root)

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """Writes a file under another name, waits until it is on the disk, then gives it its own name."""
        path = self.root / name
        beside = path.parent / f".{_writer()}-{secrets.token_hex(4)}{TEMPORARY}"
        with self._told("written"):
            if not replace:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif path.parent != self.root:
                path.parent.mkdir(exist_ok=True)
            try:
                with beside.open("xb") as file:
                    file.writelines(data)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    beside.replace(path)
                elif not _appear(beside, path):
                    return False
            finally:
                beside.unlink(missing_ok=True)
            _sync(path.parent)
        return True

    def get(self, name: str) -> bytes:
        """Returns all bytes of a file."""
        with self._told("read", (FileNotFoundError, NotADirectoryError)):
            return (self.root / name).read_bytes()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Returns a range of a file."""
        with self._told("read", (FileNotFoundError, NotADirectoryError)), (self.root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def names(self, folder: str) -> list[str]:
        """Returns the finished files in a sub-folder."""
        try:
            with self._told("read", (FileNotFoundError,)), os.scandir(self.root / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith("."))
        except FileNotFoundError:
            return []

    def remove(self, names: Iterable[str]) -> None:
        """Removes files."""
        with self._told("changed"):
            for name in names:
                (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def _told(self, what: str, expected: tuple[type[OSError], ...] = ()) -> Iterator[None]:
        """Turns an error of the operating system into one that says what to do."""
        try:
            yield
        except expected:
            raise
        except OSError as error:
            raise storage_error(error, self.address, what) from error

    def sweep(self, folder: str) -> int:
        """Removes the unfinished files of processes of this machine that have ended; returns how many there were."""
        with self._told("read"):
            left = [p for p in (self.root / folder).glob(f".*{TEMPORARY}") if _abandoned(p.name)]
        self.remove(f"{folder}/{p.name}" for p in left)
        return len(left)


class RemoteFiles:
    """A folder behind one of fsspec's addresses; a file is one upload, which object stores show whole or not at all.

    Args:
        url: the address.

    Raises:
        InvalidInput: no library knows addresses of this kind.
        MissingDependency: the library that knows them is not installed.
        StorageError: the address cannot be reached.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self.system: Any
        with self._told("reached"):
            try:
                self.system, self.root = fsspec.core.url_to_fs(url, **_patience(url.partition("://")[0]))
            except ImportError as error:
                raise MissingDependency(
                    f"{url!r} needs a library that is not installed: {error}. Install it (s3:// needs s3fs, gs:// "
                    "gcsfs, az:// adlfs, http:// aiohttp), or choose a folder."
                ) from error
            except ValueError as error:
                raise InvalidInput(
                    f"{url!r} is no address that can be used: {error}. Choose a folder, or an address that fsspec "
                    "knows (s3://bucket/run)."
                ) from error

    @property
    def address(self) -> str:
        """The folder's address."""
        return self.url

    def check(self) -> None:
        """Does nothing: the address was reached when it was opened; only writing shows whether it can be written."""

    def put(self, name: str, data: Sequence[bytes], *, replace: bool = True) -> bool:
        """Makes the file by one upload."""
        path, whole = f"{self.root}/{name}", b"".join(data)
        with self._told("written"):
            if self.url.partition("://")[0] not in _NO_FOLDERS:
                self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
            if not replace:
                return self._make(path, whole)
            self.system.pipe_file(path, whole)
            return True

    def _make(self, path: str, whole: bytes) -> bool:
        """Uploads a file that is not there yet; where the store can, it refuses the second of two uploads at once."""
        if self.system.exists(path):
            return False
        try:
            self.system.pipe_file(path, whole, mode="create")
        except FileExistsError:
            return False
        except Exception:  # the store cannot refuse a second upload
            if self.system.exists(path):
                return False
            self.system.pipe_file(path, whole)
        return True

    def get(self, name: str) -> bytes:
        """All of a file."""
        with self._told("read", (FileNotFoundError,)):
            return bytes(self.system.cat_file(f"{self.root}/{name}"))

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Returns a range of a file."""
        with self._told("read", (FileNotFoundError,)):
            return bytes(self.system.cat_file(f"{self.root}/{name}", start=offset, end=offset + size))

    def names(self, folder: str) -> list[str]:
        """Returns the files in a sub-folder."""
        try:
            with self._told("read", (FileNotFoundError,)):
                self.system.invalidate_cache()
                found = self.system.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rpartition("/")[2] for path in found)

    def remove(self, names: Iterable[str]) -> None:
        """Removes files."""
        for name in names:
            with self._told("changed"):
                if self.system.exists(path := f"{self.root}/{name}"):
                    self.system.rm_file(path)

    @contextmanager
    def _told(self, what: str, expected: tuple[type[OSError], ...] = ()) -> Iterator[None]:
        """Turns whatever the library of an address raises into an error that says what to do."""
        try:
            yield
        except SeewhyError:
            raise
        except expected:
            raise
        except NotImplementedError as error:
            raise StorageError(f"{self.url!r} cannot be {what}: its kind can only be read. Choose another.") from error
        except Exception as error:
            why = str(error).strip() or "no answer"
            raise StorageError(
                f"{self.url!r} cannot be {what}: {type(error).__name__}: {why}. See whether the address, the "
                "credentials and the connection are right; then give the same command again."
            ) from error


def _patience(kind: str) -> dict[str, Any]:
    """Returns how long an address may be silent; the user's own configuration of fsspec takes precedence."""
    from fsspec.config import conf

    found: dict[str, Any] = {}
    if kind in ("http", "https"):
        from aiohttp import ClientTimeout

        patience = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_ANSWER)
        found = {"client_kwargs": {"timeout": patience}}
    elif kind in ("s3", "s3a"):
        retries = {"max_attempts": 2, "mode": "standard"}
        found = {"config_kwargs": {"connect_timeout": _CONNECT, "read_timeout": _ANSWER, "retries": retries}}
    return {name: value for name, value in found.items() if name not in conf.get(kind, {})}


def disk_path(place: str | os.PathLike[str]) -> str | None:
    """Returns the path of a folder on a disk; None for an address of fsspec's, such as ``s3://bucket/run``."""
    text = os.fspath(place)
    for kind in ("file://", "local://"):  # a disk, whose files are to appear whole
        text = text.removeprefix(kind)
    return None if "://" in text else text


def files(place: str | os.PathLike[str]) -> LocalFiles | RemoteFiles:
    """Returns the folder at a path, or at an address with "://".

    Raises:
        InvalidInput: the text can be neither a path nor an address.
        MissingDependency: a library for this kind of address is not installed.
        StorageError: the address cannot be reached.
    """
    text = disk_path(place)
    if text is None:
        return RemoteFiles(os.fspath(place))
    if "\0" in text or not text:
        raise InvalidInput(f"A run folder is a path or an address, got {text!r}.")
    try:
        return LocalFiles(Path(text).expanduser().absolute())
    except (OSError, RuntimeError) as error:  # the working directory is gone, or there is no user of this name
        raise StorageError(f"{text!r} cannot be used: {error}. Name a folder by its whole path.") from error


def _appear(beside: Path, path: Path) -> bool:
    """Gives a finished file its name; returns False where the name is taken.

    A hard link does that in one step. Where there are no hard links (exFAT, many network mounts), a writer first makes
    a second file that claims the name, and only the writer that made the claim makes the file. A claim that is left by
    a killed process is removed after some seconds.
    """
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        return False
    except OSError:
        return _appear_by_claim(beside, path)
    return True


def _appear_by_claim(beside: Path, path: Path) -> bool:
    claim = path.with_name(f".{path.name}.claim")
    while not _claimed(claim, path):
        if path.exists():
            return False
        claim.unlink(missing_ok=True)
    try:
        if path.exists():
            return False
        beside.replace(path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _claimed(claim: Path, path: Path) -> bool:
    """Says whether this writer made the claim; waits while another's claim is fresh and its file is not there."""
    patience = time.monotonic() + _CLAIM * random.uniform(1, 1.5)
    while True:
        try:
            claim.open("xb").close()
        except FileExistsError:
            if path.exists() or time.monotonic() > patience:
                return False
            time.sleep(0.02)
        else:
            return True


def _writer() -> str:
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return "".join(c for c in socket.gethostname() if c.isalnum())[:24] or "host"


def _abandoned(name: str) -> bool:
    """Says whether a claim was made on this machine by a process that has ended."""
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
    """Waits until a rename is on the disk, so that it survives a loss of power, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise

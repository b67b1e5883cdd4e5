"""The run folders that are shown: found once in a while, opened on first use, read again when they have grown.

A run is known by eight hexadecimal digits made of its place below the folder that is shown, so that no path ever comes
out of an address.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seewhy.errors import InvalidInput, SeewhyError
from seewhy.runs.folder.filesystem import disk_path
from seewhy.runs.query.run import Counts, Run

__all__ = ["DEPTH", "Library", "Opened", "Place"]

DEPTH = 3  # folders below the one that is shown in which runs are looked for
FRESH = 1.0  # seconds that what was read is taken as it is
MOST = 1000  # runs in one folder


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run lies.

    Attributes:
        key: eight hexadecimal digits.
        name: its path below the folder that is shown; of a single run the folder's own name.
        path: of the folder, or an address that fsspec knows.
    """

    key: str
    name: str
    path: str


@dataclass(kw_only=True, eq=False)
class Opened:
    """A run that is kept open.

    Attributes:
        place: where it lies.
        run: to be asked.
        version: grows when something new was read.
    """

    place: Place
    run: Run
    version: int = 0
    _read: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, Any] = field(default_factory=dict)

    def refresh(self) -> None:
        """Reads what is new, unless that was done a moment ago or is being done.

        Raises:
            InvalidInput: run.json is gone.
        """
        if time.monotonic() - self._read < FRESH or not self._lock.acquire(blocking=False):
            return
        try:
            before, said = self.run.settings, self.run.reviews
            new = self.run.refresh()
            if new or self.run.settings is not before or self.run.reviews is not said:
                self.version += 1
                self._known.clear()
            self._read = time.monotonic()
        finally:
            self._lock.release()

    def renew(self) -> None:
        """Forgets what was counted: something was written into the run by this process."""
        self.version += 1
        self._known.clear()

    def counts(self) -> Counts:
        """How much there is; counted once for each version."""
        found: Counts = self.once("counts", self.run.counts)
        return found

    def once(self, name: str, ask: Any) -> Any:
        """Returns the answer to a question that is the same until something new is read."""
        version = self.version
        known = self._known.get(name)
        if known is None or known[0] != version:
            known = self._known[name] = (version, ask())
        return known[1]


class Library:
    """The runs in a folder, or one run.

    Args:
        root: a run folder, a folder with run folders, or a run's address that fsspec knows.

    Raises:
        InvalidInput: there is nothing of that name.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        path = disk_path(root)
        self.root, self.remote = os.fspath(root) if path is None else path, path is None
        if not self.remote and not os.path.isdir(self.root):
            raise InvalidInput(f"There is no folder {self.root!r}. Give a run folder, or a folder with run folders.")
        self._opened: dict[str, Opened] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._places: dict[str, Place] = {}
        self._looked = 0.0
        self._lock = threading.Lock()
        self.places()

    @property
    def single(self) -> Place | None:
        """The run, where the folder that is shown is itself a run."""
        found = list(self.places().values())
        return found[0] if len(found) == 1 and found[0].path == self.root else None

    def places(self) -> dict[str, Place]:
        """Key -> place, in the order of names."""
        with self._lock:
            if time.monotonic() - self._looked > FRESH or not self._places:
                self._places = {place.key: place for place in self._found()}
                self._looked = time.monotonic()
            return self._places

    def opened(self, key: str) -> Opened | None:
        """Returns the run of a key, with what is new; None where there is none.

        Raises:
            InvalidInput: its folder cannot be read.
        """
        place = self.places().get(key)
        if place is None:
            return None
        with self._lock:
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:  # a large run takes its time; others are shown meanwhile
            known = self._opened.get(key)
            if known is None:
                known = self._opened[key] = Opened(place=place, run=Run(place.path))
        known.refresh()
        return known

    def each(self) -> list[tuple[Place, Opened | None, str]]:
        """Every place with its run, or with the reason why it cannot be read."""
        found: list[tuple[Place, Opened | None, str]] = []
        for place in list(self.places().values()):
            try:
                found.append((place, self.opened(place.key), ""))
            except SeewhyError as error:
                found.append((place, None, str(error)))
        return found

    def _found(self) -> list[Place]:
        if self.remote or os.path.isfile(os.path.join(self.root, "run.json")):
            name = self.root.rstrip("/") if self.remote else Path(self.root).resolve().name
            return [_place(name, self.root)]
        names = sorted(_below(self.root, DEPTH))[:MOST]
        return [_place(name, os.path.join(self.root, name)) for name in names]


def _place(name: str, path: str) -> Place:
    key = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return Place(key=key, name=name.encode(errors="replace").decode(), path=path)


def _below(root: str, depth: int) -> list[str]:
    """Returns the folders with a run.json, relative to the root; links to folders are not followed."""
    found: list[str] = []
    waiting = [("", 0)]
    while waiting:
        inside, level = waiting.pop()
        try:
            entries = [e for e in os.scandir(os.path.join(root, inside)) if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for entry in entries:
            name = os.path.join(inside, entry.name)
            if os.path.isfile(os.path.join(root, name, "run.json")):
                found.append(name)
            elif level + 1 < depth and not entry.name.startswith("."):
                waiting.append((name, level + 1))
    return found

"""Image files: which they are, what they are called, and a cheap sign that they have not changed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from seewhy.errors import InvalidInput
from seewhy.images.pages import chosen
from seewhy.images.readers import suffixes

__all__ = ["PICTURES", "digest", "existing_folder", "is_picture", "key", "scan", "stamp", "unique"]

PICTURES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Identity = tuple[int, int]


def is_picture(name: str) -> bool:
    """Says whether the file's ending is that of an image."""
    return os.path.splitext(name)[1].lower() in PICTURES or name.lower().endswith(suffixes())


def key(path: str) -> str:
    r"""A path as valid Unicode; two paths never get the same: bytes that are no UTF-8 become \xNN, a backslash two."""
    return re.sub(r"[\\\ud800-\udfff]", _escaped, path)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == ord("\\"):
        return "\\\\"
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def unique(keys: Iterable[str]) -> tuple[str, ...]:
    """Returns the keys, with a number behind each that came before."""
    given = list(keys)
    taken, used, made = set(given), set[str](), []
    for one in given:
        name, number = one, 1
        while name in used or (number > 1 and name in taken):
            number += 1
            name = f"{one} ({number})"
        used.add(name)
        made.append(name)
    return tuple(made)


def stamp(*paths: str | os.PathLike[str]) -> str:
    """Size and time of change of each file, "missing" for one that cannot be asked; never an error."""
    return "+".join(map(_stamp, paths))


def _stamp(path: str | os.PathLike[str]) -> str:
    try:
        status = os.stat(chosen(path)[0])
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"


def digest(*parts: bytes | memoryview) -> str:
    """Returns a short sign of bytes."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        made.update(part)
    return made.hexdigest()


def existing_folder(root: str | os.PathLike[str]) -> str:
    """Returns the absolute path of a folder.

    Raises:
        InvalidInput: it is not one.
    """
    path = os.path.abspath(root)
    if not os.path.isdir(path):
        raise InvalidInput(f"Expected a folder, {os.fspath(root)!r} is not one.")
    return path


def scan(root: str) -> tuple[list[str], list[str], list[str]]:
    """Every image below a folder: files, its own sub-folders, folders that could not be read; all sorted.

    Paths are relative to the root, with "/". Hidden entries are left out. A linked folder is entered unless its
    target is entered anyway or contains the root; so nothing comes twice and no loop is walked.
    """
    files: list[str] = []
    folders: list[str] = []
    unread: list[str] = []
    seen = set(_ancestors(root))
    plain, linked = [""], list[str]()
    while plain or linked:
        linked.sort(reverse=True)
        relative = plain.pop() if plain else linked.pop()
        try:
            if (identity := _identity(os.path.join(root, relative))) in seen:
                continue
            seen.add(identity)
            with os.scandir(os.path.join(root, relative)) as entries:
                _sort_out(entries, relative, files, plain, linked)
        except OSError:
            unread.append(relative)
        if relative.count("/") == 1:
            folders.append(relative[:-1])
    return sorted(files), sorted(folders), sorted(unread)


def _sort_out(
    entries: Iterator[os.DirEntry[str]], relative: str, files: list[str], plain: list[str], linked: list[str]
) -> None:
    for entry in entries:
        name = relative + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            plain.append(name + "/")
        elif entry.is_symlink() and os.path.isdir(entry.path):
            linked.append(name + "/")
        elif is_picture(entry.name):
            files.append(name)


def _identity(path: str) -> Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _ancestors(root: str) -> Iterator[Identity]:
    for parent in Path(root).resolve().parents:
        try:
            yield _identity(str(parent))
        except OSError:
            continue

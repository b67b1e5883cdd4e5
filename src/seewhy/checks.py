"""Checks of single values that callers pass: counts, numbers, seeds, choices. Needs no torch.

One question, one answer: a bool is no number, a count is a Python int, and the error says what was expected and what
came. What a tensor of inputs must be says `seewhy.types.check_inputs`.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from typing import Any

from seewhy.errors import InvalidInput, storage_error

__all__ = [
    "check_below_one", "check_choice", "check_count", "check_distance", "check_flag", "check_folder",
    "check_fraction", "check_inside", "check_number", "check_seed", "is_count", "is_number", "sides",
    "sides_of",
]  # fmt: skip


def is_count(value: Any, least: int = 1) -> bool:
    """Says whether ``value`` is an integer of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Says whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_count(name: str, value: Any, least: int = 1, *, optional: bool = False) -> None:
    """Raises InvalidInput unless ``value`` is an integer of at least ``least``, or None where it is optional."""
    if not is_count(value, least) and not (optional and value is None):
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise InvalidInput(f"{name} must be {wanted}{' or None' if optional else ''}, got {value!r}.")


def check_seed(value: Any) -> None:
    """Raises InvalidInput unless ``value`` is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"seed must be an integer, got {value!r}.")


def check_flag(name: str, value: Any, *, optional: bool = False) -> None:
    """Raises InvalidInput unless ``value`` is True or False, or None where it is optional."""
    if not isinstance(value, bool) and not (optional and value is None):
        raise InvalidInput(f"{name} must be {'True, False or None' if optional else 'True or False'}, got {value!r}.")


def check_number(name: str, value: Any) -> None:
    """Raises InvalidInput unless ``value`` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise InvalidInput(f"{name} must be a positive number, got {value!r}.")


def check_distance(name: str, value: Any) -> None:
    """Raises InvalidInput unless ``value`` is a number of pixels, finite and not negative."""
    if not is_number(value) or value < 0:
        raise InvalidInput(f"{name} must be a number of pixels, at least 0, got {value!r}.")


def check_inside(name: str, value: Any, *, optional: bool = False) -> None:
    """Raises InvalidInput unless 0 < ``value`` < 1, or it is None where that is optional."""
    if not (is_number(value) and 0 < value < 1) and not (optional and value is None):
        raise InvalidInput(
            f"{name} must lie between 0 and 1, both excluded{', or be None' if optional else ''}, got {value!r}."
        )


def check_below_one(name: str, value: Any) -> None:
    """Raises InvalidInput unless 0 <= ``value`` < 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise InvalidInput(f"{name} must be at least 0 and below 1, got {value!r}.")


def check_fraction(name: str, value: Any) -> None:
    """Raises InvalidInput unless 0 <= ``value`` <= 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise InvalidInput(f"{name} must be a number from 0 to 1, got {value!r}.")


def check_choice(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raises InvalidInput unless ``value`` is one of the known words (or None, True, False)."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in known):
        words = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise InvalidInput(f"{name} must be {words}, got {value!r}.")


def sides_of(name: str, value: Any, axes: int, order: str = "(down, across)") -> tuple[int, ...]:
    """A positive integer, which stands for all sides, or one for each axis of a picture (2) or a volume (3).

    Args:
        name: of the parameter.
        value: what was given.
        axes: how many there must be; 0 where that is not known yet, so that any fits.
        order: of a pair; a volume's depth comes before them.

    Raises:
        InvalidInput: it is something else.
    """
    found = tuple(value) if isinstance(value, tuple | list) else (value,) * (axes or 2)
    if len(found) not in (2, 3) or not all(map(is_count, found)):
        raise InvalidInput(
            f"{name} must be a positive integer or a pair {order} of them, or three of volumes, got {value!r}."
        )
    if axes and len(found) != axes:
        raise InvalidInput(f"{name}={value!r} has {len(found)} sides, and the input has {axes} spatial axes.")
    return found


def sides(name: str, value: Any, order: str = "(down, across)") -> tuple[int, int]:
    """Reads a positive integer, which stands for both sides, or a pair of them.

    Raises:
        InvalidInput: it is something else.
    """
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(map(is_count, pair)):
        raise InvalidInput(f"{name} must be a positive integer or a pair {order} of them, got {value!r}.")
    return pair[0], pair[1]


def check_folder(place: str | os.PathLike[str]) -> None:
    """Raises StorageError unless files can be written into the folder, which may have to be made."""
    path = os.path.abspath(place)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        wrong = errno.ENOTDIR
    elif os.access(path, os.W_OK | os.X_OK):
        wrong = 0
    else:
        wrong = errno.EROFS if _is_read_only(path) else errno.EACCES
    if wrong:
        raise storage_error(OSError(wrong, os.strerror(wrong)), str(place), "written")


def _is_read_only(path: str) -> bool:
    """Says whether nobody can write on the disk."""
    asked = getattr(os, "statvfs", None)  # not on Windows
    return asked is not None and bool(asked(path).f_flag & os.ST_RDONLY)

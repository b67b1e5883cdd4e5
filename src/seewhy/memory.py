"""Keeps freed memory in the process, so that a network on the CPU does not ask the kernel for it at every layer.

The C library of Linux gives large blocks back to the kernel as soon as they are freed. A network's activations are such
blocks: in batches they are taken, filled with zeros by the kernel and given back at every layer of every pass, which
can cost more than the arithmetic (docs/benchmarks.md has figures). Commands and worker processes of seewhy keep them;
a program that uses seewhy as a library decides for itself.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_memory() -> bool:
    """Lets this process keep the memory that it frees, for its own next use; True where that can be had.

    The process stays as large as it once was. Nothing else changes.

    Example:
        >>> keep_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))

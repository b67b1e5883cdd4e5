"""Every exception that seewhy raises on purpose.

    SeewhyError
    ├── InvalidInput          (ValueError)    a value that cannot be used
    │   ├── InvalidTarget                     ... as a target
    │   ├── UnknownLayer                      ... as a layer's name
    │   ├── NoSpatialOutput                   ... as a layer: it has no map to show
    │   ├── InputRefused                      the network itself raised on the input
    │   ├── BadOutput                         the network answered with something unusable
    │   ├── NoReLURule                        an activation that the ReLU rules do not cover
    │   ├── UnreadableImage                   a picture that cannot be read
    │   ├── CheckpointError                   weights that do not fit, or need trust
    │   └── UnknownName                       a method, model or label nobody knows
    ├── InvalidType           (TypeError)     a value of the wrong type
    │   ├── UnknownParameter                  a keyword that the method does not have
    │   └── MissingCapability                 the backend lacks what the method needs
    ├── TimedOut              (TimeoutError)  it took longer than it may
    ├── StorageError          (OSError)       a disk or an address that cannot be read or written
    └── MissingDependency     (ImportError)   an optional library is not installed

Messages say what was expected, what came and what to do.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "FAILURES",
    "BadOutput",
    "CheckpointError",
    "InputRefused",
    "InvalidInput",
    "InvalidTarget",
    "InvalidType",
    "MissingCapability",
    "MissingDependency",
    "NoReLURule",
    "NoSpatialOutput",
    "SeewhyError",
    "StorageError",
    "TimedOut",
    "UnknownLayer",
    "UnknownName",
    "UnknownParameter",
    "UnreadableImage",
    "nearest",
    "one_line",
    "out_of_memory",
    "raised_by",
    "storage_error",
]


class SeewhyError(Exception):
    """The root of all errors raised by seewhy."""


class InvalidInput(SeewhyError, ValueError):
    """A value that cannot be used."""


class InvalidTarget(InvalidInput):
    """A target that the network cannot be asked about."""


class UnknownLayer(InvalidInput):
    """A layer name that the network does not have, or did not use."""


class NoSpatialOutput(InvalidInput):
    """A layer whose output has no height and width to draw a map on."""


class InputRefused(InvalidInput):
    """The network raised an error on the given input."""


class BadOutput(InvalidInput):
    """The network's output has not the form that is needed."""


class NoReLURule(InvalidInput):
    """An activation function for which guided backpropagation and deconvolution are not defined."""


class UnreadableImage(InvalidInput):
    """A picture that cannot be read."""


class CheckpointError(InvalidInput):
    """Weights that do not fit the network, or that would have to run code to be read."""


class UnknownName(InvalidInput):
    """A name that is not registered."""


class InvalidType(SeewhyError, TypeError):
    """A value of the wrong type."""


class UnknownParameter(InvalidType):
    """A keyword that the method does not have."""


class MissingCapability(InvalidType):
    """The model's backend lacks what the method needs."""


class TimedOut(SeewhyError, TimeoutError):
    """What took longer than it may."""


class StorageError(SeewhyError, OSError):
    """A disk, a folder or an address that cannot be read or written."""


class MissingDependency(SeewhyError, ImportError):
    """An optional library is needed and not installed."""


# What other people's code (a data set, a network, an explainer) may raise without ending a run: it becomes a row with
# its reason. `exit()` somewhere inside is such a failure; Ctrl-C is not.
FAILURES: tuple[type[Exception], type[SystemExit]] = (Exception, SystemExit)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Returns a hint that offers the known names nearest to ``name``, or the first few where none is near."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(n) for n in close) + "?"
    shown = ", ".join(repr(n) for n in names[:8])
    return f"Known: {shown}{', ...' if len(names) > 8 else '.'}" if names else "None is known."


def one_line(error: BaseException) -> str:
    """Returns the most telling line of a library's long error; the kind of one that says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "File ", "at "))]
    text = (told or lines or [type(error).__name__])[0]
    return text if len(text) < 300 else text[:300] + " ..."


def out_of_memory(error: BaseException) -> bool:
    """True for the errors by which torch says that memory ran out, on an accelerator or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "out of memory" in text)


_ROOM = "Make room, then give the same command again: what is finished is not lost."
_RIGHTS = "Choose a place that you may use, or change its permissions."
_KIND = "A file stands where a folder is needed, or a folder where a file is: choose another path."
_GONE = "It, or the folder that it lies in, is gone: bring it back, or choose another path."
_TODO = {
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: _RIGHTS,
    errno.ENOTDIR: _KIND, errno.EISDIR: _KIND, errno.EEXIST: _KIND, errno.ENOTEMPTY: _KIND,
    errno.ENOENT: _GONE, errno.ENODEV: _GONE,
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.ELOOP: "Its symbolic links lead back to themselves: choose another path.",
    errno.EMFILE: "Too many files are open: allow more (ulimit -n).",
}  # fmt: skip
_BROKEN = "See whether the disk, or the connection to it, works; then give the same command again."


def storage_error(error: OSError, place: str | None = None, what: str = "used") -> StorageError:
    """What the operating system says about a file, with what to do.

    Args:
        error: as it was raised.
        place: what could not be used; the file that the error names, where it is left out.
        what: "read", "written": what was to be done with it.
    """
    shown = place or (os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "A file")
    why = error.strerror or str(error) or type(error).__name__
    todo = _TODO.get(error.errno or 0, _BROKEN)
    return StorageError(f"{shown!r} cannot be {what}: {why}. {todo}")


@contextmanager
def raised_by(name: str) -> Iterator[None]:
    """Names what was called in whatever it raises, ``SystemExit`` too: it belongs to the caller, not to seewhy.

    Our own errors, interrupts and the end of memory go on as they are.

    Raises:
        InvalidInput: from what was raised.
    """
    try:
        yield
    except (SeewhyError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if out_of_memory(error):
            raise
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InvalidInput(f"{name} raised {text.rstrip('.')}. Correct it, and try again.") from error

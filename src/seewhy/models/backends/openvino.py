"""OpenVINO."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from seewhy.errors import CheckpointError
from seewhy.models import Model
from seewhy.models.exported.openvino import OpenVINOModel

__all__ = ["OpenVINO"]

SECONDS = 60
ROOM = 4 * 2**30  # bytes of address space beside what the files fill
TIMES = 6  # how often the bytes of the files may be held while they are read
_FULL = 77  # how the process ends that has no more room
_READ = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
except ImportError:
    pass  # Windows has no such limit
import openvino
try:
    openvino.Core().read_model(sys.argv[1])
except Exception as error:
    sys.exit({_FULL} if isinstance(error, MemoryError) or "bad_alloc" in str(error) else 1)
"""


class OpenVINO:
    """Runs its own format (.xml), .tflite and .onnx files."""

    title: ClassVar[str] = "OpenVINO"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".tflite", ".onnx")

    def installed(self) -> bool:
        """Says whether its library is there."""
        return find_spec("openvino") is not None

    def holds(self, path: Path) -> bool:
        """Returns True: every such file holds a network."""
        return True

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """See `seewhy.models.backends.Backend`."""
        if not trust and self.installed() and path.is_file():
            _try_apart(path)
        return OpenVINOModel(path, forward_kwargs=forward_kwargs)


def _try_apart(path: Path) -> None:
    """Reads a file in a process of its own: OpenVINO believes what the file says, and divides by it or allocates it.

    Raises:
        CheckpointError: that process was ended, did not come to an end, or wanted far more memory than the file has.
    """
    # -P: the working directory is no place for modules. What else is wrong with the file is said when it is read here.
    room = ROOM + TIMES * _size(path)
    command = [sys.executable, "-P", "-c", _READ, os.path.abspath(path), str(room)]
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read: OpenVINO did not come to an end with it in {SECONDS} seconds. If you trust "
            "where it comes from, pass trust=True (--trust)."
        ) from error
    if done.returncode == _FULL:
        raise CheckpointError(
            f"{str(path)!r} is damaged: OpenVINO wanted more than {room >> 20:,} MB of memory to read it. If you trust "
            "where it comes from, pass trust=True (--trust)."
        )
    if done.returncode < 0:
        raise CheckpointError(
            f"{str(path)!r} is damaged: reading it ends the process (signal {-done.returncode}) in OpenVINO."
        )


def _size(path: Path) -> int:
    """Bytes of a file and of what may belong to it: the .bin of an .xml, the weights beside an .onnx."""
    beside = path.parent.iterdir() if path.suffix.lower() == ".onnx" else (path, path.with_suffix(".bin"))
    return sum(one.stat().st_size for one in set(beside) if one.is_file())

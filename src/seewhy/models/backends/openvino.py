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
_READ = "import sys, openvino; openvino.Core().read_model(sys.argv[1])"


class OpenVINO:
    """Runs its own format (.xml), .tflite and .onnx files."""

    title: ClassVar[str] = "OpenVINO"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".tflite", ".onnx")

    def installed(self) -> bool:
        """Whether its library is there."""
        return find_spec("openvino") is not None

    def holds(self, path: Path) -> bool:
        """Always."""
        return True

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """See `seewhy.models.backends.Backend`."""
        if path.suffix.lower() == ".tflite" and not trust and self.installed():
            _try_apart(path)
        return OpenVINOModel(path, forward_kwargs=forward_kwargs)


def _try_apart(path: Path) -> None:
    """Reads a file in a process of its own: OpenVINO divides by numbers of a .tflite file, which ends the process.

    Raises:
        CheckpointError: that process was ended, or did not come to an end.
    """
    # -P: the working directory is no place for modules. What else is wrong with the file is said when it is read here.
    command = [sys.executable, "-P", "-c", _READ, os.path.abspath(path)]
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read: OpenVINO did not come to an end with it in {SECONDS} seconds. If you trust "
            "where it comes from, pass trust=True (--trust)."
        ) from error
    if done.returncode < 0:
        raise CheckpointError(
            f"{str(path)!r} is damaged: reading it ends the process (signal {-done.returncode}) in OpenVINO."
        )

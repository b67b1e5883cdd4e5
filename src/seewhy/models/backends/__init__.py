"""Backends: what reads model files. A file is one backend; it says which endings it reads.

Where several read the same ending, the first one that is installed does, in the order of their names; ``backend`` of
`seewhy.load` names another. Packages outside add theirs under the entry point group ``seewhy.backends``; they are asked
about files only whose ending no backend here reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from seewhy.models import Model

__all__ = ["Backend"]


class Backend(Protocol):
    """Reads model files.

    Attributes:
        title: what it is called in messages.
        suffixes: endings of files, with the dot and in lower case.
    """

    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def installed(self) -> bool:
        """Says whether its library is there."""
        ...

    def holds(self, path: Path) -> bool:
        """Says whether the file holds a network, and not weights only."""
        ...

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """Returns the model in a file.

        Args:
            path: the file, which is there.
            forward_kwargs: values of further inputs.
            trust: read files that run code.

        Raises:
            CheckpointError: it cannot be read, or would run code.
            MissingDependency: the library is not installed.
        """
        ...

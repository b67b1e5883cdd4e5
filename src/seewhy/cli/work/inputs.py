"""What explain and compare begin with: the pictures, and the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seewhy.cli.flags import NetworkFlags, PictureFlags, changes, say, source
from seewhy.cli.origin import here, import_from
from seewhy.datasets import is_picture
from seewhy.errors import InvalidInput
from seewhy.models.loading import load

__all__ = ["network", "pictures"]


def pictures(command: PictureFlags) -> list[Path]:
    """Returns the files that are named, and those below the folder."""
    found = list(command.pictures)
    if command.data_root is not None:
        if not command.data_root.is_dir():
            raise InvalidInput(f"--data-root must be a folder, {str(command.data_root)!r} is not one.")
        found += sorted(p for p in command.data_root.rglob("*") if is_picture(p.name) and p.is_file())
    if not found:
        where = f" below {str(command.data_root)!r}" if command.data_root is not None else ""
        raise InvalidInput(f"There is no picture to explain{where}. Name picture files, or a folder with --data-root.")
    return found


def network(command: NetworkFlags) -> Any:
    """Returns the model with its weights, class names and preprocessing."""
    spec, checkpoint = source(command)
    if not command.quiet:
        say(f"loading {spec} ...")
    import_from(spec, here())
    return load(
        spec, checkpoint=checkpoint, trust=command.trust, num_classes=command.num_classes, labels=command.labels,
        changes=changes(command), backend=command.backend, texts=command.texts or None,
        head=command.head,
    )  # fmt: skip

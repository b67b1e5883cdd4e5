"""torch itself: torch.export archives and TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from seewhy.models import Model, file_metadata, yolo_file
from seewhy.models.archives import names
from seewhy.models.exported.program_file import read as read_program
from seewhy.models.exported.torch_export import as_network
from seewhy.models.torch.script import ScriptModel
from seewhy.models.torch.script_file import read as read_script

__all__ = ["Torch"]


class Torch:
    """Runs torch.export archives (.pt2) and TorchScript."""

    title: ClassVar[str] = "torch"
    suffixes: ClassVar[tuple[str, ...]] = (".pt2", ".pt", ".pth", ".torchscript", ".ts")

    def installed(self) -> bool:
        """Returns True: seewhy itself needs torch."""
        return True

    def holds(self, path: Path) -> bool:
        """Says whether a file is a torch.export archive, or has code in it: others are weights."""
        if path.suffix.lower() == ".pt2":
            return True
        return any("/code/" in name for name in names(path))

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """See `seewhy.models.backends.Backend`."""
        if path.suffix.lower() == ".pt2":
            return as_network(read_program(path, trust), path, trust)
        script, metadata = read_script(path, trust), yolo_file.of_script(path)
        labels = file_metadata.labels(metadata)
        boxes = yolo_file.reader(metadata, None, len(labels or ()))
        return ScriptModel(
            script,
            title=path.name,
            preprocessing=yolo_file.preprocessing(metadata, None),
            labels=labels,
            output=boxes,
            notes=yolo_file.notes(boxes),
        )

"""Images in memory: arrays or a tensor with labels, boxes and masks beside them, or an .npz file of those."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor

from seewhy.datasets._files import digest, stamp
from seewhy.datasets._labels import Labelled
from seewhy.datasets._rows import Reading, to_sample
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["Arrays"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays(Labelled):
    """Images in one array, or inputs in one tensor.

    Attributes:
        images: (N, H, W) or (N, H, W, C), uint8 or floating in [0, 1]: images. A float tensor (N, C, H, W): inputs
            that are ready for the network. A uint8 tensor (N, C, H, W): images.
        labels: (N,) or (N, L) class indices padded with -1, or (N, K) multi-hot.
        boxes: (N, L, 4), or (N, 4) for one an image.
        masks: (N, H, W), or (N, L, H, W) for one a label.
        reading: how labels and boxes are understood.
        path: of the .npz file, if they come from one.
    """

    images: Any
    labels: Any = None
    boxes: Any = None
    masks: Any = None
    reading: Reading = field(default=Reading())
    path: str | None = None

    @classmethod
    def of(
        cls, images: Any, labels: Any = None, boxes: Any = None, masks: Any = None, *, path: str | None = None,
        label_format: Literal["auto", "index", "multi_hot"] = "auto",
        box_format: Literal["xywh", "xyxy"] | None = None, classes: Sequence[str] | None = None,
        unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Returns the data of arrays.

        Raises:
            InvalidInput: shapes that do not fit.
        """
        parts = {name: _as_array(part) for name, part in (("labels", labels), ("boxes", boxes), ("masks", masks))}
        images = images if isinstance(images, Tensor) else np.asarray(images)
        _check_images(images)
        for name, part in parts.items():
            _check_part(name, part, len(images))
        if labels is None and boxes is not None:
            raise InvalidInput("Boxes need labels, one a box.")
        return cls(
            name=os.path.basename(path) if path else "arrays",
            classes=tuple(classes) if classes is not None else None,
            unmatched=unmatched,
            images=images,
            reading=Reading(label_format=label_format, box_format=box_format),
            path=path,
            **parts,
        )

    word: ClassVar[str] = "npz"

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether the path is an .npz file."""
        return not os.path.isdir(path) and path.lower().endswith(".npz")

    @classmethod
    def open(cls, root: str | os.PathLike[str], **options: Any) -> Self:
        """Reads an .npz file with images, and labels, boxes and masks if it has them.

        Raises:
            InvalidInput: not such a file.
        """
        path = os.path.abspath(root)
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"Cannot read {path!r} as an .npz file without pickled objects: {error}.") from error
        known = ("images", "labels", "boxes", "masks")
        if "images" not in found or set(found) - set(known):
            raise InvalidInput(f"{path!r} must have 'images' and may have {known[1:]}, it has {sorted(found)}.")
        return cls.of(**found, path=path, **options)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        """Returns the number of the image."""
        return f"{range(len(self))[index]:06d}"

    def stamp(self, index: int) -> str:
        """Returns a digest of all values of the sample; size and time of the file where there is one."""
        if self.path is not None:
            return stamp(self.path)
        parts = (self.images, self.labels, self.boxes, self.masks)
        return digest(*(_bytes(part[index]) for part in parts if part is not None))

    def source(self, index: int) -> None:
        """There is no file of the image."""

    def __getitem__(self, index: int) -> Sample:
        name = self.key(index)
        image, labels, boxes, masks = (
            None if part is None else part[index] for part in (self.images, self.labels, self.boxes, self.masks)
        )
        return to_sample((image, labels, boxes, masks), name, self.reading, self.binding)

    def describe(self) -> dict[str, Any]:
        """What opens the same data again, if they come from a file."""
        chosen: dict[str, Any] = {"label_format": self.reading.label_format, "box_format": self.reading.box_format}
        chosen |= {"classes": None if self.classes is None else list(self.classes), "unmatched": self.unmatched}
        kind = "npz" if self.path else "arrays"
        return {"kind": kind, "root": self.path, "options": chosen, "length": len(self)}


def _as_array(part: Any) -> Any:
    if part is None or isinstance(part, np.ndarray):
        return part
    return part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)


def _bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        kept = value.detach().cpu()
        value = (kept.float() if kept.dtype.is_floating_point and kept.dtype.itemsize < 4 else kept).numpy()
    array = np.asarray(value)
    return f"{array.shape}{array.dtype}".encode() + array.tobytes()


def _check_images(images: Any) -> None:
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise InvalidInput(f"A tensor of images must have shape (N, C, H, W), got {tuple(images.shape)}.")
    elif images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)):
        raise InvalidInput(f"Arrays of images must have shape (N, H, W) or (N, H, W, C), got {images.shape}.")
    elif images.ndim == 3 and images.shape[2] in (1, 3, 4):
        raise InvalidInput(f"Expected many images (N, H, W[, C]), got {images.shape}. For one pass image[None].")
    if len(images) == 0:
        raise InvalidInput("There is no picture: the array is empty.")


def _check_part(name: str, part: Any, count: int) -> None:
    depths = {"labels": (1, 2), "boxes": (2, 3), "masks": (3, 4)}[name]
    if part is None:
        return
    if part.ndim not in depths or len(part) != count:
        raise InvalidInput(
            f"{name} must have {depths[0]} or {depths[1]} dimensions and {count} rows, got {part.shape}."
        )

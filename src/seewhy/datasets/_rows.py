"""One row of a data set, in any of the usual forms, as a `Sample`.

image | (image,) | (image, labels) | (image, labels, boxes) | (image, labels, masks) | (image, labels, boxes, masks)
{"image": ..., "label": ..., "boxes": ..., "mask": ...} | (image, {"labels": ..., "boxes": ..., "masks": ...})
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.checks import check_choice
from seewhy.datasets._labels import Binding, Label
from seewhy.errors import InvalidInput, SeewhyError
from seewhy.images.decoding import header
from seewhy.types import Sample

__all__ = ["Reading", "corners", "to_sample"]

_IMAGE = ("image", "img", "pixel_values")
_LABELS = ("labels", "label", "target", "targets", "category", "category_id")
_BOXES = ("boxes", "bbox", "bboxes")
_MASKS = ("masks", "mask")
_CROWDS = ("iscrowd", "is_crowd")
_DIFFICULT = ("difficult",)
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows are understood.

    Attributes:
        label_format: "index" (one or a list, padded with -1), "multi_hot", or "auto": vectors of bool or float are
            multi-hot, of integers a list, unless they are 0 and 1 and as many as there are classes.
        box_format: "xywh" (x, y, width, height), "xyxy", or None: as the form has it, which is xyxy for boxes that
            stand under the key "boxes" (torchvision) or say so themselves, else xywh.
    """

    label_format: Literal["auto", "index", "multi_hot"] = "auto"
    box_format: Literal["xywh", "xyxy"] | None = None

    def __post_init__(self) -> None:
        check_choice("label_format", self.label_format, ("auto", "index", "multi_hot"))
        check_choice("box_format", self.box_format, ("xywh", "xyxy", None))


class _Row(NamedTuple):
    image: Any
    labels: Any = None
    boxes: Any = None
    masks: Any = None
    box_format: str = "xywh"
    crowds: Any = None
    difficult: Any = None


def to_sample(row: Any, name: str, reading: Reading, binding: Binding) -> Sample:
    """Returns the sample that a row means.

    Raises:
        SeewhyError: it means none; the message names the sample.
    """
    try:
        if isinstance(row, Sample):
            return _bound(row, name, binding)
        return _sample(_split(row), name, reading, binding)
    except SeewhyError as error:
        raise type(error)(f"Sample {name!r}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"Sample {name!r}: {error}.") from error


def _bound(sample: Sample, name: str, binding: Binding) -> Sample:
    labels = binding.labels(sample.labels)
    boxes = [(n, binding.of(box[0]), box[1:]) for n, box in enumerate(sample.boxes)]
    kept = [(n, (label, *sides)) for n, label, sides in boxes if label is not None]
    masks = {binding.of(label): mask for label, mask in sample.masks.items()}
    return replace(
        sample,
        name=sample.name or name,
        labels=labels,
        boxes=tuple(box for _, box in kept),
        crowds=tuple(place for place, (n, _) in enumerate(kept) if n in sample.crowds),
        difficult=tuple(place for place, (n, _) in enumerate(kept) if n in sample.difficult),
        masks={label: mask for label, mask in masks.items() if label is not None},
    )


def _sample(row: _Row, name: str, reading: Reading, binding: Binding) -> Sample:
    image = _picture(row.image)
    given = None if row.labels is None else _aligned(row.labels, reading.label_format, binding, row.boxes is not None)
    found = None if given is None else [label for label in given if label != -1]
    indices = [None if label == -1 else binding.of(label) for label in given or ()]
    mask, masks = _masks(row.masks, indices)
    chosen = reading.box_format or row.box_format
    kept = list(_boxes(row.boxes, indices, chosen, _size(image)))
    return Sample(
        image=image,
        name=name,
        labels=None if found is None or _scalar_padding(row.labels) else binding.labels(found),
        boxes=tuple(box for _, box in kept),
        crowds=_flagged(row.crowds, kept, len(indices)),
        difficult=_flagged(row.difficult, kept, len(indices)),
        mask=mask,
        masks=masks,
    )


# ---------------------------------------------------------------------------------------------------- form of a row


def _split(row: Any) -> _Row:
    if isinstance(row, Mapping):
        return _from_mapping(row)
    if not isinstance(row, tuple | list):
        return _Row(row)
    if not 1 <= len(row) <= 4:
        raise InvalidInput(
            f"A row is image, (image, labels), (image, labels, boxes) or (image, labels, masks), got {len(row)} values."
        )
    if len(row) > 1 and isinstance(row[1], Mapping):
        return _from_mapping({**row[1], "image": row[0]})
    if len(row) == 3 and row[2] is not None and not _are_boxes(row[2]):
        return _Row(row[0], row[1], None, row[2])
    image, labels, boxes, masks = (*row, None, None, None)[:4]
    return _Row(image, labels, boxes, masks, _own_format(boxes))


def _from_mapping(row: Mapping[str, Any]) -> _Row:
    inner = row.get("objects")
    values = {**row, **inner} if isinstance(inner, Mapping) else dict(row)
    image, labels, boxes, masks = (_first(values, names) for names in (_IMAGE, _LABELS, _BOXES, _MASKS))
    if image is None:
        raise InvalidInput(f"A row must have one of {', '.join(map(repr, _IMAGE))}, got {sorted(map(str, row))}.")
    named = "xyxy" if values.get("boxes") is not None else "xywh"
    flags = [_first(values, names) for names in (_CROWDS, _DIFFICULT)]
    return _Row(image, labels, boxes, masks, _own_format(boxes, named), *flags)


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _own_format(boxes: Any, otherwise: str = "xywh") -> str:
    """What torchvision's bounding boxes say about themselves."""
    own = getattr(boxes, "format", None)
    said = str(getattr(own, "value", own)).lower() if not isinstance(boxes, Image.Image) and own is not None else ""
    if said and said not in ("xyxy", "xywh"):
        raise InvalidInput(f"Boxes must be xyxy or xywh, got {said}. Convert them first.")
    return said or otherwise


def _are_boxes(value: Any) -> bool:
    """(L, 4), (4,) or an empty list; anything else in the third place is masks."""
    if isinstance(value, str | os.PathLike | Image.Image | Mapping):
        return False
    try:
        shape = np.shape(_numpy(value))
    except ValueError:  # rows of different lengths
        return False
    return shape == (4,) or (len(shape) == 2 and shape[1] == 4) or shape == (0,)


def _numpy(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


# ---------------------------------------------------------------------------------------------------------- image


def _picture(value: Any) -> Any:
    """Paths, PIL images, arrays (H, W[, C]) and float tensors (C, H, W) as they are; bytes are made images."""
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, os.PathLike | Image.Image | np.ndarray):
        return value
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, Mapping) and (value.get("bytes") is not None or value.get("path") is not None):
        return _of_bytes(value["bytes"]) if value.get("bytes") is not None else Path(value["path"])
    if isinstance(value, bytes):
        return _of_bytes(value)
    raise InvalidInput(
        f"An image must be a path, a PIL image, an array (H, W, C) or a tensor (C, H, W), got {type(value).__name__}."
    )


def _of_tensor(value: Tensor) -> Any:
    value = value.detach()
    if value.ndim != 3 and not (value.ndim == 2 and not value.dtype.is_floating_point):
        more = " Volumes and clips are explained one by one, by seewhy.explain." if value.ndim == 4 else ""
        raise InvalidInput(f"A tensor must be one image (C, H, W), got shape {tuple(value.shape)}.{more}")
    if value.dtype.is_floating_point:
        return value
    array = value.cpu().numpy()
    return array if value.ndim == 2 else np.ascontiguousarray(array.transpose(1, 2, 0))


def _of_bytes(value: bytes) -> Image.Image:
    try:
        return header(io.BytesIO(value))
    except Exception as error:  # of any kind, as for files
        raise InvalidInput(f"its {len(value)} bytes are no picture: {str(error).rstrip('.')}.") from error


def _size(image: Any) -> tuple[int, int] | None:
    """(width, height) where it is known without reading."""
    if isinstance(image, Image.Image):
        return image.size
    if isinstance(image, Tensor):
        return image.shape[2], image.shape[1]
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) and image.ndim >= 2 else None


# ----------------------------------------------------------------------------------------------------------- labels


def _scalar_padding(labels: Any) -> bool:
    """-1 alone: the label is not known. In a list it is padding."""
    return not isinstance(labels, str) and np.ndim(_numpy(labels)) == 0 and int(_numpy(labels)) == -1


def _aligned(labels: Any, mode: str, binding: Binding, boxed: bool) -> list[Label]:
    """Returns the labels one by one, -1 where there is none, in the order in which boxes and masks come."""
    if isinstance(labels, str):
        return [labels]
    values = _numpy(labels)
    if values.dtype.kind in "US":
        return [str(v) for v in np.atleast_1d(values)]
    if values.ndim > 1 or values.dtype.kind not in "biuf":
        raise InvalidInput(f"Labels are an index, a list of indices or a multi-hot vector, got {_shown(values)}.")
    if values.ndim == 0 and values.dtype.kind != "f" and mode != "multi_hot" and values.dtype.kind != "b":
        return _indices([int(values)])
    if values.ndim == 1 and not len(values):
        return []
    if values.ndim == 1 and _is_multi_hot(values, mode, binding.count, boxed):
        return _multi_hot(values, binding.count)
    if values.ndim == 0 or values.dtype.kind in "bf":
        raise InvalidInput(f"Labels are whole numbers, got {_shown(values)}.")
    return _indices(values.tolist())


def _indices(values: list[int]) -> list[Label]:
    if (low := min(values)) < -1:
        raise InvalidInput(f"Label {low} is negative. Classes are counted from 0, and -1 is padding.")
    return list(values)


def _is_multi_hot(values: NDArray[Any], mode: str, count: int | None, boxed: bool) -> bool:
    if mode != "auto":
        return mode == "multi_hot"
    if values.dtype.kind in "bf":
        return True
    flags = bool(((values == 0) | (values == 1)).all())
    if boxed or not flags or (count is not None and len(values) != count):
        return False
    if count is None and len(np.unique(values)) == len(values):
        return False
    if count is None or count <= 2:
        raise InvalidInput(
            f"The labels {values.tolist()} may be class indices or multi-hot. "
            "Pass label_format='index' or label_format='multi_hot'."
        )
    return True


def _multi_hot(values: NDArray[Any], count: int | None) -> list[Label]:
    if count is not None and len(values) != count:
        raise InvalidInput(f"A multi-hot vector must have one value a class, {count}, got {len(values)}.")
    if not bool(((values == 0) | (values == 1)).all()):
        raise InvalidInput(f"A multi-hot vector must be of 0 and 1, got {values.min():g}..{values.max():g}.")
    return [i if v else -1 for i, v in enumerate(values.tolist())]


def _shown(values: NDArray[Any]) -> str:
    return f"shape {values.shape} of {values.dtype}" if values.ndim else f"{values.item()!r}"


# --------------------------------------------------------------------------------------------------- boxes and masks


def corners(box: Any, form: str) -> Corners | None:
    """Four numbers, "xywh" or "xyxy", as x0, y0, x1, y1; None for a box without an area.

    Raises:
        ValueError: not four finite numbers, or a side of negative length.
    """
    try:
        a, b, c, d = (float(v) for v in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a box must be four numbers, got {box!r}") from error
    x1, y1 = (a + c, b + d) if form == "xywh" else (c, d)
    if not all(map(math.isfinite, (a, b, x1, y1))) or x1 < a or y1 < b:
        raise ValueError(f"a box must be four finite numbers {form} with sides of 0 or more, got {[a, b, c, d]}")
    return (a, b, x1, y1) if x1 > a and y1 > b else None


def _boxes(
    boxes: Any, labels: Sequence[int | None], form: str, size: tuple[int, int] | None
) -> Iterator[tuple[int, tuple[int, float, float, float, float]]]:
    """Each box with its place among those that were given."""
    if boxes is None:
        return
    rows = np.asarray(_numpy(boxes), np.float64)
    rows = rows.reshape(-1, 4) if rows.size == 0 or rows.shape == (4,) else rows
    if rows.ndim != 2 or rows.shape[1] != 4 or len(rows) != len(labels):
        raise InvalidInput(f"Boxes must be one a label, ({len(labels)}, 4), got {rows.shape}.")
    for n, (label, row) in enumerate(zip(labels, rows.tolist(), strict=True)):
        box = None if label is None else corners(row, form)
        if label is not None and box is not None:
            _check_inside(box, size, form)
            yield n, (label, *box)


def _flagged(flags: Any, kept: Sequence[tuple[int, Any]], count: int) -> tuple[int, ...]:
    """Which of the boxes that are kept are flagged, of as many flags as there were boxes."""
    if flags is None or not kept:
        return ()
    values = np.atleast_1d(_numpy(flags))
    if values.shape != (count,):
        raise InvalidInput(f"Flags of boxes (iscrowd, difficult) must be one a box, ({count},), got {values.shape}.")
    return tuple(place for place, (n, _) in enumerate(kept) if values[n])


def _check_inside(box: Corners, size: tuple[int, int] | None, form: str) -> None:
    """One pixel of slack, for data that count from 1; more is another format or another image size."""
    if size is not None and (box[2] > size[0] + 1 or box[3] > size[1] + 1):
        other = "xyxy" if form == "xywh" else "xywh"
        raise InvalidInput(
            f"The box {tuple(box)} reaches beyond the picture of {size[0]}x{size[1]}. It was read as {form}; "
            f"pass box_format={other!r} if it is that, and give boxes in pixels of this picture."
        )


def _masks(masks: Any, labels: Sequence[int | None]) -> tuple[Any, dict[int, Any]]:
    """Returns the one mask of the image, and one for each label."""
    if masks is None:
        return None, {}
    if isinstance(masks, str | os.PathLike):
        return _single(Path(masks), labels)
    if isinstance(masks, Mapping):
        return None, {
            int(label): mask if isinstance(mask, str | Path) else _numpy(mask) for label, mask in masks.items()
        }
    values = _numpy(masks)
    if values.ndim == 2:
        return _single(values, labels)
    if values.ndim == 3 and isinstance(masks, Image.Image):
        return _single(values.any(2), labels)
    if values.ndim != 3 or len(values) != len(labels):
        raise InvalidInput(f"Masks must be (H, W), or one a label, ({len(labels)}, H, W), got {values.shape}.")
    made: dict[int, Any] = {}
    for label, mask in zip(labels, values > 0, strict=True):
        if label is not None:
            made[label] = made[label] | mask if label in made else mask
    return None, made


def _single(mask: Any, labels: Sequence[int | None]) -> tuple[Any, dict[int, Any]]:
    known = {label for label in labels if label is not None}
    return mask, dict.fromkeys(known, mask) if len(known) == 1 else {}

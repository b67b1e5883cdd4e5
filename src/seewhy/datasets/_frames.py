"""What holds a data set and is none itself: data frames with a column of paths, data modules of Lightning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from seewhy.errors import InvalidInput

__all__ = ["held"]

_COLUMNS = ("image", "img", "path", "image_path", "img_path", "file", "file_path", "filepath", "file_name", "filename")
_LOADERS = ("test_dataloader", "predict_dataloader", "val_dataloader")


def held(spec: Any) -> Any:
    """The rows of a data frame (pandas, polars, pyarrow) or of MindSpore, the loader of a data module; else itself.

    Raises:
        InvalidInput: a frame without a column of images, a module without a loader to look at.
    """
    libraries = {cls.__module__.partition(".")[0] for cls in type(spec).__mro__}
    if libraries & {"pandas", "polars", "pyarrow"}:
        return _rows(spec)
    if "mindspore" in libraries and hasattr(spec, "create_tuple_iterator"):
        return MindSporeRows(spec)
    if libraries & {"lightning", "pytorch_lightning"} and hasattr(spec, "prepare_data"):
        return _loader(spec)
    return spec


class MindSporeRows:
    """The rows of a data set of ``mindspore.dataset``, whose batches are taken apart; it is read in order.

    A data set that is shuffled gives other rows each time that it is walked through, and a run counts rows.
    """

    def __init__(self, data: Any) -> None:
        self.dataset = data
        first = next(iter(self._walk()), None)
        self.batched = first is not None and np.ndim(first[0]) == 4
        self.count = self._counted()

    def _counted(self) -> int:
        before, whole = getattr(self.dataset, "children", None), hasattr(self.dataset, "drop_remainder")
        if not self.batched:
            return int(self.dataset.get_dataset_size())
        if whole and before and not self.dataset.drop_remainder:
            return int(before[0].get_dataset_size())  # batches were made of these rows last of all
        return sum(len(row[0]) for row in self._walk())

    def _walk(self) -> Iterator[list[Any]]:
        found: Iterator[list[Any]] = self.dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        return found

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._walk():
            for one in zip(*row, strict=True) if self.batched else [row]:
                image = torch.from_numpy(np.array(one[0])) if np.ndim(one[0]) == 3 else one[0]
                yield (image, *one[1:])


def _rows(frame: Any) -> list[dict[str, Any]]:
    if hasattr(frame, "to_pylist"):
        rows = frame.to_pylist()
    else:
        rows = frame.to_dicts() if hasattr(frame, "to_dicts") else frame.to_dict("records")
    names = {str(name).casefold(): name for name in (rows[0] if rows else {})}
    column = next((names[name] for name in _COLUMNS if name in names), None)
    if column is None:
        raise InvalidInput(
            f"A data frame needs a row an image and a column with its path, called one of {', '.join(_COLUMNS)}; got "
            f"the columns {', '.join(map(repr, names.values())) or 'of an empty frame'}."
        )
    return [{"image": row[column], **_known(row, column)} for row in rows]


def _known(row: Mapping[Any, Any], column: Any) -> dict[str, Any]:
    """Returns the other cells that hold something.

    A column of whole numbers with an empty cell comes from pandas as floats, with NaN in the empty cell.
    """
    cells = {str(name).casefold(): value for name, value in row.items() if name != column and value is not None}
    numbers = {name: value for name, value in cells.items() if isinstance(value, float)}
    whole = {name: int(value) for name, value in numbers.items() if value.is_integer()}
    return {n: v for n, v in {**cells, **whole}.items() if not (isinstance(v, float) and math.isnan(v))}


def _loader(module: Any) -> Any:
    """Returns the loader that a data module is tested with, else the one that it predicts or validates with."""
    module.prepare_data()
    for name in _LOADERS:
        try:
            module.setup({"test_dataloader": "test", "predict_dataloader": "predict"}.get(name, "validate"))
            found = getattr(module, name)()
        except (NotImplementedError, AttributeError, TypeError):  # how Lightning says that there is none
            continue
        except Exception as error:
            if type(error).__name__ != "MisconfigurationException":
                raise
            continue
        if found is not None:
            return found[0] if isinstance(found, list | tuple) and found else found
    raise InvalidInput(f"{type(module).__name__} has no {', '.join(_LOADERS[:-1])} or {_LOADERS[-1]}. Pass a loader.")

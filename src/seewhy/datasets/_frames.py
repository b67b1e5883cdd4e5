"""What holds a data set and is none itself: data frames with a column of paths, data modules of Lightning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from seewhy.errors import InvalidInput

__all__ = ["held"]

_COLUMNS = ("image", "img", "path", "image_path", "img_path", "file", "file_path", "filepath", "file_name", "filename")
_LOADERS = ("test_dataloader", "predict_dataloader", "val_dataloader")


def held(spec: Any) -> Any:
    """The rows of a data frame (pandas, polars, pyarrow), the loader of a data module; else the object itself.

    Raises:
        InvalidInput: a frame without a column of images, a module without a loader to look at.
    """
    libraries = {cls.__module__.partition(".")[0] for cls in type(spec).__mro__}
    if libraries & {"pandas", "polars", "pyarrow"}:
        return _rows(spec)
    if libraries & {"lightning", "pytorch_lightning"} and hasattr(spec, "prepare_data"):
        return _loader(spec)
    return spec


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
    """The other cells that hold something.

    A column of whole numbers with an empty cell comes from pandas as floats, with NaN in the empty cell.
    """
    cells = {str(name).casefold(): value for name, value in row.items() if name != column and value is not None}
    numbers = {name: value for name, value in cells.items() if isinstance(value, float)}
    whole = {name: int(value) for name, value in numbers.items() if value.is_integer()}
    return {n: v for n, v in {**cells, **whole}.items() if not (isinstance(v, float) and math.isnan(v))}


def _loader(module: Any) -> Any:
    """The loader that a data module is tested with, else the one that it predicts or validates with."""
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

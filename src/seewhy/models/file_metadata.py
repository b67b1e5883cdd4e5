"""What a model file says about its pictures and classes: preprocessing and names from its metadata.

Two dialects are read. OpenVINO's model_info, in IR files and with the prefix "model_info " in ONNX files: mean_values,
scale_values (on pixels 0..255), resize_type, pad_value, reverse_input_channels, labels, label_info. And "names", a
table of class names, as YOLO exporters write it.

reverse_input_channels has had both meanings: pictures used to be BGR, so that True gave the network RGB; OpenVINO
Training Extensions 2 has RGB pictures and gives the network BGR with True. So the order of the channels is taken from
the constants where they tell it (ImageNet's mean falls from red to blue), then from the exporter, and is RGB otherwise.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any, Literal

from seewhy.images.preprocessing import Preprocessing

__all__ = ["labels", "notes", "preprocessing"]

_FITS: dict[str, Literal["crop", "squash", "letterbox"]] = {
    "standard": "squash", "fit_to_window": "letterbox", "fit_to_window_letterbox": "letterbox", "crop": "crop",
}  # fmt: skip


def preprocessing(metadata: Mapping[str, Any], size: tuple[int, int] | None) -> Preprocessing | None:
    """How a picture becomes the input, if the file says so and the graph takes one size."""
    found = _info(metadata)
    if size is None or not {"mean_values", "scale_values"} <= found.keys():
        return None
    mean, scale = _numbers(found["mean_values"]), _numbers(found["scale_values"])
    mean, scale = (v * 3 if len(v) == 1 else v for v in (mean or (0.0,), scale or (1.0,)))
    if len(mean) != 3 or len(scale) != 3 or min(mean) < 0 or max(mean) > 255 or min(scale) <= 0:
        return None
    raw = not any(mean) and set(scale) == {1.0}
    unit = 1.0 if raw else 255.0
    return Preprocessing(
        size=size,
        mean=tuple(m / unit for m in mean),
        std=tuple(s / unit for s in scale),
        fit=_FITS.get(str(found.get("resize_type", "standard")), "squash"),
        channels=_order(mean, found),
        value_range=255.0 if raw else 1.0,
        pad=min(max((_numbers(found.get("pad_value", "0")) or (0.0,))[0], 0.0), 255.0) / 255,
    )


def _order(mean: tuple[float, ...], found: Mapping[str, Any]) -> Literal["RGB", "BGR"]:
    if mean[0] != mean[2]:
        return "RGB" if mean[0] > mean[2] else "BGR"
    new = str(found.get("otx_version", "")).startswith("2")
    return "BGR" if new and _true(found.get("reverse_input_channels")) else "RGB"


def labels(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names, if the file has them."""
    found = _info(metadata)
    try:
        names = json.loads(str(found["label_info"]))["label_names"]
        return tuple(map(str, names)) or None
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    if given := found.get("labels"):
        return tuple(map(str, given)) if isinstance(given, list | tuple) else tuple(str(given).split())
    try:
        table = ast.literal_eval(str(metadata["names"]))
        return tuple(str(table[i]) for i in range(len(table))) or None
    except (KeyError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):  # of text nested too deep
        return None


def notes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What the reader should know besides."""
    found = _info(metadata)
    said = []
    if _true(found.get("multilabel")):
        said.append("The file is of a multi-label network: use activation_fn='sigmoid' (--activation sigmoid).")
    mean = _numbers(found.get("mean_values", ""))
    if mean and mean[0] == mean[-1] and "reverse_input_channels" in found:
        said.append(
            f"reverse_input_channels is {found['reverse_input_channels']} in the file, which exporters mean "
            "differently: compare the order of channels that is shown with the one of the training (--channels)."
        )
    return tuple(said)


def _info(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).removeprefix("model_info ").strip(): value for name, value in metadata.items()}


def _numbers(value: Any) -> tuple[float, ...]:
    parts = value if isinstance(value, list | tuple) else str(value).replace(",", " ").strip("[]() ").split()
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()


def _true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "yes", "1")

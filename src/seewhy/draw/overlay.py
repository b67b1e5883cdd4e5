"""Images of saliency: colour maps, overlays, colour bars and contact sheets. Pure: values in, PIL images out.

Nothing here rescales a map: 0 and 1 mean what the caller says they mean, and values outside are an error, so that a
colour always stands for the same value. NaN stands for "not looked at" and is never drawn in a map's colours.
"""

from __future__ import annotations

import cmap
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seewhy.errors import InvalidInput, InvalidType, UnknownName, nearest
from seewhy.plain import Values, array_of

__all__ = [
    "DIVERGING",
    "colour_bar",
    "colourise",
    "diverges",
    "outlined",
    "overlay",
    "saliency_to_image",
    "signed",
    "to_rgb",
]

COLOUR_MAP = "inferno"
DIVERGING = "colorbrewer:RdBu_r"
UNSEEN = (128, 128, 128)

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
INK, PAPER = (34, 34, 34), (255, 255, 255)

# ------------------------------------------------------------------------------------------------------- colours


def colourise(values: Values, colour_map: str = COLOUR_MAP) -> Image.Image:
    """Returns a map in colours: 0 is the colour map's first colour, 1 its last, NaN neutral grey.

    Args:
        values: (H, W) in [0, 1].
        colour_map: a name of the `cmap` catalogue ("inferno", "viridis", "crameri:batlow", ...; "_r" reverses).

    Returns:
        An RGB image of the same size.

    Raises:
        InvalidInput: wrong shape, or values outside [0, 1].
        UnknownName: no such colour map; names the nearest.
    """
    return Image.fromarray(_coloured(_unit_map(values), colour_map))


def signed(values: Values) -> Image.Image:
    """Returns a signed map: blue below 0, white at 0, red above, on one scale for both signs; NaN neutral grey.

    Args:
        values: (H, W), finite or NaN. The largest magnitude gets the full colour; a map of zeros is all white.

    Returns:
        An RGB image of the same size.

    Raises:
        InvalidInput: wrong shape, or infinite values.
    """
    array = _flat_map(values)
    if np.isinf(array).any():
        raise InvalidInput("Expected finite values (or NaN where unseen), got infinity.")
    peak = float(np.nanmax(np.abs(array), initial=0.0))
    places = (array / (peak or 1.0) / 2 + 0.5).astype(np.float32)
    return Image.fromarray(_coloured(places, DIVERGING))


def colour_bar(
    low: float, high: float, *, width: int = 320, height: int = 24, colour_map: str = COLOUR_MAP,
    words: tuple[str, str] = ("", ""),
) -> Image.Image:  # fmt: skip
    """Returns the key to a map: its colours from left to right, `low` printed on the left and `high` on the right.

    Args:
        low: the value that the first colour stands for.
        high: the value of the last colour.
        width: of the whole image in pixels, numbers included.
        height: of the image in pixels; the numbers' size follows it.
        colour_map: as in `colourise`.
        words: what the two ends mean, printed beside their numbers.

    Raises:
        InvalidInput: too small for the numbers to be legible.
        UnknownName: no such colour map.
    """
    font = ImageFont.load_default(max(9, round(height * 0.55)))
    texts = [f"{words[0]} {low:.4g}".strip(), f"{high:.4g} {words[1]}".strip()]
    margins = [int(font.getlength(text)) + height // 3 + 2 for text in texts]
    length = width - sum(margins)
    if height < 10 or length < 16:
        raise InvalidInput(f"Expected room for {texts[0]}, {texts[1]} and the colours, got {width}x{height} pixels.")
    canvas = Image.new("RGB", (width, height), PAPER)
    ramp = np.broadcast_to(np.linspace(0, 1, length), (height - 2, length))
    canvas.paste(colourise(ramp, colour_map), (margins[0], 1))
    draw = ImageDraw.Draw(canvas)
    draw.text((0, height / 2), texts[0], fill=INK, font=font, anchor="lm")
    draw.text((width - 1, height / 2), texts[1], fill=INK, font=font, anchor="rm")
    return canvas


def _coloured(array: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    count = 257 if diverges(name) else 256  # an odd number of colours has one in the middle: exactly 0 gets it
    table = np.rint(_colour_map(name).lut(count)[:, :3] * 255).astype(np.uint8)
    unseen = np.isnan(array)
    colours: NDArray[np.uint8] = table[np.rint(np.where(unseen, 0, array) * (count - 1)).astype(np.intp)]
    colours[unseen] = UNSEEN
    return colours


def diverges(name: str) -> bool:
    """Says whether a colour map of the catalogue has a middle, so that it is one for both signs.

    Raises:
        UnknownName: no such colour map; names the nearest.
    """
    return _colour_map(name).category == "diverging"


def _colour_map(name: str) -> cmap.Colormap:
    if not isinstance(name, str):
        raise InvalidType(f"Expected the name of a colour map, got {type(name).__name__}.")
    try:
        return cmap.Colormap(name)
    except (ValueError, TypeError) as error:
        hint = nearest(name, cmap.Catalog())
        raise UnknownName(f"Expected a colour map of the cmap catalogue, got {name!r}. {hint}") from error


def _flat_map(values: Values) -> NDArray[np.float32]:
    """(H, W) float32 of a map; leading dimensions of length 1 are dropped."""
    array = array_of(values)
    if array.dtype.kind not in "fiub":
        raise InvalidType(f"Expected a map of real numbers, got {array.dtype}.")
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.size == 0:
        raise InvalidInput(f"Expected one map of shape (H, W), got {tuple(values.shape)}.")
    return array.astype(np.float32)


def _unit_map(values: Values) -> NDArray[np.float32]:
    array = _flat_map(values)
    seen = array[~np.isnan(array)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    if low < -1e-6 or high > 1 + 1e-6:
        raise InvalidInput(
            f"Expected saliency in [0, 1], got {low:g} to {high:g}. Scale it first, or draw raw values with signed()."
        )
    return array.clip(0, 1)


# ------------------------------------------------------------------------------------------------------- overlay


def overlay(
    image: Image.Image, saliency: Values, *, opacity: float = 0.75, colour_map: str | None = None,
    signed: bool = False, threshold: float = 0.0,
) -> Image.Image:  # fmt: skip
    """Returns the image with the map on it: grey where nothing matters, in the map's colours where something does.

    The colour covers the more the higher the value, so that the image's details stay visible; pixels that the
    network did not look at (NaN) are grey and dark.

    Args:
        image: RGB or grey PIL image.
        saliency: (h, w) in [0, 1] or NaN. It covers the whole image; another resolution is interpolated.
        opacity: 0 shows the image alone; at 1 saliency 1 hides it.
        colour_map: as in `colourise`; None for inferno, or blue and red where the map is signed.
        signed: whether 0.5 stands for nothing, 0 is fully against and 1 fully for.
        threshold: values of a smaller size are not drawn.

    Returns:
        An RGB image of the image's size.

    Raises:
        InvalidInput: wrong shape, saliency outside [0, 1], or opacity outside [0, 1].
        InvalidType: an image of another mode.
        UnknownName: no such colour map.
    """
    if not 0 <= opacity <= 1:
        raise InvalidInput(f"Expected an opacity in [0, 1], got {opacity!r}.")
    picture = np.asarray(to_rgb(image), dtype=np.float32)
    values = _resized(_unit_map(saliency), picture.shape[0], picture.shape[1])[..., None]
    colours = _coloured(values[..., 0], (DIVERGING if signed else COLOUR_MAP) if colour_map is None else colour_map)
    grey = np.repeat((picture @ _LUMA)[..., None], 3, axis=2)
    strength = np.nan_to_num(np.abs(2 * values - 1) if signed else values)
    # Grey under the colours: what is strongly coloured in the overlay is the map's doing, not the image's.
    full = grey + (colours.astype(np.float32) - grey) * np.where(strength < threshold, 0, strength**0.75)
    full = np.where(np.isnan(values), 0.4 * grey, full)
    mixed = picture + (full - picture) * opacity
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def outlined(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """A copy of the image with a box drawn on it: white between two dark lines, so that it is seen on any colour.

    Args:
        image: RGB or grey PIL image.
        box: x0, y0, x1, y1 in pixels; what lies beyond the image is drawn at its border.

    Returns:
        An RGB image of the image's size.

    Raises:
        InvalidType: an image of another mode.
    """
    drawn = to_rgb(image).copy()
    x0, y0, x1, y1 = box
    limits = (drawn.width - 1, drawn.height - 1)
    low = [min(max(round(v), 0), most) for v, most in zip((x0, y0), limits, strict=True)]
    high = [max(min(round(v), most), least) for v, most, least in zip((x1, y1), limits, low, strict=True)]
    line = max(1, round(max(drawn.size) / 300))
    draw = ImageDraw.Draw(drawn)
    for inset, colour in ((0, INK), (line, PAPER), (2 * line, INK)):
        corners = (low[0] + inset, low[1] + inset, high[0] - inset, high[1] - inset)
        if corners[0] <= corners[2] and corners[1] <= corners[3]:
            draw.rectangle(corners, outline=colour, width=line)
    return drawn


def saliency_to_image(
    saliency: Values, original: Image.Image | Values, *, opacity: float = 0.75, colour_map: str = COLOUR_MAP
) -> Image.Image:
    """Returns a saliency map drawn over the image that it explains.

    Args:
        saliency: (H, W), (1, H, W) or (1, 1, H, W), tensor or array, in [0, 1] or NaN where unseen.
        original: RGB or grey PIL image; array (H, W), (H, W, 1) or (H, W, 3), or tensor (C, H, W) or (1, C, H, W),
            of 1 or 3 channels, uint8 or floating in [0, 1].
        opacity: as in `overlay`.
        colour_map: as in `overlay`.

    Returns:
        An RGB image of the original's size.

    Raises:
        InvalidInput: shapes or values that do not fit.
        InvalidType: an image of another mode.

    Example:
        >>> saliency = seewhy.GradCAM(network)(preprocessing(photo)[0], 1)
        >>> saliency_to_image(saliency, photo.resize((32, 32))).size
        (32, 32)
    """
    picture = original if isinstance(original, Image.Image) else _picture(original)
    return overlay(picture, saliency, opacity=opacity, colour_map=colour_map)


def _picture(values: Values) -> Image.Image:
    """Returns a tensor (C, H, W) or an array (H, W) or (H, W, C) as an image."""
    shape = tuple(values.shape)
    array = array_of(values)
    if not isinstance(values, np.ndarray):
        array = array[0] if array.ndim == 4 and shape[0] == 1 else array
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))) or array.size == 0:
        raise InvalidInput(
            f"Expected a picture as a tensor (C, H, W) or an array (H, W, C) with 1 or 3 channels, got shape {shape}."
        )
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if array.dtype.kind != "f" or not (low >= -1e-6 and high <= 1 + 1e-6):
            raise InvalidInput(
                f"Expected a picture in uint8 or with values in [0, 1], got {array.dtype} of {low:g} to {high:g}. "
                "Undo the normalisation first (Preprocessing.denormalise)."
            )
        array = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in RGB; raises InvalidType for any mode but RGB and grey."""
    if not isinstance(image, Image.Image) or image.mode not in ("RGB", "L"):
        got = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
        raise InvalidType(f"Expected an RGB or grey PIL image, got {got}. Pass it through seewhy.images.read first.")
    return image.convert("RGB")


def _resized(array: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear to another size; a pixel whose share of seen cells is below one half is unseen."""
    if array.shape == (height, width):
        return array
    seen = ~np.isnan(array)
    total, share = (
        np.asarray(Image.fromarray(part.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
        for part in (np.where(seen, array, 0), seen)
    )
    enough = share >= 0.5
    mean: NDArray[np.float32] = np.where(enough, total / np.where(enough, share, 1), np.nan).clip(0, 1)
    return mean.astype(np.float32)

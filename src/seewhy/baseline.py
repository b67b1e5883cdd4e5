"""What is shown in place of a part that is taken away: a number, the mean colour, a blurred copy, or an image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.maps import full_precision, places, size_of

__all__ = ["blur", "check", "make"]


def check(baseline: Any) -> None:
    """Raises InvalidInput unless ``baseline`` has one of the documented forms."""
    if isinstance(baseline, bool) or not isinstance(baseline, int | float | str | Tensor):
        raise InvalidInput(f"baseline must be a number, 'mean', 'blur' or a tensor, got {baseline!r}.")
    if isinstance(baseline, str):
        if baseline not in ("mean", "blur"):
            raise InvalidInput(f"baseline must be a number, 'mean', 'blur' or a tensor, got {baseline!r}.")
    elif not bool(torch.isfinite(torch.as_tensor(baseline)).all()):
        raise InvalidInput("baseline has NaN or infinite values.")


def make(baseline: float | str | Tensor, inputs: Tensor) -> Tensor:
    """(N, C, H, W) what is shown instead of ``inputs``.

    Args:
        baseline: a number, "mean" (each image's mean colour), "blur", or a tensor that broadcasts to ``inputs``.
        inputs: (N, C, H, W).

    Raises:
        InvalidInput: the tensor does not fit.
    """
    if isinstance(baseline, str):
        return inputs.mean(places(inputs), keepdim=True).expand_as(inputs) if baseline == "mean" else blur(inputs)
    if isinstance(baseline, Tensor):
        try:
            return baseline.to(inputs).expand_as(inputs)
        except RuntimeError as error:
            got, want = tuple(baseline.shape), tuple(inputs.shape)
            raise InvalidInput(f"The baseline must broadcast to the inputs, {want}, got {got}.") from error
    return inputs.new_full((1,) * inputs.ndim, float(baseline)).expand_as(inputs)


def blur(inputs: Tensor, sigma: float | None = None) -> Tensor:
    """Gaussian blur with edges replicated; sigma in pixels, by default 1/25 of the short side and at least 1.

    A volume is blurred slice by slice and then along its depth, with the same sigma.
    """
    sigma = max(1.0, min(size_of(inputs)[-2:]) / 25) if sigma is None else sigma
    reach = max(1, round(4 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32, device=inputs.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    *front, h, w = inputs.shape
    flat = F.pad(inputs.float().reshape(-1, 1, h, w), (reach,) * 4, mode="replicate")
    with full_precision(inputs):
        rows = F.conv2d(flat, kernel.unsqueeze(-1))
        found = F.conv2d(rows, kernel.unsqueeze(2)).reshape(*front, h, w)
        return (found if len(front) == 2 else _along_depth(found, kernel, reach)).to(inputs.dtype)


def _along_depth(inputs: Tensor, kernel: Tensor, reach: int) -> Tensor:
    n, c, d, h, w = inputs.shape
    columns = inputs.flatten(3).transpose(2, 3).reshape(-1, 1, d)
    found = F.conv1d(F.pad(columns, (reach, reach), mode="replicate"), kernel)
    return found.reshape(n, c, h * w, d).transpose(2, 3).reshape(n, c, d, h, w)

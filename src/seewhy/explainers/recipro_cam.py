"""ReciproCAM: what the rest of the network says when it is shown one position of the feature map alone.

    map(i, j) = logit_c of the head fed with A * [position = (i, j)]

With a head that is a mean over h x w positions and a linear layer (W, b) this is W_c A(:, i, j) / (h w) + b_c: all
classes in one matrix product. Any other head is run again for each position, without the trunk. Tokens that speak to
each other in the rest of the network are refused: for them there is ViTReciproCAM. Source: Byun and Lee,
"Recipro-CAM: Fast Gradient-Free Visual Explanations for Convolutional Neural Networks", 2022 (arXiv 2209.14074).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution import Attribution, about_all
from seewhy.errors import NoSpatialOutput
from seewhy.explainers import Explainer
from seewhy.explainers._transformer import for_tokens
from seewhy.maps import PICTURE, full_precision, size_of
from seewhy.models import FeatureModel, Features
from seewhy.perturbation import batch_size, chunked
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet

__all__ = ["ReciproCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ReciproCAM(Explainer):
    """The class's logit from one position of the feature map at a time, without gradients (Byun and Lee 2022).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map.
        perturbation_per_eval: positions a pass of the head, or "auto".

    Example:
        >>> ReciproCAM(network)(inputs, "all").shape  # a map for each of the five classes
        torch.Size([2, 5, 32, 32])
    """

    layer: str = "auto"
    perturbation_per_eval: int | str = 32

    needs: ClassVar[type] = FeatureModel
    values: ClassVar[Meaning] = "alone"
    offered: ClassVar[int] = 2
    spatial: ClassVar[bool] = True
    volumes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        batch_size(self.perturbation_per_eval)

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        found = model.features(inputs, self.layer)
        if found.prefix is not None and found.linear is None:
            raise NoSpatialOutput(
                f"ReciproCAM is defined for a spatial map; layer {found.layer!r} gives tokens. Use "
                f"{for_tokens(model, inputs)}."
            )
        targets = request.resolve(found.outputs)
        closed = found.linear is not None and targets.classes is not None
        raw = closed_form(found, targets) if closed else rerun(model, found, targets, self.perturbation_per_eval)
        return Attribution(
            raw=raw,
            outputs=found.outputs,
            targets=targets,
            layer=found.layer,
            notes=tuple(about_all(found.warnings)),
        )


def closed_form(found: Features, targets: TargetSet) -> Tensor:
    """(N, T, h, w) for a pooled linear head: a linear layer on every position at once."""
    assert found.linear is not None
    assert targets.classes is not None
    size = size_of(found.maps)
    maps, weight, bias = found.maps.float(), found.linear.weight.float(), found.linear.bias
    rows = targets.classes
    everything = rows.shape[1] == len(weight) and bool((rows == torch.arange(len(weight), device=rows.device)).all())
    with full_precision(maps):
        raw = _every_class(weight, maps) if everything else torch.matmul(weight[rows], maps.flatten(2))
    raw /= math.prod(size)
    if bias is not None:
        raw += (bias.float() if everything else bias.float()[rows]).unsqueeze(-1)
    return raw.view(len(maps), -1, *size)


def _every_class(weight: Tensor, maps: Tensor) -> Tensor:
    """(N, K, h w): on a CPU torch makes this product twice as fast as a convolution, to the same seven digits."""
    if maps.device.type == "cpu" and maps.ndim == PICTURE:  # elsewhere a convolution may be less exact than a product
        return F.conv2d(maps, weight[:, :, None, None]).flatten(2)
    return torch.matmul(weight, maps.flatten(2))


def rerun(model: FeatureModel, found: Features, targets: TargetSet, per_eval: int | str) -> Tensor:
    """(N, T, h, w) for any head: it is fed with a few positions at a time."""
    n, c, *size = found.maps.shape
    count = math.prod(size)
    raw = found.maps.new_zeros((n * count, targets.count), dtype=torch.float32)
    flat = found.maps.flatten(2).transpose(1, 2).reshape(n * count, c)

    def work(start: int, stop: int) -> None:
        index = torch.arange(start, stop, device=flat.device)
        rows, places = index // count, index % count
        alone = flat.new_zeros((stop - start, c, count))
        alone[torch.arange(stop - start, device=flat.device), :, places] = flat[index]
        outputs = model.from_features(found, alone.view(-1, c, *size), rows)
        raw[start:stop] = targets.values(outputs, rows)

    chunked(work, n * count, per_eval)
    return raw.view(n, *size, targets.count).movedim(-1, 1).contiguous()

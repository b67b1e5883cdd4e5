"""Targets of networks that answer at every place: the class of a region (segmentation), a key point (pose).

Such a network's outputs have one candidate for each place of its map, and no boxes (`Outputs.dense`). A class then
means its mean over the whole picture, a region its mean over the region (Vinogradova et al., "Towards Interpretable
Semantic Segmentation via Gradient-Weighted Class Activation Mapping", 2020, arXiv 2002.11434).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.boxes import box_mask
from seewhy.checks import is_number
from seewhy.detection import check_label, in_range
from seewhy.errors import InvalidTarget
from seewhy.images.view import View
from seewhy.plain import array_of
from seewhy.types import Outputs

__all__ = ["KeypointTarget", "RegionTarget"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionTarget:
    """The mean score of a class over a region, for networks that answer at every place (semantic segmentation).

    Attributes:
        label: the class index.
        region: where: a mask (H, W), above 0 in the region, of any size, which is laid over the whole input; a box
            (x0, y0, x1, y1) or a point (x, y) in pixels of the input; None for the places where the network itself
            sees the class in the image as it is.
        of_picture: the region is given in pixels of the original picture, for `seewhy.explain`.
        size: (height, width) of the input, of which a box or point is in pixels; `seewhy.explain` knows it.

    Raises:
        InvalidTarget: a region that is none.

    Example:
        >>> RegionTarget(label=3, region=(16, 20)).region
        (16, 20)
    """

    label: int
    region: Any = None
    of_picture: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_label(self.label)
        if self.region is None:
            return
        if isinstance(self.region, list):
            object.__setattr__(self, "region", tuple(self.region))
        if isinstance(self.region, tuple) and len(self.region) in (2, 4):
            _check_numbers(self.region)
        else:
            object.__setattr__(self, "region", _mask(self.region))

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The region, where it is a box in pixels of the input."""
        return self.region if isinstance(self.region, tuple) and len(self.region) == 4 and not self.of_picture else None

    @property
    def is_open(self) -> bool:
        """Whether the network has yet to say where the region is."""
        return self.region is None

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) means of the class's scores over the region.

        Raises:
            InvalidTarget: the network does not answer at every place, or the region is not settled.
        """
        label, size = in_range(self.label, outputs), _places(outputs, "RegionTarget")
        if self.is_open:
            raise InvalidTarget(
                "Where the network sees the class is settled for one image at a time. Pass the images one by one, or "
                "region=."
            )
        if self.of_picture:
            raise InvalidTarget(
                "Where a region of the picture lies in the network's input is known to seewhy.explain(model, picture, "
                "target) alone. Pass a region of the input without of_picture=True."
            )
        weights = self._weights(size)
        return (outputs.scores[..., label] * weights.to(outputs.scores)).sum(1)

    def settled(self, outputs: Outputs) -> RegionTarget:
        """Returns the same with the places where the network sees the class, if it has no region of its own.

        Raises:
            InvalidTarget: several images, or the network sees the class nowhere.
        """
        if not self.is_open:
            return self
        label, size = in_range(self.label, outputs), _places(outputs, "RegionTarget")
        if len(outputs.scores) != 1:
            return self
        scores = outputs.scores[0].detach()
        there = scores.argmax(1) == label if outputs.num_classes > 1 else _above(scores[:, 0], outputs.activated)
        if not bool(there.any()):
            best = int(scores.argmax(1).mode().values)
            raise InvalidTarget(
                f"The network sees class {label} nowhere in this image; most of it is class {best}. Pass a region: "
                "RegionTarget(label=..., region=mask, box or point)."
            )
        return replace(self, region=there.view(size).float().cpu())

    def placed(self, view: View, size: tuple[int, int]) -> RegionTarget:
        """Returns the same with its region in pixels of the input of ``size`` (height, width)."""
        known = replace(self, size=self.size or size, of_picture=False)
        if not self.of_picture or self.region is None:
            return known
        if isinstance(self.region, Tensor):
            return replace(known, region=torch.from_numpy(view.to_input(self.region, size)))
        x, y = self.region[:2]
        box = view.box_to_input((x, y, *(self.region[2:] or (x, y))), size)
        return replace(known, region=box[: len(self.region)])

    def _weights(self, places: tuple[int, int]) -> Tensor:
        """(h * w,) that sum to 1."""
        if isinstance(self.region, Tensor):
            laid = F.interpolate(self.region[None, None], places, mode="area")[0, 0]
        elif self.size is None:
            raise InvalidTarget(
                f"Of which input the region {_shown(self.region)} is in pixels is known to seewhy.explain alone. Pass "
                "size=(height, width) of the input."
            )
        else:
            laid = self._laid(places, self.size)
        if not bool(laid.any()):
            of = "" if self.size is None else f" of {self.size[0]} x {self.size[1]} pixels"
            raise InvalidTarget(f"The region {_shown(self.region)} holds no place of the input{of}.")
        return (laid / laid.sum()).flatten()

    def _laid(self, places: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """(h, w) above 0 at the places in the box, or at the one that holds the point."""
        down, across = places[0] / size[0], places[1] / size[1]
        if len(self.region) == 4:
            x0, y0, x1, y1 = self.region
            return torch.as_tensor(box_mask((x0 * across, y0 * down, x1 * across, y1 * down), places)).float()
        laid, x, y = torch.zeros(places), self.region[0] * across, self.region[1] * down
        if 0 <= x < places[1] and 0 <= y < places[0]:
            laid[int(y), int(x)] = 1
        return laid


@dataclass(frozen=True, kw_only=True)
class KeypointTarget:
    """The score of a key point where the network finds it, for networks with one map of scores a key point (pose).

    Attributes:
        index: of the key point.

    Example:
        >>> KeypointTarget(index=5).index
        5
    """

    index: int

    def __post_init__(self) -> None:
        check_label(self.index)

    @property
    def label(self) -> int:
        """The index, by which the key point's name is found."""
        return self.index

    @property
    def is_open(self) -> bool:
        """True: the network has yet to say where the key point is."""
        return True

    def __call__(self, outputs: Outputs) -> Tensor:
        """Raises InvalidTarget: where it is, is settled for one image at a time."""
        raise InvalidTarget(
            "Where a key point is found is settled for one image at a time. Pass the images one by one."
        )

    def settled(self, outputs: Outputs) -> RegionTarget | KeypointTarget:
        """Returns the place with the highest score."""
        index, size = in_range(self.index, outputs), _places(outputs, "KeypointTarget")
        if len(outputs.scores) != 1:
            return self
        place = torch.zeros(size)
        place.view(-1)[int(outputs.scores[0, :, index].detach().argmax())] = 1
        return RegionTarget(label=index, region=place)


def _above(scores: Tensor, activated: bool) -> Tensor:
    return scores > (0.5 if activated else 0)


def _places(outputs: Outputs, name: str) -> tuple[int, int]:
    if outputs.dense is None:
        raise InvalidTarget(
            f"{name} needs a network that answers at every place (semantic segmentation, key points): load it with "
            "output=seewhy.heads.Segmentation() or seewhy.heads.Heatmaps(). For a class use ClassTarget."
        )
    return outputs.dense


def _check_numbers(region: tuple[Any, ...]) -> None:
    good = all(map(is_number, region))
    if not good or (len(region) == 4 and not (region[0] < region[2] and region[1] < region[3])):
        raise InvalidTarget(
            "A region is a mask (H, W), a box (x0, y0, x1, y1) with x0 < x1 and y0 < y1, or a point (x, y), got "
            f"{region}."
        )


def _mask(region: Any) -> Tensor:
    """(H, W) float, above 0 in the region."""
    try:
        found = torch.as_tensor(array_of(region)).float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTarget(
            f"A region is a mask (H, W), a box (x0, y0, x1, y1) or a point (x, y), got {type(region).__name__}."
        ) from error
    if found.ndim != 2 or not bool((found > 0).any()):
        raise InvalidTarget(f"A mask of a region is (H, W) and not empty, got shape {tuple(found.shape)}.")
    return (found > 0).float()


def _shown(region: Any) -> str:
    return f"mask of shape {tuple(region.shape)}" if isinstance(region, Tensor) else str(tuple(region))

"""Torchvision's detectors with every candidate: what they compute before they suppress.

Each network here has the parts of a detector under their own names (so that layers are called as in torchvision and
checkpoints fit) and runs them up to the decoded boxes. Classes keep torchvision's labels: index 0 is the background of
SSD, Faster R-CNN and Mask R-CNN, with scores of 0. Boxes are in pixels of the input, also where a detector resizes it.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.checks import check_count
from seewhy.errors import InvalidType
from seewhy.images.preprocessing import Preprocessing
from seewhy.models.adapters import unwrapped
from seewhy.models.box_formats import paste
from seewhy.types import Grid, Outputs

__all__ = ["Candidates", "adapted", "detector", "preprocessing"]

_making = threading.Lock()
_made: WeakKeyDictionary[nn.Module, Candidates] = WeakKeyDictionary()


class Candidates(nn.Module):
    """The parts of a detector.

    Attributes:
        title: the class of the detector.
        map_layer: the layer of methods that look at one map: the last of the backbone's body, before any pyramid.
    """

    transform: Any
    backbone: Any
    anchor_generator: Any
    head: Any
    rpn: Any
    roi_heads: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        self.title = type(network).__name__
        self.box_coder: Any = getattr(network, "box_coder", None)
        self.map_layer = _map_layer(network)
        self.train(network.training)

    def forward(self, images: Tensor) -> Outputs:
        """(N, C, H, W) in [0, 1] -> every candidate."""
        shown, _ = self.transform(list(images))
        found = self.backbone(shown.tensors)
        levels = {"0": found} if isinstance(found, Tensor) else found
        return self._read(shown, levels, (images.shape[2], images.shape[3]))

    def padding(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Returns a warning where the maps of an input of this size cover more than the input, because it is padded."""
        own = self.transform
        if own.fixed_size is not None:
            return ()
        scale = min(own.min_size[-1] / min(size), own.max_size / max(size))
        inner = [int(side * scale) for side in size]
        beyond = max(-(-side // own.size_divisible) * own.size_divisible / side for side in inner) - 1
        if beyond <= 0.01:
            return ()
        return (
            f"{self.title} pads its input to whole multiples of {own.size_divisible} pixels, so the layer's map covers "
            f"up to {beyond:.0%} more than the picture and is shifted by as much at the right and lower border.",
        )

    def _read(self, shown: Any, levels: dict[str, Tensor], size: tuple[int, int]) -> Outputs:
        raise NotImplementedError


class _OneStage(Candidates):
    """A head on every level of a pyramid."""

    def _read(self, shown: Any, levels: dict[str, Tensor], size: tuple[int, int]) -> Outputs:
        maps = list(levels.values())
        found = self.head(maps)
        anchors = torch.stack(self.anchor_generator(shown, maps))
        scores = self._scores(found)
        inner = shown.image_sizes[0]
        boxes = _to_input(self._boxes(found["bbox_regression"], anchors), inner, size)
        reach = (shown.tensors.shape[2] / inner[0], shown.tensors.shape[3] / inner[1])
        places = [(m.shape[2], m.shape[3]) for m in maps]
        return Outputs(scores=scores, boxes=boxes, activated=True, grids=self._grids(places, reach))

    def _scores(self, found: dict[str, Tensor]) -> Tensor:
        return found["cls_logits"].float().sigmoid()

    def _boxes(self, codes: Tensor, anchors: Tensor) -> Tensor:
        each = [self.box_coder.decode_single(c, a) for c, a in zip(codes.float(), anchors, strict=True)]
        return torch.stack(each)

    def _grids(self, places: list[tuple[int, int]], reach: tuple[float, float]) -> tuple[Grid, ...]:
        counts = self.anchor_generator.num_anchors_per_location()
        return tuple(Grid(h, w, a, reach=reach) for (h, w), a in zip(places, counts, strict=True))


class _RetinaNet(_OneStage):
    """Sigmoid of the class logits."""


class _FCOS(_OneStage):
    """The geometric mean of class probability and centreness."""

    def _scores(self, found: dict[str, Tensor]) -> Tensor:
        return (found["cls_logits"].float().sigmoid() * found["bbox_ctrness"].float().sigmoid()).sqrt()

    def _boxes(self, codes: Tensor, anchors: Tensor) -> Tensor:
        return self.box_coder.decode(codes.float(), anchors)  # type: ignore[no-any-return]  # torchvision declares nothing


class _SSD(_OneStage):
    """Softmax with a background class."""

    def _scores(self, found: dict[str, Tensor]) -> Tensor:
        return _foreground(found["cls_logits"])


class _FasterRCNN(Candidates):
    """Each proposal of the first stage with a box for every class."""

    def _read(self, shown: Any, levels: dict[str, Tensor], size: tuple[int, int]) -> Outputs:
        found, boxes = self._proposed(shown, levels)
        return Outputs(scores=found, boxes=_to_input(boxes, shown.image_sizes[0], size), activated=True)

    def _proposed(self, shown: Any, levels: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(N, Q, K) probabilities and (N, Q, K, 4) boxes in pixels of what the backbone saw; Q is always the same."""
        proposals, _ = self.rpn(shown, levels)
        pooled = self.roi_heads.box_roi_pool(levels, proposals, shown.image_sizes)
        logits, codes = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        boxes = self.roi_heads.box_coder.decode(codes.float(), proposals).reshape(*logits.shape, 4)
        counts, most = [len(p) for p in proposals], self.rpn.post_nms_top_n()
        scores = [_padded(s, most) for s in _foreground(logits).split(counts)]
        return torch.stack(scores), torch.stack([_padded(b, most) for b in boxes.split(counts)])


class _MaskRCNN(_FasterRCNN):
    """The best boxes of single classes, suppressed class by class but with no least score, each with its mask.

    The mask head is run on as many boxes as torchvision runs it on; all proposals of all classes would be a thousand
    times as many.
    """

    def __init__(self, network: nn.Module, side: int = 128) -> None:
        super().__init__(network)
        self.side = side

    def _read(self, shown: Any, levels: dict[str, Tensor], size: tuple[int, int]) -> Outputs:
        scores, boxes = self._proposed(shown, levels)
        inner = shown.image_sizes[0]
        chosen = [self._best(s, b) for s, b in zip(scores, _clipped(boxes, inner), strict=True)]
        values, labels, places = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        pooled = self.roi_heads.mask_roi_pool(levels, list(places), shown.image_sizes)
        logits = self.roi_heads.mask_predictor(self.roi_heads.mask_head(pooled)).float()
        masks = logits[torch.arange(len(logits), device=logits.device), labels.flatten()].sigmoid()
        boxes = _to_input(places, inner, size)
        one_hot = F.one_hot(labels, scores.shape[2]) * values.unsqueeze(-1)
        share = min(1.0, self.side / max(size))
        frame = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
        pasted = paste(masks.view(*labels.shape, *masks.shape[1:]), boxes, size, frame)
        return Outputs(scores=one_hot, boxes=boxes, masks=pasted, activated=True)

    def _best(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(D,) scores, (D,) labels and (D, 4) boxes of one image; padded with scores of 0."""
        from torchvision.ops import batched_nms

        count, k = self.roi_heads.detections_per_img, scores.shape[1]
        wide = (boxes[..., 2:] - boxes[..., :2] >= 1e-2).all(-1)  # torchvision takes no thinner ones
        values, flat = (scores * wide).flatten().topk(min(scores.numel(), 20 * count))
        labels, places = flat % k, boxes.flatten(0, 1)[flat]
        kept = batched_nms(places.detach(), values.detach(), labels, self.roi_heads.nms_thresh)[:count]
        return _padded(values[kept], count), _padded(labels[kept], count), _padded(places[kept], count)


_KINDS = {"RetinaNet": _RetinaNet, "FCOS": _FCOS, "SSD": _SSD, "MaskRCNN": _MaskRCNN, "FasterRCNN": _FasterRCNN}


def adapted(network: nn.Module) -> nn.Module:
    """Returns a torchvision detector with all its candidates; any other network as it is.

    The same network gives the same answer as long as its parts are the same.
    """
    kind = _kind(network)
    if kind is None:
        return network
    with _making:  # one for all threads: making it switches the modes of its parts
        made, parts = _made.get(network), dict(network.named_children())
        if made is None or dict(made.named_children()) != parts:
            made = _made[network] = kind(network)
        return made


def detector(network: nn.Module, *, masks: bool = True, mask_side: int = 128) -> Candidates:
    """Returns a torchvision detector (RetinaNet, FCOS, SSD, Faster, Mask or Keypoint R-CNN) with all its candidates.

    `seewhy.load` does this by itself; here it can be chosen what Mask R-CNN gives.

    Args:
        network: the detector.
        masks: False for boxes alone: every proposal with a box for each class.
        mask_side: cells along the longer side of the masks; at most the input's pixels.

    Raises:
        InvalidType: not a detector of torchvision.
        InvalidInput: mask_side is not a positive integer.
    """
    network = unwrapped(network)
    kind = _kind(network)
    if kind is None:
        raise InvalidType(
            f"Expected a detector of torchvision, got {type(network).__name__}. For others pass an adapter: "
            "seewhy.load(network, output=seewhy.heads.YOLOv8(...))."
        )
    check_count("mask_side", mask_side)
    if kind is not _MaskRCNN:
        return kind(network)
    return _MaskRCNN(network, mask_side) if masks else _FasterRCNN(network)


def preprocessing(network: nn.Module) -> Preprocessing | None:
    """How a picture becomes an input of a detector that subtracts the mean and resizes by itself."""
    if not isinstance(network, Candidates):
        return None
    own = network.transform
    # The detector resizes what it is given, and would do so again: a picture that it makes larger is left as it is, and
    # one that it makes smaller is made so beforehand in the detector's own way.
    plain: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "sampled"}
    if own.fixed_size is not None:
        width, height = own.fixed_size
        return Preprocessing(size=(height, width), fit="squash", **plain)
    return Preprocessing(size=(own.min_size[-1], max(own.min_size[-1], own.max_size)), fit="keep", **plain)


def _kind(network: nn.Module) -> type[Candidates] | None:
    """Finds the kind by the network's first class of torchvision; one with a forward of its own may do anything."""
    base: Any
    for base in type(network).__mro__:
        if base.__module__.startswith("torchvision.models.detection."):
            found = [b.__name__ for b in base.__mro__ if b.__name__ in _KINDS]
            return _KINDS[found[0]] if found and type(network).forward is base.forward else None
    return None


def _map_layer(network: nn.Module) -> str | None:
    backbone = network.get_submodule("backbone")
    for path in ("body", "features"):
        part = getattr(backbone, path, None)
        if isinstance(part, nn.ModuleDict) and len(part):
            return f"backbone.{path}.{list(part)[-1]}"
        if isinstance(part, nn.Sequential):
            return f"backbone.{path}.{len(part) - 1}"
    return None


def _foreground(logits: Tensor) -> Tensor:
    """Returns the softmax with class 0, the background, set to 0."""
    likely = logits.float().softmax(-1)
    return torch.cat([torch.zeros_like(likely[..., :1]), likely[..., 1:]], -1)


def _padded(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])]) if len(rows) < count else rows


def _clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp_min(0), limits)


def _to_input(boxes: Tensor, inner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes in pixels of the resized picture, cut at its border -> in pixels of the input."""
    ratio = (size[1] / inner[1], size[0] / inner[0])
    return _clipped(boxes, inner) * boxes.new_tensor([*ratio, *ratio])

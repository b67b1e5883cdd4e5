"""Instance masks for NanoDet-g: its features at strides 4, 8 and 16, sampled in each box, and a small head on them.

RoIAlign (He et al. 2017, arXiv 1703.06870) with one sample a bin: 14 x 14 bilinear samples of each feature map in the
box. Three convolutions, an upsampling and a last one give a mask of 28 x 28 in the box, of whatever class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from seewhy.models.box_formats import paste
from seewhy.models.heads import NanoDet
from seewhy.models.tfjs.graph import TFJSGraph, read
from seewhy.types import Outputs

__all__ = ["FEATURES", "MaskHead", "NanoDetMasks"]

FEATURES = (
    "PartitionedCall/onnx_tf_prefix_Concat_12",
    "PartitionedCall/onnx_tf_prefix_Add_107",
    "PartitionedCall/onnx_tf_prefix_Add_128",
)
_CHANNELS, _BINS = (64, 128, 128), 14
_FRAME = (104, 104)  # of the masks in the outputs: a quarter of the input
_KEPT = 100  # candidates that get a mask


class MaskHead(nn.Module):
    """Feature maps and boxes -> logits of masks, each 28 x 28 in its box. Input: 416 x 416."""

    def __init__(self, width: int = 24, inner: int = 48) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in _CHANNELS)
        self.layers = nn.Sequential(
            nn.Conv2d(width * len(_CHANNELS), inner, 3, padding=1), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(inner, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 1, 1),
        )  # fmt: skip

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, C, h, w) maps and (N, Q, 4) boxes in pixels of an input of ``size`` -> (N, Q, 28, 28)."""
        n, q = boxes.shape[:2]
        own = [align(reduce(one), boxes, size) for reduce, one in zip(self.reduce, maps, strict=True)]
        found: Tensor = self.layers(torch.cat(own, 2).flatten(0, 1))
        return found.view(n, q, *found.shape[2:])


def align(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) maps in (N, Q, 4) boxes -> (N, Q, C, 14, 14), bilinear at the middle of each bin."""
    n, q = boxes.shape[:2]
    share = (torch.arange(_BINS, device=boxes.device) + 0.5) / _BINS
    low, high = boxes[..., :2, None], boxes[..., 2:, None]
    height, width = size
    x, y = ((low + (high - low) * share) * (2 / boxes.new_tensor([width, height]))[:, None] - 1).unbind(2)
    grid = torch.stack([x[:, :, None].expand(n, q, _BINS, _BINS), y[..., None].expand(n, q, _BINS, _BINS)], -1)
    found = F.grid_sample(maps, grid.flatten(1, 2).to(maps.dtype), padding_mode="border", align_corners=False)
    return found.view(n, maps.shape[1], q, _BINS, _BINS).transpose(1, 2)


class NanoDetMasks(nn.Module):
    """NanoDet-g and a mask head: the best candidates with their masks as `Outputs`."""

    def __init__(self, graph: TFJSGraph, head: MaskHead, boxes: NanoDet) -> None:
        super().__init__()
        self.graph, self.masks, self.read = graph, head, boxes

    @classmethod
    def load(cls, graph: Path, masks: str | Path, boxes: NanoDet) -> NanoDetMasks:
        """Loads the detector's file and the head's weights."""
        head = MaskHead()
        head.load_state_dict({name: value.float() for name, value in load_file(masks).items()})
        return cls(cls.detector(graph, boxes), head, boxes).eval()

    @staticmethod
    def detector(graph: Path, boxes: NanoDet) -> TFJSGraph:
        """Returns the detector with the feature maps among its outputs."""
        places = [place for place in (boxes.scores, boxes.boxes) if isinstance(place, tuple)]
        return read(graph, [*(str(name) for place in places for name in place), *FEATURES])

    def forward(self, images: Tensor) -> Outputs:
        """(N, 3, 416, 416) -> the 100 likeliest candidates of each image."""
        raw = self.graph(images)
        found = self.read(raw)
        assert found.boxes is not None  # a detector's outputs have them
        best = found.scores.amax(2).topk(_KEPT, 1).indices[..., None]
        boxes = found.boxes.gather(1, best.expand(-1, -1, 4))
        logits = self.masks([raw[name] for name in FEATURES], boxes.to(images.dtype), self.read.size)
        return Outputs(
            scores=found.scores.gather(1, best.expand(-1, -1, found.num_classes)),
            boxes=boxes,
            masks=paste(logits.float().sigmoid(), boxes, self.read.size, _FRAME),
            activated=True,
        )

"""How to read the heads of detectors, segmenters and pose networks: adapters for ``seewhy.load(network, output=...)``.

    model = seewhy.load(network, output=seewhy.heads.YOLOv8(size=(640, 640)))

Each turns what the network returns into every candidate before suppression, with its full row of class
probabilities. Torchvision's detectors need none: they are known (`detector` chooses what Mask R-CNN gives).
"""

from seewhy.models.dense_readers import Heatmaps, MaskQueries, Segmentation
from seewhy.models.head_readers import DETR, RTDETR, SSD, DenseBoxes, NanoDet
from seewhy.models.torch.detectors import detector
from seewhy.models.yolo import YOLOX, EndToEnd, YOLOv5, YOLOv8
from seewhy.types import Grid

__all__ = [
    "DETR", "RTDETR", "SSD", "YOLOX", "DenseBoxes", "EndToEnd", "Grid", "Heatmaps", "MaskQueries", "NanoDet",
    "Segmentation", "YOLOv5", "YOLOv8", "detector",
]  # fmt: skip

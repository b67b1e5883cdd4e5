"""NanoDet-g: a small one-stage detector of 80 classes (COCO), as a torch network.

It is read from a TensorFlow.js graph. Scores are probabilities of a sigmoid for each of 3549 positions at strides 8, 16
and 32; boxes are distance distributions (R. Lyu, NanoDet, 2020; Generalized Focal Loss, 2020, arXiv 2006.04388).

The input is BGR with ImageNet's mean and deviation: on 120 cut-outs of known class and place this gives the best
product of score and overlap (docs/detection_models.md).
"""

from __future__ import annotations

from pathlib import Path

from seewhy.images.preprocessing import Preprocessing
from seewhy.models.heads import NanoDet
from seewhy.models.tfjs.graph import read
from seewhy.models.torch.model import TorchModel
from seewhy.zoo.fetching import need
from seewhy.zoo.masks import NanoDetMasks

__all__ = ["CLASS_LAYERS", "COCO", "SIZE", "nanodet"]

SIZE = (416, 416)
SCORES = ("Identity:0", "Identity_1:0", "Identity_2:0")
BOXES = ("Identity_3:0", "Identity_4:0", "Identity_5:0")
CLASS_LAYERS = ("PartitionedCall/transpose_99", "PartitionedCall/transpose_105", "PartitionedCall/transpose_111")
"""The last convolutions of the head at strides 8, 16 and 32: 80 class logits, then 44 of the box."""

HEAD = NanoDet(size=SIZE, scores=SCORES, boxes=BOXES, reg_max=10)
PREPROCESSING = Preprocessing(
    size=SIZE,
    mean=(0.406, 0.456, 0.485),
    std=(0.225, 0.224, 0.229),
    fit="letterbox",
    channels="BGR",
)

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def nanodet(folder: str | Path | None = None, *, masks: str | Path | None = None) -> TorchModel:
    """NanoDet-g as a model that gives scores, boxes, features and gradients.

    Args:
        folder: where the files were fetched to; None for `seewhy.zoo.folder`.
        masks: weights of a mask head (safetensors). Then the outputs are the 100 best candidates with instance masks.

    Raises:
        CheckpointError: the files are not there; the message says how to fetch them.
    """
    graph, _ = need("nanodet", folder)
    if masks is not None:
        network = NanoDetMasks.load(graph, masks, HEAD)
        return TorchModel(network, preprocessing=PREPROCESSING, labels=COCO, title="NanoDet-g with masks")
    return TorchModel(read(graph), output=HEAD, preprocessing=PREPROCESSING, labels=COCO, title="NanoDet-g")

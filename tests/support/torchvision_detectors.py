"""Small torchvision detectors with random weights that say something."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn


def torchvision_detector(kind: str) -> nn.Module:
    """A copy of its own for each test."""
    return copy.deepcopy(_built(kind))


@cache
def _built(kind: str) -> nn.Module:
    """A small detector with random weights that say something, and no least score."""
    zoo = pytest.importorskip("torchvision.models.detection")
    bones = pytest.importorskip("torchvision.models.detection.backbone_utils")
    none: dict[str, Any] = {"weights": None, "weights_backbone": None}
    most: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": 40, "nms_thresh": 0.5, "topk_candidates": 10**5}
    boxes: dict[str, Any] = {"box_score_thresh": 0.0, "box_detections_per_img": 40, "box_nms_thresh": 0.5}
    sizes: dict[str, Any] = {"min_size": 96, "max_size": 160}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "ssd":
            made = zoo.ssdlite320_mobilenet_v3_large(num_classes=6, **none, **most)
        elif kind in ("retina", "fcos"):
            body = bones.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
            made = {"retina": zoo.RetinaNet, "fcos": zoo.FCOS}[kind](body, num_classes=6, **most, **sizes)
        elif kind == "mask":
            body = bones.resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=[3, 4])
            anchors = zoo.rpn.AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3)
            made = zoo.MaskRCNN(body, num_classes=6, rpn_anchor_generator=anchors, **boxes, **sizes)
        else:
            made = zoo.fasterrcnn_mobilenet_v3_large_320_fpn(num_classes=6, **none, **boxes)
        _stirred(made, kind)
    return made.eval().requires_grad_(False)


def _stirred(network: nn.Module, kind: str) -> None:
    """Random weights of a kind that the scores of two places differ by more than rounding."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and kind in ("ssd", "fcos"):
            share = 0.1 if "bbox_reg" in name else 0.5 if "head." in name else 1.0  # boxes that have an area
            nn.init.normal_(module.weight, 0, share * (2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 1.0 if "bbox_reg" in name and kind == "fcos" else 0.05, 0.05)

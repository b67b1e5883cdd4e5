"""Every explainer that the registry finds, with small parameters, and the networks that it is tried on."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy import registry
from seewhy.explainers import Explainer
from seewhy.ood.ood_net import OoDNet
from support import detector_networks, networks, token_networks
from support.networks import CLASSES

NAMES = registry.names("explainers")
SMALL: dict[str, dict[str, Any]] = {"rise": {"num_masks": 16}, "occlusion": {"window": 8, "stride": 4},
    "rise_plus": {"num_masks": 16}, "hierarchical_perturbation": {"grid": 2}, "hsic": {"num_masks": 16},
    "kernel_shap": {"grid": 2, "num_masks": 63}, "lime": {"grid": 2, "num_masks": 63},
    "integrated_gradients": {"steps": 12}, "smooth_grad": {"samples": 6}, "tis": {"num_masks": 12}}  # fmt: skip
TOKENS = ("vit_recipro_cam", "le_grad", "attention_rollout", "tis")  # they look at a transformer's tokens
DETECTIONS = ("det_class_probability_map", "instance_maps")  # they look at a detector's candidates
LAYERED = [n for n in NAMES if "layer" in [f.name for f in fields(registry.load("explainers", n))]]
BATCHED = [n for n in NAMES if "perturbation_per_eval" in [f.name for f in fields(registry.load("explainers", n))]]

every = pytest.mark.parametrize("name", NAMES)


def make(name: str, network: Any, **parameters: Any) -> Explainer:
    kind, options = registry.load("explainers", name), {**SMALL.get(name, {}), **parameters}
    return kind(familiar(network), network=network, **options) if name == "rise_plus" else kind(network, **options)


@cache
def familiar(network: nn.Module) -> OoDNet:
    """An out-of-distribution network for which pictures with many channels active are familiar; noise is, black not."""
    with torch.random.fork_rng():
        ood_net = OoDNet(network, CLASSES)
    nn.init.ones_(ood_net.class_vectors)
    return ood_net


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol * max(1.0, float(b.abs().max())), rtol=0)


def zoo(name: str) -> Any:
    """The networks that a method is tried on."""
    return token_networks if name in TOKENS else detector_networks if name in DETECTIONS else networks

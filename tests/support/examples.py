"""What examples in docstrings may use without making it: small networks, a batch, truths, a photograph."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import seewhy
from support import detector_networks, run_jobs, token_networks
from support.networks import Pooled, build, pictures


@cache
def _run() -> str:
    place = tempfile.mkdtemp(prefix="seewhy-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    run_jobs.run(Path(place) / "run", 4, explainers=["grad_cam"], metrics=["pointing_game(tolerance=0)"], features={})
    return str(Path(place) / "run")


def names() -> dict[str, Any]:
    """New ones for each docstring, so that no example sees what another did.

    network: a classifier of five classes for inputs of 32 x 32; transformer, detector: likewise, with boxes.
    inputs: (2, 3, 32, 32) for them. masks: (2, 32, 32), the object in each. photo: 60 x 40 pixels. preprocessing:
    from the photo to the input. run: the folder of a run over four images with GradCAM's maps and features.
    """
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    return {
        "seewhy": seewhy,
        "torch": torch,
        "network": build(Pooled),
        "transformer": build(token_networks.Pooled),
        "detector": build(detector_networks.Pooled),
        "inputs": pictures(),
        "masks": masks,
        "photo": Image.fromarray(pixels),
        "run": _run(),
        "preprocessing": seewhy.Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
    }

"""What Robustness and MaxSensitivity have in common: how far a map moves when noise is put on the image."""

from __future__ import annotations

from typing import Any

import torch

from seewhy.checks import check_count, check_flag, check_number, check_seed
from seewhy.maps import scale
from seewhy.metrics import Case
from seewhy.metrics._chance import seeds, uniform
from seewhy.perturbation import batch_size, chunked
from seewhy.progress import listening

__all__ = ["check", "largest_change"]


def check(metric: Any) -> None:
    """Raises InvalidInput unless the parameters of the noise can be used."""
    batch_size(metric.perturbation_per_eval)
    check_number("radius", metric.radius)
    check_count("samples", metric.samples)
    check_seed(metric.seed)
    check_flag("scaled", metric.scaled)


def largest_change(metric: Any, case: Case) -> float:
    """Returns the largest |S(x + d) - S(x)| / |S(x)| over d, in Euclidean norms; NaN where S(x) is zero everywhere.

    The class stays that of the case.

    Args:
        metric: says how many d there are (``samples``), from which ``seed``, uniform within +-``radius`` in the
            network's input space; how many noisy images are explained together (``perturbation_per_eval``), and
            whether all maps, that of the case too, are first scaled to [0, 1] (``scaled``).
        case: the image, its map, and how others are explained.
    """
    scaled, samples = metric.scaled, metric.samples
    assert case.explain is not None
    explain, clean = case.explain, (scale(case.saliency[None])[0] if scaled else case.saliency).double()
    size = float(clean.norm())
    if size == 0:
        return float("nan")
    sources = seeds(metric.seed, samples)
    changes = torch.zeros(samples, dtype=torch.float64)

    def work(start: int, stop: int) -> None:
        noise = metric.radius * uniform(sources[start:stop], case.image.shape)
        with listening(None):  # progress counts the noisy images, not what explaining each of them takes
            maps = explain(case.image + noise.to(case.image), case.target)
        moved = (scale(maps) if scaled else maps).double() - clean
        changes[start:stop] = moved.flatten(1).norm(dim=1).cpu()

    chunked(work, samples, metric.perturbation_per_eval)
    return float(changes.max()) / size

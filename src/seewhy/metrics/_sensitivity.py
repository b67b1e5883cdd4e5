"""What Robustness and MaxSensitivity have in common: how far a map moves when noise is put on the picture."""

from __future__ import annotations

import torch

from seewhy.maps import scale
from seewhy.metrics import Case
from seewhy.metrics._chance import seeds, uniform
from seewhy.perturbation import chunked
from seewhy.progress import listening

__all__ = ["largest_change"]


def largest_change(
    case: Case, *, radius: float, samples: int, seed: int, per_eval: int | str, scaled: bool
) -> float:  # fmt: skip
    """The largest |S(x + d) - S(x)| / |S(x)| over d, in Euclidean norms; NaN where S(x) is zero everywhere.

    The class stays that of the case.

    Args:
        case: the picture, its map, and how others are explained.
        radius: d is uniform within +-radius, in the network's input space.
        samples: how many d there are.
        seed: of d.
        per_eval: noisy pictures explained together, or "auto".
        scaled: all maps, that of the case too, are first scaled to [0, 1].
    """
    assert case.explain is not None
    explain, clean = case.explain, (scale(case.saliency[None])[0] if scaled else case.saliency).double()
    size = float(clean.norm())
    if size == 0:
        return float("nan")
    sources = seeds(seed, samples)
    changes = torch.zeros(samples, dtype=torch.float64)

    def work(start: int, stop: int) -> None:
        noise = radius * uniform(sources[start:stop], case.image.shape)
        with listening(None):  # progress counts the noisy pictures, not what explaining each of them takes
            maps = explain(case.image + noise.to(case.image), case.target)
        moved = (scale(maps) if scaled else maps).double() - clean
        changes[start:stop] = moved.flatten(1).norm(dim=1).cpu()

    chunked(work, samples, per_eval)
    return float(changes.max()) / size

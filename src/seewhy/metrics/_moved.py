"""Whether it matters where a map is bright: the map beside itself, moved to other places of the same image.

A map is moved by thirds of the image's height and width, what leaves at one side coming in at the other: eight maps
with exactly the same values and texture, which are bright where the explainer did not say. For the map and each of the
eight, with a few shares s of the pixels, by falling saliency:

    worth = mean over s of ( p(shown on the blurred image) - p(removed, set to the mean colour) ) / p(whole)

which is insertion minus deletion with few steps. The order of equal pixels is drawn. Moved maps are a harder test than
noise: noise is bad at insertion whatever the map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.metrics import Case, scores
from seewhy.metrics._curves import places, relevance
from seewhy.types import Activation

__all__ = ["EQUAL", "MOVED", "PASSES", "SHARES", "Worth", "worth"]

SHARES = (0.05, 0.15, 0.4)
MOVED = tuple((down, across) for down in range(3) for across in range(3) if (down, across) != (0, 0))
EQUAL = 0.01  # of the score: what differs by less is worth the same
PASSES = 1 + 2 * len(SHARES) * (1 + len(MOVED))


class Worth(NamedTuple):
    """What a map's brightest pixels are worth: of the map, and of its moved copies."""

    own: float
    moved: tuple[float, ...]

    @property
    def beaten(self) -> int:
        """How many of the moved copies are worth less, those within `EQUAL` counting half (rounded down)."""
        less = sum(other < self.own - EQUAL for other in self.moved)
        return less + sum(abs(other - self.own) <= EQUAL for other in self.moved) // 2


def worth(case: Case, activation_fn: str | Activation | None, per_eval: int | str, seed: int) -> Worth | None:
    """See above; None where the network gives the whole image no positive score."""
    height, width = case.saliency.shape
    raw = relevance(case)
    maps = [raw, *(raw.roll((down * height // 3, across * width // 3), (0, 1)) for down, across in MOVED)]
    order = torch.stack([places(one, seed + i) for i, one in enumerate(maps)]).to(case.image.device)
    counts = torch.tensor([max(1, round(share * raw.numel())) for share in SHARES], device=order.device)
    masks = (order.unsqueeze(1) < counts.view(1, -1, 1, 1)).flatten(0, 1)  # (maps * shares, H, W)
    blurred, plain = (baselines.make(what, case.image.unsqueeze(0))[0] for what in ("blur", "mean"))

    def change(index: Tensor) -> Tensor:
        which = (index - 1).clamp_min(0)
        without = (which % 2 == 1).view(-1, 1, 1)  # these are removed; the others are shown alone
        kept = (masks[which // 2] ^ without) | (index == 0).view(-1, 1, 1)
        return torch.where(kept.unsqueeze(1), case.image, torch.where(without.unsqueeze(1), plain, blurred))

    found = scores(case, change, 1 + 2 * len(masks), activation_fn=activation_fn, per_eval=per_eval).double().cpu()
    if not float(found[0]) > 0:
        return None
    pairs = (found[1:] / found[0]).view(len(maps), len(SHARES), 2)
    each = (pairs[..., 0] - pairs[..., 1]).mean(1).tolist()
    return Worth(each[0], tuple(each[1:]))

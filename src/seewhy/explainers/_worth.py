"""Finds maps that show nothing: what their values are worth is negligible in the method's own unit.

What a map is worth follows from what its values are (`seewhy.plain.Meaning`):

    change     the largest size of a value
    part       the sum of their sizes: each place may have little, all of them together make the score
    level      the largest minus the smallest
    alone      the sum of what is above the smallest

Slopes and sizes have no unit in which they could be small, so nothing is said of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers._checks import at_places
from seewhy.maps import places
from seewhy.plain import FLAT, NOTHING, Meaning
from seewhy.targets import BoxTarget, ClassTarget, Detection, DRISETarget, MaskTarget
from seewhy.types import Note

__all__ = ["LEAST", "negligible", "worth"]

LEAST = {"probability": 1e-3, "similarity": 1e-3, "logit": 1e-2}
OF_SCORE = 1e-4  # of a score whose unit is not known: such a share of it
_SCORED = (BoxTarget, ClassTarget, Detection, DRISETarget, MaskTarget)
_TOLD = {
    "change": "the strongest value of its map is a change of the {0} by {1:.2g}",
    "part": "all values of its map together are {1:.2g} of the {0}",
    "level": "within its map the {0} differs by {1:.2g}",
    "alone": "what the places of its map add to the {0} is {1:.2g} altogether",
}


def negligible(found: Attribution, meaning: Meaning) -> list[Note]:
    """Notes of the maps that show nothing, by which they are drawn faint; flat maps have a note of their own.

    Args:
        found: the maps.
        meaning: what their values are.
    """
    size = worth(found.raw, meaning)
    if size is None:
        return []
    quantity = _quantity(found)
    least = torch.full_like(size, LEAST.get(quantity, 0.0))
    if quantity not in LEAST:
        least = OF_SCORE * found.targets.values(found.outputs).to(size).abs()
    low, high = found.raw.amin(places(found.raw)), found.raw.amax(places(found.raw))
    flat = high - low <= FLAT * torch.maximum(low.abs(), high.abs())
    other = found.quantity == "probability" and not found.outputs.activated
    about_logit = " With activation_fn=None the map is about the logit." if other else ""
    name = "score" if quantity == "value" else quantity

    def text(i: int, t: int) -> str:
        told = _TOLD[meaning].format(name, float(size[i, t]))
        return f"{told}; below {float(least[i, t]):.2g} a map shows nothing, so it is drawn faint.{about_logit}"

    return at_places((size < least) & ~flat, NOTHING, text)


def worth(raw: Tensor, meaning: Meaning) -> Tensor | None:
    """(N, T) what maps (N, T, h, w) are worth, in the unit of their score; None where they have none."""
    axes = places(raw)
    if meaning == "change":
        return raw.abs().amax(axes)
    if meaning == "part":
        return raw.abs().sum(axes)
    low = raw.amin(axes, keepdim=True)
    if meaning == "level":
        return (raw - low).amax(axes)
    return (raw - low).sum(axes) if meaning == "alone" else None


def _quantity(found: Attribution) -> str:
    """What the scores are that the maps speak of: a key of `LEAST`, or "value"."""
    outputs, targets = found.outputs, found.targets
    if not targets.activates:
        return "similarity"
    if not all(isinstance(one, _SCORED) for one in targets.targets) or outputs.meaning != "classes":
        return "value"
    return found.quantity or ("probability" if outputs.activated else "logit")

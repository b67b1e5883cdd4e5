"""AttentionRollout: how the image's tokens reach the tokens that the head reads, through the attention of all blocks.

    relevance="gradient"     E_l = mean over heads of ReLU( A_l * d logit_c / d A_l ),   R = prod_l (I + E_l)
    relevance="attention"    E_l = mean over heads of A_l,                               R = prod_l (I + E_l) / 2
    map(j) = R(i, j), the mean over the tokens i that the head reads: the class token, or all where they are pooled

The first weighs each attention by what it means for the class (Chefer et al., "Generic Attention-model Explainability
for Interpreting Bi-Modal and Encoder-Decoder Transformers", 2021, arXiv 2103.15679, equations 5 and 6). The second is
plain rollout, the same for every class (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, arXiv
2005.00928). No propagation rules for relevance (LRP) are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_choice
from seewhy.explainers import Explainer
from seewhy.explainers._transformer import bypassed, inside
from seewhy.maps import full_precision
from seewhy.models import GradientModel, Transformer
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Note, Outputs

__all__ = ["AttentionRollout"]

_SAME = "The map is the same for every class: plain rollout does not look at the target."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttentionRollout(Explainer):
    """Attention of all blocks multiplied up, each weighted by its gradient for the class (Chefer 2021).

    Attributes:
        relevance: "gradient", or "attention" for plain rollout, which is the same for every class.

    Example:
        >>> AttentionRollout(transformer)(inputs).shape
        torch.Size([2, 1, 32, 32])
    """

    relevance: Literal["gradient", "attention"] = "gradient"

    needs: ClassVar[type] = GradientModel
    values: ClassVar[Meaning] = "size"

    def __post_init__(self) -> None:
        check_choice("relevance", self.relevance, ("gradient", "attention"))

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        body = inside(model, inputs, type(self).__name__)
        chosen: list[TargetSet] = []

        def pick(own: Outputs, attached: Outputs) -> Tensor:
            chosen.append(request.resolve(own))
            return chosen[0].values(attached)

        found = body.attentions(inputs, pick, alone=False)
        weights = [w.float() for w in found.weights]
        if self.relevance == "attention":
            one = _rolled([w.mean(1) for w in weights], body, half=True)
            maps = one.unsqueeze(1).expand(-1, found.count, -1, -1).contiguous()
        else:
            each = (
                [(w * g).relu().mean(1) for w, g in zip(weights, found.of(t), strict=True)] for t in range(found.count)
            )
            maps = torch.stack([_rolled(relevant, body, half=False) for relevant in each], 1)
        same = (Note(text=_SAME, kind="same for every class"),) if self.relevance == "attention" else ()
        return Attribution(raw=maps, outputs=found.outputs, targets=chosen[0], notes=(*bypassed(body), *same))


def _rolled(blocks: list[Tensor], body: Transformer, half: bool) -> Tensor:
    """(N, h, w): the rows of the product that the head reads, from blocks (N, L, L); from the last block back."""
    reads = body.reads.to(blocks[0])
    row = (reads / reads.sum()).expand(len(blocks[0]), 1, -1)
    with full_precision(row):
        for block in reversed(blocks):
            row = row + row @ block
            row = row / 2 if half else row
    return row[:, 0, body.prefix :].reshape(-1, *body.grid)

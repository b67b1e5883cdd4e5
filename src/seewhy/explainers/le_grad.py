"""LeGrad: how much each token would speak for the class if it were attended to more, in every block.

    s_l = the head on the tokens after block l,   G_l = ReLU( d s_l / d A_l )
    map(j) = mean over blocks l, heads and queries i of  G_l(i, j)

A_l is the attention of block l and s_l is differentiated by A_l alone, so that no gradient passes from one block to
another: one backward pass serves all blocks. The head is the network's own (norm, pooling and classifier), put on the
tokens of every block in the same forward pass.

Where numbers are compared with the authors' program: the paper's mean is over all blocks, as here; the program's own
default begins with the second last block, which is LeGrad(blocks=2).

Source: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
2024 (arXiv 2404.03214).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_count
from seewhy.explainers import Explainer
from seewhy.explainers._transformer import bypassed, inside
from seewhy.models import GradientModel
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Outputs

__all__ = ["LeGrad"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LeGrad(Explainer):
    """Positive gradient of the class's logit with respect to the attention of every block (Bousselham 2024).

    Attributes:
        blocks: how many blocks count, from the last one back; None for all.

    Example:
        >>> LeGrad(transformer)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    blocks: int | None = None

    needs: ClassVar[type] = GradientModel
    values: ClassVar[Meaning] = "size"
    published: ClassVar[str] = "blocks=2"

    def __post_init__(self) -> None:
        check_count("blocks", self.blocks, optional=True)

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        body = inside(model, inputs, type(self).__name__)
        chosen: list[TargetSet] = []

        def pick(own: Outputs, every: Outputs) -> Tensor:
            chosen.append(request.resolve(own))
            rows = torch.arange(len(inputs), device=inputs.device).repeat(len(every.scores) // len(inputs))
            return chosen[0].values(every, rows)

        found = body.attentions(inputs, pick, alone=True)
        maps = [self._mean(found.of(t)) for t in range(found.count)]
        raw = torch.stack(maps, 1)[:, :, body.prefix :].unflatten(2, body.grid)
        return Attribution(raw=raw, outputs=found.outputs, targets=chosen[0], notes=bypassed(body))

    def _mean(self, gradients: list[Tensor]) -> Tensor:
        """(N, L): the mean over blocks, heads and queries."""
        some = gradients if self.blocks is None else gradients[-self.blocks :]
        return torch.stack([g.relu().mean((1, 2)) for g in some]).mean(0)

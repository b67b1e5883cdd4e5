"""ViTReciproCAM: what a transformer's last block says when it is shown one place of the image alone.

    map(i, j) = logit_c of the last block from its first LayerNorm's output on, and the head, fed with
                g(t - (i, j)) LN(x)_t  and, in the residual beside it,  g(t - (i, j)) x_t

x_t are the image's tokens that enter the last block and g is a Gaussian of 3 x 3 positions, [1 2 1; 2 4 2; 1 2 1] /
16, cut off at the borders: all other tokens of the image are 0, and the class token (and registers) stay as they are.
Before the LayerNorm the weights would have no effect: it cancels every factor. No gradient is needed.

One forward pass is enough for all positions and classes. Where the head reads class tokens only, the class token needs
only its own query, and each key and value comes in the few variants that g has. Where it reads the picture's tokens,
all hidden tokens are one token, which counts as many times as there are. Where that is not so (a position enters the
attention) the block and what follows it are run for each position.

Source: Byun and Lee, "ViT-ReciproCAM: Gradient and Attention-Free Visual Explanations for Vision Transformer", 2023
(arXiv 2310.02588).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution, about_all
from seewhy.errors import InvalidInput, NoSpatialOutput
from seewhy.explainers import Explainer
from seewhy.explainers._transformer import inside
from seewhy.models import FeatureModel, Features, Model, TokenModel, TransformerModel, WeightedBlock, Weightings
from seewhy.perturbation import batch_size, chunked
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Note, Outputs

__all__ = ["ViTReciproCAM"]

_CANCELLED = Note(
    text="The LayerNorm that follows the layer cancels the weights of single tokens. layer='auto' begins after it.",
    kind="weights that are cancelled",
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ViTReciproCAM(Explainer):
    """The class's logit from one place of the last block's tokens at a time, without gradients (Byun and Lee 2023).

    Attributes:
        layer: "auto" for the first LayerNorm of the last block, that of another block, or any module that gives tokens:
            then that module's output alone is weighted.
        use_gaussian: shows each position with its neighbours, weighted; otherwise alone.
        cls_token: keeps the tokens before those of the image (class tokens, registers); otherwise they are 0.
        perturbation_per_eval: positions a pass of the last block, where it must be run for each, or "auto".

    Example:
        >>> ViTReciproCAM(transformer)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    layer: str = "auto"
    use_gaussian: bool = True
    cls_token: bool = True
    perturbation_per_eval: int | str = 32

    needs: ClassVar[type] = FeatureModel
    values: ClassVar[Meaning] = "alone"

    def __post_init__(self) -> None:
        batch_size(self.perturbation_per_eval)
        for field in ("use_gaussian", "cls_token"):
            if not isinstance(getattr(self, field), bool):
                raise InvalidInput(f"{field} must be True or False, got {getattr(self, field)!r}.")

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        if self.layer != "auto" and not isinstance(model, TransformerModel | TokenModel):
            return self._rerun(model, model.features(inputs, self.layer), request)
        body = model.blocks(inputs) if isinstance(model, TokenModel) else inside(model, inputs, type(self).__name__)
        layer = body.last if self.layer == "auto" else self.layer
        block = body.weighted(inputs, layer, self._weightings(body.grid, inputs.device))
        if block is not None:
            return self._shown(model, block, inputs, request, body.grid, layer)
        found = self._rerun(model, model.features(inputs, layer), request)
        return replace(found, notes=(*found.notes, _CANCELLED)) if layer in body.entered else found

    def _shown(
        self, model: Model, block: WeightedBlock, inputs: Tensor, request: Request, grid: tuple[int, int], layer: str
    ) -> Attribution:
        """Returns the block under every weighting: in one pass, or some at a time."""
        found = block.all()
        if found is not None:
            return _attribution(found, request, grid, layer)
        outputs = model(inputs)
        targets, n, size = request.resolve(outputs), len(inputs), grid[0] * grid[1]
        raw = torch.zeros((n * size, targets.count), device=inputs.device)

        def work(start: int, stop: int) -> None:
            flat = torch.arange(start, stop, device=raw.device)
            rows, which = flat // size, flat % size
            raw[start:stop] = targets.values(block.some(rows, which), rows)

        chunked(work, n * size, self.perturbation_per_eval)
        return Attribution(
            raw=_as_maps(raw, n, grid),
            outputs=outputs,
            targets=targets,
            layer=layer,
            notes=tuple(about_all(block.warnings)),
        )

    def _rerun(self, model: FeatureModel, found: Features, request: Request) -> Attribution:
        """Returns the part above the layer, run for each position."""
        if found.prefix is None:
            raise NoSpatialOutput(
                f"ViTReciproCAM shows a transformer a few of its tokens; layer {found.layer!r} gives a map. Use "
                "ReciproCAM."
            )
        targets = request.resolve(found.outputs)
        n, _, h, w = found.maps.shape
        weightings = self._weightings((h, w), found.maps.device)
        shown = replace(found, keep=self.cls_token)
        raw = found.maps.new_zeros((n * h * w, targets.count), dtype=torch.float32)

        def work(start: int, stop: int) -> None:
            flat = torch.arange(start, stop, device=raw.device)
            rows, places = flat // (h * w), flat % (h * w)
            weights = weightings.levels[weightings.index[places]].view(-1, 1, h, w)
            outputs = model.from_features(shown, found.maps[rows] * weights.to(found.maps.dtype), rows)
            raw[start:stop] = targets.values(outputs, rows)

        chunked(work, n * h * w, self.perturbation_per_eval)
        return Attribution(
            raw=_as_maps(raw, n, (h, w)),
            outputs=found.outputs,
            targets=targets,
            layer=found.layer,
            notes=tuple(about_all(found.warnings)),
        )

    def _weightings(self, grid: tuple[int, int], device: torch.device) -> Weightings:
        """One weighting for each position."""
        h, w = grid
        levels = torch.tensor([0.0, *((1 / 16, 2 / 16, 4 / 16) if self.use_gaussian else (1.0,))], device=device)
        index = torch.zeros((h, w, h, w), dtype=torch.long, device=device)
        reach = 1 if self.use_gaussian else 0
        rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                i, j = rows[max(0, -down) : h - max(0, down)], columns[max(0, -right) : w - max(0, right)]
                level = 3 - abs(down) - abs(right) if self.use_gaussian else 1
                index[i[:, None], j, i[:, None] + down, j + right] = level
        return Weightings(levels=levels, index=index.view(h * w, h * w), keep=self.cls_token)


def _attribution(found: tuple[Outputs, Outputs], request: Request, grid: tuple[int, int], layer: str) -> Attribution:
    """Makes the maps from the outputs of the images and those of all positions."""
    outputs, shown = found
    targets = request.resolve(outputs)
    n = len(outputs.scores)
    if request.kind == "all":
        raw = shown.classes
    else:
        rows = torch.arange(n, device=shown.scores.device).repeat_interleave(grid[0] * grid[1])
        raw = targets.values(shown, rows)
    return Attribution(raw=_as_maps(raw, n, grid), outputs=outputs, targets=targets, layer=layer)


def _as_maps(raw: Tensor, n: int, grid: tuple[int, int]) -> Tensor:
    """(N h w, T) -> (N, T, h, w)."""
    return raw.view(n, *grid, -1).permute(0, 3, 1, 2).contiguous()

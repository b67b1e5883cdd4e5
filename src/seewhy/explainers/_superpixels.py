"""Images in parts: cells of a grid or superpixels, and what a network says when only some of them are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.attribution import Attribution
from seewhy.checks import check_count, check_seed, sides
from seewhy.errors import InvalidInput, MissingDependency
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.models import Model, at
from seewhy.perturbation import batch_size, chunked, probabilities, settle
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Activation, check_activation

__all__ = [
    "OverSuperpixels", "Plan", "all_coalitions", "cell_of",
    "part_scores", "segment",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Which coalitions of M parts are tried.

    Attributes:
        shown: (n, M) bool, the parts that each coalition shows.
        weights: (n,) float64, how much each counts.
    """

    shown: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OverSuperpixels(Explainer):
    """What methods share that fit a linear function of "part shown or covered" to the scores.

    A method says in ``_plan`` which coalitions of parts it tries, and in ``_values`` what the parts are worth.

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: partly covered copies a forward pass, or "auto".
        num_masks: partly covered copies an image, at most; all targets share them.
        segments: "grid" for square cells, "slic" for superpixels that follow the image (needs scikit-image), or an
            integer tensor (H, W) or (N, H, W) with a number for each part.
        grid: cells along the short side, or (down, across); "slic" aims at as many superpixels.
        baseline: what covers a part: a number, "mean", "blur" or a tensor that broadcasts to the inputs.
        seed: of the coalitions; the global random state is neither read nor changed.
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int = 1000
    segments: str | Tensor = "grid"
    grid: int | tuple[int, int] = 7
    baseline: float | str | Tensor = 0.0
    seed: int = 0

    values: ClassVar[Meaning] = "change"

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        check_count("num_masks", self.num_masks, 2)
        _check_segments(self.segments)
        sides("grid", self.grid)
        baselines.check(self.baseline)
        check_seed(self.seed)

    def _plan(self, parts: int) -> Plan:
        raise NotImplementedError

    def _values(self, plan: Plan, scores: Tensor, whole: Tensor) -> Tensor:
        """(n, T) scores of the coalitions and (T,) of the whole image, float64 -> (T, M) what each part is worth."""
        raise NotImplementedError

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        labels = segment(self.segments, self.grid, inputs)
        counts = (labels.flatten(1).amax(1) + 1).tolist()
        plans = {parts: self._plan(parts) for parts in sorted(set(counts))}
        cover = baselines.make(self.baseline, inputs)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        activate = settled.put
        targets = request.resolve(outputs)
        shown = [plans[parts].shown for parts in counts]
        scores = part_scores(
            model, inputs, (labels, shown, cover), targets=targets, activate=activate,
            per_eval=self.perturbation_per_eval,
        )  # fmt: skip
        whole = targets.values(probabilities(outputs, targets, activate))
        raw = inputs.new_empty((*whole.shape, *inputs.shape[2:]), dtype=torch.float32)
        for i, parts in enumerate(counts):
            values = self._values(plans[parts], scores[i].cpu().double(), whole[i].cpu().double())
            raw[i] = values.float().to(raw.device)[:, labels[i]]
        moved = torch.stack([(s - w).abs().amax(0) for s, w in zip(scores, whole, strict=True)])
        return Attribution(
            raw=raw,
            outputs=outputs,
            targets=targets,
            quantity=settled.quantity,
            notes=(*settled.notes, *unmoved(moved.unsqueeze(2), "coalition")),
        )


def part_scores(
    model: Model, inputs: Tensor, parts: tuple[Tensor, list[Tensor], Tensor], *, targets: TargetSet,
    activate: Activation | None, per_eval: int | str,
) -> list[Tensor]:  # fmt: skip
    """For each image (n_i, T) float32: the targets' scores when only some of its parts are shown.

    Args:
        model: gives scores.
        inputs: (N, C, H, W).
        parts: labels (N, H, W), for each image which parts are shown (n_i, M_i) bool, and what covers the others,
            (N, C, H, W).
        targets: what is scored; all T come from the same passes.
        activate: scores -> probabilities.
        per_eval: images a forward pass, or "auto"; a pass may hold copies of several images.
    """
    labels, shown, cover = parts
    sizes, widest = [len(s) for s in shown], max(s.shape[1] for s in shown)
    table = torch.zeros((sum(sizes), widest), dtype=torch.bool, device=inputs.device)
    for rows, some in zip(table.split(sizes), shown, strict=True):
        rows[:, : some.shape[1]] = some
    images = torch.arange(len(shown), device=inputs.device).repeat_interleave(torch.tensor(sizes, device=inputs.device))
    scores = inputs.new_zeros((len(table), targets.count), dtype=torch.float32)

    def work(start: int, stop: int) -> None:
        rows = images[start:stop]
        visible = table[start:stop].gather(1, labels[rows].flatten(1)).view(-1, 1, *labels.shape[1:])
        outputs = at(model, rows)(torch.where(visible, inputs[rows], cover[rows]))
        scores[start:stop] = targets.values(probabilities(outputs, targets, activate), rows)

    chunked(work, len(table), per_eval)
    return list(scores.split(sizes))


def segment(segments: str | Tensor, grid: int | tuple[int, int], inputs: Tensor) -> Tensor:
    """(N, H, W) int64: the part of each pixel, numbered from 0 in every image without a gap.

    Raises:
        InvalidInput: a tensor that does not fit, a grid finer than the image, an image with a single part.
        MissingDependency: "slic" without scikit-image.
    """
    n, _, height, width = inputs.shape
    if isinstance(segments, Tensor):
        labels = _numbered(segments, inputs)
    else:
        sides = _square(grid, height, width)
        labels = _slic(inputs, sides[0] * sides[1]) if segments == "slic" else cells(sides, inputs)
    labels = labels.expand(n, -1, -1)
    single = (labels.flatten(1).amax(1) == 0).nonzero().flatten().tolist()
    if single:
        raise InvalidInput(
            f"Image {', '.join(map(str, single))} has one part only, and there is nothing to tell apart. "
            "Give at least 2 segments."
        )
    return labels


def cells(sides: tuple[int, int], inputs: Tensor) -> Tensor:
    """(1, H, W) int64: the number of each pixel's cell, in reading order, in a grid of (down, across) cells.

    Raises:
        InvalidInput: more cells than pixels along a side.
    """
    size = (inputs.shape[2], inputs.shape[3])
    if sides[0] > size[0] or sides[1] > size[1]:
        raise InvalidInput(f"grid {sides} is finer than the picture, {size}.")
    down, across = (cell_of(length, side, inputs.device) for length, side in zip(size, sides, strict=True))
    return (down.unsqueeze(1) * sides[1] + across).unsqueeze(0)


def cell_of(length: int, count: int, device: torch.device) -> Tensor:
    """(length,) int64: which of ``count`` cells, as equal as whole pixels allow, holds each pixel of one axis."""
    return torch.arange(length, device=device) * count // length


def all_coalitions(parts: int) -> Tensor:
    """(2^M, M) bool: every choice of parts, the empty one first and the whole one last."""
    numbers = torch.arange(2**parts, device="cpu").unsqueeze(1)
    return (numbers >> torch.arange(parts, device="cpu") & 1).bool()


def _check_segments(segments: Any) -> None:
    if isinstance(segments, Tensor):
        if segments.ndim not in (2, 3) or segments.is_floating_point() or segments.dtype == torch.bool:
            raise InvalidInput(
                f"segments must be an integer tensor (H, W) or (N, H, W), got {_said(segments)}. "
                "For a mask use mask.long()."
            )
    elif segments not in ("grid", "slic"):
        raise InvalidInput(f"segments must be 'grid', 'slic' or an integer tensor, got {segments!r}.")


def _said(segments: Tensor) -> str:
    return f"{str(segments.dtype).removeprefix('torch.')} of shape {tuple(segments.shape)}"


def _square(grid: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """(down, across): with one number as many square cells along the long side as fit best."""
    if not isinstance(grid, int):
        return sides("grid", grid)
    short = min(height, width)
    return max(1, round(grid * height / short)), max(1, round(grid * width / short))


def _numbered(segments: Tensor, inputs: Tensor) -> Tensor:
    n, _, height, width = inputs.shape
    maps = segments.unsqueeze(0) if segments.ndim == 2 else segments
    if tuple(maps.shape[1:]) != (height, width) or len(maps) not in (1, n):
        raise InvalidInput(
            f"segments must have shape {(height, width)} or {(n, height, width)}, got {tuple(segments.shape)}."
        )
    return torch.stack([one.unique(return_inverse=True)[1] for one in maps.to(inputs.device)])


def _slic(inputs: Tensor, count: int) -> Tensor:
    """Superpixels by SLIC (Achanta et al. 2012): k-means over colour and place."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingDependency(
            "segments='slic' needs scikit-image. Install it: pip install scikit-image, or use segments='grid'."
        ) from error
    pictures = inputs.float().cpu().permute(0, 2, 3, 1).numpy()
    # scikit-image brings images to [0, 1] and turns three channels into Lab, whose values are a hundred times larger.
    compactness = 10.0 if inputs.shape[1] == 3 else 0.1
    found = [slic(p, n_segments=count, compactness=compactness, start_label=0, channel_axis=-1) for p in pictures]
    labels = [torch.from_numpy(one).long().unique(return_inverse=True)[1] for one in found]
    return torch.stack(labels).to(inputs.device)

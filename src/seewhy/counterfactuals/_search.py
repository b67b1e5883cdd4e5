"""Greedy search, coarse to fine, for the few windows that bring a probability to the other side of a threshold.

An image's probability is known once and for all: whatever order windows are taken in, the same region is never looked
at twice, nor by one target after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.counterfactuals._tree import Mode, Node, edit, frontier, prune
from seewhy.counterfactuals._windows import Box, Layer, within
from seewhy.models import Model
from seewhy.perturbation import chunked
from seewhy.types import Outputs

__all__ = ["Found", "Scene", "Search"]

Region = NDArray[np.bool_]
"""(H, W): true where the picture is edited: shown or hidden."""

NOTHING: Box = (0, 0, 0, 0)
ROUNDING = 1e-6  # probabilities that differ by a smaller share are the same: batches of another size round otherwise


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One image, and what the targets' probabilities are when a region of it is shown or hidden.

    Attributes:
        model: gives scores.
        picture: (C, H, W).
        fill: (C, H, W).
        mode: whether a region is shown or hidden.
        values: outputs of R edited images -> (R, T) probabilities.
        per_eval: images a forward pass, or "auto".
        matters: (H, W) where image and fill differ.
        known: probabilities by region.
    """

    model: Model
    picture: Tensor
    fill: Tensor
    mode: Mode
    values: Callable[[Outputs], Tensor]
    per_eval: int | str
    matters: Region
    known: dict[bytes, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Model, picture: Tensor, fill: Tensor, *, mode: Mode, own: Tensor,
        values: Callable[[Outputs], Tensor], per_eval: int | str,
    ) -> Scene:  # fmt: skip
        """``own``: (T,) probabilities of the untouched image, which need not be asked again."""
        matters = (picture != fill).any(0).cpu().numpy()
        scene = cls(
            model=model, picture=picture, fill=fill, mode=mode, values=values, per_eval=per_eval, matters=matters
        )
        untouched = np.full(matters.shape, mode == "show")
        scene.known[scene._key(untouched)] = own.cpu().double().numpy()
        return scene

    @property
    def field(self) -> Box:
        """The whole image."""
        return 0, 0, self.matters.shape[1], self.matters.shape[0]

    def changes(self, region: Region, box: Box) -> bool:
        """True when the window has pixels that are not in the region yet and look otherwise when edited."""
        inside = _slices(box)
        return bool((self.matters[inside] & ~region[inside]).any())

    def probabilities(self, edits: Sequence[tuple[Region, Box]]) -> NDArray[np.float64]:
        """(R, T): with each region and a further window edited; those not known yet in one batch."""
        keys = [self._key(added(*one)) for one in edits]
        asked = {key: one for key, one in zip(keys, edits, strict=True) if key not in self.known}
        new = list(asked.values())

        def work(start: int, stop: int) -> None:
            regions = torch.from_numpy(np.stack([added(*one) for one in new[start:stop]]))
            outputs = self.model(edit(self.picture, self.fill, regions.to(self.picture.device), self.mode))
            found = self.values(outputs).cpu().double().numpy()
            self.known.update(zip(list(asked)[start:stop], found, strict=True))

        chunked(work, len(new), self.per_eval)
        return np.stack([self.known[key] for key in keys])

    def _key(self, region: Region) -> bytes:
        return blake2b(np.packbits(region & self.matters).tobytes(), digest_size=16).digest()


def added(region: Region, box: Box) -> Region:
    """Returns the region with a window added."""
    more = region.copy()
    more[_slices(box)] = True
    return more


def _slices(box: Box) -> tuple[slice, slice]:
    x, y, width, height = box
    return slice(y, y + height), slice(x, x + width)


class Found(NamedTuple):
    """A tree with the probability of each of its layers, and of those that were cut off; or why there is none."""

    root: Node | None
    reason: str | None = None
    probabilities: tuple[float, ...] = ()
    cut_off: tuple[float, ...] = ()


class _State(NamedTuple):
    region: Region
    probability: float


class _Step(NamedTuple):
    box: Box
    before: _State
    after: _State


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The search for one target of one image.

    Attributes:
        scene: the image.
        column: which of the scene's targets.
        name: of the target.
        threshold: what the probability has to reach, or to fall below.
        layers: the windows, the coarsest first.
    """

    scene: Scene
    column: int
    name: str
    threshold: float
    layers: tuple[Layer, ...]

    def run(self) -> Found:
        """Layer 0 from the untouched (or wholly filled) image; then inside each window that gained; then replays."""
        region = np.zeros(self.scene.matters.shape, dtype=bool)
        start = _State(region, self._probabilities([(region, NOTHING)])[0])
        if self._enough(start.probability):
            return Found(None, self._needless(start.probability))
        steps = self._steps(self.scene.field, 0, start, self._enough)
        if not steps or not self._enough(steps[-1].after.probability):
            return Found(None, self._hopeless(steps[-1].after.probability if steps else start.probability))
        root = Node(
            box=self.scene.field, layer=-1, probability=start.probability, gain=0.0, children=self._nodes(steps, 0)
        )
        return self._replayed(root)

    def _steps(self, field: Box, layer: int, start: _State, enough: Callable[[float], bool]) -> list[_Step]:
        """Takes the window that helps most, again and again, until it is enough or no window is left."""
        steps: list[_Step] = []
        now, unused = start, within(field, self.layers[layer])
        while not enough(now.probability):
            unused = [box for box in unused if self.scene.changes(now.region, box)]
            if not unused:
                break
            probabilities = self._probabilities([(now.region, box) for box in unused])
            best = self._best(probabilities)
            after = _State(added(now.region, unused[best]), probabilities[best])
            steps.append(_Step(unused[best], now, after))
            now = after
        return steps

    def _nodes(self, steps: list[_Step], layer: int) -> tuple[Node, ...]:
        return tuple(
            Node(
                box=step.box,
                layer=layer,
                probability=step.after.probability,
                gain=self._gain(step.before.probability, step.after.probability),
                children=self._inside(step, layer + 1),
            )
            for step in steps
        )

    def _inside(self, step: _Step, layer: int) -> tuple[Node, ...]:
        """The search inside a window, from what was found before it, until its gain is regained: at once if none."""
        if layer == len(self.layers):
            return ()
        goal = step.after.probability

        def regained(probability: float) -> bool:
            close = self._gain(goal, probability) >= -ROUNDING * abs(goal)
            return close and (self._enough(probability) or not self._enough(goal))

        return self._nodes(self._steps(step.box, layer, step.before, regained), layer)

    def _replayed(self, root: Node) -> Found:
        """Each layer's windows alone; from the deepest up, layers that are not enough are cut off."""
        count = 1 + max(node.layer for node in root.walk())
        regions = [self._region(root, layer) for layer in range(count)]
        replays = self._probabilities([(region, NOTHING) for region in regions])
        kept = max(layer for layer in range(count) if self._enough(replays[layer])) + 1
        return Found(prune(root, kept), probabilities=tuple(replays[:kept]), cut_off=tuple(replays[kept:]))

    def _region(self, root: Node, layer: int) -> Region:
        region = np.zeros(self.scene.matters.shape, dtype=bool)
        for node in frontier(root, layer):
            region[_slices(node.box)] = True
        return region

    def _probabilities(self, edits: Sequence[tuple[Region, Box]]) -> list[float]:
        found: list[float] = self.scene.probabilities(edits)[:, self.column].tolist()
        return found

    def _best(self, probabilities: list[float]) -> int:
        """Returns the first of those that help most."""
        gains = [self._gain(0.0, p) for p in probabilities]
        most = max(gains)
        return next(i for i, gain in enumerate(gains) if gain >= most - ROUNDING * abs(most))

    def _gain(self, before: float, after: float) -> float:
        return after - before if self.scene.mode == "show" else before - after

    def _enough(self, probability: float) -> bool:
        reached = probability >= self.threshold
        return reached if self.scene.mode == "show" else not reached

    def _needless(self, probability: float) -> str:
        return (
            f"{self.name.capitalize()} is at {probability:.4g} when the whole picture is filled: nothing has to be "
            f"shown for {self.threshold:g}."
        )

    def _hopeless(self, probability: float) -> str:
        return (
            f"{self.name.capitalize()} did not fall under {self.threshold:g} while the picture was filled window by "
            f"window, and is at {probability:.4g} when all of it is."
        )

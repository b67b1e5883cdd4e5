"""What a hierarchical search found: a tree of windows, from the coarsest layer to the finest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from seewhy.checks import is_count
from seewhy.counterfactuals._sheet import draw
from seewhy.counterfactuals._windows import Box
from seewhy.errors import InvalidInput
from seewhy.images.preprocessing import stretched
from seewhy.types import Outputs, Passes

__all__ = ["Counterfactuals", "EditTree", "Mode", "Node", "edit", "frontier", "prune"]

Mode = Literal["show", "hide"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One step of a search: a window that was shown or hidden.

    Attributes:
        box: x, y, width, height in input pixels.
        layer: 0 is the coarsest; the root, which is the whole image before any step, has -1.
        probability: after the step, in the search that made it. A search inside a window starts from what its parent
            search had found before that window, so these are not the probabilities of a whole layer.
        gain: by how much the step brought the probability the right way: up when showing, down when hiding.
        children: the steps of the search inside this window, one layer down, in their order.
    """

    box: Box
    layer: int
    probability: float
    gain: float
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """Returns the node, then each child with all that is below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def as_dict(self) -> dict[str, Any]:
        """Returns the tree as plain values, ready for JSON."""
        own = {"box": list(self.box), "layer": self.layer, "probability": self.probability, "gain": self.gain}
        return {**own, "children": [child.as_dict() for child in self.children]}


def frontier(root: Node, layer: int) -> Iterator[Node]:
    """What a layer consists of: its own nodes, and those of earlier layers that nothing was found inside."""
    for child in root.children:
        if child.layer == layer or not child.children:
            yield child
        else:
            yield from frontier(child, layer)


def prune(node: Node, layers: int) -> Node:
    """Returns the same tree with that many layers."""
    below = node.children if node.layer + 1 < layers else ()
    return replace(node, children=tuple(prune(child, layers) for child in below))


def edit(picture: Tensor, fill: Tensor, regions: Tensor, mode: Mode) -> Tensor:
    """(R, C, H, W): the image shown inside the regions alone, or hidden there.

    Args:
        picture: (C, H, W).
        fill: (C, H, W) what stands where the image does not.
        regions: (R, H, W) bool.
        mode: "show" or "hide".
    """
    inside, outside = (picture, fill) if mode == "show" else (fill, picture)
    return torch.where(regions.unsqueeze(1), inside, outside)


@dataclass(frozen=True, kw_only=True, eq=False)
class EditTree:
    """The windows that suffice for one image and target, coarse to fine.

    Attributes:
        root: the whole image before the first step, with the steps of layer 0 as children; None when nothing was
            found.
        reason: why nothing was found, else None.
        target: the name of the target ("class 285").
        mode: "show": the windows suffice when all else is filled. "hide": the target is lost when they are filled.
        threshold: what the probability had to reach, or in mode "hide" had to fall below.
        probability: of the untouched image.
        probabilities: of the image after each layer.
        cut_off: the same of deeper layers that missed the threshold and were taken away, the coarsest first.
        picture: (C, H, W) the network's input.
        fill: (C, H, W) what stands where the image is hidden.
    """

    root: Node | None
    reason: str | None
    target: str
    mode: Mode
    threshold: float
    probability: float
    probabilities: tuple[float, ...] = ()
    cut_off: tuple[float, ...] = ()
    picture: Tensor = field(repr=False)
    fill: Tensor = field(repr=False)

    @property
    def found(self) -> bool:
        """True when there is a tree."""
        return self.root is not None

    @property
    def layers(self) -> int:
        """How many layers there are; 0 when nothing was found."""
        return len(self.probabilities)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every step of every layer, each followed by those inside its window."""
        return () if self.root is None else tuple(self.root.walk())[1:]

    def layer_nodes(self, layer: int) -> tuple[Node, ...]:
        """The windows of the image after a layer: the layer's own, and earlier ones that nothing was found inside.

        Raises:
            InvalidInput: there is no such layer.
        """
        if self.root is None:
            raise InvalidInput(f"There are no layers: {self.reason}")
        if not is_count(layer, 0) or layer >= self.layers:
            raise InvalidInput(f"layer must be one of 0 to {self.layers - 1}, got {layer!r}.")
        return tuple(frontier(self.root, layer))

    def layer_mask(self, layer: int) -> Tensor:
        """(H, W) bool: true inside the layer's windows, where the image is shown or, in mode "hide", hidden."""
        mask = torch.zeros(self.picture.shape[1:], dtype=torch.bool, device=self.picture.device)
        for x, y, width, height in (node.box for node in self.layer_nodes(layer)):
            mask[y : y + height, x : x + width] = True
        return mask

    def layer_image(self, layer: int) -> Tensor:
        """(C, H, W): the image after a layer, as the network takes it."""
        return edit(self.picture, self.fill, self.layer_mask(layer).unsqueeze(0), self.mode)[0]

    def layer_probability(self, layer: int) -> float:
        """Returns the probability of the image after a layer."""
        self.layer_nodes(layer)
        return self.probabilities[layer]

    def saliency(self) -> Tensor:
        """(H, W) float32 in [0, 1]: the gains of the windows that cover a pixel, summed over all layers.

        The largest sum is scaled to 1; steps that lost count nothing; zeros when nothing was found.
        """
        total = torch.zeros(self.picture.shape[1:], dtype=torch.float32, device=self.picture.device)
        for node in self.nodes:
            x, y, width, height = node.box
            total[y : y + height, x : x + width] += max(0.0, node.gain)
        return total / total.max().clamp_min(torch.finfo(torch.float32).tiny)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pixels, for JSON."""
        return {
            "found": self.found,
            "reason": self.reason,
            "target": self.target,
            "mode": self.mode,
            "threshold": self.threshold,
            "size": list(self.picture.shape[1:]),
            "probability": self.probability,
            "layers": self.layers,
            "layer_probabilities": list(self.probabilities),
            "cut_off": list(self.cut_off),
            "root": None if self.root is None else self.root.as_dict(),
        }

    def sheet(self, picture: Image.Image | None = None, *, label: str | None = None, cell: int = 224) -> Image.Image:
        """Returns the layers side by side: what is hidden dark and grey, the windows outlined, the probability beneath.

        Args:
            picture: what the network saw, of any size and RGB or grey; by default the input, its range stretched to
                black and white. `Preprocessing.denormalise` makes the true colours of an input.
            label: the target's name for the reader.
            cell: side of one image in pixels.

        Raises:
            InvalidInput: cells too small to show anything.
            InvalidType: an image of another mode.
        """
        return draw(self, stretched(self.picture) if picture is None else picture, label=label, cell=cell)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counterfactuals:
    """What one search over a batch found.

    Attributes:
        trees: N lists of T trees.
        outputs: the model's outputs on the untouched images.
        targets: (N, T) class indices, or None where the targets are not classes.
        passes: what it cost.
        warnings: what the reader should know: why there is no tree, which layers were cut off.
    """

    trees: list[list[EditTree]]
    outputs: Outputs
    targets: Tensor | None
    passes: Passes
    warnings: tuple[str, ...] = ()

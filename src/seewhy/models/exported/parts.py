"""Parts of an exported graph that are run alone: from some tensors to others, with what they need besides."""

from __future__ import annotations

import torch
from torch import Tensor

from seewhy.errors import InputRefused, InvalidInput
from seewhy.models.exported.layers import Anatomy, frontier
from seewhy.models.exported.model import ExportedModel
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = ["Above", "Part"]


class Part:
    """The graph between tensors and others above them, with what it needs besides."""

    def __init__(
        self, model: ExportedModel, anatomy: Anatomy, images: Tensor, keys: tuple[str, ...], ends: tuple[str, ...],
        *, whole: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.keys, self.ends = model, keys, ends
        self.picture, self.size = model._port.key, tuple(images.shape[1:])
        self.rest: list[str] = [self.picture]
        self.anew = True
        if not whole:
            self.rest, self.anew = frontier(anatomy, keys, ends)

    def below(self, inputs: Tensor) -> list[Tensor]:
        """Returns the tensors and what else is needed, for these images."""
        wanted = [key for key in self.rest if key != self.picture]
        found = self.model._run({self.picture: inputs}, [*self.keys, *wanted], self.size)
        own, others = found[: len(self.keys)], found[len(self.keys) :]
        named = dict(zip(wanted, others, strict=True)) | {self.picture: inputs}
        return [*own, *(named[key] for key in self.rest)]

    def above(self, own: list[Tensor], rest: list[Tensor]) -> list[Tensor]:
        """Returns the ends, from the tensors and the rest, row by row."""
        feeds = dict(zip(self.keys, own, strict=True)) | dict(zip(self.rest, rest, strict=True))
        return self.model._run(feeds, self.ends, self.size)


class Above:
    """What follows tensors of a graph, made ready for some images and tried on those tensors themselves."""

    def __init__(self, model: ExportedModel, anatomy: Anatomy, keys: tuple[str, ...], layer: str) -> None:
        self.model, self.anatomy, self.keys, self.layer = model, anatomy, keys, layer
        self.part: Part | None = None
        self.rest: list[Tensor] = []

    def run(self, own: list[Tensor], rows: Tensor) -> Outputs:
        """Returns the outputs for tensors (R, ...), row r in the place of image ``rows[r]``'s own."""
        assert self.part is not None
        return self._scores(self.part, own, rows)

    def prepare(self, images: Tensor, own: list[Tensor], wanted: Outputs, warnings: list[str]) -> None:
        """Chooses the part of the graph that gives the wanted outputs from the images' own tensors.

        Raises:
            InvalidInput: none does.
        """
        ends = tuple(port.key for port in self.model.engine.outputs)
        for whole in (False, True):
            part = Part(self.model, self.anatomy, images, self.keys, ends, whole=whole)
            if self._agrees(part, images, own, wanted):
                self.part = part
                if part.anew:
                    warnings.append(
                        f"The network could not be cut at layer {self.layer!r}; the whole network was run for each "
                        "change."
                    )
                return
        raise InvalidInput(
            f"{self.model.name} cannot be cut at layer {self.layer!r}: the rest of it, run on the layer's own "
            f"output, does not give the network's scores. Choose another layer, or use {instead('scores')}."
        )

    def _scores(self, part: Part, own: list[Tensor], rows: Tensor) -> Outputs:
        raw = part.above(own, [one[rows] for one in self.rest])
        return self.model._read(raw, len(rows))

    def _agrees(self, part: Part, images: Tensor, own: list[Tensor], wanted: Outputs) -> bool:
        """Says whether the part gives what the whole gave, also with more rows than an export may allow."""
        rows = torch.cat([torch.arange(len(images)), torch.zeros(2, dtype=torch.long)])
        try:
            self.rest = part.below(images)[len(self.keys) :] if part.rest else []
            if [key for key in part.rest if key != part.picture]:
                self.model.passes.forward += len(images)
            again = self._scores(part, [one[rows] for one in own], rows)
        except InputRefused:
            return False
        return self.model.same(again.scores, wanted.scores[rows])

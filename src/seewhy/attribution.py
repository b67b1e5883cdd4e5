"""What an explainer hands back: maps with everything worth knowing about them, and the sentences that notes become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from seewhy.plain import NOTHING
from seewhy.targets import TargetSet
from seewhy.types import Note, Outputs, Passes

__all__ = ["Attribution", "about_all", "faint", "sentences"]

MOST = 8  # sentences of one kind; the rest is counted


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """What one explainer found on one batch.

    Attributes:
        raw: (N, T, h, w) float32, signed and unscaled, at the method's own resolution.
        outputs: the model's outputs on the unperturbed images.
        targets: what was explained, resolved: N x T classes, or T targets that hold for every image.
        layer: the layer that was explained, or None.
        passes: what it cost.
        notes: what the reader of the maps should know.
        quantity: what the scores are of which the maps speak, where the method put an activation on them:
            "probability", "logit" or "value"; None where it took them as they come.
        error: (N, T, h, w) standard errors of ``raw``, where the method draws at random and was asked for them.
    """

    raw: Tensor
    outputs: Outputs
    targets: TargetSet
    layer: str | None = None
    passes: Passes = field(default_factory=Passes)
    notes: tuple[Note, ...] = ()
    quantity: str | None = None
    error: Tensor | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes as sentences."""
        return sentences(self.notes, lambda image, target: self.targets.names(image)[target])


def about_all(texts: Iterable[str]) -> list[Note]:
    """Notes that are about a whole batch."""
    return [Note(text=text) for text in texts]


def faint(notes: Iterable[Note]) -> list[Note]:
    """Returns the notes that say of a map that it shows nothing."""
    return [note for note in notes if note.kind == NOTHING]


def sentences(notes: Iterable[Note], name: Callable[[int, int], str], most: int = MOST) -> tuple[str, ...]:
    """One sentence a note, those of one kind together; of many of one kind the first, and how many more there are.

    Args:
        notes: about images of one batch.
        name: (image, target) -> how the target is called.
        most: how many sentences of one kind are given.
    """
    kinds: dict[tuple[str, bool], list[Note]] = {}
    for note in dict.fromkeys(notes):
        kinds.setdefault((note.kind, note.image is None), []).append(note)
    found: list[str] = []
    for (kind, general), some in kinds.items():
        shown = some if general else some[:most]
        found += [_sentence(note, name) for note in shown]
        found += [f"... and {len(some) - most} more: {kind}."] if len(some) > len(shown) else []
    return tuple(found)


def _sentence(note: Note, name: Callable[[int, int], str]) -> str:
    if note.image is None:
        return note.text
    if note.target is None:
        return f"Image {note.image}: {note.text}"
    return f"Image {note.image}, {name(note.image, note.target)}: {note.text}"

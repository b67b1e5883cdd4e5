"""How far a map can be trusted, as data: a grade and the answers that it is made of.

`metrics.trust_grade` asks; `Explanation.trust` and the pages show. What the grades are worth: docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seewhy.types import Passes

__all__ = ["GRADES", "Part", "Trust"]

GRADES = ("none", "low", "fair", "high")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One question to a map, and its answer.

    Attributes:
        name: "place", "weights", "class", "noise" or "sampling".
        value: what was measured; None where it could not be asked.
        threshold: what the value has to reach, or must not pass; None where it could not be asked.
        good: whether it does; None where it could not be asked.
        weight: by how much an answer against the map lowers the grade; 0 where it does not.
        sentence: the answer, or why there is none.
    """

    name: str
    value: float | None
    threshold: float | None
    good: bool | None
    weight: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How far a map can be trusted.

    Attributes:
        grade: 0 (none) to 3 (high); None where the questions on which it depends could not be asked.
        parts: the questions and their answers.
        passes: images that went through the network to find out.
    """

    grade: int | None
    parts: tuple[Part, ...]
    passes: Passes = field(default_factory=Passes)

    @property
    def word(self) -> str:
        """The grade as a word: one of `GRADES`, or "cannot be told"."""
        return "cannot be told" if self.grade is None else GRADES[self.grade]

    @property
    def line(self) -> str:
        """Everything in one line: "trust high: ..."."""
        return f"trust {self.word}: {_joined([part.sentence for part in self.parts])}"

    def part(self, name: str) -> Part:
        """Returns the part of this name."""
        return next(part for part in self.parts if part.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "grade": self.grade, "word": self.word, "line": self.line,
            "parts": [vars(part) for part in self.parts],
            "forward_passes": self.passes.forward, "backward_passes": self.passes.backward,
        }  # fmt: skip


def _joined(sentences: Sequence[str]) -> str:
    return "; ".join(sentence.rstrip(".") for sentence in sentences) + "."

"""The page of patterns: what `seewhy.patterns` found about the run and kept beside it. Nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seewhy.errors import InvalidInput
from seewhy.web.grid import Tile, grid
from seewhy.web.library import Opened
from seewhy.web.queries import GridQuery, PatternsQuery, address

__all__ = ["Effect", "PatternCard", "PatternsPage", "patterns"]

_SHOWN = 10  # small pictures of a pattern
_PICKED = 200  # images that one address can name
Text = Annotated[str, Field(max_length=10_000)]
Whole = Annotated[int, Field(ge=0, le=10**18)]
Share = Annotated[float, Field(ge=0, le=1)]
Row = Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(max_length=64)]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Effect(_Kept):
    """See `seewhy.insights.intervening.Effect`."""

    change: float
    low: float | None = None
    high: float | None = None
    images: Whole
    alone: float


class _Pattern(_Kept):
    class_index: Whole
    class_name: Text
    samples: Annotated[list[Text], Field(max_length=1_000_000)]
    positions: Annotated[list[Whole], Field(max_length=1_000_000)]
    of: Whole
    views: Annotated[list[Text], Field(max_length=64)]
    errors: Share | None = None
    elsewhere: Share | None = None
    border: Share
    off_object: Share | None = None
    place: Annotated[list[Row], Field(max_length=64)]
    goes_with: Annotated[list[Text], Field(max_length=1000)] = []
    removal: Effect | None = None
    insertion: Effect | None = None
    grade: Literal["shown", "misleads", "on the object", "suspicion", "not shown"]
    why: Text


class _Patterns(_Kept):
    explainer: Text
    images: Whole
    classes: Whole
    found: Annotated[list[_Pattern], Field(max_length=1000)]


@dataclass(frozen=True, kw_only=True)
class PatternCard:
    """What the page shows of one pattern.

    Attributes:
        class_name: what the network says of its images.
        grade: how sure it is, in a word.
        why: the same in a sentence.
        images: how many have it.
        of: of so many of the class.
        views: in which it was seen.
        removal: what taking the evidence away does, or None.
        insertion: what putting it into other images does, or None.
        errors: share of wrong answers among them, or None.
        elsewhere: the same of the others of the class.
        border: share of the maps at the border.
        off_object: share off the true boxes, or None.
        goes_with: metadata, in words.
        place: where the maps point: rows of values from 0 to 1.
        link: address of all its images in the grid, below the run's own.
        tiles: some of them.
    """

    class_name: str
    grade: str
    why: str
    images: int
    of: int
    views: list[str]
    removal: Effect | None
    insertion: Effect | None
    errors: float | None
    elsewhere: float | None
    border: float
    off_object: float | None
    goes_with: list[str]
    place: list[list[float]]
    link: str
    tiles: list[Tile]


@dataclass(frozen=True, kw_only=True)
class PatternsPage:
    """All patterns of a run; ``looked`` is False where nobody has looked for any."""

    run: str
    version: int
    looked: bool
    explainer: str
    images: int
    classes: int
    found: list[PatternCard]


def patterns(opened: Opened, query: PatternsQuery) -> PatternsPage:
    """Returns the page.

    Raises:
        InvalidInput: what is kept cannot be read.
    """
    kept = opened.run.insight("patterns")
    empty = PatternsPage(
        run=opened.place.key, version=opened.version, looked=False, explainer="", images=0, classes=0, found=[]
    )
    if kept is None:
        return empty
    try:
        known = _Patterns.model_validate(kept)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"insights/patterns.json cannot be used: {where}: {first['msg']}.") from error
    cards = [_card(opened, one, known.explainer) for one in known.found]
    return replace(
        empty, looked=True, explainer=known.explainer, images=known.images, classes=known.classes, found=cards
    )


def _card(opened: Opened, one: _Pattern, explainer: str) -> PatternCard:
    name = explainer if explainer in opened.run.drawn else ""
    asked = GridQuery(picks=one.positions[:_PICKED], explainer=name)
    few = asked.model_copy(update={"picks": one.positions[:_SHOWN], "limit": _SHOWN})
    most = max((value for row in one.place for value in row), default=0.0)
    return PatternCard(
        images=len(one.samples), link="grid" + address(asked), tiles=grid(opened, few).tiles,
        place=[[value / most if most else 0.0 for value in row] for row in one.place],
        **{field: getattr(one, field) for field in (
            "class_name", "grade", "why", "of", "views", "removal", "insertion", "errors", "elsewhere", "border",
            "off_object", "goes_with",
        )},
    )  # fmt: skip

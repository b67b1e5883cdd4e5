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


class _Told(_Kept):
    """What is kept of a pattern and shown as it is; see `seewhy.insights.patterns.Pattern`."""

    class_name: Text
    grade: Literal["shown", "misleads", "on the object", "suspicion", "not shown"]
    why: Text
    of: Whole
    views: Annotated[list[Text], Field(max_length=64)]
    removal: Effect | None = None
    insertion: Effect | None = None
    errors: Share | None = None
    elsewhere: Share | None = None
    border: Share
    off_object: Share | None = None
    goes_with: Annotated[list[Text], Field(max_length=1000)] = []
    place: Annotated[list[Row], Field(max_length=64)]


class _Pattern(_Told):
    class_index: Whole
    samples: Annotated[list[Text], Field(max_length=1_000_000)]
    positions: Annotated[list[Whole], Field(max_length=1_000_000)]


class _Patterns(_Kept):
    explainer: Text
    images: Whole
    classes: Whole
    found: Annotated[list[_Pattern], Field(max_length=1000)]


class PatternCard(_Told):
    """What the page shows of one pattern; ``place`` has 1 as its largest value.

    Attributes:
        images: how many have it.
        link: address of all its images in the grid, below the run's own.
        tiles: some of them.
    """

    images: int
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
    place = [[value / most if most else 0.0 for value in row] for row in one.place]
    kept = one.model_dump(include=set(_Told.model_fields)) | {"place": place}
    return PatternCard(**kept, images=len(one.samples), link="grid" + address(asked), tiles=grid(opened, few).tiles)

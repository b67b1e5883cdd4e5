"""What an address may ask, page by page: typed, bounded, and the same for a page and its JSON twin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "ClassesQuery",
    "CounterfactualQuery",
    "FailuresQuery",
    "Filters",
    "GridQuery",
    "Looked",
    "OverviewQuery",
    "QueuesQuery",
    "RunsQuery",
    "SaliencyQuery",
    "SampleQuery",
    "ScoresQuery",
    "SuggestQuery",
    "address",
    "asking",
]

Flag = Literal["TP", "FN", "FP", "TN"]
Colours = Literal["inferno", "viridis", "magma", "cividis", "batlow", "grey", "signed"]
Name = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=200)]


def _or_none(value: Any) -> Any:
    return None if value in ("", [""]) else value


def _without_empty(value: Any) -> Any:
    return [one for one in value if one != ""] if isinstance(value, list) else value


Label = Annotated[int, Field(ge=0, lt=1 << 31)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]  # a probability, or a logit
Number = Annotated[_Finite | None, BeforeValidator(_or_none)]
Labels = Annotated[list[Label], BeforeValidator(_without_empty), Field(max_length=100)]
Flags = Annotated[list[Flag], BeforeValidator(_without_empty), Field(max_length=4)]
Direction = Annotated[bool | None, BeforeValidator(_or_none)]  # None: worst first
Maybe = Annotated[bool | None, BeforeValidator(_or_none)]
MaybeLabel = Annotated[Label | None, BeforeValidator(_or_none)]
Verdict = Literal["looks right", "wrong evidence", "bad label", "look again"]
_Position = Annotated[int, Field(ge=0, lt=1 << 62)]
Picks = Annotated[list[_Position], BeforeValidator(_without_empty), Field(max_length=500)]
Explainers = Annotated[list[Name] | None, Field(max_length=100)]
PageNumber = Annotated[int, Field(ge=1, le=1_000_000)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(_Query):
    """Which samples, in which order.

    ``right``, ``failed``, ``reviewed``: true, false, or not asked. ``there``, ``missed``, ``mistaken``: a class.
    ``confidence``: FROM,TO of the network's answer, without TO for no end. ``picks``: positions in the data. ``queue``
    brings its own order, which ``sort`` "position" stands for.
    """

    labels: Labels = []
    flags: Flags = []
    text: Text = ""
    least: Number = None
    most: Number = None
    sort: Name = "position"
    descending: Direction = None
    right: Maybe = None
    there: MaybeLabel = None
    missed: MaybeLabel = None
    mistaken: MaybeLabel = None
    confidence: Annotated[str, Field(max_length=60, pattern=r"^(-?[\d.]+(e[+-]?\d+)?,(-?[\d.]+(e[+-]?\d+)?)?)?$")] = ""
    failed: Maybe = None
    warning: Name = ""
    note: Annotated[str, Field(max_length=1000)] = ""
    queue: Name = ""
    verdicts: Annotated[list[Verdict], BeforeValidator(_without_empty), Field(max_length=4)] = []
    reviewed: Maybe = None
    picks: Picks = []
    page: PageNumber = 1
    limit: Annotated[int, Field(ge=1, le=200)] = 12


class Looked(Filters):
    """Which samples, and how their maps look."""

    overlay: bool = True
    opacity: Annotated[int, Field(ge=0, le=100)] = 75
    threshold: Annotated[int, Field(ge=0, le=100)] = 0
    colours: Colours = "inferno"
    boxes: bool = False


class SaliencyQuery(Looked):
    """Which samples, in which order, and how their maps look.

    ``explainers``: shown; all where not said; none where it is empty. ``on``: POSITION.LABEL, the label that is shown
    of a sample. ``open``: POSITION.EXPLAINER (its number), the map that is shown large, or POSITION.original.
    """

    explainers: Explainers = None
    limit: Annotated[int, Field(ge=1, le=96)] = 12
    every: bool = False
    on: Annotated[list[Annotated[str, Field(pattern=r"^\d{1,18}\.\d{1,10}$")]], Field(max_length=96)] = []
    open: Annotated[str, Field(pattern=r"^(\d{1,18}\.(\d{1,4}|original))?$")] = ""


class GridQuery(Looked):
    """Many small samples with one map each. ``each``: one for each sample, or for each of its labels that meets."""

    explainer: Name = ""
    each: Literal["sample", "label"] = "sample"
    size: Literal["small", "medium", "large"] = "medium"
    limit: Annotated[int, Field(ge=1, le=200)] = 48


class SampleQuery(Looked):
    """One sample: the ``page``-th of those that meet the filters, with a map of each explainer.

    ``label``: whose maps are shown. ``zoom``: X,Y,TIMES, the middle as shares of width and height.
    """

    explainers: Explainers = None
    each: Literal["sample", "label"] = "sample"
    limit: Literal[1] = 1
    label: MaybeLabel = None
    zoom: Annotated[str, Field(max_length=60, pattern=r"^([\d.]+,[\d.]+,[\d.]+)?$")] = ""


class OverviewQuery(_Query):
    """The whole run. ``rows``, ``columns``: which part of the confusion matrix, from 1."""

    rows: PageNumber = 1
    columns: PageNumber = 1


class QueuesQuery(_Query):
    """All queues."""


class PatternsQuery(_Query):
    """All patterns."""


class ScoresQuery(_Query):
    """``weights``: one a metric, in the run's order, between commas; 1 where not said. ``sort``: of explainers."""

    sort: Name = ""
    weights: Annotated[str, Field(max_length=2000, pattern=r"^[0-9eE.,+-]*$")] = ""


class ClassesQuery(_Query):
    """Scores label by label: of one explainer by all metrics, or of one metric for all explainers."""

    by: Literal["explainer", "metric"] = "explainer"
    name: Name = ""
    text: Text = ""
    sort: Name = "class"
    descending: Direction = None
    page: PageNumber = 1
    limit: Annotated[int, Field(ge=1, le=2000)] = 1000


class CounterfactualQuery(_Query):
    """``sample``: the position of the picture that is shown. ``layer``: of its tree, from 1; 0 for the last."""

    labels: Labels = []
    flags: Flags = []
    text: Text = ""
    empty: bool = False
    sort: Literal["position", "probability", "uncertainty", "entropy", "mutual_information"] = "position"
    descending: Direction = None
    page: PageNumber = 1
    limit: Annotated[int, Field(ge=1, le=96)] = 24
    sample: Annotated[str, Field(pattern=r"^(\d{1,18})?$")] = ""
    label: MaybeLabel = None
    layer: Annotated[int, Field(ge=0, le=1000)] = 0


class FailuresQuery(_Query):
    """A page of failures."""

    page: PageNumber = 1
    limit: Annotated[int, Field(ge=1, le=96)] = 48


class RunsQuery(_Query):
    """The runs whose name or model has ``text`` in it."""

    text: Text = ""
    sort: Literal["name", "begun", "changed", "samples"] = "name"
    descending: bool = False


class SuggestQuery(_Query):
    """Classes whose name or number has ``text`` in it."""

    text: Text = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20


def address(query: BaseModel, **changes: Any) -> str:
    """Returns the query string of a query with changes: only what differs from what is taken anyway, in its order."""
    return asking(type(query), **{**{name: getattr(query, name) for name in type(query).model_fields}, **changes})


def asking(kind: type[BaseModel], **asked: Any) -> str:
    """Returns the query string that asks these things of a page; what is taken anyway is left out."""
    pairs = [
        (name, one)
        for name, about in kind.model_fields.items()
        if name in asked and (value := asked[name]) is not None and value != about.default
        for one in _texts(value)
    ]
    return "?" + urlencode(pairs) if pairs else ""


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, list):
        return [str(one) for one in value] or [""]
    return [f"{value:g}" if isinstance(value, float) else str(value)]

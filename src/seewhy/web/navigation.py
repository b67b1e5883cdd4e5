"""The pages of a run, in the order in which they are offered: a further page is one line here and its route."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAGES", "RunPage"]


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A page of a run, as the navigation names it.

    Attributes:
        name: at the end of its address, /runs/KEY/NAME.
        title: what stands on the tab.
        count: the number of the run's card (`seewhy.web.runs.RunCard`) that stands behind the title; "" for none.
    """

    name: str
    title: str
    count: str = ""


PAGES = (
    RunPage(name="overview", title="Overview"),
    RunPage(name="queues", title="Queues"),
    RunPage(name="grid", title="Grid"),
    RunPage(name="saliency", title="Saliency"),
    RunPage(name="scores", title="Scores"),
    RunPage(name="classes", title="By class"),
    RunPage(name="patterns", title="Patterns"),
    RunPage(name="counterfactual", title="Counterfactual"),
    RunPage(name="failures", title="Failures", count="failures"),
)

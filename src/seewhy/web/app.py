"""The application: pages, their JSON twins, pictures and static files. Nothing here writes, but `review`.

A page stands at /runs/KEY/NAME, its twin at /api/runs/KEY/NAME with the same query string. The OpenAPI description is
at /api/openapi.json.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteError
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send

from seewhy.errors import InvalidInput, SeewhyError, StorageError
from seewhy.web import pictures
from seewhy.web.charts import radar
from seewhy.web.classes import ClassesPage, classes
from seewhy.web.counterfactual import CounterfactualPage, counterfactual
from seewhy.web.downloads import csv_of, html_of, png_of
from seewhy.web.grid import GridPage, QueuesPage, grid, queues
from seewhy.web.library import Library, Opened
from seewhy.web.overview import OverviewPage, overview, queue_lines
from seewhy.web.patterns import PatternsPage, patterns
from seewhy.web.queries import (
    ClassesQuery,
    CounterfactualQuery,
    FailuresQuery,
    GridQuery,
    OverviewQuery,
    PatternsQuery,
    QueuesQuery,
    RunsQuery,
    SaliencyQuery,
    SampleQuery,
    ScoresQuery,
    SuggestQuery,
)
from seewhy.web.rendering import STATIC, asset, asset_version, render
from seewhy.web.reviewing import Refused, back, body, keep
from seewhy.web.runs import FailuresPage, RunCard, RunsPage, about, failures, runs, suggest
from seewhy.web.saliency import Choice, SaliencyPage, saliency
from seewhy.web.sample import SamplePage, sample
from seewhy.web.scores import ScoresPage, scores
from seewhy.web.security import Guard, Rules

__all__ = ["application"]

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
Key = Annotated[str, Path(pattern="^[0-9a-f]{8}$")]
Short = Annotated[str, Query(max_length=4000)]


def application(library: Library, rules: Rules, *, root_path: str = "") -> Any:
    """Returns the ASGI application.

    Args:
        library: the runs that are shown.
        rules: who may ask.
        root_path: what a proxy takes away from the front of every path.
    """
    app = FastAPI(
        title="seewhy", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
        description="What the pages show, as JSON. The query strings are those of the pages.",
    )  # fmt: skip
    app.state.library, app.state.rules = library, rules
    app.include_router(_pages)
    app.include_router(_twins)
    app.include_router(_files)
    for kind in (SeewhyError, RequestValidationError, StarletteError):
        app.add_exception_handler(kind, _failed)
    app.add_middleware(_Compressed, minimum_size=4096, compresslevel=3)
    return Guard(app, rules, root_path)


class _Compressed(GZipMiddleware):
    """Texts are sent compressed; pictures are that already."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith(("/map", "/thumbnail", "/picture", ".png")):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _library(request: Request) -> Library:
    found: Library = request.app.state.library
    return found


def _opened(request: Request, run: Key) -> Opened:
    library: Library = request.app.state.library
    found = library.opened(run)
    if found is None:
        raise HTTPException(404, "There is no such run.")
    return found


Shelf = Annotated[Library, Depends(_library)]
Asked = Annotated[Opened, Depends(_opened)]

_pages = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"text/plain": {}}}
    for code, text in ((400, "It cannot be used."), (404, "There is none."))
}
_twins = APIRouter(prefix="/api", responses=_ERRORS)
_files = APIRouter(responses=_ERRORS)


def _page(request: Request, template: str, opened: Opened | None = None, **values: Any) -> HTMLResponse:
    run = about(opened) if opened else None
    base = request.scope.get("root_path", "")
    rules: Rules = request.app.state.rules
    review = None if rules.reviewer is None else {"name": rules.reviewer, "token": rules.form_token}
    return HTMLResponse(render(template, base=base, run=run, review=review, **values))


# ----------------------------------------------------------------------------------------------------------- pages


@_pages.get("/")
def runs_page(request: Request, library: Shelf, query: Annotated[RunsQuery, Query()]) -> HTMLResponse:
    """All runs."""
    return _page(request, "runs.html", page=runs(library, query), query=query, tab="runs")


@_pages.get("/runs/{run}/overview")
def overview_page(request: Request, opened: Asked, query: Annotated[OverviewQuery, Query()]) -> HTMLResponse:
    """What the run says about the network."""
    return _page(request, "overview.html", opened, page=overview(opened, query), query=query, tab="overview")


@_pages.get("/runs/{run}/queues")
def queues_page(request: Request, opened: Asked, query: Annotated[QueuesQuery, Query()]) -> HTMLResponse:
    """Samples that are worth a look."""
    page, exclusive = queues(opened, query), opened.run.exclusive
    return _page(request, "queues.html", opened, page=page, exclusive=exclusive, query=GridQuery(), tab="queues")


@_pages.get("/runs/{run}/grid")
def grid_page(request: Request, opened: Asked, query: Annotated[GridQuery, Query()]) -> HTMLResponse:
    """Many samples, with one map each."""
    page, lines = grid(opened, query), queue_lines(opened)
    return _page(request, "grid.html", opened, page=page, queue_lines=lines, query=query, tab="grid")


@_pages.get("/runs/{run}/sample")
def sample_page(request: Request, opened: Asked, query: Annotated[SampleQuery, Query()]) -> HTMLResponse:
    """One sample, original and maps side by side."""
    return _page(request, "sample_page.html", opened, page=sample(opened, query), query=query, tab="grid")


@_pages.get("/runs/{run}/saliency")
def saliency_page(request: Request, opened: Asked, query: Annotated[SaliencyQuery, Query()]) -> HTMLResponse:
    """Samples and their maps."""
    return _page(request, "saliency.html", opened, page=saliency(opened, query), query=query, tab="saliency")


@_pages.get("/runs/{run}/scores")
def scores_page(request: Request, opened: Asked, query: Annotated[ScoresQuery, Query()]) -> HTMLResponse:
    """Scores over all labels."""
    page = scores(opened, query)
    return _page(request, "scores.html", opened, page=page, radar=radar(page), query=query, tab="scores")


@_pages.get("/runs/{run}/classes")
def classes_page(request: Request, opened: Asked, query: Annotated[ClassesQuery, Query()]) -> HTMLResponse:
    """Scores label by label."""
    return _page(request, "classes.html", opened, page=classes(opened, query), query=query, tab="classes")


@_pages.get("/runs/{run}/patterns")
def patterns_page(request: Request, opened: Asked, query: Annotated[PatternsQuery, Query()]) -> HTMLResponse:
    """What the network uses in some pictures of a class and not in the others."""
    return _page(request, "patterns.html", opened, page=patterns(opened, query), query=GridQuery(), tab="patterns")


@_pages.get("/runs/{run}/counterfactual")
def counterfactual_page(
    request: Request, opened: Asked, query: Annotated[CounterfactualQuery, Query()]
) -> HTMLResponse:
    """Hierarchical occlusions."""
    page = counterfactual(opened, query)
    return _page(request, "counterfactual.html", opened, page=page, query=query, tab="counterfactual")


@_pages.get("/runs/{run}/failures")
def failures_page(request: Request, opened: Asked, query: Annotated[FailuresQuery, Query()]) -> HTMLResponse:
    """What could not be done."""
    return _page(request, "failures.html", opened, page=failures(opened, query), query=query, tab="failures")


# ------------------------------------------------------------------------------------------------------ JSON twins


@_twins.get("/runs")
def runs_json(library: Shelf, query: Annotated[RunsQuery, Query()]) -> RunsPage:
    """All runs."""
    return runs(library, query)


@_twins.get("/runs/{run}")
def run_json(opened: Asked) -> RunCard:
    """How far a run is."""
    return about(opened)


@_twins.get("/runs/{run}/overview")
def overview_json(opened: Asked, query: Annotated[OverviewQuery, Query()]) -> OverviewPage:
    """What the run says about the network."""
    return overview(opened, query)


@_twins.get("/runs/{run}/queues")
def queues_json(opened: Asked, query: Annotated[QueuesQuery, Query()]) -> QueuesPage:
    """Samples that are worth a look."""
    return queues(opened, query)


@_twins.get("/runs/{run}/grid")
def grid_json(opened: Asked, query: Annotated[GridQuery, Query()]) -> GridPage:
    """Many samples, with one map each."""
    return grid(opened, query)


@_twins.get("/runs/{run}/sample")
def sample_json(opened: Asked, query: Annotated[SampleQuery, Query()]) -> SamplePage:
    """One sample."""
    return sample(opened, query)


@_twins.get("/runs/{run}/patterns")
def patterns_json(opened: Asked, query: Annotated[PatternsQuery, Query()]) -> PatternsPage:
    """What the network uses in some pictures of a class and not in the others."""
    return patterns(opened, query)


@_twins.get("/runs/{run}/saliency")
def saliency_json(opened: Asked, query: Annotated[SaliencyQuery, Query()]) -> SaliencyPage:
    """Samples and their maps."""
    return saliency(opened, query)


@_twins.get("/runs/{run}/scores")
def scores_json(opened: Asked, query: Annotated[ScoresQuery, Query()]) -> ScoresPage:
    """Scores over all labels."""
    return scores(opened, query)


@_twins.get("/runs/{run}/classes")
def classes_json(opened: Asked, query: Annotated[ClassesQuery, Query()]) -> ClassesPage:
    """Scores label by label."""
    return classes(opened, query)


@_twins.get("/runs/{run}/counterfactual")
def counterfactual_json(opened: Asked, query: Annotated[CounterfactualQuery, Query()]) -> CounterfactualPage:
    """Hierarchical occlusions."""
    return counterfactual(opened, query)


@_twins.get("/runs/{run}/failures")
def failures_json(opened: Asked, query: Annotated[FailuresQuery, Query()]) -> FailuresPage:
    """What could not be done."""
    return failures(opened, query)


@_twins.get("/runs/{run}/names")
def names_json(opened: Asked, query: Annotated[SuggestQuery, Query()]) -> list[Choice]:
    """Classes by name."""
    return suggest(opened, query)


# ------------------------------------------------------------------------------------------- pictures and downloads


def _picture(found: pictures.Picture | None) -> Response:
    if found is None:
        raise HTTPException(404, "There is no such picture.")
    return Response(found.data, media_type=found.media, headers=FOREVER)


@_files.get("/runs/{run}/map", response_class=Response)
def map_file(
    request: Request, run: Key, sample: Short, label: Annotated[int, Query(ge=0, lt=1 << 31)], explainer: Short,
    v: Short, signed: bool = False, fine: bool = False, faint: bool = False,
) -> Response:  # fmt: skip
    """Returns a map as a grey PNG; ``v`` says which part and place it is expected in."""
    opened = _opened(request, run)  # not as a dependency: that would be one more change of thread a picture
    record = opened.run.sample(sample)
    stored = record.maps.get((label, explainer)) if record else None
    if stored is None or v != f"{stored.part}.{stored.row.offset}":
        raise HTTPException(404, "There is no such map.")
    looks = {"signed": signed, "fine": fine, "faint": faint}
    return _picture(pictures.map_picture(opened.run, sample, label, explainer, **looks))


@_files.get("/runs/{run}/thumbnail", response_class=Response)
def thumbnail_file(request: Request, run: Key, sample: Short, v: Short) -> Response:
    """Returns a small picture; ``v`` says which part and place it is expected in."""
    opened = _opened(request, run)
    record = opened.run.sample(sample)
    if record is None or record.thumbnail is None or v != f"{record.thumbnail[0]}.{record.thumbnail[1].offset}":
        raise HTTPException(404, "There is no such picture.")
    return _picture(pictures.thumbnail(opened.run, sample))


@_files.get("/runs/{run}/picture", response_class=Response)
def picture_file(request: Request, run: Key, sample: Short, v: Short = "") -> Response:
    """Returns the original of a sample, at most 1600 pixels wide; the small picture where it is gone or has changed."""
    opened = _opened(request, run)
    record = opened.run.sample(sample)
    found = _picture(pictures.large(opened.run, record) if record else None)
    found.headers["Cache-Control"] = "private, max-age=3600"  # the original may come back
    return found


@_files.get("/runs/{run}/saliency.csv", response_class=Response)
def saliency_csv(opened: Asked, query: Annotated[SaliencyQuery, Query()]) -> Response:
    """Returns the samples of a page as a table."""
    return _download(csv_of(saliency(opened, query.model_copy(update={"every": True}))), "text/csv", "saliency.csv")


@_files.get("/runs/{run}/saliency.png", response_class=Response)
def saliency_png(opened: Asked, query: Annotated[SaliencyQuery, Query()]) -> Response:
    """Returns the samples of a page as one picture."""
    return _download(png_of(opened, saliency(opened, query), query), "image/png", "saliency.png")


@_files.get("/runs/{run}/saliency.html", response_class=Response)
def saliency_html(opened: Asked, query: Annotated[SaliencyQuery, Query()]) -> Response:
    """Returns the samples of a page as one file that needs no server."""
    return _download(html_of(opened, query), "text/html", "saliency.html")


def _download(data: bytes, media: str, name: str) -> Response:
    return Response(data, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@_files.get("/static/{version}/{name}", include_in_schema=False)
def static_file(version: str, name: str) -> Response:
    """Returns a style sheet or a script: one of a fixed list."""
    if name not in STATIC or version != asset_version():
        raise HTTPException(404, "There is no such file.")
    return Response(asset(name), media_type=STATIC[name], headers=FOREVER)


# --------------------------------------------------------------------------------------------------------- reviews


@_pages.post("/runs/{run}/review", response_class=Response)
async def review(request: Request, run: Key) -> Response:
    """Keeps what a reviewer says; `Guard` lets nobody through unless the server was started for it."""
    try:
        form = await body(request)
        opened = await run_in_threadpool(_opened, request, run)
        await run_in_threadpool(keep, opened, request.app.state.rules, form)
    except Refused as error:
        raise HTTPException(error.status, str(error)) from error
    return RedirectResponse(f"{request.scope.get('root_path', '')}/runs/{run}/{back(form)}", 303)


# ---------------------------------------------------------------------------------------------------------- errors


async def _failed(request: Request, error: Exception) -> Response:
    status, text = _reason(error)
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api/"):
        return JSONResponse({"detail": text}, status)
    return HTMLResponse(
        render("error.html", base=request.scope.get("root_path", ""), text=text, status=status, tab=""),
        status,
    )


def _reason(error: Exception) -> tuple[int, str]:
    if isinstance(error, RequestValidationError):
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return 422, f"This address cannot be used. {told}"
    if isinstance(error, StarletteError):
        return error.status_code, str(error.detail)
    if isinstance(error, StorageError):
        return 503, str(error)
    return (400 if isinstance(error, InvalidInput) else 500), str(error)

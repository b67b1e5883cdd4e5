"""Whatever is asked within the OpenAPI description, and beside it, is never answered with an error of the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from seewhy.web.app import application
from seewhy.web.library import Library
from seewhy.web.security import Rules
from support.web_pages import folder, one, tree

pytestmark = pytest.mark.slow

schemathesis = pytest.importorskip("schemathesis")
MODES = schemathesis.GenerationMode
OPERATIONS = [
    "/api/runs", "/api/runs/{run}", *(f"/api/runs/{{run}}/{name}" for name in (
        "overview", "queues", "grid", "sample", "patterns", "saliency", "scores", "classes", "counterfactual",
        "failures", "names")),
    *(f"/runs/{{run}}/{name}" for name in (
        "map", "thumbnail", "picture", "saliency.csv", "saliency.png", "saliency.html")),
]  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("runs")
    folder(place / "run").add("c" * 8, one(20, trees={6: tree()}))
    library = Library(place)
    found = schemathesis.openapi.from_asgi(
        "/api/openapi.json", application(library, Rules(names=frozenset({"testserver"})))
    )
    return found, next(iter(library.places()))


def test_all_of_it_is_asked(api: Any) -> None:
    assert sorted(api[0]) == sorted(OPERATIONS)
    assert all(set(api[0][path]) == {"get"} for path in OPERATIONS)


@pytest.mark.parametrize("mode", [MODES.POSITIVE, MODES.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("path", OPERATIONS)
def test_no_question_breaks_the_server(api: Any, path: str, mode: Any) -> None:
    schema, run = api
    seen = []

    @given(case=schema[path]["GET"].as_strategy(generation_mode=mode))
    @settings(
        max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    def ask(case: Any) -> None:
        if "{run}" in path and mode is MODES.POSITIVE:
            case.path_parameters["run"] = run
        seen.append(case.call().status_code)
        assert seen[-1] in (200, 400, 404, 405, 414, 422), case.as_curl_command()

    ask()
    assert seen

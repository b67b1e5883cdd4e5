"""docs/architecture.md is true: the import order is the one that is checked, and the five journeys go as it says."""

from __future__ import annotations

import ast
import html
import importlib
import re
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seewhy
from support import ROOT, run_jobs
from support.exports import to_onnx
from support.networks import Deep, Pooled, build, pictures
from support.web_pages import client, key, photograph

pytestmark = pytest.mark.slow

SRC = Path(seewhy.__file__).parent
BLOCKS = (ast.FunctionDef, ast.Try)
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PREPROCESSING = seewhy.Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def sections(level: str) -> dict[str, str]:
    parts = re.split(rf"^{level} (.+)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


JOURNEYS = {title: re.findall(r"^\d+\. `([\w/]+\.py: [\w.]+)` ", text, re.M) for title, text in sections("###").items()}


def test_the_import_order_is_the_one_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(one["layers"] for one in contracts if one["name"] == "Imports point one way")
    block = re.search(r"```text\n(.*?)```", sections("##")["Imports point one way"], flags=re.DOTALL)
    assert block
    assert block[1].splitlines() == [line.replace("seewhy.", "") for line in layers]


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([\w/]+\.py: [\w.]+)`", PAGE))))
def test_a_place_that_is_named_is_there(place: str) -> None:
    file, name = place.split(": ")
    assert (SRC / file).is_file()
    found: Any = importlib.import_module(
        "seewhy." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    )
    for part in name.split("."):
        found = getattr(found, part)


ROOMS = ("torch", "exported", "backends", "adapters", "mindspore")  # of models


def test_rooms_and_files_that_are_named_are_there() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", PAGE))
    inside = {"src/seewhy/", *(f"{room}/" for room in ROOMS)}
    assert [one for one in sorted(named - inside) if not (SRC / one).exists()] == []
    assert all((SRC / "models" / one).is_dir() for one in ROOMS)


# ------------------------------------------------------------------------------------------------------ journeys


def visited(journey: Callable[[], object]) -> list[str]:
    """ "file: function" of this project, in the order in which they are first called, in any thread."""
    found: dict[str, None] = {}

    def seen(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(SRC)):
            file = Path(frame.f_code.co_filename).relative_to(SRC).as_posix()
            found.setdefault(f"{file}: {frame.f_code.co_qualname}")

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        journey()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(found)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    photograph().save(path)
    return path


def image(photo: Path, place: Path) -> list[str]:
    model = seewhy.load(build(Pooled), preprocessing=PREPROCESSING)
    return visited(lambda: seewhy.explain(model, photo, method="recipro_cam", progress=False).save(place))


def target(photo: Path, _: Path) -> list[str]:
    model = seewhy.load(build(Deep), preprocessing=PREPROCESSING, labels=["a", "cat", "c", "d", "e"])
    return visited(lambda: seewhy.explain(model, photo, "cat", "rise", progress=False, num_masks=20).summary())


def run(_: Path, place: Path) -> list[str]:
    return visited(lambda: run_jobs.run(place, 2, explainers=["recipro_cam"], metrics=["deletion_auc"]))


def page(photo: Path, place: Path) -> list[str]:
    run(photo, place / "run")

    def ask() -> None:
        with client(place) as found:
            text = found.get(f"/runs/{key(found)}/saliency").text
            address = re.search(r'"(/runs/\w+/map\?[^"]+)"', text)
            assert address
            assert found.get(html.unescape(address[1])).status_code == 200

    return visited(ask)


def onnx(photo: Path, place: Path) -> list[str]:
    file = to_onnx(build(Deep), place / "model.onnx", pictures(1))

    def ask() -> None:
        model = seewhy.load(file, preprocessing=PREPROCESSING)
        seewhy.explain(model, photo, method="recipro_cam", progress=False)

    return visited(ask)


WALKS = {
    "An image through `explain`": image,
    "A target": target,
    "A sample through a run": run,
    "A request of a page": page,
    "An ONNX file": onnx,
}


def test_there_are_five_journeys() -> None:
    assert list(JOURNEYS) == list(WALKS)
    assert min(map(len, JOURNEYS.values())) >= 8


@pytest.mark.parametrize("title", WALKS)
def test_a_journey_goes_as_it_is_told(title: str, photo: Path, tmp_path: Path) -> None:
    seen = WALKS[title](photo, tmp_path)
    assert [stop for stop in JOURNEYS[title] if stop not in seen] == []
    assert sorted(JOURNEYS[title], key=seen.index) == JOURNEYS[title]


# What it needs may not be installed, or would be loaded for nothing: why stands beside each.
LATER = {
    "web/notebook.py": "the pages' libraries are an extra, and a missing one is told",
    "cli/work/report.py": "likewise",
    "cli/work/demo.py": "likewise, and the pages begin while torch is loaded",
    "cli/work/view.py": "likewise",
    "pytest_plugin.py": "pytest loads it in every project, and most do not use it",
}


def test_only_what_may_be_missing_is_imported_late() -> None:
    found: dict[str, list[int]] = {}
    for path in SRC.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        late = [node for outer in ast.walk(tree) if isinstance(outer, BLOCKS) for node in ast.walk(outer)]
        lines = [n.lineno for n in late if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("seewhy")]
        if lines:
            found[path.relative_to(SRC).as_posix()] = lines
    assert sorted(found) == sorted(LATER)


def test_no_file_leads_back_to_itself() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("seewhy", cache_dir=None)
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while ends := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in ends:
            del left[module]
    assert sorted(left) == []  # what is left imports, or is imported by, a circle

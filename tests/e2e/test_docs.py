"""The documentation is complete and true: its code runs, its commands parse, its pages are made of what there is."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import tyro

from seewhy import registry
from seewhy.cli import COMMANDS
from support import ROOT

DOCS = ROOT / "docs"
yaml = pytest.importorskip("yaml")

import docstrings  # noqa: E402  # docs/_site, see pyproject.toml
import methods  # noqa: E402
import reference  # noqa: E402

pytestmark = pytest.mark.slow

PAGES = sorted(p for p in DOCS.rglob("*.md") if "_data" not in p.parts)
EVERY = [(kind, name) for kind in methods.KINDS for name in registry.names(kind)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def ids(value: Path | str) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else value


# ------------------------------------------------------------------------------------------------ generated pages


@pytest.mark.parametrize("kind", methods.KINDS)
def test_every_registered_name_has_an_entry_and_none_is_left_over(kind: str) -> None:
    assert sorted(methods.about(kind)) == registry.names(kind)
    families = {entry["family"] for entry in methods.about(kind).values()}
    assert families <= set(methods.FAMILIES[kind])


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_page_says_everything(kind: str, name: str) -> None:
    page, cls = methods.page(kind, name), registry.load(kind, name)
    entry, module = methods.about(kind)[name], sys.modules[cls.__module__].__doc__ or ""
    assert page.startswith(f"# {cls.__name__}\n")
    for year in re.findall(r"\b(?:19|20)\d\d\b", module):
        assert year in page
    for number in re.findall(r"arXiv\s+(\d{4}\.\d{4,5})", module):
        assert f"https://arxiv.org/abs/{number}" in page
    for field in fields(cls):
        if field.init and field.name != "network":
            row = re.search(rf"^\| `{field.name}` \| .+ \| .+ \| (.+) \|$", page, flags=re.MULTILINE)
            assert row, f"{field.name} is not in the table"
            assert row[1].strip(), f"{field.name} has no meaning: {cls.__name__}'s docstring lacks it"
    assert entry["use"].strip() in page
    assert entry["avoid"].strip() in page
    assert all(other in methods.about(kind) for other in entry.get("see", []))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_pictures_of_a_page_are_there(kind: str, name: str) -> None:
    shown = re.findall(r"\.\./images/methods/([\w.-]+)", methods.page(kind, name))
    assert all((DOCS / "images" / "methods" / file).is_file() for file in shown)


@pytest.mark.parametrize("kind", methods.KINDS)
def test_drawn_things_are_registered(kind: str) -> None:
    assert set(methods.drawn(kind)) <= set(registry.names(kind))


def test_no_picture_is_left_over() -> None:
    text = "".join(methods.page(kind, name) for kind, name in EVERY)
    assert {p.name for p in (DOCS / "images" / "methods").iterdir()} == set(re.findall(r"methods/([\w.-]+)", text))


def test_metric_costs_are_those_of_the_metric() -> None:
    from seewhy.metrics import Cost

    assert methods._cost(Cost(forward=1, explanations=2)) == "1 forward pass and 2 further explanations"
    assert methods._cost(Cost()) == "nothing but the map"
    assert "101 forward passes" in methods.page("metrics", "deletion_auc")


def test_index_links_every_page() -> None:
    for kind in methods.KINDS:
        page = methods.index(kind)
        assert all(f"({name}.md)" in page for name in registry.names(kind))


# ---------------------------------------------------------------------------------------------------- docstrings


def test_docstring_in_parts() -> None:
    found = docstrings.parse(
        "Name: lead.\n\n    a * b\n      c\n\nThe ``x`` of a < b, `Y` and *.\n\nSource: A, 2020 (arXiv\n2001.00001).\n"
    )
    assert found.lead == "Name: lead."
    assert found.body == "```text\na * b\n  c\n```\n\nThe `x` of a &lt; b, `Y` and \\*."
    assert found.source == "A, 2020 ([arXiv 2001.00001](https://arxiv.org/abs/2001.00001))."


def test_formula_right_below_a_sentence() -> None:
    assert docstrings.markdown("Thus\n    a\n    b\nand so on") == "Thus\n\n```text\na\nb\n```\n\nand so on"


# ------------------------------------------------------------------------------------------------- command line


def test_flags_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit):
            parse([name, "--help"])
        told = capsys.readouterr().out
        listed = {flag for flag, *_ in reference.flags(command) if flag.startswith("--")}
        assert listed == set(re.findall(r"^[│ ] (--[\w-]+)", told, flags=re.MULTILINE)), name


def parse(arguments: list[str]) -> object:
    return tyro.extras.subcommand_cli_from_dict(
        dict(COMMANDS), prog="seewhy", args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
    )


def commands(text: str) -> list[str]:
    joined = "\n".join(blocks(text, "console")).replace("\\\n", " ")
    return re.findall(r"^\$ seewhy ([^#\n]+)", joined, flags=re.MULTILINE)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=ids)
def test_commands_parse(path: Path) -> None:
    for line in commands(path.read_text(encoding="utf-8")):
        parse(shlex.split(line))


def test_commands_of_generated_pages_parse() -> None:
    for kind, name in EVERY:
        for line in commands(methods.page(kind, name)):
            parse(shlex.split(line))


def test_pictures_of_kinds_are_shown_and_small() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    there = {path.name: path.stat().st_size for path in (DOCS / "images" / "kinds").iterdir()}
    assert set(there) == set(re.findall(r"images/kinds/([\w.-]+)", text))
    assert max(there.values()) < 50_000


# --------------------------------------------------------------------------------------------------------- code


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_code_names_what_there_is(path: Path) -> None:
    import seewhy

    for code in blocks(path.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "seewhy":
                assert hasattr(seewhy, node.attr), f"seewhy.{node.attr}"


RUN = [
    "quickstart.md", "extending.md", "migrating/mindspore-xai.md", "migrating/captum.md", "migrating/grad-cam.md",
    "segmentation.md", "pictures.md", *sorted(str(p.relative_to(DOCS)) for p in (DOCS / "using-with").glob("*.md")),
]  # fmt: skip


NEEDS = {  # what is not among the test extras
    "using-with/mindspore.md": ("mindspore",), "using-with/trackers.md": ("tensorboard",),
    "using-with/ultralytics.md": ("ultralytics",), "using-with/albumentations.md": ("albumentations",),
    "using-with/frames.md": ("pandas", "polars"), "using-with/webdataset.md": ("webdataset",),
}  # fmt: skip


@pytest.mark.parametrize("page", RUN)
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in NEEDS.get(page, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    code = blocks((DOCS / page).read_text(encoding="utf-8"), "python")
    assert code
    module = "page_" + re.sub(r"\W", "_", page)
    space: dict[str, object] = {"__name__": module}
    monkeypatch.setitem(sys.modules, module, type(sys)(module))
    for k, block in enumerate(code):
        exec(compile(block, f"{page}, block {k + 1}", "exec"), space)
        sys.modules[module].__dict__.update(space)


# --------------------------------------------------------------------------------------------------------- site


def test_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*.html")}
    assert {f"{kind}/{name}.html" for kind, name in EVERY} <= built
    assert {str(p.relative_to(DOCS).with_suffix(".html")) for p in PAGES} <= built


def test_addresses_of_other_hosts_are_found(tmp_path: Path) -> None:
    hooks = pytest.importorskip("mkdocs") and __import__("hooks")
    page = '<a href="https://a.org">link</a><script src="https://b.org/x.js"></script><img class="y" src=//c.org/z.png>'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "style.css").write_text(
        "a{b:url(https://d.org/e.woff)} @import 'http://f.org/g.css';", encoding="utf-8"
    )
    (tmp_path / "own.html").write_text('<script src="../x.js"></script><img src="a.webp">', encoding="utf-8")
    assert hooks.outside(tmp_path) == [
        ("page.html", "https://b.org/x.js"),
        ("page.html", "//c.org/z.png"),
        ("style.css", "https://d.org/e.woff"),
        ("style.css", "http://f.org/g.css"),
    ]


def test_makefile_and_ci_build_it() -> None:
    assert re.search(r"^docs:.*\n\t.*-m mkdocs build --strict", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert re.search(r"^make docs$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

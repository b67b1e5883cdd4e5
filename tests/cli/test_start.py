"""How the command line starts: what it loads, its version, and what it says of commands and flags that are none."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import tyro

from seewhy import cli
from support.web_pages import folder

AFTER = """
import sys
from seewhy import cli
try:
    code = cli.main({!r})
except SystemExit as end:
    code = end.code
assert 'torch' not in sys.modules, sorted(sys.modules)
raise SystemExit(code)
"""
PAGES = """
import re
import sys
from starlette.testclient import TestClient
from seewhy.web.app import application
from seewhy.web.library import Library
from seewhy.web.security import Rules

library = Library(sys.argv[1])
key = next(iter(library.places()))
client = TestClient(application(library, Rules.of('127.0.0.1', ()), root_path=''), base_url='http://127.0.0.1')
text = ''
for page in ('', *('/' + name for name in ('saliency', 'scores', 'classes', 'failures', 'counterfactual'))):
    answer = client.get('/runs/' + key + page if page else '/')
    assert answer.status_code == 200, (page, answer.text)
    text += answer.text
for kind in ('map', 'thumbnail', 'picture', 'saliency.png', 'saliency.csv', 'saliency.html'):
    found = re.search(f'/runs/{key}/{re.escape(kind)}(?![a-z.])[^" ]*', text)
    assert found, kind
    answer = client.get(found[0].replace('&amp;', '&'))
    assert answer.status_code == 200, (kind, answer.text)
    assert len(answer.content) > 50, kind
assert 'torch' not in sys.modules
"""


def python(code: str, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["resume", "--help"], 0),
        (["explain", "--help"], 0),
        (["expain"], 2),
        (["run", "--explaner", "rise"], 2),
    ],
)
def test_what_needs_no_network_loads_no_torch(words: list[str], code: int) -> None:
    done = python(AFTER.format(words))
    assert done.returncode == code, done.stderr


def test_status_view_and_export_load_no_torch(tmp_path: Path) -> None:
    place = tmp_path / "run"
    folder(place)
    for words in (
        ["status", str(place)],
        ["export", str(place), "--to", "csv", "--out", str(tmp_path / "table.csv")],
        ["view", str(place), "--export", str(tmp_path / "page.html")],
    ):
        done = python(AFTER.format(words))
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_pages_are_answered_without_torch(tmp_path: Path) -> None:
    folder(tmp_path / "run")
    done = python(PAGES, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_large() -> None:
    large = ("torch", "numpy", "PIL", "duckdb", "pyarrow", "scipy", "tyro")
    done = python(f"import seewhy, sys; print([name for name in {large} if name in sys.modules])")
    assert done.stdout == "[]\n"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"seewhy {version('seewhy')} (torch {version('torch')}, Python 3.")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("expain", "Did you mean 'explain' or 'export'?"),
        ("resum", "Did you mean 'resume' or 'run'?"),
        ("zzz", "Known: 'explain', 'compare', 'run', 'resume', 'status', 'view', 'export', 'diff', ..."),
    ],
)
def test_a_command_that_is_none(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word, "--out", "x"]) == 2
    assert capsys.readouterr().err == f"seewhy: There is no command {word!r}. {hint} All of them: seewhy --help.\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_of_help_are_commands_that_can_be_given(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = cli.COMMANDS[name]
    assert kind.examples
    for example in kind.examples:
        program, typed, *rest = shlex.split(example)
        assert (program, typed) == ("seewhy", name)
        if "--config" not in rest:
            tyro.cli(kind, args=rest, config=(tyro.conf.FlagCreatePairsOff,))
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"$ {' '.join(example.split())}" in said for example in kind.examples)


def test_flags_that_turn_something_off_say_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        for flag in re.split(r"\n│ (?=-)", capsys.readouterr().out):
            if flag.startswith("--no-"):
                assert "not" in flag.split()
                assert "default: True" not in flag


def test_a_flag_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Only flags of the command that was given are offered."""
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--data", "x", "--out", "y", "--explaners", "rise"])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert "--explainers" in said.out + said.err
    assert "compare" not in said.out + said.err

"""``seewhy view``, as it is called."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from seewhy.cli.view import View
from seewhy.errors import InvalidInput
from support.typed import present
from support.web_pages import folder

pytestmark = pytest.mark.slow

START = "from seewhy.cli.view import View; View(folder={!r}, port=0, browser=False, host={!r}).run()"


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("0.0.0.0", 401)])
def test_it_serves_until_it_is_interrupted(tmp_path: Path, host: str, status: int) -> None:
    folder(tmp_path / "run")
    code = START.format(str(tmp_path / "run"), host)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://[^:/]+:(\d+)(/runs/[0-9a-f]{8}/overview)(\?token=\S+)?  ", line)
        port, page, token = present(found).groups()
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}{page}").status_code == status
        with httpx.Client() as known:
            assert known.get(f"{address}{page}{token or ''}").status_code == 200
            assert "<h1>Overview</h1>" in known.get(f"{address}{page}").text
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stderr.close()


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    code = START.format(str(tmp_path), "127.0.0.1")
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith(f"There is no run yet (no run.json, 3 folders deep) in {tmp_path}: http://")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stderr.close()


def test_it_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "one")
    folder(tmp_path / "two")
    made = tmp_path / "page.html"
    assert View(folder=str(tmp_path), export=made, run_name="two", view="labels=3").run() == 0
    assert capsys.readouterr().out == f"{made}\n"
    assert made.read_text().count("<article") == 2
    with pytest.raises(InvalidInput, match=r"^Say which run is to be shown \(run, --run-name\): one of 'one', 'two'.$"):
        View(folder=str(tmp_path), export=made).run()


def test_a_port_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^--port must be from 0 to 65535, got 70000.$"):
        View(folder=str(tmp_path), port=70000).run()


FOLLOW = "from pathlib import Path; from seewhy.cli.work.view import follow; follow(Path({!r}), {}, False)"


def test_pages_that_wait_for_their_run(tmp_path: Path) -> None:
    code = FOLLOW.format(str(tmp_path / "run"), 0)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        time.sleep(0.5)
        assert process.poll() is None
        folder(tmp_path / "run")
        port = present(re.search(r"http://127.0.0.1:(\d+)/", process.stderr.readline())).group(1)
        assert "<article" in httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True).text
        again = subprocess.run(
            [sys.executable, "-c", FOLLOW.format(str(tmp_path / "run"), port)], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert again.returncode == 2
        assert again.stderr.startswith(f"seewhy: Cannot listen to 127.0.0.1 port {port}: ")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stderr.close()

"""Runs on S3, against a moto server of this machine and no other address; also killed with -9 in the middle."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

if importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None:
    pytest.skip("moto or s3fs is not installed", allow_module_level=True)

from seewhy.errors import StorageError
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from support import SRC, TESTS
from support.run_jobs import content, run

pytestmark = pytest.mark.slow

PICTURES = 16
EXPLAINERS = ["grad_cam(layer='act2')"]
SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket; whoever asks for S3 in this process or in one that it starts comes to this server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    own = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=kept | own,
    )  # fmt: skip
    assert process.stdout is not None
    own["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(kept):
            patch.delenv(name)
        for name, value in own.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def want(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("s3")
    run(place / "a", PICTURES, explainers=EXPLAINERS)
    return plain(place / "a")


def plain(place: Any) -> list[dict[str, Any]]:
    return [row | {"part": ""} for row in content(place)]


def test_a_run_on_s3_is_the_run_on_a_disk(bucket: str, want: list[dict[str, Any]]) -> None:
    place: Any = f"{bucket}/whole"
    assert run(place, PICTURES, explainers=EXPLAINERS).computed == PICTURES
    assert run(place, PICTURES, explainers=EXPLAINERS).computed == 0
    assert plain(place) == want
    assert Run(place).counts().samples == PICTURES


def test_killed_at_random_moments(bucket: str, want: list[dict[str, Any]]) -> None:
    place: Any = f"{bucket}/torn"
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from support.run_jobs import run; "
    code += "print('ready', flush=True); "
    code += f"print(run({place!r}, {PICTURES}, explainers={EXPLAINERS!r}, chunk=2, batch=2).computed, flush=True)"
    environment = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    dice, kills = random.Random(3), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.2, 1.6))
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if Store(place).exists():
            assert Run(place).counts().unread == 0
    assert kills > 0
    run(place, PICTURES, explainers=EXPLAINERS, chunk=2, batch=2)
    again = run(place, PICTURES, explainers=EXPLAINERS, chunk=2, batch=2)
    assert (again.computed, again.left) == (0, 0)
    assert [row["sample"] for row in content(place)] == [row["sample"] for row in want]
    assert Run(place).counts().samples == PICTURES


def test_of_two_writers_one_makes_the_run(bucket: str) -> None:
    one, two = Store(f"{bucket}/shared"), Store(f"{bucket}/shared")
    assert [one.create({"id": "1"}), two.create({"id": "2"})] == [True, False]
    files = two.files
    assert json.loads(files.get("run.json")) == {"id": "1"}
    made = files._make(f"{files.root}/run.json", b"{}")  # type: ignore[union-attr]
    assert not made


def test_of_two_uploads_at_one_moment_the_store_refuses_one(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one: Any = Store(f"{bucket}/moment").files
    assert one.put("run.json", [b"1"], replace=False)
    monkeypatch.setattr(type(one.system), "exists", lambda *_, **__: False)  # it asked before the other one wrote
    with pytest.raises(FileExistsError):
        one.system.pipe_file(f"{one.root}/run.json", b"2", mode="create")
    assert not one.put("run.json", [b"2"], replace=False)
    assert one.get("run.json") == b"1"


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(StorageError, match=r"^'s3://nobody-has-this/run' cannot be written: ") as found:
        run("s3://nobody-has-this/run")  # type: ignore[arg-type]
    assert "See whether the address, the credentials and the connection are right" in str(found.value)
    assert not Store(bucket).files.system.exists("nobody-has-this")  # type: ignore[union-attr]

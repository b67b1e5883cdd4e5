"""The service of docs/service.md: its code is run, and asked by several threads at once."""

from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.demo import photographs

pytestmark = pytest.mark.slow

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def client() -> Any:
    from fastapi.testclient import TestClient

    threads, page = torch.get_num_threads(), Path(__file__).parents[2] / "docs" / "service.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    place: dict[str, Any] = {"__name__": "service"}
    exec(compile(code, "docs/service.md", "exec", dont_inherit=True), place)
    with TestClient(place["app"]) as client:
        yield client
    torch.set_num_threads(threads)


def small(path: Path) -> bytes:
    into = io.BytesIO()
    Image.open(path).convert("RGB").resize((160, 120)).save(into, "PNG")
    return into.getvalue()


def test_requests_from_many_threads_get_what_they_get_alone(client: Any) -> None:
    pictures = [small(path) for path in list(photographs().values())[:2]]
    asked = [(way, p) for way in ("/explain?method=grad_cam", "/explain", "/predict") for p in pictures]
    asked += [("/explain?method=rise", pictures[0])]

    def ask(one: tuple[str, bytes]) -> tuple[int, bytes]:
        answer = client.post(one[0], content=one[1])
        return answer.status_code, answer.content

    alone = [ask(one) for one in asked]
    assert {status for status, _ in alone} == {200}
    assert len({content for _, content in alone}) >= len(alone) - 2  # with this head ReciproCAM is GradCAM
    assert np.ptp(np.asarray(Image.open(io.BytesIO(alone[0][1])))) > 100
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, asked + asked[:2])) == alone + alone[:2]
    finally:
        sys.setswitchinterval(before)


def test_bad_requests_are_answered(client: Any) -> None:
    picture = small(next(iter(photographs().values())))
    answers = [
        client.post("/explain", content=b"no picture"),
        client.post("/explain", content=bytes(10_000_001)),
        client.post("/explain?method=nothing", content=picture),
        client.post("/explain?label=4000", content=picture),
    ]
    assert [a.status_code for a in answers] == [415, 413, 422, 422]
    assert answers[2].json()["detail"] == "method is one of recipro_cam, grad_cam, rise."
    assert "4000" in answers[3].json()["detail"]

"""A package of somebody else: installed beside seewhy, it adds one of every kind, found by entry points alone."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import seewhy
from seewhy import registry
from seewhy.cli import main
from seewhy.datasets import open_data, reopen
from seewhy.errors import InvalidInput, UnknownName, UnknownParameter
from seewhy.models.adapters import as_model
from support import run_jobs
from support.networks import Pooled, build, pictures

NAMES = {
    "explainers": ("corner", "Corner"), "metrics": ("answer", "Answer"), "engines": ("backwards", "Backwards"),
    "datasets": ("strip", "Strip"), "exports": ("lines", "Lines"), "backends": ("plain", "Plain"),
    "adapters": ("guest_library", "Adapter"),
}  # fmt: skip
CODE = '''
from dataclasses import dataclass
import json

import numpy as np
import torch
from PIL import Image

from seewhy.attribution import Attribution
from seewhy.datasets.arrays import Arrays
from seewhy.engines.local import Local
from seewhy.explainers import Explainer
from seewhy.metrics import Metric
from seewhy.models.function import FunctionModel


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Corner(Explainer):
    """Warm in one corner."""

    def _explain(self, model, inputs, request):
        outputs = model(inputs)
        targets = request.resolve(outputs)
        raw = inputs.new_zeros(len(inputs), targets.count, *inputs.shape[2:])
        raw[..., 0, 0] = 1
        return Attribution(raw=raw, outputs=outputs, targets=targets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Metric):
    """Always the same."""

    def _judge(self, case):
        return 0.42


@dataclass(frozen=True, kw_only=True)
class Backwards:
    """The last piece of work first."""

    workers: int = 1

    def map(self, factory, todo, stop):
        yield from Local(workers=self.workers).map(factory, list(todo)[::-1], stop)


class Strip:
    """A picture that is cut into squares."""

    word = "strip"

    @staticmethod
    def recognises(path):
        return path.endswith(".strip.png")

    @classmethod
    def open(cls, root, *, first=0):
        whole = np.asarray(Image.open(root).convert("RGB"))
        side = whole.shape[0]
        return Arrays.of(images=np.stack([whole[:, i : i + side] for i in range(first, whole.shape[1], side)]))


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The keys of the samples."""

    end: str = ""

    def __call__(self, run, out):
        out.write_text("".join(f"{hit.record.name}{self.end}\\n" for hit in run.samples()), encoding="utf-8")
        return [out]


class Plain:
    title = "Plain"
    suffixes = (".plain",)

    def installed(self):
        return True

    def holds(self, path):
        return True

    def open(self, path, forward_kwargs, trust):
        weight = torch.tensor(json.loads(path.read_text()))
        return FunctionModel(lambda x: x.mean((2, 3)) @ weight.T)


class Adapter:
    def __call__(self, network):
        return FunctionModel(network.predict) if type(network).__name__ == "Net" else None
'''
LIBRARY = """
class Net:
    def predict(self, x):
        return x.mean((2, 3))


class Other:
    pass
"""


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Installed as pip leaves it: a module, and a folder of metadata beside it."""
    target = tmp_path_factory.mktemp("installed")
    (target / "guest_package.py").write_text(CODE)
    (target / "guest_library.py").write_text(LIBRARY)
    about = target / "guest_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-package\nVersion: 1.0\n")
    points = [f"[seewhy.{kind}]\n{name} = guest_package:{cls}\n" for kind, (name, cls) in NAMES.items()]
    (about / "entry_points.txt").write_text("\n".join(points))
    sys.path.insert(0, str(target))
    registry.forget()
    yield target
    sys.path.remove(str(target))
    registry.forget()
    for name in ("guest_package", "guest_library"):
        sys.modules.pop(name, None)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    assert all(name in registry.outside(kind) for kind, (name, _) in NAMES.items())
    as_model(build(Pooled))
    seewhy.explain(build(Pooled), pictures(1), method="grad_cam", progress=False)
    assert "guest_package" not in sys.modules


@pytest.mark.parametrize("kind", NAMES)
def test_the_name_of_a_guest_is_that_of_its_entry_point(kind: str) -> None:
    name, cls = NAMES[kind]
    found = registry.load(kind, name)
    assert found.__name__ == cls
    assert registry.name_of(found) == name


def test_an_explainer_and_a_metric() -> None:
    x = pictures(2)
    found = seewhy.explain(build(Pooled), x, method="corner", progress=False)
    assert found.method == "corner"
    assert float(found.raw[1, 0, 0, 0]) == 1.0
    table = seewhy.compare(build(Pooled), x, explainers=["corner"], metrics=["answer"], progress=False)
    assert "corner" in str(table)
    assert "0.42" in str(table)


def test_an_engine_and_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = registry.load("engines", "backwards")()
    run_jobs.run(tmp_path / "run", 3, explainers=["corner"], metrics=["answer"], engine=engine, chunk=1)
    settings = (tmp_path / "run" / "run.json").read_text()
    assert '"corner"' in settings
    assert (
        main(["export", str(tmp_path / "run"), "--to", "lines", "--out", str(tmp_path / "a.txt"), "--set", "end=!"])
        == 0
    )
    assert (tmp_path / "a.txt").read_text() == "000000!\n000001!\n000002!\n"
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("corner", "answer", "lines"))


def test_an_engine_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    common = ["--data", str(tmp_path / "a.png"), "--out", str(tmp_path / "run"), "--explainers", "corner", "--quiet"]
    model = ["--model", "guest_models:net", "--size", "16", "16", "--mean", "0", "0", "0", "--std", "1", "1", "1"]
    assert main(["run", *model, *common, "--engine", "backward"]) == 2
    assert "There is no engine 'backward'. Did you mean 'backwards'?" in capsys.readouterr().err


def test_a_kind_of_data(tmp_path: Path) -> None:
    whole = np.arange(4 * 12 * 3, dtype=np.uint8).reshape(4, 12, 3)
    path = tmp_path / "a.strip.png"
    Image.fromarray(whole).save(path)
    Image.fromarray(whole).save(tmp_path / "a.png")
    for data in (open_data(path), open_data(f"strip:{tmp_path / 'a.png'}")):
        assert len(data) == 3
    assert len(open_data(tmp_path / "a.png")) == 1
    assert len(open_data(f"strip:{path}", first=4)) == 2
    with pytest.raises(UnknownParameter, match=re.escape("strip has no option 'frist'. Did you mean 'first'?")):
        open_data(path, frist=4)
    with pytest.raises(InvalidInput, match=re.escape("csv:FILE, npz:FILE, tar:FILE or strip:PATH; ")):
        open_data(tmp_path / "nothing.txt")
    assert len(reopen({"kind": "strip", "root": str(path), "options": {"first": 8}})) == 1


def test_a_backend(tmp_path: Path) -> None:
    path = tmp_path / "net.PLAIN"
    path.write_text("[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]")
    x = pictures(2)
    torch.testing.assert_close(seewhy.load(path)(x).classes, x.mean((2, 3))[:, :2])
    seewhy.load(path, backend="plain")
    with pytest.raises(InvalidInput, match=re.escape("torch does not read .PLAIN files; 'net.PLAIN' is run by Plain.")):
        seewhy.load(path, backend="torch")
    with pytest.raises(InvalidInput, match=re.escape("'onnxruntime', 'openvino', 'plain' or 'torch', got 'plane'.")):
        seewhy.load(path, backend="plane")


def test_an_adapter() -> None:
    guest_library: Any = importlib.import_module("guest_library")

    class Own(guest_library.Net):
        """Of one's own, made of the library's."""

        def __call__(self, _: Tensor) -> Tensor:
            raise AssertionError("The adapter calls predict.")

    Own.__name__ = "Net"
    x = pictures(2)
    for network in (guest_library.Net(), Own()):
        torch.testing.assert_close(as_model(network)(x).classes, x.mean((2, 3)))
    with pytest.raises(seewhy.errors.InvalidType, match="got Other"):
        as_model(guest_library.Other())


def test_names_that_are_nowhere() -> None:
    with pytest.raises(UnknownName, match=re.escape("There is no backend 'plane'. Did you mean 'plain'?")):
        registry.load("backends", "plane")

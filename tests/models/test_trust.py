"""Nothing from a file runs without ``trust``: archives of torch.export, TorchScript, checkpoints, factories."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import cli
from seewhy.errors import CheckpointError, InvalidInput, SeewhyError, UnknownName
from seewhy.explainers import RISE
from seewhy.models.exported.program_text import Suspect, check
from seewhy.models.loading import load
from seewhy.models.torch.script_file import suspect
from support import hostile_models as hostile
from support.networks import Pooled, build

pytestmark = pytest.mark.slow

X = hostile.X
REFUSED = "Reading it would run code from the file. If you trust where it comes from, pass trust=True (--trust)"


def believe(path: Path) -> None:
    """Loads and runs a model that is trusted; whether that works is not asked here."""
    with contextlib.suppress(Exception):
        load(path, trust=True)(X)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return hostile.members(hostile.program(tmp_path_factory.mktemp("programs") / "net.pt2"))


# Those that torch itself stops later, or that only some of its versions follow, leave no mark when they are trusted.
RUNS = ("sample inputs", "earlier weights", "earlier constants", "pickled weight", "pickled constant", "opaque object")


@pytest.mark.parametrize("name", hostile.PROGRAMS)
def test_a_program_that_would_run_code(name: str, parts: dict[str, bytes], tmp_path: Path) -> None:
    changed, mark = dict(parts), tmp_path / "mark"
    hostile.PROGRAMS[name](changed, mark)
    path = hostile.write(tmp_path / "net.pt2", changed)
    with pytest.raises(CheckpointError, match=re.escape(REFUSED)):
        load(path)
    assert not mark.exists()
    assert "antigravity" not in sys.modules
    if name in (*RUNS, "size"):
        believe(path)
        assert mark.exists()


@pytest.mark.parametrize("bad", ["state_dict", "constants", "example_inputs"])
def test_a_program_in_the_earlier_layout(bad: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = hostile.earlier(tmp_path / "net.pt2", mark, bad)
    with pytest.raises(CheckpointError, match=re.escape(f"in its part 'serialized_{bad}.pt': Trying to load")):
        load(path)
    assert not mark.exists()
    believe(path)
    assert mark.exists()


def test_a_program_for_a_fixed_number_is_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(build(Pooled), (X,)), path)
    model: Any = load(path)
    assert model(X).classes.shape == (2, 5)
    parts = hostile.members(path)
    hostile.PROGRAMS["sample inputs"](parts, tmp_path / "mark")
    hostile.write(path, parts)
    with pytest.raises(CheckpointError, match=re.escape(REFUSED)):
        type(model)(path)(X)
    assert not (tmp_path / "mark").exists()


def test_a_rewritten_program_is_the_same(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "net.pt2", parts | {"extra/notes.txt": b"anything ('at') all"})
    torch.testing.assert_close(load(path)(X).classes, build(Pooled)(X).detach())


@pytest.mark.parametrize(
    "size",
    [
        "Symbol('s77', positive=True, integer=True)", "2*Symbol('s0') + 1", "s77//2", "Max(1, FloorDiv(s0, 2))",
        "Pow(Symbol('s0'), Integer(2))", "-Symbol('u0')/Float('0.5')", "s0**2 <= 4", "open",
    ],
)  # fmt: skip
def test_sizes_that_are_arithmetic(size: str) -> None:
    check(f'{{"expr_str": "{size}"}}'.encode())


@pytest.mark.parametrize(
    "size",
    [
        "eval(chr(49))", "().__class__", "s0.func", "(lambda: 1)()", "[x for x in y]", "Symbol('exit()')", "9**9**9",
        "Pow(Pow(9, 60), 60)", "2**s0**s0**65", "f'{s0}'", "s0 if s0 else s1", "s0; s1", "(s := 1)", "1e9\\n",
        "LShift(1, 99999)", "'abc'.x", "s0[0]",
    ],
)  # fmt: skip
def test_sizes_that_are_not(size: str) -> None:
    with pytest.raises(Suspect):
        check(f'{{"expr_str": "{size}"}}'.encode())


def test_other_text_of_a_program() -> None:
    good = '[1, {"type": "builtins.dict", "context": "[\\"x\\"]", "children_spec": []}]'
    check(json.dumps({"in_spec": good, "guards_code": ["L['x'].size()[0] >= 2"], "name": "conv2d_1"}).encode())
    for bad in (
        {"in_spec": good.replace('\\"x', '\\"x(y)')}, {"out_spec": good.replace("builtins.dict", "my.Enum")},
        {"guards_code": ["L['x'].__class__"]}, {"guards_code": ["L['x'].tofile('y')"]}, {"name": "a(b)"},
        {"target": "torch.ops.image.write_file.default"}, {"as_operator": "torch.hub.load"}, {"a b": 1},
        {"target": "torch.ops.aten.save.default"}, {"target": "_operator.methodcaller"}, {"as_strings": ["a'b"]},
    ):  # fmt: skip
        with pytest.raises(Suspect):
            check(json.dumps(bad).encode())
    with pytest.raises(ValueError, match="nested too deeply"):
        check(b"[" * 100_000 + b"]" * 100_000)


# -------------------------------------------------------------------------------------------------- TorchScript


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", hostile.SCRIPTS)
def test_a_script_with_effects(name: str, inner: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = hostile.script(tmp_path / "net.pt", mark, hostile.SCRIPTS[name], inner=inner)
    with pytest.raises(CheckpointError, match=re.escape(REFUSED)):
        load(path)
    assert not mark.exists()
    assert load(path, trust=True)(X).classes.shape == (2, 3)
    assert mark.exists() or name in ("print", "save in a branch")


def test_a_script_that_writes_while_it_is_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = hostile.with_state(tmp_path / "net.pt", mark)
    found = re.escape("has '.save' in its program (code/__torch__/support/hostile_models")
    with pytest.raises(CheckpointError, match=found):
        load(path)
    assert not mark.exists()
    load(path, trust=True)
    assert mark.exists()


def test_the_graph_is_looked_at_where_the_text_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.models.torch.script_file.suspect", lambda text: None)
    for name in ("save", "save in a branch", "from_file", "print"):
        path = hostile.script(tmp_path / "net.pt", tmp_path / "mark", hostile.SCRIPTS[name], inner=True)
        with pytest.raises(CheckpointError, match=r"has the operator '(aten|prim)::\w+' in its program"):
            load(path)


@pytest.mark.parametrize(
    "text",
    [
        "torch . save(x)", "s = torch.save", "(x).save(y)", 'getattr(torch, "save")(x)', 'getattr(torch, "sa\\x76e")',
        "o = ops", "ops.image.write_file(x)", "__torch__.torch.classes.dist_c10d.FileStore",
        't = "\\\\" + torch.save', "x = '''torch'''", "x = 1 # torch", 'r"\\"', '"""', "print(x)", "torch.\\\nsave",
        "ops.prim.rpc_async(x)", "c = torch.classes",
    ],
)  # fmt: skip
def test_text_of_scripts_that_does_more(text: str) -> None:
    assert suspect(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "x0 = (conv1).forward(x, )", 'getattr(self, "0")', 'ops.prim.RaiseException("the ops. of save print", "x")',
        "_2 = __torch__.torchvision.ops.misc.f(x, )", "self.save_all", "__torch__.torch.classes.quantized.Conv2d",
        "ops.quantized.conv2d(x)", "torch.ops.aten.x", "torch.conv2d(x)", 'warnings.warn("it\\"s # fine")',
    ],
)  # fmt: skip
def test_text_of_scripts_that_computes(text: str) -> None:
    assert suspect(text) is None


# -------------------------------------------------------------------------------------------------- checkpoints


def checkpoints(mark: Path) -> dict[str, Callable[[Path], object]]:
    weights = build(Pooled).state_dict()
    deep: Any = hostile.Touch(mark)
    for _ in range(20):
        deep = {"state_dict": [deep]}
    return {
        "object": lambda path: torch.save(hostile.Touch(mark), path),
        "beside the weights": lambda path: torch.save({"state_dict": weights, "epoch": hostile.Touch(mark)}, path),
        "nested": lambda path: torch.save(deep, path),
        "pickle": lambda path: path.write_bytes(pickle.dumps({"a": hostile.Touch(mark)})),
        "earlier form": lambda path: torch.save(hostile.Touch(mark), path, _use_new_zipfile_serialization=False),
        "objects of numpy": lambda path: torch.save({"a": np.array([hostile.Touch(mark)])}, path),
        "network": lambda path: torch.save(nn.Sequential(Opening(mark)), path),
    }


class Opening(nn.Module):
    """A network whose state makes the mark when it is read."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = hostile.Touch(mark)


@pytest.mark.parametrize("form", ["object", "beside the weights", "nested", "pickle", "earlier form", "network"])
def test_checkpoints_that_would_run_code(form: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    checkpoints(mark)[form](path)
    with pytest.raises(CheckpointError, match=re.escape("Reading it would run code from the file.")):
        load(build(Pooled), checkpoint=path)
    assert not mark.exists()
    with contextlib.suppress(SeewhyError):  # it holds no weights
        load(build(Pooled), checkpoint=path, trust=True)
    assert mark.exists()


def test_an_archive_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.models.archives._SPARE", 2**20)
    for name in ("w.pth", "net.pt", "net.pt2"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("net/code/__torch__/x.py", "")
            archive.writestr("net/data/0", bytes(2**25))
        with pytest.raises(CheckpointError, match=r"bytes and would unpack to \d+, more than 20 times as many"):
            load(build(Pooled), checkpoint=path) if name == "w.pth" else load(path)


# ---------------------------------------------------------------------------------- factories and other callables


@pytest.mark.parametrize("name", ["builtins:exit", "builtins:print", "code:interact", "os:abort", "os.path:join"])
def test_python_itself_has_no_networks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = f"There is no model {name!r}: {name.partition(':')[0]} is a module of Python itself."
    with pytest.raises(UnknownName, match=re.escape(said)):
        load(name)
    Image.new("RGB", (8, 8)).save(picture := str(tmp_path / "x.png"))
    assert cli.main(["explain", "--model", name, picture]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.b:c.d", "a b:c", "a:b()", "..a:b", "a:", ":b", "a:b:c", "a/b:c"])
def test_factories_have_plain_names(name: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"There is no model {name!r}. Expected 'timm:NAME'")):
        load(name)


FAILING = {
    "leaves": ("import sys\ndef make():\n    sys.exit(0)\n", "leaving:make raised SystemExit: 0."),
    "quits": ("def make():\n    exit()\n", "leaving:make raised SystemExit"),
    "stops": (
        "class Stop(BaseException): pass\ndef make():\n    raise Stop('now')\n",
        "leaving:make raised Stop: now.",
    ),
    "import": ("raise SystemExit(0)\n", "Module 'leaving', while it was imported, raised SystemExit: 0."),
    "import fails": ("x = 1 / 0\n", "'leaving', while it was imported, raised ZeroDivisionError: division by zero."),
    "key": ("def make():\n    return {}['x']\n", "leaving:make raised KeyError: 'x'."),
}


@pytest.mark.parametrize("form", FAILING)
def test_a_factory_that_raises_is_named(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = FAILING[form]
    (tmp_path / "leaving.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "leaving", raising=False)
    with pytest.raises(InvalidInput, match=re.escape(said)):
        load("leaving:make")
    assert cli.main(["explain", "--model", "leaving:make", "x.png"]) in (1, 2)
    sys.modules.pop("leaving", None)


def test_an_activation_or_callback_that_raises_is_named() -> None:
    def mine(scores: Tensor) -> Tensor:
        raise SystemExit(0)

    network = build(Pooled)
    with pytest.raises(InvalidInput, match=r"The activation 'mine' raised SystemExit: 0\. Correct it, and try again\."):
        RISE(network, num_masks=4, activation_fn=mine)(X)
    with pytest.raises(InvalidInput, match=r"The activation 'flat' raised RuntimeError: shape"):
        RISE(network, num_masks=4, activation_fn=flat)(X)

    def told(done: int, total: int) -> None:
        raise KeyError("told")

    with pytest.raises(InvalidInput, match=r"The progress callback raised KeyError: 'told'\."):
        seewhy.explain(network, X[:1], 0, "rise", num_masks=4, progress=told)


def flat(scores: Tensor) -> Tensor:
    return scores[:, :1]

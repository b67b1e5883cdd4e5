"""Model files and weights that are damaged or were made to deceive: read rightly or refused, and nothing is run."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seewhy.errors import CheckpointError, InvalidInput, SeewhyError
from seewhy.models import file_metadata
from seewhy.models.backends import openvino as openvino_backend
from seewhy.models.loading import load, read_labels
from seewhy.models.tfjs.graph import read as read_tfjs
from support import hostile_models as hostile
from support import tflite_graphs
from support.exports import to_xml
from support.networks import Pooled, build
from support.scripts import benchmark

X = hostile.X
WEIGHTS = build(Pooled).state_dict()


def flipped(path: Path, at: int, bit: int = 1) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)
    return path


# ----------------------------------------------------------------------------------------------- archives of torch


@pytest.mark.parametrize("kind", ["checkpoint", "script", "program"])
def test_one_bit_of_the_weights_is_noticed(kind: str, tmp_path: Path) -> None:
    """torch itself reads such files without a word, as another network."""
    path = {
        "checkpoint": tmp_path / "w.pth", "script": tmp_path / "net.pt", "program": tmp_path / "net.pt2",
    }[kind]  # fmt: skip
    if kind == "checkpoint":
        torch.save(WEIGHTS, path)
    elif kind == "script":
        torch.jit.script(build(Pooled)).save(str(path))
    else:
        hostile.program(path)

    def use() -> Tensor:
        model = load(build(Pooled), checkpoint=path) if kind == "checkpoint" else load(path)
        return model(X).classes

    good = use()
    at = path.read_bytes().find(WEIGHTS["fc.weight"].numpy().tobytes())
    assert at > 0
    flipped(path, at + 3, 0x80)  # a sign
    said = f"{str(path)!r} is damaged: the bytes of its part '"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        use()
    flipped(path, at + 3, 0x80)
    assert torch.equal(use(), good)


def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load(build(Pooled), checkpoint=tmp_path / "w.pth")(X).classes, build(Pooled)(X))


@pytest.mark.parametrize("ending", [".pth", ".pt", ".ts", ".pt2", ".ckpt", ".bin", ".safetensors"])
def test_archives_that_are_none(ending: str, tmp_path: Path) -> None:
    """Cut off, wrong at the end, names that are no text, an archive in an archive."""
    good, path = tmp_path / "good", tmp_path / f"bad{ending}"
    torch.save(WEIGHTS, good)
    data = good.read_bytes()
    with zipfile.ZipFile(tmp_path / "nested", "w") as outer:
        outer.write(good, "archive/data.pkl")
    names = data.replace(b"data.pkl", b"d\xff\xfe\xfd.pkl")
    for bad in (
        data[: len(data) // 2], data[:-30], b"PK\x03\x04" + bytes(30), b"x" * 50 + b"PK\x05\x06" + bytes(18), names,
        data.replace(b"PK\x01\x02", b"PK\x01\x03"), (tmp_path / "nested").read_bytes(), b"hello", b"",
    ):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            load(build(Pooled), checkpoint=path)
        with pytest.raises(CheckpointError):
            load(path)


def test_a_script_as_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = hostile.with_state(tmp_path / "w.pth", mark)
    with pytest.raises(CheckpointError):
        load(build(Pooled), checkpoint=path)
    shutil.copy(path, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError):
        load(build(Pooled), checkpoint=tmp_path / "w.ckpt")
    assert not mark.exists()


@pytest.mark.parametrize("ending", [".pth", ".pt2", ".safetensors", ".ts", ".onnx", ".tflite", ".xml"])
@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_runs_nothing_whatever_it_is_called(ending: str, old: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / f"net{ending}"
    torch.save({**WEIGHTS, "x": hostile.Touch(mark)}, path, _use_new_zipfile_serialization=not old)
    (tmp_path / "net.bin").write_bytes(path.read_bytes())
    for use in (lambda: load(build(Pooled), checkpoint=path), lambda: load(path)):
        with pytest.raises(SeewhyError):
            use()
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda w: w.to("meta"), "'fc.weight' is without values (saved on the meta device), expected an ordinary"),
        (lambda w: w.to_sparse(), "'fc.weight' is a nested or sparse tensor, expected an ordinary tensor."),
        (lambda w: w.to_sparse_csr(), "'fc.weight' is a nested or sparse tensor, expected an ordinary tensor."),
        (lambda w: torch.nested.nested_tensor([w[0]]), "'fc.weight' is a nested or sparse tensor"),
        (lambda w: w * 1j, "'fc.weight' has values of type torch.complex64, which torch.float32 cannot hold"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "'fc.weight' has values of type quantised"),
        (lambda w: (w * 9).to(torch.int8), "'fc.weight' holds whole numbers (torch.int8), the network expects torch.f"),
        (lambda w: w > 0, "'fc.weight' holds whole numbers (torch.bool), the network expects torch.float32"),
    ],
)
def test_weights_of_another_kind_are_refused_as_a_whole(
    changed: Callable[[Tensor], Tensor], said: str, tmp_path: Path
) -> None:
    """torch would leave the imaginary part out, or take codes for weights, or stop half way."""
    path, network = tmp_path / "w.pth", build(Pooled)
    more = {name: value + 1 for name, value in WEIGHTS.items()}
    torch.save(more | {"fc.weight": changed(WEIGHTS["fc.weight"])}, path)
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load(network, checkpoint=path)
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in network.state_dict().items())


def test_weights_of_another_precision_are_taken(tmp_path: Path) -> None:
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({**WEIGHTS, "fc.weight": WEIGHTS["fc.weight"].to(kind)}, tmp_path / "w.pth")
        torch.testing.assert_close(
            load(build(Pooled), checkpoint=tmp_path / "w.pth")(X).classes, build(Pooled)(X), atol=0.05, rtol=0.05
        )
    save_file({name: value.clone() for name, value in WEIGHTS.items()}, tmp_path / "w.safetensors")
    assert torch.equal(load(build(Pooled), checkpoint=tmp_path / "w.safetensors")(X).classes, build(Pooled)(X))


def test_a_network_that_refuses_its_weights_says_so(tmp_path: Path) -> None:
    class Proud(nn.Linear):
        def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
            raise KeyError("not mine")

    network = nn.Sequential(nn.Flatten(), Proud(12, 2))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=re.escape("'w.pth' does not fit Sequential: 'not mine'.")):
        load(network, checkpoint=tmp_path / "w.pth")


# ------------------------------------------------------------------------------------------------------ other files


def test_the_graph_made_by_hand_is_what_it_says(tmp_path: Path) -> None:
    """Else damage to it would show nothing."""
    pytest.importorskip("openvino")
    model = load(tflite_graphs.classifier(tmp_path / "net.tflite"))
    draw = np.random.default_rng(0)
    kernel, bias = draw.normal(size=(8, 3, 3, 3)).astype(np.float32), draw.normal(size=8).astype(np.float32)
    last = draw.normal(size=(5, 8)).astype(np.float32)
    x = torch.rand(1, 3, 32, 48)
    padded = nn.functional.pad(x, (0, 1, 0, 1))  # "same" for a stride of two puts the odd row at the end
    found = nn.functional.conv2d(padded, torch.from_numpy(kernel).permute(0, 3, 1, 2), torch.from_numpy(bias), 2)
    want = found.relu().mean((2, 3)) @ torch.from_numpy(last).T
    torch.testing.assert_close(model(x).classes, want, atol=1e-4, rtol=1e-4)


def test_files_that_end_the_process_that_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the script: OpenVINO divides by what the file says, and a name may be no text."""
    pytest.importorskip("openvino")
    script, said = benchmark("hostile_formats"), dict[int, str]()
    good = {"net.tflite": tflite_graphs.classifier(tmp_path / "net.tflite").read_bytes()}
    for number in (237, 205):
        path = script.hurt("net.tflite", number, good, tmp_path)
        with pytest.raises(CheckpointError) as found:
            load(path)
        said[number] = str(found.value)
    assert "reading it ends the process" in said[237] or "is not a model that OpenVINO can read" in said[237]
    assert "is damaged: it has names that are no text ('utf-8' codec can't decode" in said[205]
    tflite_graphs.classifier(path)
    monkeypatch.setattr(openvino_backend, "_READ", "import os; os.kill(os.getpid(), 8)")
    with pytest.raises(CheckpointError) as ended:
        load(path)
    assert str(ended.value) == f"{str(path)!r} is damaged: reading it ends the process (signal 8) in OpenVINO."


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of memory for a process")
def test_a_file_that_makes_openvino_allocate_everything_is_refused(tmp_path: Path) -> None:
    """Weights that are read as a count of axes: it took 9 GB here, and all memory of another machine."""
    pytest.importorskip("openvino")
    path = to_xml(build(Pooled), tmp_path / "net.xml", X[:1])
    assert load(path)(X[:1]).classes.shape == (1, 5)
    text = path.read_text()
    count = re.search(
        r'conv1/aten::_convolution/Constant_1"[^>]*>\s*<data element_type="i32" shape="1" offset="\d+"', text
    )
    assert count is not None
    path.write_text(text.replace(count[0], re.sub(r'offset="\d+"', 'offset="0"', count[0])))
    with pytest.raises(
        CheckpointError, match=r"OpenVINO wanted more than 4,\d+ MB of memory to read it\. If you trust"
    ):
        load(path)


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    path = tflite_graphs.classifier(tmp_path / "net.tflite")
    monkeypatch.setattr(openvino_backend, "SECONDS", 0.01)
    with pytest.raises(CheckpointError, match=r"OpenVINO did not come to an end with it in 0\.01 seconds"):
        load(path)
    assert load(path, trust=True)(X[:1]).classes.shape == (1, 5)


def test_damaged_files_of_every_kind(tmp_path: Path) -> None:
    """A few of those of benchmarks/hostile_formats.py, in a process each batch: its end would be seen."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    script, work = benchmark("hostile_formats"), tmp_path / "work"
    work.mkdir()
    good, found = script.written(tmp_path), Counter[str]()
    assert len(good) == 9
    for name in good:
        found.update(script.batch(name, range(1000, 1006), good, work))
    assert found["read"] + found["refused"] == sum(found.values()) == 54
    assert found["refused"] > 20


@pytest.mark.parametrize("inner", ["(" * 5000, "[" * 100_000, "-" * 100_000 + "1", "{0: " * 3000, "9" * 5000])
def test_class_names_that_are_nested_too_deep(inner: str) -> None:
    assert file_metadata.labels({"names": inner}) is None
    assert file_metadata.labels({"label_info": "[" * 200_000}) is None


def test_class_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(InvalidInput, match=r"names\.txt' cannot be read as UTF-8 text: 'utf-8' codec can't decode"):
        read_labels(tmp_path / "names.txt")


def test_damaged_graphs_of_tensorflow_js(tmp_path: Path) -> None:
    node: dict[str, Any] = {
        "name": "x",
        "op": "Placeholder",
        "attr": {"shape": {"shape": {"dim": [{}, {"size": "4"}]}}},
    }
    for nodes, manifest in (
        ([{}], []), ([{"name": "x"}], []), ([{**node, "input": [5]}], []), ([{**node, "input": ["y:z"]}], []),
        ([{**node, "attr": {"shape": {"shape": {"dim": [{}, {"size": "four"}]}}}}], []), ({"a": 1}, []), (None, []),
        ([node], [{"paths": ["w.bin"]}]), ([node], {"a": 1}), ([node, {"name": "y", "op": "Relu", "input": ["x"]}], 5),
    ):  # fmt: skip
        model: dict[str, Any] = {"modelTopology": {"node": nodes}, "weightsManifest": manifest}
        (tmp_path / "model.json").write_text(json.dumps(model))
        with pytest.raises(SeewhyError):
            read_tfjs(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match=r"is no TensorFlow\.js model: maximum recursion"):
        read_tfjs(tmp_path / "model.json")

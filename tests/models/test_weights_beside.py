"""Weights in other files lie in the folder of the model; damaged pictures crash nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from seewhy.errors import CheckpointError
from seewhy.models.loading import load
from seewhy.models.tfjs.graph import read
from support.scripts import benchmark


@pytest.mark.parametrize("place", ["../secret.bin", "/secret.bin", "x/../../secret.bin", "link.bin"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_onnx_weights_outside_of_the_folder(place: str, backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    np.arange(9, dtype=np.float32).tofile(tmp_path / "secret.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 3, 1, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "36")):
        weight.external_data.add(key=key, value=value)
    ports = [helper.make_tensor_value_info(n, 1, ["n", 3, *s]) for n, s in (("x", (8, 8)), ("y", (8, 8)))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="is not a model that"):
        load(folder / "net.onnx", backend=backend)(torch.zeros(1, 3, 8, 8))
    assert onnx.load(folder / "net.onnx", load_external_data=False)  # it is sound but for the place


@pytest.mark.parametrize("name", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_tfjs_weights_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weights = [{"name": "w", "shape": [1], "dtype": "float32"}]
    topology = {"node": [{"name": "w", "op": "Const"}]}
    document = {"modelTopology": topology, "weightsManifest": [{"paths": [name], "weights": weights}]}
    (folder / "model.json").write_text(json.dumps(document))
    said = f"The weights of 'model.json' must lie in its folder, {name!r} does not."
    with pytest.raises(CheckpointError, match=re.escape(said)):
        read(folder / "model.json")


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_are_read_or_refused(tmp_path: Path) -> None:
    fuzz = benchmark("hostile_files")
    found = fuzz.pictures(240, tmp_path, np.random.default_rng(fuzz.SEED))
    assert found["pictures read"] + found["pictures refused"] == 240
    assert found["pictures read"] > 20
    assert not found["crashes"] + found["read differently twice"] + found["silently changed (PNG)"]

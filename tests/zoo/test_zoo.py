"""Real detectors: fetching with checksums, and, where the files are, what the networks say.

Files are looked for in the folder of the environment variable SEEWHY_MODELS, else in the user's cache.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seewhy import demo
from seewhy.detection import BoxTarget, box_iou, detect
from seewhy.errors import CheckpointError, UnknownName
from seewhy.explainers.det_class_probability_map import DetClassProbabilityMap
from seewhy.explainers.grad_cam import GradCAM
from seewhy.explainers.instance_maps import InstanceMaps
from seewhy.images.reading import read
from seewhy.zoo import fetch, fetching, folder, nanodet, ssd_mobilenet
from seewhy.zoo.__main__ import main
from seewhy.zoo.fetching import PACKAGES, File, Package
from seewhy.zoo.masks import MaskHead, align
from seewhy.zoo.nanodet import COCO
from seewhy.zoo.ssd_mobilenet import LABELS, anchors
from support import DATA

pytestmark = pytest.mark.slow

MASKS = DATA / "nanodet_masks.safetensors"


def has(model: str) -> Any:
    try:
        fetching.need(model, None)
    except CheckpointError as error:
        return pytest.mark.skip(reason=str(error))
    return ()


# ------------------------------------------------------------------------------------------------- fetching

CONTENT = b"labels" + b"weights" * 500


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as members:
        for name, data in (("package/model.bin", CONTENT), ("package/readme", b"text")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            members.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def package(data: bytes, member: str = "package/model.bin") -> Package:
    """A package whose one file is what follows the labels."""
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    kept = File(member=member, name="net.bin", sha256=hashlib.sha256(CONTENT[6:]).hexdigest(), start=6)
    return Package(name="@some/thing", version="1.2.3", integrity=digest, megabytes=1, files=(kept,))


class Registry(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Is silent."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package's place in a registry on this machine, which is asked without npm."""
    place = tmp_path / "registry/@some/thing/-/thing-1.2.3.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(archive())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Registry, directory=tmp_path / "registry"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setitem(PACKAGES, "thing", package(archive()))
    yield place
    server.shutdown()
    server.server_close()


def test_fetched_once(registry: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (found,) = fetch(tmp_path / "out", "thing", say=said.append)
    assert found.read_bytes() == CONTENT[6:]
    assert [*found.parent.iterdir()] == [found]
    registry.unlink()
    assert fetch(tmp_path / "out", "thing", say=said.append) == [found]
    assert said == ["fetching @some/thing@1.2.3 (1 MB)"]
    assert fetching.need("thing", tmp_path / "out") == [found]


def test_a_damaged_file_is_fetched_again(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(b"half")
    want = f"'{tmp_path}/net.bin' is not the pinned file. Fetch it: python -m seewhy.zoo --out '{tmp_path}' thing"
    with pytest.raises(CheckpointError) as caught:
        fetching.need("thing", tmp_path)
    assert str(caught.value) == want
    fetch(tmp_path, "thing")
    assert (tmp_path / "net.bin").read_bytes() == CONTENT[6:]


def refused(tmp_path: Path) -> str:
    """The message of a fetch that must leave nothing behind."""
    with pytest.raises(CheckpointError) as caught:
        fetch(tmp_path / "out", "thing")
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_another_archive(registry: Path, tmp_path: Path) -> None:
    registry.write_bytes(archive() + b"!")
    digest = base64.b64encode(hashlib.sha512(registry.read_bytes()).digest()).decode()
    assert refused(tmp_path) == (
        f"@some/thing@1.2.3 from the registry has the checksum sha512-{digest}, expected "
        f"sha512-{PACKAGES['thing'].integrity}. Nothing was written."
    )


@pytest.mark.parametrize(("member", "data"), [("package/readme", b""), ("package/none", b"")])
def test_another_file(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, data: bytes
) -> None:
    monkeypatch.setitem(PACKAGES, "thing", package(archive(), member))
    want = PACKAGES["thing"].files[0].sha256
    assert refused(tmp_path) == (
        f"{member} of @some/thing@1.2.3 has the checksum {hashlib.sha256(data).hexdigest()}, expected {want}. "
        "Nothing was written."
    )


def test_no_registry(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.unlink()
    assert refused(tmp_path) == (
        "@some/thing@1.2.3 could not be fetched: HTTP Error 404: File not found. Nothing was written."
    )
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    assert refused(tmp_path).startswith("@some/thing@1.2.3 could not be fetched: <urlopen error ")
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    monkeypatch.delenv("npm_config_registry", raising=False)
    assert refused(tmp_path) == (
        "@some/thing@1.2.3 is a package on npm. Install npm, or set NPM_CONFIG_REGISTRY to the address of a registry."
    )


def npm(folder: Path, script: str) -> None:
    """A command of that name in a folder that is the whole PATH."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!{sys.executable}\nimport pathlib, sys\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_npm_is_asked(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.rename(tmp_path / "packed.tgz")
    copies = f"data = pathlib.Path({str(tmp_path / 'packed.tgz')!r}).read_bytes()"
    npm(tmp_path / "bin", f"{copies}\nassert sys.argv[1:3] == ['pack', '@some/thing@1.2.3']")
    with (tmp_path / "bin/npm").open("a") as script:
        script.write("pathlib.Path(sys.argv[-1], 'some-thing-1.2.3.tgz').write_bytes(data)\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (found,) = fetch(tmp_path / "out", "thing")
    assert found.read_bytes() == CONTENT[6:]


def test_npm_fails(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", "sys.exit('npm error network  it is dark')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert refused(tmp_path) == (
        "npm could not fetch @some/thing@1.2.3: npm error network it is dark. Nothing was written."
    )


def test_the_command(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["seewhy.zoo", "--out", str(tmp_path), "thing"])
    assert main() == 0
    assert capsys.readouterr() == (f"{tmp_path / 'net.bin'}\n", "fetching @some/thing@1.2.3 (1 MB)\n")
    monkeypatch.setattr(sys, "argv", ["seewhy.zoo", "--out", str(tmp_path), "nanodets"])
    assert main() == 1
    want = "error: There is no model 'nanodets' to fetch. Did you mean 'nanodet'?\n"
    assert capsys.readouterr() == ("", want)


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEEWHY_MODELS", raising=False)
    assert folder() == tmp_path / "seewhy/models"
    monkeypatch.setenv("SEEWHY_MODELS", "elsewhere")
    assert folder() == Path("elsewhere")
    with pytest.raises(CheckpointError, match=r"^'elsewhere/nanodet\.json' is not there\. Fetch it: "):
        nanodet()
    with pytest.raises(UnknownName):
        fetch(None, "yolo")


# ------------------------------------------------------------------------------------------------- parts


def test_anchors_are_those_of_the_object_detection_api() -> None:
    found = anchors()
    assert found.shape == (1917, 4)
    first, second = found[:3], found[1083:1089]
    torch.testing.assert_close(first[:, :2], torch.full((3, 2), 0.5 / 19))
    torch.testing.assert_close(first[:, 2:], torch.tensor([[0.1, 0.1], [0.282843, 0.141421], [0.141421, 0.282843]]))
    torch.testing.assert_close(second[:, 2] * second[:, 3], torch.tensor([0.1225] * 5 + [0.35 * 0.5]))
    ratios = torch.tensor([1, 2, 0.5, 3, 1 / 3, 1])
    torch.testing.assert_close(second[:, 2] / second[:, 3], ratios)
    torch.testing.assert_close(found[-1], torch.tensor([0.5, 0.5, 0.95**0.5, 0.95**0.5]))
    assert found[1083 + 6, :2].tolist() == pytest.approx([0.15, 0.05])  # x runs first


def test_align_samples_the_middle_of_each_bin() -> None:
    # A map whose values are the places of its pixels: bilinear samples give their own places back.
    rows, columns = torch.meshgrid(torch.arange(26.0) + 0.5, torch.arange(52.0) + 0.5, indexing="ij")
    maps = torch.stack([columns * 8, rows * 16])[None]
    box = torch.tensor([[[16.0, 40.0, 300.0, 376.0]]])
    found = align(maps, box, (416, 416))[0, 0]
    share = (torch.arange(14) + 0.5) / 14
    torch.testing.assert_close(found[0, 5], 16 + 284 * share)
    torch.testing.assert_close(found[1, :, 9], 40 + 336 * share)


def test_mask_head_treats_boxes_and_images_alone() -> None:
    head = MaskHead().eval()
    maps = [torch.randn(2, c, s, s) for c, s in ((64, 104), (128, 52), (128, 26))]
    boxes = torch.tensor([[[10.0, 20, 200, 300], [50, 60, 90, 400]]]).repeat(2, 1, 1)
    with torch.no_grad():
        whole = head(maps, boxes, (416, 416))
        one = head([m[1:] for m in maps], boxes[1:, 1:], (416, 416))
    assert whole.shape == (2, 2, 28, 28)
    torch.testing.assert_close(whole[1:, 1:], one, atol=1e-5, rtol=0)
    assert sum(p.numel() for p in head.parameters()) == 66633


def test_classes() -> None:
    assert (len(COCO), len(LABELS)) == (80, 24)
    assert (COCO[0], COCO[15], COCO[41], COCO[-1]) == ("person", "cat", "cup", "toothbrush")


# ------------------------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize("nothing", [pytest.param((), marks=has("nanodet"))])
class TestNanoDet:
    """NanoDet-g on the photographs that packages ship."""

    def test_detections(self, nothing: Any) -> None:
        model = nanodet()
        inputs = torch.cat([model.preprocessing(read(demo.photographs()[name]))[0] for name in ("cat", "camera man")])
        with model.opened():
            cat, man = detect(model(inputs), score_threshold=0.5)
        assert [(COCO[one.label], round(one.score, 2)) for one in cat] == [("cat", 0.6)]
        assert [(COCO[one.label], round(one.score, 2)) for one in man] == [("person", 0.88)]
        # By hand: from his back, which the border cuts, to his hands, from his hair to the lower border.
        assert float(box_iou(torch.tensor([man[0].box]), torch.tensor([0.0, 52, 270, 416]))) > 0.9

    def test_every_rung(self, nothing: Any) -> None:
        model = nanodet()
        inputs = model.preprocessing(read(demo.photographs()["cat"]))[0]
        with model.opened():
            (found, *_), *_ = detect(model(inputs))
        cam = GradCAM(model, layer="PartitionedCall/onnx_tf_prefix_Add_149")
        assert cam(inputs, [BoxTarget(box=found.box, label=found.label)]).amax() == 1
        levels = DetClassProbabilityMap(model).attribute(inputs, found.label, native=True)
        assert levels.shape == (1, 1, 26, 26)
        assert inside(levels, found.box) > outside(levels, found.box)

    def test_masks(self, nothing: Any) -> None:
        model = nanodet(masks=MASKS)
        inputs = model.preprocessing(read(demo.photographs()["cat"]))[0]
        with model.opened():
            found = model(inputs)
        assert found.masks is not None
        assert found.masks.shape == (1, 100, 104, 104)
        maps = InstanceMaps(model, score_threshold=0.3)(inputs, COCO.index("cat"))
        best = detect(found)[0][0]
        assert inside(maps, best.box) > 0.3 > outside(maps, best.box)


@pytest.mark.parametrize("nothing", [pytest.param((), marks=has("ssd_mobilenet"))])
def test_ssd(nothing: Any) -> None:
    pytest.importorskip("openvino")
    model = ssd_mobilenet()
    inputs = torch.cat([model.preprocessing(read(demo.photographs()[name]))[0] for name in ("cat", "cup")])
    with model.opened():
        cat, cup = detect(model(inputs), score_threshold=0.5)
    assert [LABELS[one.label] for one in cat] == ["Cat"]
    assert [LABELS[one.label] for one in cup] == ["Coffee cup"]


def inside(maps: Any, box: tuple[float, float, float, float]) -> float:
    return float((at_input(maps) * frame(box)).sum() / frame(box).sum())


def outside(maps: Any, box: tuple[float, float, float, float]) -> float:
    return float((at_input(maps) * (1 - frame(box))).sum() / (1 - frame(box)).sum())


def at_input(maps: Any) -> Any:
    return F.interpolate(maps, (416, 416), mode="bilinear")[0, 0]


def frame(box: tuple[float, float, float, float]) -> Any:
    x0, y0, x1, y1 = (round(v) for v in box)
    shown = torch.zeros(416, 416)
    shown[y0:y1, x0:x1] = 1
    return shown

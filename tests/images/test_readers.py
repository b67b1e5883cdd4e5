"""DICOM, NIfTI and TIFF of many bands: the values are those of their libraries, and hostile files are refused."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy import Preprocessing, registry
from seewhy.errors import InvalidInput, MissingDependency, UnreadableImage
from seewhy.images import readers
from seewhy.images.deep import deep, narrow
from seewhy.images.readers import Plane
from seewhy.images.reading import read

RNG = np.random.default_rng(0)


def plain(channels: Any, **more: Any) -> Preprocessing:
    count = channels if isinstance(channels, int) else {"L": 1}.get(channels, 3)
    return Preprocessing(size=(9, 11), mean=(0.0,) * count, std=(1.0,) * count, fit="squash", channels=channels, **more)


# -------------------------------------------------------------------------------------------------- TIFF of many bands


@pytest.mark.parametrize(
    "layout",
    [
        {"planarconfig": "contig"}, {"planarconfig": "separate"}, {"planarconfig": "contig", "compression": "zlib"},
        {"planarconfig": "contig", "bigtiff": True}, {"planarconfig": "contig", "byteorder": ">"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("bands", [5, 8])
def test_all_bands_reach_the_network(tmp_path: Path, layout: dict[str, Any], bands: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 65536, (9, 11, bands)).astype(np.uint16)
    stored = values.transpose(2, 0, 1) if layout["planarconfig"] == "separate" else values
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="minisblack", **layout)
    picture = read(tmp_path / "x.tif")
    tensor, _ = plain(bands)(picture)
    np.testing.assert_allclose(tensor[0].numpy(), values.transpose(2, 0, 1) / 65535, atol=1e-6)
    np.testing.assert_allclose(np.asarray(picture), values[..., :3] / 257, atol=0.51)
    shown = np.asarray(plain(bands, show=(4, 1, 0)).seen(picture))
    np.testing.assert_allclose(shown, values[..., [4, 1, 0]] / 257, atol=0.51)
    np.testing.assert_allclose(np.asarray(plain(bands, show=(4, 1, 0)).denormalise(tensor[0])), shown, atol=1)


def test_a_network_of_eight_bands_is_explained(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RNG.random((9, 11, 8)).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", planarconfig="contig")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    known = seewhy.load(network.eval(), preprocessing=plain(8, show=(7, 6, 5)))
    found = seewhy.explain(known, tmp_path / "x.tif", 1, "gradient", progress=False)
    ready = torch.from_numpy(values.transpose(2, 0, 1)[None].copy())
    same = seewhy.explain(known, ready, 1, "gradient", progress=False)
    torch.testing.assert_close(found.raw, same.raw)
    np.testing.assert_allclose(np.asarray(found.pictures[0]), values[..., [7, 6, 5]] * 255, atol=0.51)


@pytest.mark.parametrize(("takes", "has"), [("RGB", 8), (8, 5), (4, 8), ("L", 8)])
def test_channels_are_neither_left_out_nor_made_up(tmp_path: Path, takes: Any, has: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 256, (9, 11, has)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", planarconfig="contig")
    with pytest.raises(
        InvalidInput, match=rf"The network takes {takes}.*, and the picture has {has} channels\. Say how"
    ):
        plain(takes)(read(tmp_path / "x.tif"))


def test_channels_of_plain_pictures() -> None:
    grey, colours = RNG.random((9, 11)).astype(np.float32), RNG.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    np.testing.assert_allclose(plain(1)(read(grey))[0][0, 0].numpy(), grey, atol=1e-6)
    torch.testing.assert_close(plain(3)(read(colours))[0], plain("RGB")(read(colours))[0])
    for count in (1, 4):
        with pytest.raises(InvalidInput, match="channel"):
            plain(count)(read(colours))
    wrongs: tuple[Any, ...] = (0, -1, 2.0, True, "CMYK")
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match=r"Preprocessing\.channels: expected one of RGB, BGR, L, or how many"):
            Preprocessing(size=(8, 8), mean=(0.0,), std=(1.0,), channels=wrong)
    for show in ((0, 1, 8), (0, 1), (0, 1, -1)):
        with pytest.raises(InvalidInput, match=r"Preprocessing\.show: expected three channels of 0 to 7"):
            plain(8, show=show)


def test_bands_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "x.tif", np.zeros((9, 11, 8), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UnreadableImage, match="pixels, more than the 791 that are opened"):
        read(tmp_path / "x.tif", most_pixels=9 * 11 * 8 - 1)
    assert read(tmp_path / "x.tif", most_pixels=9 * 11 * 8).size == (11, 9)


# --------------------------------------------------------------------------------------------------------------- DICOM


def dicom(path: Path, stored: Any, *, bits: int = 12, kind: str = "MONOCHROME2", **tags: Any) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data.file_meta, data.SOPClassUID = meta, SecondaryCaptureImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    whole = stored.dtype.itemsize * 8
    data.Rows, data.Columns = stored.shape[-2:] if kind != "RGB" else stored.shape[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit = whole, min(bits, whole), min(bits, whole) - 1
    data.PixelRepresentation, data.PhotometricInterpretation = int(stored.dtype.kind == "i"), kind
    data.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        data.PlanarConfiguration = 0
    elif stored.ndim == 3:
        data.NumberOfFrames = len(stored)
    data.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_slope_intercept_and_window_of_a_scan(tmp_path: Path) -> None:
    stored = RNG.integers(0, 4096, (9, 11)).astype(np.uint16)
    path = dicom(tmp_path / "ct", stored, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    units = stored * 2.0 - 1024
    want = ((units - 39.5) / 399 + 0.5).clip(0, 1)  # PS3.3 C.11.2.1.2.1
    np.testing.assert_allclose(plain("L")(read(path))[0][0, 0].numpy(), want, atol=1e-5)
    lung = ((units + 1000) / 1500).clip(0, 1)
    np.testing.assert_allclose(plain("L", window=(-1000, 500))(read(path))[0][0, 0].numpy(), lung, atol=1e-5)
    np.testing.assert_allclose(np.asarray(read(path))[..., 0], want * 255, atol=0.51)
    exact = dicom(tmp_path / "e", stored, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(
        plain("L")(read(exact))[0][0, 0].numpy(), ((stored - 1500.0) / 1000).clip(0, 1), atol=1e-6
    )


def test_the_window_is_that_of_pydicom(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x", RNG.integers(0, 4096, (9, 11)).astype(np.uint16), WindowCenter=900, WindowWidth=700)
    import pydicom
    from pydicom.pixels import apply_voi_lut

    data = pydicom.dcmread(path)
    want = apply_voi_lut(data.pixel_array, data) / 4095
    np.testing.assert_allclose(plain("L")(read(path))[0][0, 0].numpy(), want, atol=1e-5)


def test_monochrome1_is_turned_round_and_bits_say_where_white_is(tmp_path: Path) -> None:
    stored = RNG.integers(0, 4096, (9, 11)).astype(np.uint16)
    one, two = (dicom(tmp_path / kind, stored, kind=kind) for kind in ("MONOCHROME1", "MONOCHROME2"))
    np.testing.assert_allclose(plain("L")(read(two))[0][0, 0].numpy(), stored / 4095, atol=1e-6)
    np.testing.assert_allclose(plain("L")(read(one))[0][0, 0].numpy(), 1 - stored / 4095, atol=1e-6)
    signed = dicom(tmp_path / "signed", (stored.astype(np.int32) - 2048).astype(np.int16))
    np.testing.assert_allclose(plain("L")(read(signed))[0][0, 0].numpy(), stored / 4095, atol=1e-6)
    assert narrow(read(two)) == ""


def test_colours_frames_and_what_is_said(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(read(dicom(tmp_path / "c", colours, bits=8, kind="RGB"))), colours)
    frames = RNG.integers(0, 4096, (4, 9, 11)).astype(np.uint16)
    path = dicom(tmp_path / "clip.dcm", frames)
    np.testing.assert_allclose(plain("L")(read(f"{path}[2]"))[0][0, 0].numpy(), frames[2] / 4095, atol=1e-6)
    with pytest.raises(UnreadableImage, match=r"it has 4 frames; say which one behind the file's name, from name\[0\]"):
        read(path)
    curved = dicom(tmp_path / "s", frames[0], WindowCenter=900, WindowWidth=700, VOILUTFunction="SIGMOID")
    assert "the function SIGMOID, and was read as a straight line from 550 to 1249" in narrow(read(curved))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Rows": 30000, "Columns": 30000}, "it has 30000 x 30000 pixels, more than the"),
        ({"RescaleSlope": -1}, "its rescale slope is -1, expected a number above 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "its photometric interpretation is 'PALETTE COLOR', expected"),
        ({"WindowCenter": 5, "WindowWidth": 1}, "its window has a width of 1; it must be above 1"),
        ({"PixelData": b"\0\0"}, "Cannot read"),
    ],
)
def test_hostile_scans(tmp_path: Path, tags: dict[str, Any], said: str) -> None:
    path = dicom(tmp_path / "x.dcm", np.zeros((9, 11), np.uint16), **tags)
    with pytest.raises(UnreadableImage, match=said):
        read(path)


def test_packed_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x.dcm", np.zeros((9, 11), np.uint16))
    data = path.read_bytes()
    assert data.count(b"1.2.840.10008.1.2.1\0") == 1
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"))
    with pytest.raises(UnreadableImage, match=r"compressed in a way that seewhy does not read .*gdcmconv"):
        read(path)


# --------------------------------------------------------------------------------------------------------------- NIfTI


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_slices_of_a_volume(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = RNG.integers(-1000, 1000, (9, 11, 5)).astype(np.int16)
    volume = nibabel.Nifti1Image(values, np.eye(4))
    path = tmp_path / f"v.{ending}"
    nibabel.save(volume, path)
    picture = read(f"{path}[3]")
    known = deep(picture)
    assert known is not None
    np.testing.assert_array_equal(known.values, values[..., 3])
    low, top = values[..., 3].min(), values[..., 3].max()
    assert f"those of this slice, {low} and {top}, were taken" in narrow(picture)
    wanted = ((values[..., 3] + 200.0) / 700).clip(0, 1)
    np.testing.assert_allclose(plain("L", window=(-200, 500))(picture)[0][0, 0].numpy(), wanted, atol=1e-6)
    with pytest.raises(UnreadableImage, match=r"it has 5 slices; say which one .* from name\[0\] to name\[4\]"):
        read(path)


def test_scale_range_and_four_axes(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    stored = RNG.integers(0, 200, (9, 11, 5, 3)).astype(np.uint8)
    volume = nibabel.Nifti1Image(stored, np.eye(4))
    volume.header["cal_min"], volume.header["cal_max"] = -10, 590
    volume.header.set_slope_inter(3, -10)
    path = tmp_path / "v.nii"
    nibabel.save(volume, path)
    with open(path, "r+b") as file:  # nibabel writes its own slope for whole numbers
        file.seek(112)
        file.write(np.array([3, -10], "<f4").tobytes())
    picture = read(f"{path}[4,1]")
    wanted = (stored[..., 4, 1] * 3.0) / 600
    np.testing.assert_allclose(plain("L")(picture)[0][0, 0].numpy(), wanted, atol=1e-6)
    assert narrow(picture) == ""
    with pytest.raises(
        UnreadableImage, match=r"it has 5 x 3 slices, and no \[4\]; say .* from name\[0,0\] to name\[4,2\]"
    ):
        read(f"{path}[4]")
    with pytest.raises(UnreadableImage, match="pixels, more than the 98 that are opened"):
        read(f"{path}[4,1]", most_pixels=98)


# ------------------------------------------------------------------------------------------------------------ the door


@pytest.mark.parametrize(("library", "module"), [("pydicom", "dicom"), ("nibabel", "nifti"), ("tifffile", "tiff")])
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, library: str, module: str) -> None:
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=f"pip install {library}"):
        importlib.import_module(f"seewhy.images.readers.{module}")._library()


class Ruled:
    """A picture as text: a row a line."""

    suffixes = (".ruled",)

    def recognises(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"ruled\n")

    def open(self, path: Path, page: Any, most: int) -> Plane:
        rows = path.read_text(encoding="utf-8").splitlines()[1:]
        return Plane(values=np.array([[float(one) for one in row.split()] for row in rows]), low=-1, top=1)


def test_a_reader_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("ruled", f"{__name__}:Ruled", "seewhy.readers")
    monkeypatch.setattr(registry, "_outside", lambda kind: {"ruled": point} if kind == "readers" else {})
    monkeypatch.setattr(EntryPoint, "load", lambda self: Ruled)
    path = tmp_path / "x.ruled"
    path.write_text("ruled\n-1 0\n0 1\n", encoding="utf-8")
    assert np.asarray(read(path))[..., 0].tolist() == [[0, 128], [128, 255]]
    assert ".ruled" in readers.suffixes()
    path.write_text("something else", encoding="utf-8")
    with pytest.raises(UnreadableImage, match="not a picture in a format that seewhy opens"):
        read(path)

import csv
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from seewhy import registry
from seewhy.errors import InvalidInput, UnknownName
from seewhy.exports.coco import Coco, run_lengths, salient
from seewhy.exports.csv import Csv
from seewhy.exports.fiftyone import FiftyOne
from seewhy.exports.parquet import Parquet
from seewhy.runs.folder.originals import content
from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings
from support.typed import present

CORNER = np.zeros((4, 4), dtype=np.float32)
CORNER[0, 3] = 2.0
HOSTILE = ["=1+1", "new\nline", 'quote"d, comma', "'apostrophe", "-x"]


@pytest.fixture
def run(tmp_path):
    """Two pictures of 8 x 12, of which the network saw the middle 8 x 8, and one that could not be read."""
    folder = Folder(tmp_path / "run", settings(classes=HOSTILE))
    photo = tmp_path / "a=b.png"
    Image.new("RGB", (12, 8), "red").save(photo)
    box: dict[str, Any] = {"size": (8, 12), "input": (4, 4), "box": (2.0, 0.0, 10.0, 8.0)}
    a = picture(
        "=a", 0, name="+a.png", source=str(photo), labels={0: (0.1, True), 3: (0.6, False)}, predicted=3,
        probability=0.6, truth=(0,), boxes=((0, 1.0, 2.0, 5.0, 4.5),), entropy=0.7,
        maps={(0, "one"): CORNER, (3, "one"): np.ones((4, 4)), (3, "two"): -CORNER, (0, "two"): np.zeros((4, 4))},
        scores={(0, "one", "up"): 0.1, (3, "one", "up"): None, (0, "two", "up"): -0.25},
        uncertainty={0: (0.1, 0.02, 0.06, 0.14)}, content=content(photo.read_bytes()), **box,
    )  # fmt: skip
    b = picture(
        "b", 1, name="ü\n\U0001f600.png", labels={1: (0.9, None)}, maps={(1, "one"): CORNER},
        small=Image.new("RGB", (12, 8)), **box,
    )  # fmt: skip
    broken = [("read", None, None, None, "=cmd|' /C calc'!A0")]
    c = picture("c", 2, size=None, input=None, failures=broken, done=["predict"], failed=["predict"])
    folder.add("p", a, b, c)
    return Run(folder.place)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_explainer_may_be_named_without_a_tuple(run, tmp_path):
    FiftyOne(explainers="two")(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "fields").iterdir()] == ["two"]
    with pytest.raises(UnknownName, match="There is no explainer 'three'"):
        FiftyOne(explainers="three")(run, tmp_path / "other")


# ---------------------------------------------------------------------------------------------------------- tables


def test_csv_has_one_line_for_each_picture_and_label(run, tmp_path):
    out, failures = Csv()(run, tmp_path / "new" / "labels.csv")
    lines = read(out)
    assert [(line["sample"], line["label"]) for line in lines] == [("'=a", "0"), ("'=a", "3"), ("b", "1")]
    first = lines[0]
    assert (first["probability"], first["truth"], first["flag"], first["position"]) == ("0.1", "True", "FN", "0")
    assert (first["predicted"], first["predicted_class"]) == ("3", "''apostrophe")
    assert (first["mean"], first["std"], first["low"], first["high"]) == ("0.1", "0.02", "0.06", "0.14")
    assert (first["one/up"], first["two/up"], first["one/down"]) == ("0.1", "-0.25", "")
    assert (lines[1]["one/up"], lines[1]["std"], lines[2]["truth"], lines[2]["flag"]) == ("", "", "", "")
    assert [line["reason"] for line in read(failures)] == ["'=cmd|' /C calc'!A0"]
    assert failures.name == "labels-failures.csv"


def test_csv_cells_are_no_formulas_and_names_come_back(tmp_path):
    signs = [
        "=1",
        "+1",
        "-1",
        "@x",
        "\tx",
        "\rx",
        "\nx",
        "'x",
        "\uff1dx",
        "x=1",
        "a\r\nb",
        "ü\U0001f600",
        "<script>",
        "",
    ]
    folder = Folder(tmp_path / "run", settings(classes=signs))
    labels = dict.fromkeys(range(len(signs)), (0.5, None))
    folder.add("p", picture("s", labels=labels))
    (out,) = Csv()(Run(folder.place), tmp_path / "x.csv")
    assert out.read_bytes().count(b"\r\n") > len(signs)
    found = [line["class"] for line in read(out)]
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))]
    assert [cell.removeprefix("'") for cell in found] == signs
    assert found[9:] == signs[9:]


def test_parquet_has_the_same_columns_with_types(run, tmp_path):
    out, failures = Parquet()(run, tmp_path / "labels.parquet")
    found = pq.read_table(out)
    (names, *_) = csv.reader(Csv()(run, tmp_path / "labels.csv")[0].open(encoding="utf-8", newline=""))
    assert found.column_names == names
    first, second, third = found.to_pylist()
    assert (first["sample"], first["class"], first["truth"], first["one/up"]) == ("=a", "=1+1", True, 0.1)
    assert (second["one/up"], second["mean"], third["truth"], third["class"]) == (None, None, None, "new\nline")
    assert pq.read_table(failures).to_pylist()[0]["reason"] == "=cmd|' /C calc'!A0"


def test_tables_of_an_empty_run(tmp_path):
    Folder(tmp_path / "run", settings(explainers=(), metrics=()))
    run = Run(tmp_path / "run")
    assert len(read(Csv()(run, tmp_path / "x.csv")[0])) == 0
    assert pq.read_table(Parquet()(run, tmp_path / "x.parquet")[0]).num_rows == 0
    assert json.loads(Coco()(run, tmp_path / "x.json")[0].read_text())["annotations"] == []
    assert json.loads((FiftyOne()(run, tmp_path / "fo")[0] / "samples.json").read_text()) == {"samples": []}


# ------------------------------------------------------------------------------------------------------------ COCO


def test_run_lengths_are_column_by_column_and_begin_outside():
    region = np.array([[0, 0, 1], [0, 1, 1]], dtype=bool)
    assert run_lengths(region) == [3, 3]
    assert run_lengths(~region) == [0, 3, 3]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]
    random = np.random.default_rng(0).random((13, 7)) > 0.5
    counts = run_lengths(random)
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    np.testing.assert_array_equal(flat.reshape(7, 13).T, random)


def test_the_salient_region_is_that_of_iosr():
    import torch

    from seewhy.metrics._localization import iosr

    random = np.random.default_rng(0)
    for shift in (0.0, -3.0, 2.0):
        values = (random.normal(size=(9, 14)) + shift).astype(np.float32)
        truth = random.random((9, 14)) > 0.5
        for threshold in (0.0, 0.2, 0.5):
            region = present(salient(values, threshold))
            expected = iosr(torch.from_numpy(values), torch.from_numpy(truth), threshold)
            assert (region & truth).sum() / region.sum() == pytest.approx(expected)
    for nothing in (np.zeros((3, 3)), np.full((3, 3), -2.0), np.full((3, 3), np.nan)):
        assert salient(nothing.astype(np.float32), 0.5) is None
    assert present(salient(np.full((3, 3), 2.0, np.float32), 0.5)).all()


def test_coco_regions_lie_on_the_original(run, tmp_path):
    out, truth = Coco()(run, tmp_path / "x.json")
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [(image["id"], image["height"], image["width"]) for image in found["images"]] == [(1, 8, 12), (2, 8, 12)]
    assert found["images"][1]["file_name"] == "ü\n\U0001f600.png"
    assert [(c["id"], c["name"]) for c in found["categories"]] == list(enumerate(HOSTILE, 1))
    first, negative, flat, last = _by_key(found)
    # Cell (0, 3) of a 4 x 4 map over columns 2 to 10: half of its height is passed in the middle between two cells.
    assert (first["bbox"], first["area"], first["score"]) == ([8, 0, 2, 2], 4, 0.1)
    assert first["attributes"] == {"explainer": "one", "flag": "FN", "up": 0.1}
    assert (flat["attributes"]["explainer"], flat["bbox"], flat["area"]) == ("one", [2, 0, 8, 8], 64)
    assert flat["attributes"]["up"] is None
    assert (negative["attributes"]["explainer"], negative["area"]) == ("two", 64 - 4)
    assert (last["image_id"], last["category_id"], last["attributes"]["flag"]) == (2, 2, None)
    mask = _decoded(first["segmentation"])
    assert mask[:2, 8:10].all()
    assert mask.sum() == 4
    box = json.loads(truth.read_text())
    assert box["annotations"] == [
        {
            "id": 1, "image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 4.0, 2.5], "area": 10.0, "iscrowd": 0,
            "segmentation": [],
        }
    ]  # fmt: skip
    assert (box["images"], box["categories"]) == (found["images"], found["categories"])


def _by_key(found):
    """Corner of "one" on class 0; minus corner of "two" and flat map of "one" on class 3; the second picture."""
    keys = [(a["image_id"], a["category_id"], a["attributes"]["explainer"]) for a in found["annotations"]]
    assert sorted(keys) == [(1, 1, "one"), (1, 4, "one"), (1, 4, "two"), (2, 2, "one")]
    assert [a["id"] for a in found["annotations"]] == [1, 2, 3, 4]
    by = dict(zip(keys, found["annotations"], strict=True))
    return by[1, 1, "one"], by[1, 4, "two"], by[1, 4, "one"], by[2, 2, "one"]


def _decoded(segmentation):
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(width, height).T.astype(bool)


def test_every_coco_mask_fits_its_box_and_area(run, tmp_path):
    for threshold in (0.0, 0.3, 0.9):
        found = json.loads(Coco(threshold=threshold)(run, tmp_path / "x.json")[0].read_text())
        for annotation in found["annotations"]:
            mask = _decoded(annotation["segmentation"])
            x, y, width, height = annotation["bbox"]
            assert mask.shape == (8, 12)
            assert mask.sum() == annotation["area"] == mask[y : y + height, x : x + width].sum()
            assert mask[y].any()
            assert mask[y + height - 1].any()
            assert mask[:, x].any()
            assert mask[:, x + width - 1].any()
            assert not mask[:, :2].any()
            assert not mask[:, 10:].any()


def test_pycocotools_reads_it(run, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    for path in Coco()(run, tmp_path / "x.json"):
        read = coco.COCO(str(path))
        for annotation in read.loadAnns(read.getAnnIds()):
            if annotation["segmentation"]:
                assert read.annToMask(annotation).sum() == annotation["area"]


def test_a_picture_of_which_nobody_knows_what_was_seen_gets_no_region(tmp_path):
    folder = Folder(tmp_path / "run")
    maps = {(0, "one"): CORNER}
    folder.add(
        "p", picture("a", 0, labels={0: (0.9, None)}, maps=maps),  # 8 x 12 with an input of 8 x 8, and no box
        picture("b", 1, labels={0: (0.9, None)}, maps=maps, size=(8, 8)),
    )  # fmt: skip
    found = json.loads(Coco()(Run(folder.place), tmp_path / "x.json")[0].read_text())
    assert [annotation["image_id"] for annotation in found["annotations"]] == [2]
    assert len(found["images"]) == 2


def test_coco_of_some_explainers(run, tmp_path):
    found = json.loads(Coco(explainers=("two",))(run, tmp_path / "x.json")[0].read_text())
    assert [a["attributes"]["explainer"] for a in found["annotations"]] == ["two"]
    with pytest.raises(UnknownName, match=r"^There is no explainer 'tow'\. Did you mean 'two'"):
        Coco(explainers=("tow",))(run, tmp_path / "x.json")
    with pytest.raises(InvalidInput, match=r"^threshold must be at least 0 and below 1, got 1\.$"):
        Coco(threshold=1)


# -------------------------------------------------------------------------------------------------------- FiftyOne


def test_fiftyone_folder(run, tmp_path):
    (out,) = FiftyOne()(run, tmp_path / "fo")
    first, second = json.loads((out / "samples.json").read_text())["samples"]  # nothing to show of the third
    assert first["filepath"] == str(tmp_path / "a=b.png")
    assert second["filepath"] == "data/00000001.png"
    assert Image.open(out / second["filepath"]).size == (12, 8)
    assert (first["metadata"]["width"], first["metadata"]["height"]) == (12, 8)
    assert (first["prediction"]["label"], first["prediction"]["confidence"]) == ("'apostrophe", 0.6)
    assert [c["label"] for c in first["truth"]["classifications"]] == ["=1+1"]
    assert second["truth"] is None
    labels = first["labels"]["classifications"]
    assert [(c["label"], c["confidence"], c["flag"], c["std"]) for c in labels] == [
        ("=1+1", 0.1, "FN", 0.02), ("'apostrophe", 0.6, "FP", None),
    ]  # fmt: skip
    assert labels[0]["scores"] == {"one_up": 0.1, "two_up": -0.25}
    assert (first["entropy"], first["one_up"], second["one_up"]) == (0.7, None, None)
    assert (first["one"]["_cls"], first["one"]["label"], first["one"]["range"]) == ("Heatmap", "'apostrophe", [0, 255])
    assert (first["two"]["low"], first["two"]["high"]) == (-2.0, 0.0)


def test_fiftyone_heat_maps_cover_the_picture(run, tmp_path):
    (out,) = FiftyOne()(run, tmp_path / "fo")
    first, second = json.loads((out / "samples.json").read_text())["samples"]
    levels = np.asarray(Image.open(out / second["one"]["map_path"]))
    assert (levels.shape, str(levels.dtype)) == ((8, 12), "uint8")
    assert levels[0, 9] == 255
    assert levels[:, :2].max() == levels[:, 10:].max() == levels[3:].max() == 0
    assert np.asarray(Image.open(out / first["one"]["map_path"])).max() == 0  # a flat map
    turned = np.asarray(Image.open(out / first["two"]["map_path"]))
    np.testing.assert_array_equal(turned[:, 2:10], 255 - levels[:, 2:10])
    (small,) = FiftyOne(side=6)(run, tmp_path / "small")
    levels = np.asarray(Image.open(small / second["one"]["map_path"]))
    assert levels.shape == (4, 6)
    assert levels[0, 4] == 255
    assert levels[:, 0].max() == levels[:, 5].max() == 0


def test_fiftyone_fields_are_all_described(run, tmp_path):
    (out,) = FiftyOne()(run, tmp_path / "fo")
    about = json.loads((out / "metadata.json").read_text())
    known = {field["db_field"]: field for field in about["sample_fields"]}
    for sample in json.loads((out / "samples.json").read_text())["samples"]:
        assert set(sample) <= set(known)
        for name, value in sample.items():
            if isinstance(value, dict) and "_cls" in value:
                assert known[name]["embedded_doc_type"].endswith("." + value["_cls"])
                assert set(value) - {"_cls"} <= {field["db_field"] for field in known[name]["fields"]}
    identities = [s["_id"]["$oid"] for s in json.loads((out / "samples.json").read_text())["samples"]]
    assert len(set(identities)) == 2
    assert all(len(identity) == 24 for identity in identities)


def test_fiftyone_field_names_of_any_labels():
    from seewhy.exports._fiftyone_fields import names

    found = names(["rise", "rise_up", "grad.cam", "$x", "_y", "7", "tags", "ü", "grad cam"], ["up"])
    assert list(found.explainers.values()) == [
        "rise", "rise_up", "grad_cam", "x", "y", "explainer_7", "tags_2", "explainer", "grad_cam_2",
    ]  # fmt: skip
    assert found.metrics["rise", "up"] == "rise_up_2"
    every = [*found.explainers.values(), *found.metrics.values()]
    assert len(set(every)) == len(every)


def test_fiftyone_copies_pictures_and_takes_a_new_folder_only(run, tmp_path):
    (out,) = FiftyOne(copy=True)(run, tmp_path / "fo")
    first = json.loads((out / "samples.json").read_text())["samples"][0]
    assert first["filepath"] == "data/00000000.png"
    assert (out / first["filepath"]).read_bytes() == (tmp_path / "a=b.png").read_bytes()
    with pytest.raises(InvalidInput, match=r"^The folder for FiftyOne must be new or empty, got "):
        FiftyOne()(run, out)
    with pytest.raises(InvalidInput, match=r"^side must be a positive integer, got 0\.$"):
        FiftyOne(side=0)


def test_fiftyone_shows_originals_that_the_run_kept(tmp_path):
    folder = Folder(tmp_path / "run")
    (tmp_path / "run" / "originals").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "run" / "originals" / "d.png")
    folder.add("p", picture("a", labels={0: (0.9, None)}, source="originals/d.png", size=(8, 8)))
    (out,) = FiftyOne()(Run(folder.place), tmp_path / "fo")
    (sample,) = json.loads((out / "samples.json").read_text())["samples"]
    assert sample["filepath"] == str(tmp_path / "run" / "originals" / "d.png")


def test_the_registry_finds_the_formats():
    assert set(registry.names("exports")) >= {"csv", "parquet", "coco", "fiftyone"}
    assert registry.load("exports", "fiftyone") is FiftyOne
    assert registry.load("exports", "Csv") is Csv

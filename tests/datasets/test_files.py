"""Folders, lists of files and tables: what is found, what it is called, and what is known about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from seewhy.datasets import Data, open_data, reopen
from seewhy.datasets._files import key, unique
from seewhy.errors import InvalidInput, UnknownParameter, UnreadableImage
from seewhy.images.reading import read
from support.pictures import solid


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        solid("RGB", (1, 2, 3)).save(root / name, "PNG")
    return root


def keys(data: Data) -> list[str]:
    return [data.key(i) for i in range(len(data))]


def error_of(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------- folder


def test_a_folder_gives_every_picture_below_it_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a/z.PNG", "a/deep/er/x.jpeg", "a-b.png", ".hidden.png", ".git/y.png")
    (tmp_path / "readme.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    data = open_data(tmp_path)
    assert keys(data) == ["a-b.png", "a/deep/er/x.jpeg", "a/z.PNG", "b.png"]
    assert [data[i].image for i in range(4)] == [tmp_path / k for k in keys(data)]
    assert isinstance(data, Data)
    assert data.classes is None
    assert data[0].labels is None
    assert data[3].name == "b.png"
    assert data.source(1) == str(tmp_path / "a/deep/er/x.jpeg")
    with pytest.raises(IndexError):
        data[4]


def test_broken_links_pipes_and_empty_files_are_samples_that_fail_when_read(tmp_path: Path) -> None:
    fill(tmp_path, "good.png")
    (tmp_path / "link.png").symlink_to("good.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    data = open_data(tmp_path)
    assert keys(data) == ["broken.png", "empty.png", "good.png", "link.png", "loop.png", "pipe.png"]
    for i in (0, 1, 4, 5):
        with pytest.raises(UnreadableImage):
            read(data[i].image)
    assert [data.stamp(i) == "missing" for i in range(6)] == [True, False, False, False, True, False]


def test_linked_folders_are_entered_once_and_loops_are_not_walked(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "real/a.png")
    outside = fill(tmp_path / "outside", "b.png", "more/c.png")
    fill(tmp_path, "beside.png")
    (root / "again").symlink_to(root / "real")  # its pictures are there already
    (root / "up").symlink_to("..")
    (root / "real" / "self").symlink_to(".")
    (root / "out").symlink_to(outside)
    (root / "out2").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "circle").symlink_to("circle")
    assert keys(open_data(root)) == ["out/b.png", "out/more/c.png", "real/a.png"]


def test_sub_folders_are_classes_when_every_picture_lies_in_one(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.png", "cat/2.png", "cat/1.png")
    (tmp_path / "empty").mkdir()
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog", "empty")
    assert data.notes == ("The 3 sub-folders are taken as classes, in sorted order.",)
    assert [data[i].labels for i in range(3)] == [(0,), (0,), (1,)]
    bound = data.bind(["empty", "big", "DOG", "tom, Cat"], 4)
    assert [bound[i].labels for i in range(3)] == [(3,), (3,), (2,)]
    assert open_data(tmp_path, classes_from_folders=False).classes is None

    fill(tmp_path, "top.png")
    assert open_data(tmp_path).classes is None
    forced = open_data(tmp_path, classes_from_folders=True)
    assert forced.notes[1] == "1 pictures lie in no sub-folder: their class is not known."
    assert [forced[i].labels for i in range(4)] == [(0,), (0,), (1,), None]


def test_folders_called_by_numbers(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}/a.png" for i in range(11)))
    assert "Pass numbers='sorted' or numbers='index'." in error_of(open_data(tmp_path).bind, None, 11)
    for numbers, expected in (("sorted", 2), ("index", 10)):
        data = open_data(tmp_path, numbers=numbers).bind(None, 11)
        assert data[keys(data).index("10/a.png")].labels == (expected,)


def test_names_of_every_kind_give_keys_that_are_valid_and_differ(tmp_path: Path) -> None:
    names = [
        "two words.png",
        "\U0001f431.png",
        "line\nbreak.png",
        "-x.png",
        "q'\".png",
        "n" * 200 + ".png",
        "b\\xff.png",
    ]
    fill(tmp_path, *names)
    raw = os.path.join(os.fsencode(tmp_path), b"b\xff.png")
    Path(os.fsdecode(raw)).write_bytes((tmp_path / "-x.png").read_bytes())
    data = open_data(tmp_path)
    assert sorted(keys(data)) == sorted([*(n for n in names if "\\" not in n), "b\\\\xff.png", "b\\xff.png"])
    for i in range(len(data)):
        assert data.key(i).encode()
        assert read(data[i].image).size == (4, 3)


def test_keys_are_injective() -> None:
    given = ["a\udcffb", "a\\xffb", "a\\\\xffb", "\ud83d", "\\ud83d", "a/b"]
    assert len({key(one) for one in given}) == len(given)
    assert [key("a\udcffb"), key("a\\b"), key("a\n b")] == ["a\\xffb", "a\\\\b", "a\n b"]
    assert unique(["a", "a", "a (2)", "b", "a"]) == ("a", "a (3)", "a (2)", "b", "a (4)")


def test_stamp_follows_the_file(tmp_path: Path) -> None:
    data = open_data(fill(tmp_path, "a.png"))
    before = data.stamp(0)
    assert before == data.stamp(0)
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert data.stamp(0) == f"{(tmp_path / 'a.png').stat().st_size}:1" != before
    (tmp_path / "a.png").unlink()
    assert data.stamp(0) == "missing"


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert error_of(open_data, tmp_path) == f"There is no picture below {str(tmp_path)!r}."
    assert error_of(open_data, f"folder:{tmp_path}/no") == f"Expected a folder, '{tmp_path}/no' is not one."
    with pytest.raises(UnknownParameter) as caught:
        open_data(tmp_path, class_from_folders=True)
    assert str(caught.value) == "folder has no option 'class_from_folders'. Did you mean 'classes_from_folders'?"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the super-user may read everything")
def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:  # pragma: no cover
    fill(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    assert open_data(tmp_path).notes == ("1 folders could not be read: 'closed/'.",)


# ------------------------------------------------------------------------------------------------------------ paths


def test_lists_of_paths_and_single_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png", "b.png")
    monkeypatch.chdir(tmp_path)
    data = open_data(["b.png", Path("a.png"), "b.png", "gone.png"])
    assert keys(data) == ["b.png", "a.png", "b.png (2)", "gone.png"]
    assert [data.stamp(i) == "missing" for i in range(4)] == [False, False, False, True]
    assert keys(open_data(path for path in ("a.png", "b.png"))) == ["a.png", "b.png"]
    assert keys(open_data("a.png")) == ["a.png"]
    monkeypatch.chdir("/")
    assert read(data[0].image).size == (4, 3)
    assert error_of(open_data, "nothing.png") == (
        "Expected a folder, voc:ROOT, coco:FILE, csv:FILE, npz:FILE or tar:FILE; 'nothing.png' does not exist."
    )


def test_data_from_paths_can_be_opened_again_from_their_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "x/a.png", "y/b.png")
    (tmp_path / "t.csv").write_text("image\nx/a.png\n")
    monkeypatch.chdir(tmp_path)
    for spec, options in ((".", {"classes_from_folders": False}), ("t.csv", {"box_format": "xyxy"}), (["x/a.png"], {})):
        data = open_data(spec, **options)
        described = json.loads(json.dumps(data.describe()))
        monkeypatch.chdir("/")
        again = reopen(described)
        monkeypatch.chdir(tmp_path)
        assert again.describe() == described
        assert [again.source(i) for i in range(len(again))] == [data.source(i) for i in range(len(data))]
        assert [again.key(i) for i in range(len(again))] == keys(data)
        assert again.classes == data.classes
    assert open_data(data) is data


# ------------------------------------------------------------------------------------------------------------ table


def table(root: Path, text: str, **options: object) -> Data:
    (root / "t.csv").write_text(text, encoding="utf-8")
    return open_data(root / "t.csv", **options)


def test_a_table_gives_labels_boxes_and_masks(tmp_path: Path) -> None:
    data = table(
        tmp_path,
        "\ufeffImage,labels,boxes,mask\na.png,dog; cat,1 2 3 4;5 6 7 8,\na.png,cat,,m.png\nb.png,,,\nc.png,-1,,\n",
    )
    assert keys(data) == ["a.png", "a.png (2)", "b.png", "c.png"]
    assert data.classes == ("cat", "dog")
    assert [data[i].labels for i in range(4)] == [(1, 0), (0,), None, ()]
    assert data[0].boxes == ((1, 1, 2, 4, 6), (0, 5, 6, 12, 14))
    assert data[1].masks == {0: tmp_path / "m.png"}
    assert data[1].mask == tmp_path / "m.png"
    assert [data.bind(["dog", "x", "cat"], 3)[i].labels for i in range(4)] == [(0, 2), (2,), None, ()]


def test_a_table_of_indices_and_targets(tmp_path: Path) -> None:
    data = table(tmp_path, "image,target,boxes\na.png,3,1 1 2 2\n").bind(None, 4)
    assert (data[0].labels, data[0].target, data[0].boxes) == ((3,), "3", ((3, 1, 1, 3, 3),))
    mixed = table(tmp_path, "image,labels\na.png,dog;2\n").bind(["cat", "dog", "cow"], 3)
    assert mixed[0].labels == (1, 2)  # a number is the network's index, whatever names there are
    few = data.bind(None, 3)
    assert error_of(few.__getitem__, 0) == (
        f"Line 2 of '{tmp_path}/t.csv': Label 3 is out of range: the network has 3 classes, 0 to 2."
    )
    assert data.stamp(0) != table(tmp_path, "image,target,boxes\na.png,2,1 1 2 2\n").stamp(0)
    assert data.stamp(0).startswith("missing+")


def test_bad_rows_are_named_by_their_line(tmp_path: Path) -> None:
    data = table(
        tmp_path, "image,labels,boxes\n,1,\na.png,1,1 2 3\na.png,1;2,1 2 3 4\na.png,1,4 4 1 1\n", box_format="xyxy"
    )
    where = f"of '{tmp_path}/t.csv'"
    assert [error_of(data.__getitem__, i) for i in range(4)] == [
        f"Line 2 {where}: the column 'image' is empty.",
        f"Line 3 {where}: a box must be four numbers, got ['1', '2', '3'].",
        f"Line 4 {where}: expected one box a label, got 1 boxes and 2 labels.",
        f"Line 5 {where}: a box must be four finite numbers xyxy with sides of 0 or more, got [4.0, 4.0, 1.0, 1.0].",
    ]


@pytest.mark.parametrize("text", ["", "image\n", "picture\na.png\n"])
def test_files_that_are_no_table(tmp_path: Path, text: str) -> None:
    assert error_of(table, tmp_path, text) == (
        f"'{tmp_path}/t.csv' must be a CSV file with a row a picture and the column 'image' "
        "(of image, target, labels, mask, boxes)."
    )

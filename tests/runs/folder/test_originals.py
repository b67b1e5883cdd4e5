"""Which file counts as the original of a stored map: in the notebook, on the pages and in exports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.exports.fiftyone import FiftyOne
from seewhy.runs.folder import originals
from seewhy.runs.folder.originals import content
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings
from support.web_pages import client

MAP = np.arange(16, dtype=np.float32).reshape(4, 4)
THUMBNAIL = (0, 0, 255)


def stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def photograph(path: Path, colour: str = "red", size: tuple[int, int] = (12, 8)) -> Path:
    Image.new("RGB", size, colour).save(path, format="BMP")  # as many bytes for every colour
    return path


def run(place: Path, source: str, **more: Any) -> Run:
    """A run of one red picture, whose thumbnail is blue so that one sees which is shown."""
    folder = Folder(place / "run", settings())
    box = {"size": (8, 12), "input": (4, 4), "box": (2.0, 0.0, 10.0, 8.0)}
    folder.add("p", picture(
        "a", source=source, labels={0: (0.9, None)}, maps={(0, "one"): MAP}, small=Image.new("RGB", (12, 8), "blue"),
        **{**box, **more},
    ))  # fmt: skip
    return Run(folder.place)


def shown(found: Run) -> tuple[Any, list[str]]:
    """The colour of the picture under the map in the notebook, and what is said about the original."""
    made = explanation(found, "a", "one")
    colour = tuple(np.asarray(made.pictures[0])[4, 6].tolist())
    return colour, [note.text for note in made.notes if "original" in note.text]


def exported(found: Run, out: Path, copy: bool) -> tuple[str, bytes]:
    """Where FiftyOne is told that the picture lies, and what lies there."""
    (place,) = FiftyOne(copy=copy)(found, out)
    (sample,) = json.loads((place / "samples.json").read_text())["samples"]
    assert sample["note"] == (found.original(next(found.records())).note or None)
    return sample["filepath"], (place / sample["filepath"]).read_bytes()


def unchecked(path: Path) -> str:
    return (
        f"The original {str(path)!r} has the size and time of change that the run noted. This run is older and noted "
        "no sign of its bytes, so that it could not be checked whether it still is the picture of the map."
    )


def test_the_original_is_shown_while_it_is_what_it_was(tmp_path: Path) -> None:
    source = photograph(tmp_path / "photo.bmp")
    noted = run(tmp_path, str(source), stamp=stamp(source), content=content(source.read_bytes()))
    assert shown(noted) == ((255, 0, 0), [])
    assert exported(noted, tmp_path / "named", copy=False)[0] == str(source)
    assert exported(noted, tmp_path / "copied", copy=True) == ("data/00000000.bmp", source.read_bytes())
    os.utime(source, ns=(1, 1))  # copied from elsewhere: another time, the same bytes
    assert shown(noted) == ((255, 0, 0), [])


@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("noting", [True, False])
def test_another_photograph_of_the_same_size_is_not_shown(tmp_path: Path, keep_time: bool, noting: bool) -> None:
    source = photograph(tmp_path / "photo.bmp")
    before = source.stat()
    more = {"content": content(source.read_bytes())} if noting else {}
    noted = run(tmp_path, str(source), stamp=f"{stamp(source)}+0badc0de", **more)
    assert shown(noted)[0] == (255, 0, 0)
    photograph(source, "lime")
    assert source.stat().st_size == before.st_size
    os.utime(source, ns=(1, before.st_mtime_ns if keep_time else 1))
    if keep_time and not noting:
        return  # an old run has nothing but size and time
    sentence = (
        f"The original {str(source)!r} was changed since the map was made. The stored thumbnail is shown instead."
    )
    colour, said = shown(noted)
    assert (np.abs(np.subtract(colour, THUMBNAIL)) < 8).all()
    assert said == [sentence]
    assert noted.original(next(noted.records())).changed == sentence
    assert exported(noted, tmp_path / "named", copy=False)[0].startswith("data/")
    assert exported(noted, tmp_path / "copied", copy=True)[1] != source.read_bytes()


@pytest.mark.parametrize("kind", ["text", "relative", "link", "climbing", "address", "device", "folder", "bare"])
def test_a_hostile_run_gets_no_file_copied(tmp_path: Path, kind: str) -> None:
    foreign = photograph(tmp_path / "foreign.bmp", "lime")
    secret = tmp_path / "secret.txt"
    secret.write_text("do not tell")
    (tmp_path / "run" / "originals").mkdir(parents=True)
    (tmp_path / "run" / "originals" / "a.bmp").symlink_to(foreign)
    source, mark = {
        "text": (str(secret), stamp(secret)),
        "relative": ("../foreign.bmp", stamp(foreign)),
        "link": ("originals/a.bmp", stamp(foreign)),
        "climbing": ("originals/../../foreign.bmp", stamp(foreign)),
        "address": (f"file://{foreign}", stamp(foreign)),
        "device": ("/dev/zero", "0:0"),
        "folder": (str(tmp_path), stamp(tmp_path)),
        "bare": (str(foreign), ""),
    }[kind]
    found = run(tmp_path, source, stamp=mark)
    for copy in (True, False):
        name, data = exported(found, tmp_path / f"out-{copy}", copy)
        assert name.startswith("data/")
        assert data not in (foreign.read_bytes(), secret.read_bytes())
    colour, said = shown(found)
    assert (np.abs(np.subtract(colour, THUMBNAIL)) < 8).all()
    assert len(said) == 1
    assert said[0].endswith("The stored thumbnail is shown instead.")


def test_copied_originals_and_links_to_photographs_count(tmp_path: Path) -> None:
    (tmp_path / "run" / "originals").mkdir(parents=True)
    kept = photograph(tmp_path / "run" / "originals" / "a.bmp")
    found = run(tmp_path, "originals/a.bmp", stamp="", content=content(kept.read_bytes()))
    assert shown(found) == ((255, 0, 0), [])
    photograph(kept, "lime")
    assert shown(found)[1] != []
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "link.bmp"
    link.symlink_to(photograph(tmp_path / "photo.bmp"))
    found = run(tmp_path / "other", str(link), stamp=stamp(link))
    assert shown(found) == ((255, 0, 0), [unchecked(link)])
    link.unlink()
    link.symlink_to(photograph(tmp_path / "another.bmp", "lime"))
    assert shown(found)[1] == [
        f"The original {str(link)!r} was changed since the map was made. The stored thumbnail is shown instead."
    ]


def test_copied_originals_behind_an_address_are_shown(tmp_path: Path) -> None:
    import fsspec

    (tmp_path / "run" / "originals").mkdir(parents=True)
    photograph(tmp_path / "run" / "originals" / "a.bmp")
    run(tmp_path, "originals/a.bmp")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "run"), "/originals-test", recursive=True)
    try:
        found = Run("memory://originals-test")
        assert shown(found) == ((255, 0, 0), [])
        assert exported(found, tmp_path / "out", copy=False)[0] == "data/00000000.bmp"
    finally:
        memory.rm("/originals-test", recursive=True)


def test_what_could_not_be_checked_is_said_everywhere(tmp_path: Path) -> None:
    source = photograph(tmp_path / "photo.bmp")
    old = run(tmp_path, str(source), stamp=stamp(source))
    record = next(old.records())
    assert shown(old) == ((255, 0, 0), [unchecked(source)])
    assert old.remark(record) == unchecked(source)
    assert exported(old, tmp_path / "out", copy=False)[0] == str(source)  # with the note
    with client(Path(old.address)) as asking:
        (card,) = asking.get("/api/runs").json()["runs"]
        text = asking.get(f"/runs/{card['key']}/saliency").text
    assert "could not be checked whether it still is the picture of the map" in text


def test_bytes_are_compared_once_and_again_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page has many cards: what was compared is remembered by the file's place, size and times."""
    source, looks = photograph(tmp_path / "photo.bmp"), list[str]()
    noted = run(tmp_path, str(source), stamp=stamp(source), content=content(source.read_bytes()))
    record, read = next(noted.records()), originals._read

    def counted(path: str, most: int | None) -> Any:
        looks.append(path)
        return read(path, most)

    monkeypatch.setattr(originals, "_read", counted)
    assert [noted.remark(record) for _ in range(3)] == [""] * 3
    assert len(looks) == 3  # it was written just now: another change might have the same time
    monkeypatch.setattr(originals, "_SETTLED", 0)
    assert [noted.remark(record) for _ in range(3)] == [""] * 3
    assert len(looks) == 4
    times = source.stat()
    photograph(source, "lime")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))  # as it was, but for what nobody can set
    assert "was changed since the map was made" in noted.remark(record)
    source.unlink()
    assert noted.remark(record) == ""  # missing is shown by the thumbnail alone
    photograph(source)
    assert noted.remark(record) == ""

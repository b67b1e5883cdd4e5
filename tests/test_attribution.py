"""Notes are data: sentences are made at the end, and no number depends on how many images were looked at together."""

from __future__ import annotations

import torch

import seewhy
from seewhy.attribution import about_all, sentences
from seewhy.explainers import GradCAM, Occlusion
from seewhy.types import Note
from support import networks
from support.networks import build, pictures


def name(image: int, target: int) -> str:
    return f"class {10 * image + target}"


def test_sentences_name_the_image_and_its_target() -> None:
    notes = [
        Note(text="All is well."),
        Note(text="it is dark.", kind="dark", image=2),
        Note(text="it is empty.", kind="empty", image=2, target=1),
    ]
    assert sentences(notes, name) == ("All is well.", "Image 2: it is dark.", "Image 2, class 21: it is empty.")


def test_many_of_one_kind_are_counted_and_those_about_all_are_not() -> None:
    notes = [Note(text="it is dark.", kind="dark", image=i) for i in range(11)]
    said = sentences([*notes, *about_all(f"remark {i}." for i in range(11))], name)
    assert said[:8] == tuple(f"Image {i}: it is dark." for i in range(8))
    assert said[8] == "... and 3 more: dark."
    assert said[9:] == tuple(f"remark {i}." for i in range(11))
    assert len(sentences(notes, name, most=2)) == 3


def test_the_same_note_is_said_once() -> None:
    assert sentences([Note(text="A."), Note(text="A.")], name) == ("A.",)


def test_every_flat_map_has_its_note() -> None:
    network = build(networks.Constant)
    found = Occlusion(network, window=8, stride=8).run(torch.zeros(16, 3, 32, 32), 0)
    flat = [note.image for note in found.notes if note.kind == "constant map"]
    assert flat == list(range(16))
    assert sum("constant" in text for text in found.warnings) == 9
    assert "... and 8 more: constant map." in found.warnings


def test_what_comes_back_are_the_resolved_targets() -> None:
    network, x = build(networks.Pooled), pictures(2)
    found = GradCAM(network).run(x)
    assert found.targets.classes.tolist() == network(x).argmax(1, keepdim=True).tolist()
    assert found.targets.names(0) == [f"class {int(network(x)[0].argmax())}"]


def test_explanations_keep_notes_and_say_them() -> None:
    found = seewhy.explain(build(networks.Constant), torch.zeros(2, 3, 32, 32), 0, "occlusion", progress=False)
    assert {note.kind for note in found.notes} >= {"constant map", "score that did not change"}
    assert "Image 1, class 0: the map is constant, nothing stands out." in found.warnings
    assert found.summary()["warnings"] == list(found.warnings)

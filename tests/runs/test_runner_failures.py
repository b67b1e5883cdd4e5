"""What fails becomes a row with its reason; everything else is done, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy import GradCAM
from seewhy.errors import InvalidInput
from seewhy.metrics import Case, Metric
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from seewhy.runs.runner import ImageClassificationRunner, Runner
from support.run_jobs import content, images, job, network, rows, run

pytestmark = pytest.mark.slow


@dataclass(frozen=True, eq=False, repr=False)
class Picky(GradCAM):
    """Fails where the picture's mean is above a limit."""

    limit: float = 0.0

    def _explain(self, model: Any, inputs: Tensor, request: Any) -> Any:
        if bool((inputs.mean((1, 2, 3)) > self.limit).any()):
            raise ZeroDivisionError("too bright for me")
        return super()._explain(model, inputs, request)


@dataclass(frozen=True, kw_only=True, eq=False)
class Brittle(Metric):
    """Fails on class 2."""

    def _judge(self, case: Case) -> float:
        if case.target == 2:
            raise KeyError("two")
        return 0.5


def bright(n: int = 12) -> list[int]:
    return [i for i, value in enumerate(images(n).mean((1, 2, 3)).tolist()) if value > 0]


class TestFailureRows:
    def test_an_explainer_that_raises_costs_only_its_own_maps(self, tmp_path: Path) -> None:
        net = network()
        found = run(tmp_path / "a", model=net, explainers=[Picky(net), "recipro_cam"], metrics=("sparseness",))
        assert 0 < len(bright()) < 12
        for row in rows(tmp_path / "a"):
            made = {one["explainer"] for one in row["maps"]}
            assert made == ({"recipro_cam"} if row["position"] in bright() else {"Picky", "recipro_cam"})
            assert {s["explainer"] for s in row["scores"]} == made
            why = [(f["task"], f["explainer"], f["reason"]) for f in row["failures"]]
            broken = [("explain", "Picky", "ZeroDivisionError: too bright for me")]
            assert why == (broken if row["position"] in bright() else [])
        assert (found.failed, len(found.failures), found.left) == (0, len(bright()), 0)

    def test_a_metric_that_raises_costs_only_its_own_number(self, tmp_path: Path) -> None:
        run(tmp_path / "a", metrics=[Brittle(), "sparseness"], explainers=["grad_cam"])
        for row in rows(tmp_path / "a"):
            classes = {one["label"] for one in row["labels"]}
            judged = {s["label"] for s in row["scores"] if s["metric"] == "Brittle"}
            assert judged == classes - {2}
            assert [f["reason"] for f in row["failures"]] == ["KeyError: 'two'"] * (2 in classes)

    def test_pictures_that_cannot_be_read_or_used(self, tmp_path: Path) -> None:
        good = images(1)[0]
        nan = good.clone()
        nan[0, 3, 3] = float("nan")

        class Some(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return 6

            def __getitem__(self, index: int) -> Any:
                if index == 1:
                    raise OSError("the disk is gone")
                return [(good, 0), None, (nan, 0), (good, 77), (good[:1], 0), (good, 1)][index]

        found = run(tmp_path / "a", data=Some(), metrics=())
        reasons = {row["position"]: [f["reason"] for f in row["failures"]] for row in rows(tmp_path / "a")}
        assert reasons[0] == reasons[5] == []
        assert "the disk is gone" in reasons[1][0]
        assert reasons[2] == ["inputs has NaN or infinite values in image 0."]
        assert "77" in reasons[3][0]
        assert "5 classes" in reasons[3][0]
        assert "Pooled refuses an input of 1 x 1 channels x 32 x 32 pixels." in reasons[4][0]
        assert found.failed == 4
        assert Run(tmp_path / "a").counts().failed == 4

    def test_an_output_of_nan(self, tmp_path: Path) -> None:
        class Sometimes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network()

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(x).masked_fill((x.mean((1, 2, 3)) > 0).unsqueeze(1), float("nan"))

        net = Sometimes()
        found = run(tmp_path / "a", model=net.eval(), explainers=["occlusion(window=16, stride=16)"], metrics=())
        assert found.failed == len(bright())
        for row in rows(tmp_path / "a"):
            said = "The network returned NaN or infinite scores. Its weights or the input are out of range."
            assert [f["reason"] for f in row["failures"]] == [said] * (row["position"] in bright())

    def test_failures_are_tried_again_only_when_asked(self, tmp_path: Path) -> None:
        lamp = {"broken": True}

        class Some(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return 4

            def __getitem__(self, index: int) -> Any:
                if index == 2 and lamp["broken"]:
                    raise OSError("not now")
                return images(4)[index], 1

        first = run(tmp_path / "a", data=Some(), metrics=())
        lamp["broken"] = False
        second = run(tmp_path / "a", data=Some(), metrics=())
        third = run(tmp_path / "a", data=Some(), metrics=(), retry=True)
        fourth = run(tmp_path / "a", data=Some(), metrics=(), retry=True)
        assert [one.computed for one in (first, second, third, fourth)] == [4, 0, 1, 0]
        assert Run(tmp_path / "a").failures().total == 0
        assert Run(tmp_path / "a").counts().samples == 4

    def test_whole_chunks_that_failed_are_there_when_they_succeed(self, tmp_path: Path) -> None:
        lamp = {"broken": True}

        class Some(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return 8

            def __getitem__(self, index: int) -> Any:
                if lamp["broken"]:
                    raise OSError("the disk is not there")
                return images(8)[index], 1

        run(tmp_path / "a", data=Some(), metrics=(), chunk=1)
        run(tmp_path / "a", data=Some(), metrics=(), retry=True)
        lamp["broken"] = False
        assert run(tmp_path / "a", data=Some(), metrics=(), retry=True).computed == 8
        assert run(tmp_path / "a", data=Some(), metrics=(), retry=True).computed == 0
        counts = Run(tmp_path / "a").counts()
        assert (counts.samples, counts.failed, counts.failures) == (8, 0, 0)

    def test_memory_that_does_not_suffice_halves_the_batch(self, tmp_path: Path) -> None:
        class Hungry(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network()

            def forward(self, x: Tensor) -> Tensor:
                if len(x) > 2:
                    raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
                return self.inner(x)

        found = run(tmp_path / "a", model=Hungry().eval(), explainers=["grad_cam"], metrics=(), batch=8, chunk=8)
        plain = run(tmp_path / "b", explainers=["grad_cam"], metrics=(), batch=8, chunk=8)
        assert found.failures == ()
        assert [n for n in found.notes if "Memory" in n] == [
            "Memory did not suffice for 8 pictures at a time: from here on 4.",
            "Memory did not suffice for 4 pictures at a time: from here on 2.",
        ]
        assert found.maps == plain.maps > 0

    def test_memory_that_suffices_for_no_picture_is_a_failure(self, tmp_path: Path) -> None:
        class Full(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("out of memory")

        found = run(tmp_path / "a", model=Full(), explainers=["rise"], metrics=())
        assert found.failed == 12
        assert {one.reason for _, one in found.failures} == {"RuntimeError: out of memory"}

    def test_everything_failed_is_said(self, tmp_path: Path) -> None:
        found = run(tmp_path / "a", data=[(torch.full((3, 8, 8), float("nan")), 0)] * 30, metrics=())
        assert found.failed == 30
        assert "... and 10 more: seewhy status" in str(found)


class TestInterrupted:
    @pytest.fixture(autouse=True)
    def _pressed_as_in_a_terminal(self) -> Iterator[None]:
        """A process that was started in the background ignores Ctrl-C."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_ctrl_c_finishes_the_chunk_in_hand_and_says_how_to_go_on(self, tmp_path: Path) -> None:
        def press(done: int, _total: int) -> None:
            if done == 4:
                signal.raise_signal(signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        found = Runner(job=job(tmp_path / "a", metrics=()), progress=press).run()
        assert signal.getsignal(signal.SIGINT) is before
        assert found.interrupted
        assert 4 <= found.computed < 12
        assert found.left == 12 - found.computed
        assert str(found).endswith(f"Interrupted. Nothing is lost; go on with: seewhy resume {tmp_path / 'a'}")
        rest = run(tmp_path / "a", metrics=())
        assert rest.computed == found.left
        run(tmp_path / "b", metrics=())
        assert [row | {"part": ""} for row in content(tmp_path / "a")] == [
            row | {"part": ""} for row in content(tmp_path / "b")
        ]

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path) -> None:
        def press(done: int, _total: int) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            Runner(job=job(tmp_path / "a", metrics=()), progress=press).run()
        assert run(tmp_path / "a", metrics=()).left == 0


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"chunk": 0}, "chunk must be a positive integer, got 0."),
            ({"batch": True}, "batch must be a positive integer, got True."),
            ({"threshold": 1.0}, "threshold must be at least 0 and below 1, got 1.0."),
            ({"precision": "int8"}, "precision must be 'auto', 'float32' or 'float16', got 'int8'."),
        ],
    )
    def test_settings(self, tmp_path: Path, change: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidInput) as error:
            job(tmp_path, **change)
        assert str(error.value) == words

    def test_shard(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"A shard is i/n with i from 1 to n, got 3/2\."):
            run(tmp_path / "a", shard=(3, 2))

    def test_no_data(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"data must be a data set, or \(data set, class names\)\."):
            ImageClassificationRunner(tmp_path, network())

    def test_folder_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"is not a run folder: it has no run\.json\."):
            Store(tmp_path).settings()
        (tmp_path / "run.json").write_text("{")
        with pytest.raises(InvalidInput, match=r"run\.json in .* cannot be read"):
            run(tmp_path)
        (tmp_path / "run.json").write_text('{"id": "x", "format": 99}')
        with pytest.raises(InvalidInput, match="has format 99, this version reads up to 2"):
            run(tmp_path)

    def test_labels(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="The label of an explainer or metric has no '/'"):
            run(tmp_path / "a", explainers={"a/b": "grad_cam"})

    def test_other_counterfactuals(self, tmp_path: Path) -> None:
        about: dict[str, Any] = {"metrics": (), "explainers": (), "data": images(2, 64)}
        run(tmp_path / "a", counterfactual={"num_layers": 1}, **about)
        with pytest.raises(InvalidInput, match=r"has counterfactual with .* now it is asked for with"):
            run(tmp_path / "a", counterfactual={"num_layers": 2}, **about)


def test_boxes_of_a_picture_that_is_turned_are_not_guessed(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 32), "red").save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 32), "red").save(tmp_path / "upright.jpg")
    options = {"changes": {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}}
    rows_of = [
        {"image": str(tmp_path / f"{name}.jpg"), "label": [0], "bbox": [[1, 1, 9, 9]]} for name in ("turned", "upright")
    ]
    run(tmp_path / "a", data=rows_of, model_options=options, metrics=())
    turned, upright = (row["failures"] for row in rows(tmp_path / "a"))
    assert upright == []
    assert "is turned by its EXIF data" in turned[0]["reason"]


def test_originals_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    pixels = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3)
    options = {"changes": {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}}
    run(tmp_path / "a", data=pixels, model_options=options, metrics=(), copy_originals=True)
    from PIL import Image

    for row in rows(tmp_path / "a"):
        with Image.open(tmp_path / "a" / row["source"]) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels[row["position"]])


def test_the_photographs_of_a_folder_are_known_again_by_their_bytes(tmp_path: Path) -> None:
    from PIL import Image

    from seewhy.runs.query.run import Run

    (tmp_path / "data").mkdir()
    photo = tmp_path / "data" / "a.bmp"
    Image.new("RGB", (32, 32), "red").save(photo)
    options = {"changes": {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}}
    run(tmp_path / "a", data=str(tmp_path / "data"), model_options=options, metrics=())
    made = Run(tmp_path / "a")
    record = next(iter(made.records()))
    assert made.original(record).data == photo.read_bytes()
    time = photo.stat().st_mtime_ns
    Image.new("RGB", (32, 32), "lime").save(photo)
    os.utime(photo, ns=(time, time))
    assert made.original(record).changed != ""

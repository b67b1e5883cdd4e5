"""A run over a data set: what it computes, and what it never computes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import GradCAM, Occlusion
from seewhy.errors import InvalidInput
from seewhy.metrics import DeletionAUC, Faithfulness
from seewhy.runs.query.run import Run
from seewhy.runs.runner import ImageClassificationRunner, Runner
from support import run_jobs
from support.run_jobs import images, network, rows, run
from support.typed import unchecked

pytestmark = pytest.mark.slow

CAM, RECIPRO = (
    "grad_cam(layer='act2')",
    "recipro_cam(layer='act2')",
)  # "auto" looks for the layer with a pass of its own


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "done"
    assert run(place).left == 0
    return place


class TestWhatIsComputed:
    def test_maps_are_those_of_the_explainer(self, done: Path) -> None:
        inputs, net, read = images(12), network(), Run(done)
        for label, explainer in (
            ("grad_cam", GradCAM(net)),
            ("occlusion(window=8, stride=4)", Occlusion(net, window=8, stride=4)),
        ):
            for row in rows(done):
                for one in row["labels"]:
                    want = explainer.attribute(inputs[row["position"], None], one["label"], native=True)[0, 0]
                    got = read.map(row["sample"], one["label"], label)
                    assert got is not None
                    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)

    def test_labels_are_the_truth_and_what_is_above_the_threshold(self, done: Path) -> None:
        probabilities = network()(images(12)).softmax(1).detach()
        for row in rows(done):
            p, true = probabilities[row["position"]], row["position"] % 5
            above = set((p > 0.5).nonzero().flatten().tolist()) or {int(p.argmax())}
            assert {one["label"] for one in row["labels"]} == above | {true}
            for one in row["labels"]:
                assert one["probability"] == pytest.approx(float(p[one["label"]]), abs=1e-5)
                predicted, there = one["probability"] > 0.5, one["label"] == true
                assert one["flag"] == {(1, 1): "TP", (1, 0): "FN", (0, 1): "FP", (0, 0): "TN"}[there, predicted]
                assert one["truth"] == there
            assert (row["predicted"], row["truth"]) == (int(p.argmax()), [true])

    def test_scores_are_those_of_the_metric(self, done: Path) -> None:
        inputs, net = images(12), network()
        for row in rows(done)[:4]:
            for score in (s for s in row["scores"] if s["explainer"] == "grad_cam" and s["metric"].startswith("del")):
                want = DeletionAUC(steps=4).evaluate(GradCAM(net), inputs[row["position"], None], score["label"])
                assert score["value"] == pytest.approx(float(want), abs=1e-4)

    def test_pointing_game_is_of_the_label_whose_box_it_is(self, done: Path) -> None:
        inputs, net = images(12), network()
        mask = torch.zeros(1, 32, 32, dtype=torch.bool)
        mask[:, 6:18, 4:20] = True  # x, y, width, height = 4, 6, 16, 12
        from seewhy.metrics import PointingGame

        seen = 0
        for row in rows(done):
            for score in (s for s in row["scores"] if s["explainer"] == "grad_cam" and s["metric"].startswith("point")):
                if score["label"] != row["truth"][0]:
                    assert score["value"] is None  # where that class would be, nobody knows: no data, not 0
                    continue
                inside = PointingGame(tolerance=0).evaluate(
                    GradCAM(net), inputs[row["position"], None], score["label"], mask=mask
                )
                assert score["value"] == pytest.approx(float(inside))
                seen += 1
        assert seen == 12

    def test_a_prediction_costs_no_pass_of_its_own(self, tmp_path: Path) -> None:
        assert run(tmp_path / "a", explainers=[CAM], metrics=()).forward == 12

    def test_sigmoid_and_several_labels(self, tmp_path: Path) -> None:
        hot = np.zeros((6, 5), dtype=bool)
        hot[:, [1, 3]] = True
        run(tmp_path / "a", data=(images(6), hot), activation_fn=nn.Sigmoid(), threshold=0.55, metrics=())
        probabilities = network()(images(6)).sigmoid().detach()
        for row in rows(tmp_path / "a"):
            above = set((probabilities[row["position"]] > 0.55).nonzero().flatten().tolist())
            assert {one["label"] for one in row["labels"]} == above | {1, 3}

    def test_nothing_above_the_threshold_and_no_truth_leaves_a_sigmoid_network_without_maps(
        self, tmp_path: Path
    ) -> None:
        run(tmp_path / "a", data=images(3), activation_fn="sigmoid", threshold=0.999)
        assert [row["labels"] for row in rows(tmp_path / "a")] == [[], [], []]
        assert [row["failures"] for row in rows(tmp_path / "a")] == [[], [], []]

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_channels(self, tmp_path: Path, channels: int) -> None:
        pictures = torch.rand(4, channels, 32, 48)
        net = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
        run(tmp_path / "a", model=net.eval(), data=pictures, metrics=("sparseness",))
        found = rows(tmp_path / "a")
        assert [row["failures"] for row in found] == [[]] * 4
        assert {tuple(row["input"]) for row in found} == {(32, 48)}
        small = Run(tmp_path / "a").thumbnail(found[0]["sample"])
        assert small is not None
        assert small[1] == "png"

    def test_pictures_of_several_sizes(self, tmp_path: Path) -> None:
        pictures = [torch.rand(3, 24 + 8 * (i % 2), 32) for i in range(6)]
        run(tmp_path / "a", data=[(one, 1) for one in pictures], metrics=())
        assert [tuple(row["input"]) for row in rows(tmp_path / "a")] == [(24, 32), (32, 32)] * 3

    def test_uncertainty_and_counterfactuals(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16 * 16, 2)).eval()
        pictures = torch.rand(3, 3, 64, 64)
        run(
            tmp_path / "a", model=net, data=pictures, explainers=(), metrics=(), uncertainty={"samples": 5},
            counterfactual={"num_layers": 1, "window": 32},
        )  # fmt: skip
        for row in rows(tmp_path / "a"):
            assert row["entropy"] > 0
            for one in row["uncertainty"]:
                assert one["low"] <= one["mean"] <= one["high"]
                assert one["std"] > 0
            assert {json.loads(tree["tree"])["target"] for tree in row["trees"]} == {
                f"class {one['label']}" for one in row["labels"]
            }

    def test_warnings_stand_with_their_picture(self, tmp_path: Path) -> None:
        pictures = images(8)
        pictures[2::3] = 0  # a flat picture has a flat gradient map
        net = nn.Sequential(nn.AvgPool2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)).eval()
        run(tmp_path / "a", data=pictures, model=net, explainers=["input_x_gradient"], metrics=(), batch=4)
        for row in rows(tmp_path / "a"):
            notes = [(note["kind"], note["label"]) for note in row["costs"][0]["notes"]]
            flat = [("constant map", one["label"]) for one in row["labels"]]
            assert (flat[0] in notes) == (row["position"] % 3 == 2), row["position"]


class TestNothingTwice:
    def test_the_same_again_computes_nothing(self, tmp_path: Path) -> None:
        run(tmp_path / "a")
        before = run_jobs.content(tmp_path / "a")
        again = run(tmp_path / "a")
        assert (again.forward, again.computed, again.skipped) == (0, 0, 12)
        assert run_jobs.content(tmp_path / "a") == before

    def test_an_explainer_that_is_added_is_all_that_is_computed(self, tmp_path: Path) -> None:
        run(tmp_path / "a", metrics=())
        found = run(tmp_path / "a", explainers=["grad_cam", RECIPRO, "occlusion(window=8, stride=4)"], metrics=())
        assert found.forward == 12
        fresh = [row for row in rows(tmp_path / "a") if "predict" not in row["done"]]
        assert {one["explainer"] for row in fresh for one in row["maps"]} == {RECIPRO}
        assert len(Run(tmp_path / "a").explainers) == 3

    def test_a_metric_that_is_added_judges_the_maps_that_are_there(self, tmp_path: Path) -> None:
        run(tmp_path / "a", metrics=("sparseness",))
        found = run(tmp_path / "a", metrics=("sparseness", "complexity"))
        assert (found.forward, found.maps) == (0, 0)  # complexity asks the network nothing
        together = run(tmp_path / "b", metrics=("sparseness", "complexity"))
        assert found.scores == together.scores

    def test_a_metric_that_is_added_to_maps_that_lost_precision_makes_them_again(self, tmp_path: Path) -> None:
        large: dict[str, Any] = {"data": (images(3, 64), np.arange(3)), "explainers": ["gradient"], "chunk": 3}
        run(tmp_path / "a", metrics=(), **large)
        assert rows(tmp_path / "a")[0]["maps"][0]["encoding"] == "png"
        found = run(tmp_path / "a", metrics=("complexity",), **large)
        assert found.forward > 0
        assert found.scores == run(tmp_path / "b", metrics=("complexity",), **large).scores

    def test_pictures_that_are_added_are_all_that_is_computed(self, tmp_path: Path) -> None:
        run(tmp_path / "a", n=8, metrics=(), explainers=[CAM])
        assert run(tmp_path / "a", n=12, metrics=(), explainers=[CAM]).forward == 4

    def test_a_changed_file_is_done_again_and_a_copied_one_is_not(self, tmp_path: Path) -> None:
        import os

        from PIL import Image

        folder = tmp_path / "pictures"
        folder.mkdir()
        for i in range(3):
            Image.new("RGB", (32, 32), (40 * i, 90, 20)).save(folder / f"{i}.png")
        about: dict[str, Any] = {"data": str(folder), "explainers": [CAM], "metrics": (), "model_options": {
            "changes": {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}}  # fmt: skip
        assert run(tmp_path / "a", **about).forward == 3
        os.utime(folder / "0.png", (1, 1))
        assert run(tmp_path / "a", **about).forward == 0
        Image.new("RGB", (32, 32), (200, 0, 0)).save(folder / "1.png")
        assert run(tmp_path / "a", **about).forward == 1
        assert Run(tmp_path / "a").counts().samples == 3

    def test_other_data_under_the_same_names_are_refused(self, tmp_path: Path) -> None:
        class Some(torch.utils.data.Dataset[Any]):
            def __init__(self, shift: float) -> None:
                self.shift = shift

            def __len__(self) -> int:
                return 4

            def __getitem__(self, index: int) -> Any:
                return images(4)[index] + self.shift, index

        run(tmp_path / "a", data=Some(0), metrics=())
        assert run(tmp_path / "a", data=Some(0), metrics=()).forward == 0
        with pytest.raises(InvalidInput, match="is not the one that"):
            run(tmp_path / "a", data=Some(1), metrics=())

    def test_shards_share_the_work(self, tmp_path: Path) -> None:
        parts = [run(tmp_path / "a", shard=(i, 2)) for i in (1, 2)]
        assert [part.computed for part in parts] == [8, 4]
        assert parts[0].left == 4
        run(tmp_path / "b")
        assert _merged(tmp_path / "a") == _merged(tmp_path / "b")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"threshold": 0.4}, "has a run of threshold 0.5, not 0.4. Results are not mixed: use another folder."),
            ({"activation_fn": "sigmoid"}, "has a run of activation 'softmax', not 'sigmoid'. Results"),
        ],
    )
    def test_another_question_needs_another_folder(self, tmp_path: Path, change: dict[str, Any], words: str) -> None:
        run(tmp_path / "a", metrics=())
        with pytest.raises(InvalidInput, match=words):
            run(tmp_path / "a", metrics=(), **change)

    def test_another_model_needs_another_folder(self, tmp_path: Path) -> None:
        run(tmp_path / "a", metrics=())
        other = unchecked(network())
        with torch.no_grad():
            other.fc.weight[0, 0] += 0.1
        with pytest.raises(InvalidInput, match="the model 'Pooled' with other weights, structure or preprocessing"):
            run(tmp_path / "a", metrics=(), model=other)


class TestDocumentedName:
    def test_runner(self, tmp_path: Path) -> None:
        net = network()
        pairs = [(one, i % 5) for i, one in enumerate(images(6))]
        runner = ImageClassificationRunner(
            summary_dir=tmp_path / "s", network=net, activation_fn=nn.Softmax(dim=1),
            data=(pairs, ["a", "b", "c", "d", "e"]), progress=False,
        )  # fmt: skip
        with pytest.raises(InvalidInput, match=r"There is nothing to do: call register_saliency\(\)"):
            runner.run()
        metrics = [Faithfulness(5, "softmax", metric) for metric in ("DeletionAUC", "InsertionAUC")]
        runner.register_saliency(explainers=[GradCAM(net, layer="act1"), GradCAM(net)], benchmarkers=metrics)
        found = runner.run()
        assert found.failed == 0
        explainers = Run(tmp_path / "s").drawn
        assert len(explainers) == len(set(explainers)) == 2
        assert all(len(values) == 2 for values in found.scores.values())
        assert Run(tmp_path / "s").classes == ["a", "b", "c", "d", "e"]

    def test_labels_stay_with_what_they_name(self, tmp_path: Path) -> None:
        net = network()
        run(tmp_path / "a", explainers=[GradCAM(net, layer="act1")], metrics=(), model=net)
        run(tmp_path / "a", explainers=[GradCAM(net), GradCAM(net, layer="act1")], metrics=(), model=net)
        about = Run(tmp_path / "a").settings["explainers"]
        assert about["grad_cam"]["parameters"]["layer"] == "act1"
        assert len(about) == 2

    def test_progress_counts_pictures(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        Runner(job=run_jobs.job(tmp_path / "a", metrics=()), progress=lambda d, t: seen.append((d, t))).run()
        assert seen == [(4, 12), (8, 12), (12, 12)]


def _merged(place: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "part"} for row in run_jobs.content(place)]

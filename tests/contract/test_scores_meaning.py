"""What a network's scores are: logits, probabilities, one score, values, an embedding; and what is made of that."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import registry
from seewhy.api import build as make
from seewhy.cli import main
from seewhy.errors import BadOutput, InvalidTarget
from seewhy.explainers import RISE, GradCAM, Occlusion, ReciproCAM
from seewhy.explanation import told
from seewhy.models.adapters import as_model
from seewhy.models.torch.model import TorchModel
from seewhy.perturbation import ALREADY, BOUNDED, ONE_LOGIT, settle
from seewhy.runs.query.run import Run
from seewhy.targets import SimilarityTarget
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty
from support import run_jobs
from support.explainer_cases import SMALL, close
from support.networks import CLASSES, Pooled, build, pictures
from support.run_jobs import images
from support.typed import unchecked

SOFT = "The network's scores are probabilities already: it ends in a softmax. No activation was put on them."
SINGLE = "The network has one output, and the softmax of one score is always 1. Use activation_fn='sigmoid' or None."


class Ends(Pooled):
    """Scores with something behind them."""

    def __init__(self, end: Any, classes: int = CLASSES) -> None:
        super().__init__()
        self.fc, self.end = nn.Linear(16, classes), end

    def forward(self, x: Tensor) -> Any:
        return self.end(super().forward(x))


def logits(classes: int = CLASSES) -> nn.Module:
    return build(Ends, nn.Identity(), classes)


def explained(model: Any, n: int = 2, targets: Any = None, method: str = "occlusion", **options: Any) -> Any:
    return seewhy.explain(model, pictures(n), targets, method, progress=False, **options)


# --------------------------------------------------------------------------------------------------------- one logit


def test_one_logit_is_a_sigmoid_everywhere() -> None:
    network, x = logits(1), pictures(2)
    found = explained(network)
    assert ONE_LOGIT in found.warnings
    assert found.labels == [["output 0"], ["output 0"]]
    close(found.probabilities, network(x).sigmoid().detach())
    assert found.predicted[0] == ("output 0", pytest.approx(float(network(x)[0].detach().sigmoid()), abs=1e-6))
    assert found.quantity == "probability"
    want = Occlusion(network, activation_fn="sigmoid").attribute(x)
    close(Occlusion(network).attribute(x), want)
    assert not torch.allclose(Occlusion(network, activation_fn=None).attribute(x), want)
    assert float(EpistemicUncertainty(network)(x).plain.max()) < 1


@pytest.mark.parametrize("name", [n for n in registry.names("explainers") if n not in ("rise_plus", "instance_maps")])
def test_the_softmax_of_one_score_is_an_error_with_every_method(name: str) -> None:
    network = logits(1)
    if name in ("vit_recipro_cam", "le_grad", "attention_rollout", "tis", "det_class_probability_map"):
        pytest.skip("is for other networks")
    with pytest.raises(BadOutput, match=re.escape(SINGLE)):
        explained(network, 1, 0, name, activation_fn="softmax", **SMALL.get(name, {}))


@pytest.mark.parametrize("function", ["softmax", nn.Softmax(dim=1), nn.Softmax(dim=-1), lambda s: s.softmax(1)])
def test_whoever_puts_a_softmax_on_one_score(function: Any) -> None:
    network, x = logits(1), pictures(2)
    with pytest.raises(BadOutput, match=re.escape(SINGLE)):
        RISE(network, num_masks=8, activation_fn=function)(x)
    with pytest.raises(BadOutput, match=re.escape(SINGLE)):
        EpistemicUncertainty(network, activation_fn=function)(x)
    with pytest.raises(BadOutput, match=re.escape(SINGLE)):
        registry.load("metrics", "deletion_auc")(activation_fn=function).evaluate(Occlusion(network), x, 0)


@pytest.mark.parametrize("method", ["grad_cam", "recipro_cam", "occlusion", "ablation_cam", "gradient"])
def test_one_logit_for_two_classes(method: str) -> None:
    network, x = logits(1), pictures(2)
    model = seewhy.load(network, labels=["cat", "dog"])
    p = network(x).sigmoid()[:, 0].detach()
    both = explained(model, targets=[[0, 1], [0, 1]], method=method)
    close(both.probabilities, torch.stack([1 - p, p], 1))
    assert both.labels == [["cat", "dog"]] * 2
    said = [("dog" if float(one) > 0.5 else "cat") for one in p]
    assert [name for name, _ in both.predicted] == said
    close(explained(model, targets=1, method=method).raw, explained(network, targets=0, method=method).raw)
    if method == "occlusion":
        close(both.raw[:, 0], -both.raw[:, 1])
    if method == "recipro_cam":
        close(both.raw[:, 0], -both.raw[:, 1])
    assert explained(model, targets="dog", method=method).labels == [["dog"]] * 2


# ---------------------------------------------------------------------------------------- probabilities, as they are


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (nn.Softmax(dim=1), "it ends in a softmax"),
        (lambda s: torch.softmax(s, -1), "it ends in a softmax"),
        (lambda s: s.double().softmax(-1).float(), "it ends in a softmax"),
        (torch.sigmoid, "it ends in a sigmoid"),
        (lambda s: torch.stack([s.softmax(1), (2 * s).softmax(1)]).mean(0), "they are means of probabilities"),
    ],
)
def test_probabilities_that_torch_made_are_left_alone(end: Any, said: str) -> None:
    network, x = build(Ends, end), pictures(3)
    found = explained(network, 3)
    assert f"The network's scores are probabilities already: {said}. No activation was put on them." in found.warnings
    close(found.probabilities[:, 0], network(x).amax(1).detach())
    for function in ("auto", "softmax", "sigmoid"):
        close(
            Occlusion(network, activation_fn=function).attribute(x), Occlusion(network, activation_fn=None).attribute(x)
        )


def test_the_activation_of_logits_is_put_on_once() -> None:
    network, x = logits(), pictures(2)
    assert not [w for w in explained(network).warnings if "probabilities already" in w]
    close(explained(network).probabilities[:, 0], network(x).softmax(1).amax(1).detach())
    logged = build(Ends, lambda s: s.log_softmax(1))
    close(explained(logged).probabilities, explained(network).probabilities)


def test_a_black_box_that_gives_probabilities() -> None:
    network, x = logits(), pictures(4)

    def likely(x: Tensor) -> Tensor:
        return network(x).softmax(1)

    found = explained(likely, 1, [2])
    assert ALREADY in found.warnings
    close(found.raw, explained(network, 1, [2]).raw)
    close(RISE(likely, num_masks=30).attribute(x), RISE(network, num_masks=30).attribute(x))
    for name in ("deletion_auc", "infidelity", "deletion"):
        metric = registry.load("metrics", name)()
        close(metric.evaluate(Occlusion(likely), x, 1).float(), metric.evaluate(Occlusion(network), x, 1).float(), 1e-4)


def test_a_black_box_with_sigmoid_outputs_is_noticed() -> None:
    network = logits()
    found = explained(lambda x: (5 * network(x)).sigmoid(), 2, [1, 1])
    assert BOUNDED in found.warnings
    close(found.probabilities[:, 0], (5 * network(pictures(2))).sigmoid()[:, 1].detach())


def test_a_row_that_sums_to_one_by_chance_decides_nothing() -> None:
    network = logits()

    def shifted(x: Tensor) -> Tensor:
        """Logits of which those of the brightest picture are all positive and sum to 1."""
        scores = network(x)
        likely = scores.softmax(1)
        return torch.where((x.mean((1, 2, 3)) > 0.5)[:, None], likely, scores)

    bright, others = pictures(1) + 1, pictures(3)
    for batch in (bright, torch.cat([bright, others])):
        outputs = as_model(shifted)(batch)
        assert settle(as_model(shifted), batch, outputs, "auto").name == "softmax"
        assert not settle(as_model(shifted), batch, outputs, "auto").notes


# ------------------------------------------------------------------------------------------------ values, no classes


def test_a_regression_is_a_value() -> None:
    network, x = logits(1), pictures(1)
    found = explained(network, 1, activation_fn=None)
    value = float(network(x).detach())
    assert found.quantity == "value"
    assert found.said() == f"output 0 = {value:.3f}"
    assert found.summary()["images"][0]["predicted"] == {"label": "output 0", "value": pytest.approx(value, abs=1e-6)}
    assert "probability" not in json.dumps(found.summary()["images"])
    told_so = unchecked(logits(1))
    told_so.config = SimpleNamespace(problem_type="regression")
    assert explained(told_so, 1).said() == f"output 0 = {value:.3f}"


def test_what_the_number_is_stands_beside_it() -> None:
    assert explained(logits()).quantity == "probability"
    plain = explained(logits(), activation_fn=None)
    assert plain.quantity == plain.summary()["quantity"] == "logit"
    assert plain.said().endswith(" (logit)")
    assert plain.summary()["images"][0]["targets"][0]["logit"] == pytest.approx(float(plain.probabilities[0, 0]))
    assert explained(logits(), targets=lambda outputs: outputs.classes.sum(1)).quantity == "value"
    assert told("tabby", 0.5, "probability") == "tabby 0.500"
    assert told("tabby", 0.5, "similarity", 2) == "tabby = 0.50 (similarity)"


# --------------------------------------------------------------------------------------------------------- embeddings


def headless(name: str) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None)
    setattr(network, "heads" if name.startswith("vit") else "fc", nn.Identity())
    return network.eval()


class Answer(dict[str, Tensor]):
    """As transformers' models return it."""


EMBEDDINGS: dict[str, Any] = {
    "no fc": lambda: headless("resnet18"),
    "norm": lambda: build(Ends, nn.LayerNorm(64), 64),
    "length": lambda: build(Ends, lambda s: nn.functional.normalize(s, dim=-1), 64),
    "by hand": lambda: build(Ends, lambda s: s / s.norm(dim=-1, keepdim=True), 64),
    "pooler": lambda: build(Ends, torch.tanh, 64),
    "named": lambda: build(Ends, lambda s: Answer(image_embeds=s), 64),
    "projection": lambda: build(Projected),
}


class Projected(Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.visual_projection = unchecked(nn.Identity()), nn.Linear(16, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.visual_projection(super().forward(x))


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_an_embedding_has_no_class(kind: str) -> None:
    network, x = EMBEDDINGS[kind](), pictures(2)
    with pytest.raises(
        InvalidTarget, match=r"^The network gives an embedding of \d+ numbers and no classes: .*Similarity"
    ):
        explained(network)
    with pytest.raises(InvalidTarget, match="an embedding"):
        GradCAM(network)(x)
    own = as_model(network)(x).classes[0]
    found = explained(network, targets=SimilarityTarget(embedding=own))
    assert found.predicted == [None, None]
    assert found.quantity == "similarity"
    assert float(found.probabilities[0, 0]) == pytest.approx(1, abs=1e-4)
    assert found.summary()["images"][0]["predicted"] is None
    assert explained(network, targets=3).labels == [["number 3"]] * 2


@pytest.mark.parametrize("kind", ["no fc", "norm"])
def test_names_say_that_the_numbers_are_classes(kind: str) -> None:
    network = EMBEDDINGS[kind]()
    count = as_model(network)(pictures(1)).num_classes
    model = seewhy.load(network, labels=[f"thing {i}" for i in range(count)])
    assert explained(model).predicted[0][0].startswith("thing ")


class Convolved(nn.Module):
    """A classifier without a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 8, 3, 4), nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).relu()).relu().mean((2, 3))


@pytest.mark.parametrize(
    "network",
    [
        lambda: torchvision.models.squeezenet1_1(num_classes=6), lambda: build(Convolved), logits,
        lambda: build(Ends, lambda s: s / 0.07), lambda: build(Ends, lambda s: torch.stack([s, 2 * s]).mean(0)),
        lambda: torchvision.models.mobilenet_v3_small(num_classes=6),
    ],
)  # fmt: skip
def test_classifiers_are_no_embeddings(network: Any) -> None:
    found = explained(network().eval(), 1)
    assert found.labels[0][0].startswith("class ")
    assert not [w for w in found.warnings if "embedding" in w]


def test_where_it_cannot_be_seen_it_is_said() -> None:
    found = explained(build(Ends, lambda s: s.relu()), 1)
    said = "Of the network's 5 outputs, whether they are scores of classes cannot be seen from what makes them. If they"
    assert any(warning.startswith(said) for warning in found.warnings)


def test_the_head_that_a_network_has_now_counts() -> None:
    network, x = logits(), pictures(1)
    model = TorchModel(network)
    assert model(x).meaning == "classes"
    network.fc, network.end = nn.Identity(), nn.Identity()
    assert model(x).meaning == "embedding"
    network.end = nn.Sequential(nn.Linear(16, 3), nn.Softmax(1))
    assert model(x).activated


# ------------------------------------------------------------------------------------------------------ runs and others


def done(tmp_path: Any, network: Any, data: Any = None, **options: Any) -> Run:
    given = data or (images(4), np.arange(4) % 2)
    run_jobs.run(tmp_path / "run", model=network, data=given, explainers=["recipro_cam"], metrics=[], **options)
    return Run(tmp_path / "run")


def test_a_folder_of_two_classes_over_one_logit(tmp_path: Any) -> None:
    for i, name in enumerate(["cat", "dog", "cat"]):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 40 + 60 * i).convert("RGB").save(tmp_path / "data" / name / f"{i}.png")
    ready = seewhy.Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    model = seewhy.load(logits(1), preprocessing=ready)
    run = done(tmp_path, model, str(tmp_path / "data"))
    assert (run.settings["activation"], run.exclusive) == ("sigmoid", True)
    assert run.settings["classes"] == ["cat", "dog"]
    assert ONE_LOGIT in run.settings["model"]["notes"]
    for row in run_jobs.rows(tmp_path / "run"):
        with torch.no_grad():
            p = float(logits(1)(ready(Image.open(row["source"]))[0]).sigmoid())
        assert row["predicted"] == int(p > 0.5)
        assert row["probability"] == pytest.approx(max(p, 1 - p), abs=1e-5)
        for one in row["labels"]:
            assert one["probability"] == pytest.approx(p if one["label"] else 1 - p, abs=1e-5)


def test_a_run_of_probabilities_and_its_continuation(tmp_path: Any) -> None:
    network = build(Ends, nn.Softmax(dim=1))
    run = done(tmp_path, network)
    assert (run.settings["activation"], run.exclusive) == ("as they are", True)
    assert SOFT in run.settings["model"]["notes"]
    row = run_jobs.rows(tmp_path / "run")[0]
    assert row["probability"] == pytest.approx(float(network(images(4))[0].max().detach()), abs=1e-5)
    assert (
        run_jobs.run(
            tmp_path / "run", model=network, data=(images(4), np.arange(4) % 2), explainers=["recipro_cam"], metrics=[]
        ).computed
        == 0
    )


def test_a_run_calls_no_number_of_an_embedding_a_class(tmp_path: Any) -> None:
    with pytest.raises(
        InvalidTarget, match=r"^A run explains classes, and Ends gives an embedding of 64 numbers: its last"
    ):
        done(tmp_path, build(Ends, nn.LayerNorm(64), 64))
    with pytest.raises(BadOutput, match=re.escape(SINGLE)):
        done(tmp_path, logits(1), activation_fn="softmax")


def test_methods_and_metrics_get_one_activation() -> None:
    assert unchecked(make("rise", as_model(logits()), "auto", {})).activation_fn == "auto"
    assert ReciproCAM(logits(1)).run(pictures(2)).targets.classes.tolist() == [[0], [0]]


def test_the_command_line_says_what_the_number_is(tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    Image.effect_noise((40, 40), 80).convert("RGB").save(tmp_path / "a.png")
    monkeypatch.setitem(__import__("sys").modules, "ending_networks", SimpleNamespace(regression=lambda: logits(1)))
    arguments = ["explain", str(tmp_path / "a.png"), "--model", "ending_networks:regression", "--activation", "none",
                 "--method", "occlusion", "--size", "32", "32", "--mean", "0", "0", "0", "--std", "1", "1", "1",
                 "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(arguments) == 0
    line = capsys.readouterr().out
    assert re.search(r"\tpredicted output 0 = -?\d\.\d{3}\texplained output 0 = -?\d\.\d{3}\t", line)

"""Hugging Face's objects as people bring them: a network with its processor, a folder, a pipeline, a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.errors import CheckpointError, InvalidInput, InvalidType
from seewhy.images.transform import as_preprocessing

hf = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NAMES = {0: "cat", 1: "dog", 2: "hen"}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3)).astype("uint8"))
BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "num_queries": 10,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_labels": 4,
}  # fmt: skip


def made(build: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def vit(**options: Any) -> Any:
    config = hf.ViTConfig(**SMALL, image_size=64, patch_size=16, **{"num_labels": 3, "id2label": NAMES, **options})
    return made(lambda: hf.ViTForImageClassification(config))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "my-vit"
    vit().save_pretrained(place)
    hf.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(place)
    return place


# processor, its options; the part of a picture of 75 x 100 pixels that its input shows
PROCESSORS: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    ("ViTImageProcessor", {"size": {"height": 64, "width": 64}}, (0, 0, 100, 75)),
    ("CLIPImageProcessor", {}, (12.5, 0, 87.5, 75)),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}, (16.5, 4.1, 82.5, 69.9)),
    ("DetrImageProcessor", {"size": {"shortest_edge": 60, "longest_edge": 90}}, (0, 0, 100, 75)),
    ("YolosImageProcessor", {"size": {"shortest_edge": 60, "longest_edge": 90}}, (0, 0, 100, 75)),
    ("SegformerImageProcessor", {"size": {"height": 64, "width": 64}}, (0, 0, 100, 75)),
    ("SiglipImageProcessor", {}, (0, 0, 100, 75)),
    ("MobileViTImageProcessor", {}, (7.1, -5.4, 92.9, 80.4)),  # pads what the crop does not find
    ("Owlv2ImageProcessor", {"size": {"height": 96, "width": 96}}, (0, 0, 100, 100)),  # pads to a square
]


@pytest.mark.parametrize(("name", "options", "box"), PROCESSORS, ids=[name for name, *_ in PROCESSORS])
def test_the_tensor_is_the_processors_and_its_place_is_found(name: str, options: dict[str, Any], box: Any) -> None:
    processor = getattr(hf, name)(**options)
    tensor, view = as_preprocessing(processor)(PICTURE)
    assert torch.equal(tensor, torch.as_tensor(np.array(processor(images=PICTURE)["pixel_values"])))
    assert view.box == pytest.approx(box, abs=0.4)


def test_a_network_with_its_processor() -> None:
    network, processor = vit(), hf.ViTImageProcessor(size={"height": 64, "width": 64})
    model = seewhy.load(network, processor=processor)
    found = seewhy.explain(model, PICTURE, method="vit_recipro_cam")
    with torch.no_grad():
        scores = network(**processor(images=PICTURE, return_tensors="pt")).logits.softmax(-1)[0]
    assert found.said().startswith(NAMES[int(scores.argmax())])
    assert float(found.probabilities[0, 0]) == pytest.approx(float(scores.max()), abs=1e-6)
    assert found.layer == "vit.layers.1.layernorm_before"


def test_names_that_stand_for_missing_ones_are_not_used() -> None:
    model: Any = seewhy.load(vit(id2label={i: f"LABEL_{i}" for i in range(3)}))
    assert model.labels is None


@pytest.mark.parametrize("how", ["folder", "network", "pipeline"])
def test_a_folder_a_network_from_it_and_a_pipeline_are_one_model(folder: Path, how: str) -> None:
    given = {
        "folder": lambda: seewhy.load(f"hf:{folder}"),
        "network": lambda: hf.AutoModelForImageClassification.from_pretrained(folder),
        "pipeline": lambda: hf.pipeline("image-classification", model=str(folder)),
    }[how]()
    processor = hf.ViTImageProcessor(size={"height": 64, "width": 64})
    found = seewhy.explain(given, PICTURE, "dog")
    truth = seewhy.explain(vit(), processor(images=PICTURE, return_tensors="pt")["pixel_values"], 1)
    torch.testing.assert_close(torch.as_tensor(found.raw), torch.as_tensor(truth.raw))
    assert found.model == "ViTForImageClassification"
    assert "by ViTImageProcessor" in str(found.preprocessing)


def test_weights_that_are_pickled_need_trust(folder: Path) -> None:
    network = vit()
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"transformers cannot load the folder .* need trust=True, --trust"):
        seewhy.load(f"hf:{folder}")
    assert seewhy.load(f"hf:{folder}", trust=True).name == "ViTForImageClassification"


@pytest.mark.parametrize("architecture", ["VitForImageClassification", "AutoModel", "pipeline", ""])
def test_an_architecture_that_is_none_is_named(folder: Path, architecture: str) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace("ViTForImageClassification", architecture))
    with pytest.raises(InvalidInput, match=f"names the architecture '{architecture}', which transformers"):
        seewhy.load(f"hf:{folder}")


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"transformers cannot load the folder .*Expected config\.json"):
        seewhy.load(f"hf:{tmp_path}")
    with pytest.raises(InvalidInput, match="num_classes is for timm and torchvision"):
        seewhy.load(f"hf:{tmp_path}", num_classes=3)


def test_a_pipeline_that_takes_no_images() -> None:
    config = hf.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=50)

    class Pipeline:
        task, model, image_processor = "text-classification", hf.DistilBertForSequenceClassification(config), None

    Pipeline.__module__ = "transformers.pipelines"
    with pytest.raises(InvalidType, match="The pipeline for 'text-classification' takes no images"):
        seewhy.load(Pipeline())


def detr(kind: str) -> nn.Module:
    backbone = hf.ResNetConfig(**BACKBONE, out_features=["stage4"])
    config = getattr(hf, f"{kind}Config")(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, **DETR
    )
    return made(lambda: getattr(hf, f"{kind}ForObjectDetection")(config))


def yolos() -> nn.Module:
    config = hf.YolosConfig(**SMALL, image_size=[64, 96], patch_size=16, num_detection_tokens=10, num_labels=4)
    return made(lambda: hf.YolosForObjectDetection(config))


@pytest.mark.parametrize("kind", ["Detr", "ConditionalDetr", "Yolos"])
def test_detections_are_those_of_the_processor(kind: str) -> None:
    network = yolos() if kind == "Yolos" else detr(kind)
    processor = getattr(hf, f"{kind}ImageProcessor")(size={"shortest_edge": 64, "longest_edge": 128})
    with torch.no_grad():
        raw = network(**processor(images=PICTURE, return_tensors="pt"))
    own = processor.post_process_object_detection(raw, threshold=0.0, target_sizes=[(75, 100)])[0]
    model = seewhy.load(network, processor=processor)
    found = seewhy.detections(model, PICTURE, score_threshold=0.0, nms_threshold=None, max_detections=1)[0]
    best = int(own["scores"].argmax())
    assert (found.label, found.score) == (int(own["labels"][best]), pytest.approx(float(own["scores"][best]), abs=1e-5))
    _, view = as_preprocessing(processor)(PICTURE)
    placed = view.box_to_original(found.box, tuple(processor(images=PICTURE)["pixel_values"][0].shape[1:]))
    assert placed == pytest.approx(own["boxes"][best].tolist(), abs=0.2)
    explained = seewhy.explain(model, PICTURE, found, "rise", num_masks=4)
    assert explained.model == f"{kind}ForObjectDetection"


def test_layers_of_a_detector_keep_their_names_and_scores_can_be_picked_by_hand() -> None:
    network = detr("Detr")
    model: Any = seewhy.load(network)
    assert set(model.layers()) == {name for name, _ in network.named_modules() if name}
    by_hand = seewhy.load(network, output=lambda out: out.logits[:, :, :-1].amax(1))
    inputs = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(by_hand(inputs).classes, network(inputs).logits[:, :, :-1].amax(1))

"""OWL-ViT and OWLv2: detectors that look for texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from clients.test_texts import SIZES, TEXT, tokenizer
from seewhy.errors import InvalidInput

hf = pytest.importorskip("transformers")

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3)).astype("uint8"))
TEXTS = ["a photo of cat", "a rusty bolt"]
KINDS = ["OwlViT", "Owlv2"]


def owl(kind: str) -> tuple[Any, Any]:
    config = getattr(hf, f"{kind}Config")(
        text_config={**SIZES, **TEXT}, vision_config={**SIZES, "image_size": 64, "patch_size": 16}, projection_dim=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(hf, f"{kind}ForObjectDetection")(config).eval()
        torch.nn.init.normal_(network.class_head.logit_scale.weight, std=0.02)  # so that no score is 0 or 1
        torch.nn.init.normal_(network.class_head.logit_shift.weight, std=0.02)
        torch.nn.init.normal_(network.box_head.dense2.weight, std=0.5)  # so that the boxes differ in size
    images = getattr(hf, f"{kind}ImageProcessor")(size={"height": 64, "width": 64})
    return network, getattr(hf, f"{kind}Processor")(image_processor=images, tokenizer=tokenizer())


def own(network: Any, processor: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """What the network returns, and what its own processor makes of it."""
    with torch.no_grad():
        raw = network(**processor(text=[TEXTS], images=PICTURE, return_tensors="pt"))
    return raw, processor.post_process_grounded_object_detection(raw, threshold=0.0, target_sizes=[(75, 100)])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_scores_are_the_librarys_own(kind: str) -> None:
    network, processor = owl(kind)
    model = seewhy.load(network, processor=processor, texts=TEXTS)
    _, want = own(network, processor)
    found = seewhy.detections(model, PICTURE, score_threshold=0.0, nms_threshold=None, max_detections=1)[0]
    best = int(want["scores"].argmax())
    assert found.name == TEXTS[int(want["labels"][best])]
    assert found.score == pytest.approx(float(want["scores"][best]), abs=1e-5)
    shown = seewhy.explain(model, PICTURE, found, "rise", num_masks=16, progress=False)
    assert shown.box() == pytest.approx(want["boxes"][best].tolist(), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_a_score_at_every_patch(kind: str) -> None:
    network, processor = owl(kind)
    raw, _ = own(network, processor)
    found = seewhy.explain(seewhy.load(network, processor=processor), PICTURE, TEXTS, progress=False)
    assert (found.method, found.labels) == ("det_class_probability_map", [TEXTS])
    torch.testing.assert_close(found.raw[0], raw.logits[0].sigmoid().T.unflatten(1, (4, 4)))
    shown = seewhy.explain(seewhy.load(network, processor=processor, texts=TEXTS), PICTURE, TEXTS[1], "grad_cam")
    assert shown.raw.shape == (1, 1, 4, 4)
    assert float(shown.raw.abs().max()) > 0


def test_objectness_is_kept_where_the_head_says_it() -> None:
    network, processor = owl("Owlv2")
    raw, _ = own(network, processor)
    model = seewhy.load(network, processor=processor, texts=TEXTS)
    x = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
    with model.opened():
        outputs = model(x)
    torch.testing.assert_close(outputs.objectness, raw.objectness_logits.sigmoid())
    assert seewhy.load(owl("OwlViT")[0], processor=processor, texts=TEXTS)(x).objectness is None


def test_a_folder_holds_it_all(tmp_path: Path) -> None:
    network, processor = owl("Owlv2")
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = seewhy.load(f"hf:{tmp_path}", texts={"cat": "a photo of cat", "bolt": ["a rusty bolt", "a bolt"]})
    assert seewhy.explain(model, PICTURE, "bolt", progress=False).labels == [["bolt"]]


def test_without_texts_it_is_said() -> None:
    network, processor = owl("Owlv2")
    with pytest.raises(InvalidInput) as raised:
        seewhy.explain(seewhy.load(network, processor=processor), PICTURE, progress=False)
    assert str(raised.value) == (
        "Owlv2ForObjectDetection looks for texts. Pass them: seewhy.load(network, ..., texts=['a cat'])."
    )

"""What works with which class of Hugging Face's transformers: small configurations with random weights.

    python benchmarks/hugging_face.py [--only Detr,Vit] [--out docs/hugging_face.md]

Each network is given to seewhy with its own image processor and nothing else. Asked of it is:

    input    the tensor is the processor's own, to 1e-6, and the whole picture comes back in the original's pixels
    answer   scores, boxes, classes of places are those that the library's own code makes of its output, to 1e-4
    map      the map of the automatic method for the answer moves at a place where the picture is changed, more than
             elsewhere, in two of three places at least (as benchmarks/families.py does it)
    GradCAM  the same
    RISE     makes a map with 60 masks without a complaint
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import seewhy
from seewhy.errors import SeewhyError
from seewhy.maps import upsample

TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
IMAGE = {"image_size": 64, "patch_size": 8}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48]}
NAMES = {i: f"thing {i}" for i in range(4)}
LABELS = {"num_labels": 4, "id2label": NAMES}
BACKBONE = {"backbone_config": {"model_type": "resnet", "embedding_size": 16, **STAGES, "layer_type": "basic",
                                "out_features": ["stage2", "stage3", "stage4"]}}  # fmt: skip
LAST = {"backbone_config": {**BACKBONE["backbone_config"], "out_features": ["stage4"]}}
DECODER = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 12,
}  # fmt: skip
RT = {
    "backbone_config": {"model_type": "rt_detr_resnet", "embedding_size": 16, **STAGES, "layer_type": "basic",
                        "out_features": ["stage2", "stage3", "stage4"]},
    "encoder_in_channels": [24, 32, 48], "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "encoder_attention_heads": 2,
    "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 32, "decoder_attention_heads": 2, "decoder_layers": 2,
    "d_model": 32, "num_queries": 12, "num_denoising": 0, "anchor_image_size": None,
}  # fmt: skip
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4],
        "window_size": 4}  # fmt: skip
VIT = {**TOKENS, **IMAGE}
TEXT = {**TOKENS, "vocab_size": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TOWERS = {"text_config": TEXT, "vision_config": VIT, "projection_dim": 32}
TEXTS = ["a cat", "a dog"]
SQUARE = {"size": {"height": 64, "width": 64}}
SIDES = {"size": {"shortest_edge": 64, "longest_edge": 128}}

# (network, configuration, what is made smaller, processor, its options)
CASES: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    ("ViTForImageClassification", "ViTConfig", VIT, "ViT", SQUARE),
    ("DeiTForImageClassification", "DeiTConfig", VIT, "DeiT", {**SQUARE, "crop_size": 64}),
    ("BeitForImageClassification", "BeitConfig", VIT, "Beit", {**SQUARE, "crop_size": 64}),
    ("Data2VecVisionForImageClassification", "Data2VecVisionConfig", VIT, "Beit", {**SQUARE, "crop_size": 64}),
    ("ViTMSNForImageClassification", "ViTMSNConfig", VIT, "ViT", SQUARE),
    ("Dinov2ForImageClassification", "Dinov2Config", {**VIT, "mlp_ratio": 2}, "Bit", {**SIDES, "crop_size": 64}),
    ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", {**VIT, "mlp_ratio": 2}, "Bit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("CLIPForImageClassification", "CLIPConfig", TOWERS, "CLIP", {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("SiglipForImageClassification", "SiglipConfig", TOWERS, "Siglip", SQUARE),
    ("SwinForImageClassification", "SwinConfig", {**SWIN, "depths": [1, 2, 1], "num_heads": [1, 2, 2]}, "ViT", SQUARE),
    ("Swinv2ForImageClassification", "Swinv2Config", SWIN, "ViT", SQUARE),
    ("ConvNextForImageClassification", "ConvNextConfig", STAGES, "ConvNext",
     {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    ("ConvNextV2ForImageClassification", "ConvNextV2Config", STAGES, "ConvNext",
     {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    ("ResNetForImageClassification", "ResNetConfig", {**STAGES, "embedding_size": 16, "layer_type": "basic"},
     "ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    ("RegNetForImageClassification", "RegNetConfig", {**STAGES, "embedding_size": 16, "groups_width": 8}, "ConvNext",
     {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    ("BitForImageClassification", "BitConfig",
     {"embedding_size": 32, "hidden_sizes": [32, 64, 64, 96], "depths": [1, 1, 1, 1], "num_groups": 8}, "Bit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("EfficientNetForImageClassification", "EfficientNetConfig",
     {"width_coefficient": 0.5, "depth_coefficient": 0.3, "image_size": 64, "hidden_dim": 640}, "EfficientNet", SQUARE),
    ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.35}, "MobileNetV2",
     {"size": {"shortest_edge": 72}, "crop_size": 64}),
    ("MobileViTForImageClassification", "MobileViTConfig",
     {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 24, 32, 64], "image_size": 64}, "MobileViT",
     {"size": {"shortest_edge": 72}, "crop_size": 64}),
    ("PvtV2ForImageClassification", "PvtV2Config",
     {"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 1, 2, 2]},
     "Pvt", SQUARE),
    ("PoolFormerForImageClassification", "PoolFormerConfig",
     {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48]}, "PoolFormer",
     {"size": {"shortest_edge": 64}, "crop_pct": 0.9, "crop_size": 64}),
    ("FocalNetForImageClassification", "FocalNetConfig",
     {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 128]}, "Bit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("HieraForImageClassification", "HieraConfig",
     {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}, "Bit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("SwiftFormerForImageClassification", "SwiftFormerConfig",
     {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 16, 24, 32]}, "ViT", SQUARE),
    ("LevitForImageClassification", "LevitConfig", {"image_size": 64, "depths": [1, 1, 1]}, "Levit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("CvtForImageClassification", "CvtConfig",
     {"embed_dim": [16, 24, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 2]},
     "ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    ("DetrForObjectDetection", "DetrConfig", {**LAST, **DECODER}, "Detr", SIDES),
    ("TableTransformerForObjectDetection", "TableTransformerConfig", {**LAST, **DECODER}, "Detr", SIDES),
    ("ConditionalDetrForObjectDetection", "ConditionalDetrConfig", {**LAST, **DECODER}, "ConditionalDetr", SIDES),
    ("DeformableDetrForObjectDetection", "DeformableDetrConfig", {**BACKBONE, **DECODER}, "DeformableDetr", SIDES),
    ("RTDetrForObjectDetection", "RTDetrConfig", RT, "RTDetr", SQUARE),
    ("RTDetrV2ForObjectDetection", "RTDetrV2Config", RT, "RTDetr", SQUARE),
    ("YolosForObjectDetection", "YolosConfig", {**VIT, "image_size": [64, 96], "num_detection_tokens": 12}, "Yolos",
     {"size": {"shortest_edge": 64, "longest_edge": 96}}),
    ("OwlViTForObjectDetection", "OwlViTConfig", TOWERS, "OwlViT", SQUARE),
    ("Owlv2ForObjectDetection", "Owlv2Config", TOWERS, "Owlv2", SQUARE),
    ("SegformerForSemanticSegmentation", "SegformerConfig",
     {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 32}, "Segformer", SQUARE),
    ("UperNetForSemanticSegmentation", "UperNetConfig",
     {"backbone_config": {**LAST["backbone_config"], "out_features": ["stage1", "stage2", "stage3", "stage4"]},
      "hidden_size": 32, "use_auxiliary_head": False, "pool_scales": [1, 2]}, "Segformer", SQUARE),
    ("MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", {"depth_multiplier": 0.35}, "MobileNetV2",
     {"size": {"shortest_edge": 72}, "crop_size": 64}),
    ("BeitForSemanticSegmentation", "BeitConfig",
     {**VIT, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "use_auxiliary_head": False}, "Beit",
     {**SQUARE, "crop_size": 64}),
    ("MaskFormerForInstanceSegmentation", "MaskFormerConfig",
     {"backbone_config": {"model_type": "swin", **SWIN, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
      "fpn_feature_size": 32, "mask_feature_size": 32, "decoder_config": {"model_type": "detr", **DECODER}},
     "MaskFormer", SQUARE),
    ("Mask2FormerForUniversalSegmentation", "Mask2FormerConfig",
     {"backbone_config": {"model_type": "swin", **SWIN, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
      "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 2, "decoder_layers": 2,
      "encoder_layers": 1, "dim_feedforward": 32, "encoder_feedforward_dim": 32, "num_queries": 12}, "Mask2Former",
     SQUARE),
    ("CLIPModel", "CLIPConfig", TOWERS, "CLIP", {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("SiglipModel", "SiglipConfig", TOWERS, "Siglip", SQUARE),
    ("Dinov2Model", "Dinov2Config", {**VIT, "mlp_ratio": 2}, "Bit",
     {"size": {"shortest_edge": 64}, "crop_size": 64}),
    ("DINOv3ViTModel", "DINOv3ViTConfig", VIT, "ViT", SQUARE),
    ("VitPoseForPoseEstimation", "VitPoseConfig",
     {"backbone_config": {"model_type": "vitpose_backbone", "image_size": [64, 64], "patch_size": [8, 8],
                          "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_experts": 1,
                          "out_indices": [2]}}, "ViT", SQUARE),
    ("DPTForDepthEstimation", "DPTConfig",
     {**VIT, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16],
      "fusion_hidden_size": 16, "is_hybrid": False}, "DPT", SQUARE),
]  # fmt: skip

GROUND = np.random.default_rng(0).integers(90, 160, (80, 100, 3)).astype("uint8")
PLACES = [(slice(50, 74), slice(10, 34)), (slice(8, 32), slice(60, 84)), (slice(40, 64), slice(44, 68))]


@dataclass
class Row:
    """One network's line: for each question "right", "note" or "error", and what was said."""

    network: str
    reads: str = ""
    method: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


COLUMNS = ("input", "answer", "map", "GradCAM", "RISE")


def tokenizer() -> Any:
    """Gives a number to each of a few words."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "a", "cat", "dog"])}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def make(case: tuple[str, str, dict[str, Any], str, dict[str, Any]]) -> tuple[Any, Any]:
    """The network with random weights, and its image processor."""
    name, config, small, processor, options = case
    torch.manual_seed(0)
    named = {} if name.endswith("Model") or name.startswith("Owl") else LABELS
    network = getattr(hf, name)(getattr(hf, config)(**small, **named)).eval()
    return network, getattr(hf, f"{processor}ImageProcessor")(**options)


def answer(network: Any, processor: Any, model: Any, inputs: dict[str, Any]) -> Callable[[], tuple[Tensor, Tensor]]:
    """Gives (what seewhy reads, what the library says) in numbers that must agree."""
    with torch.no_grad():
        if isinstance(network, hf.CLIPModel | hf.SiglipModel) or type(network).__name__.startswith("Owl"):
            inputs = {**inputs, **tokenizer()(TEXTS, padding=True, return_tensors="pt")}
            inputs.pop("token_type_ids", None)
            if isinstance(network, hf.SiglipModel):
                inputs.pop("attention_mask")
        raw = network(**inputs)
    with model.opened():
        outputs = model(inputs["pixel_values"])
    if getattr(raw, "logits_per_image", None) is not None:
        return lambda: (outputs.classes, raw.logits_per_image)
    if outputs.boxes is not None:
        return lambda: _boxes(outputs, raw, network)
    if getattr(raw, "masks_queries_logits", None) is not None:
        return lambda: _classes(outputs, processor.post_process_semantic_segmentation(raw, [outputs.dense])[0])
    if getattr(raw, "heatmaps", None) is not None:
        return lambda: (_dense(outputs), raw.heatmaps)
    if outputs.dense is not None:
        return lambda: (_dense(outputs), raw.logits)
    if outputs.meaning == "embedding":
        return lambda: (outputs.classes, raw.pooler_output)
    return lambda: (outputs.classes, raw.logits)


def _dense(outputs: Any) -> Tensor:
    return outputs.scores.transpose(1, 2).unflatten(2, outputs.dense)


def _classes(outputs: Any, want: Tensor) -> tuple[Tensor, Tensor]:
    return _dense(outputs)[0].argmax(0), want


def _boxes(outputs: Any, raw: Any, network: Any) -> tuple[Tensor, Tensor]:
    """Boxes and scores of all candidates, as the library's own post-processing makes them."""
    void = not type(network).__name__.startswith("Owl") and raw.logits.shape[-1] == network.config.num_labels + 1
    scores = raw.logits.softmax(-1)[..., :-1] if void else raw.logits.sigmoid()
    x, y, across, down = raw.pred_boxes.unbind(-1)
    corners = torch.stack([x - across / 2, y - down / 2, x + across / 2, y + down / 2], -1)
    scale = outputs.boxes.new_tensor(SIZE[::-1] * 2)
    return torch.cat([outputs.boxes / scale, outputs.scores], -1), torch.cat([corners, scores], -1)


SIZE: list[int] = [0, 0]


def moves(explain: Callable[[Image.Image], Tensor], boxes: list[tuple[float, ...]]) -> tuple[bool, str]:
    """Whether the map changes more where the picture is changed than elsewhere, in two of three places at least."""
    ground, noise, count = explain(Image.fromarray(GROUND)), np.random.default_rng(1), 0
    for (rows, columns), (x0, y0, x1, y1) in zip(PLACES, boxes, strict=True):
        changed = GROUND.copy()
        changed[rows, columns] = noise.integers(0, 2, (24, 24, 3)) * 255
        change = (explain(Image.fromarray(changed)) - ground).abs()
        h, w = change.shape
        inside = change[max(0, round(y0)) : min(h, round(y1)), max(0, round(x0)) : min(w, round(x1))]
        count += float(inside.mean()) > float(change.mean()) > 0
    return count >= 2, f"moves in {count} of 3 places"


def look(case: tuple[str, str, dict[str, Any], str, dict[str, Any]]) -> Row:
    """Asks all questions of one network."""
    row = Row(case[0])
    network, processor = make(case)
    picture = Image.fromarray(GROUND)

    def question(name: str, ask: Callable[[], tuple[bool, str]]) -> None:
        try:
            good, said = ask()
            row.cells[name], row.said[name] = ("right" if good and not said else "note"), said
        except (SeewhyError, AssertionError) as error:
            row.cells[name], row.said[name] = "error", str(error).replace("\n", " ")

    texts = TEXTS if hasattr(network, "get_text_features") or case[0].startswith("Owl") else None
    model = seewhy.load(network, processor=processor, tokenizer=tokenizer() if texts else None, texts=texts)
    own = processor(images=picture, return_tensors="pt")
    inputs = {"pixel_values": torch.as_tensor(np.array(own["pixel_values"]))}
    SIZE[:] = inputs["pixel_values"].shape[2:]

    def same() -> tuple[bool, str]:
        tensor, view = model.preprocessing(picture)
        gap = float((tensor - inputs["pixel_values"]).abs().max())
        assert gap <= 1e-6, f"the tensor differs by {gap:.2g}"
        whole = view.box_to_original((0, 0, SIZE[1], SIZE[0]), (SIZE[0], SIZE[1]))
        return whole == tuple(view.box) or max(abs(a - b) for a, b in zip(whole, view.box, strict=True)) < 0.01, ""

    def agrees() -> tuple[bool, str]:
        got, want = answer(network, processor, model, inputs)()
        share = float((got == want).float().mean()) if got.dtype == torch.long else 1.0
        assert share > 0.99, f"{share:.0%} of the places have the library's class"
        gap = 0.0 if got.dtype == torch.long else float((got - want).abs().max())
        assert gap <= 1e-4, f"the numbers differ by {gap:.2g}"
        row.reads = kind(model, inputs["pixel_values"])
        return True, ""

    question("input", same)
    question("answer", agrees)
    for name, method in (("map", "auto"), ("GradCAM", "grad_cam")):
        question(name, lambda method=method: _tried(model, row, method))
    question("RISE", lambda: _rise(model))
    return row


def kind(model: Any, inputs: Tensor) -> str:
    """What seewhy reads the network as."""
    with model.opened():
        outputs = model(inputs)
    if outputs.boxes is not None:
        return "boxes of texts" if model.network.__class__.__name__ == "QueriedBoxes" else "boxes"
    if outputs.dense is not None:
        return "classes of places"
    return {"embedding": "embedding"}.get(outputs.meaning, "classes")


def _targets(model: Any) -> Any:
    tensor, _ = model.preprocessing(Image.fromarray(GROUND))
    with model.opened():
        outputs = model(tensor)
    if outputs.meaning == "embedding":
        return seewhy.SimilarityTarget(embedding=outputs.classes[0])
    return 0


def _tried(model: Any, row: Row, method: str) -> tuple[bool, str]:
    target = _targets(model)
    first = seewhy.explain(model, Image.fromarray(GROUND), target, method, progress=False)
    if method == "auto":
        row.method = f"{first.method}, {' x '.join(map(str, first.raw.shape[2:]))}"
    view = first.views[0]
    boxes = [view.box_to_input((c.start, r.start, c.stop, r.stop), first.size) for r, c in PLACES]

    def explain(picture: Image.Image) -> Tensor:
        found = seewhy.explain(model, picture, target, first.method, progress=False)
        return upsample(found.raw.float(), found.size)[0, 0]

    good, said = moves(explain, boxes)
    return good, "" if good else said


def _rise(model: Any) -> tuple[bool, str]:
    target = _targets(model)
    found = seewhy.explain(model, Image.fromarray(GROUND), target, "rise", num_masks=60, grid=4, progress=False)
    return bool(torch.isfinite(found.raw).all()), ""


def page(rows: list[Row]) -> str:
    """The whole page."""
    lines = [f"| network | read as | method, positions | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    notes: dict[str, list[str]] = {}
    for row in rows:
        cells = []
        for column in COLUMNS:
            said, cell = row.said.get(column, ""), row.cells.get(column, "")
            if said:
                notes.setdefault(said, []).append(f"{row.network} ({column})")
                cell = f"{cell} {list(notes).index(said) + 1}"
            cells.append(cell)
        lines.append(f"| {row.network} | {row.reads} | {row.method} | {' | '.join(cells)} |")
    listed = "\n".join(f"{i + 1}. {', '.join(who)}: {said}" for i, (said, who) in enumerate(notes.items()))
    return PAGE.format(
        count=len(rows), table="\n".join(lines), notes=listed, version=hf.__version__, torch=torch.__version__,
        machine=platform.machine(),
    )  # fmt: skip


PAGE = """# Hugging Face's networks

What seewhy makes of {count} classes of transformers {version} (torch {torch}, CPU, {machine}): small configurations
with random weights, each given with its own image processor and nothing else. Made by `benchmarks/hugging_face.py`.

- **input**: the tensor is the processor's own to 1e-6, with the way back to the picture's pixels.
- **answer**: scores, boxes and classes of places are the library's own to 1e-4.
- **map**, **GradCAM**: the map of the automatic method, and of GradCAM, changes at a place where the picture is changed
  more than elsewhere, in two of three places at least.
- **RISE**: makes a map.

"note" and "error" have a number, which says why below the table. A network that was not trained may spread a change
over the whole picture; then no map can show its place.

{table}

## Notes and errors

{notes}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts of names, with commas between them")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if given.only and not any(part in case[0] for part in given.only.split(",")):
            continue
        try:
            rows.append(look(case))
        except Exception as error:  # one network's trouble must not end the table; it stands in its row
            rows.append(Row(case[0], cells={"input": "error"}, said={"input": f"{type(error).__name__}: {error}"}))
        print(rows[-1], flush=True)
    if given.out is not None:
        given.out.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()

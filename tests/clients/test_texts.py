"""Networks of images and texts: Hugging Face's CLIP and SigLIP, open_clip's CLIP. Texts as classes and as targets."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import seewhy
from seewhy.errors import InvalidInput, InvalidTarget, InvalidType, SeewhyError
from seewhy.explainers import GradCAM
from seewhy.models.torch.towers import Towers
from support.explainer_cases import NAMES, SMALL

hf = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "photo", "of", "cat", "dog", "rusty", "bolt", "hen"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3)).astype("uint8"))
TEXT = {"vocab_size": 12, "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def tokenizer() -> Any:
    whole = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    whole.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    whole.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=whole, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        model_max_length=16,
    )  # fmt: skip


def clip(kind: str = "CLIP") -> tuple[nn.Module, Any]:
    """A small network of Hugging Face's, and its processor."""
    size: dict[str, Any] = {"size": {"height": 64, "width": 64}}
    if kind == "CLIP":
        size = {"size": {"shortest_edge": 64}, "crop_size": 64}
    config = getattr(hf, f"{kind}Config")(
        text_config={**SIZES, **TEXT}, vision_config={**SIZES, "image_size": 64, "patch_size": 16}, projection_dim=24
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(hf, f"{kind}Model")(config).eval()
    images = getattr(hf, f"{kind}ImageProcessor")(**size)
    return network, getattr(hf, f"{kind}Processor")(image_processor=images, tokenizer=tokenizer())


def own_logits(network: Any, processor: Any, texts: list[str], padding: Any) -> torch.Tensor:
    """(T,) as the network itself gives them."""
    with torch.no_grad():
        inputs = processor(text=texts, images=PICTURE, return_tensors="pt", padding=padding)
        return network(**inputs).logits_per_image[0]


@pytest.mark.parametrize(("kind", "padding"), [("CLIP", True), ("Siglip", "max_length")])
def test_texts_are_classes_with_the_networks_own_logits(kind: str, padding: Any) -> None:
    network, processor = clip(kind)
    texts = ["a photo of a cat", "dog", "a rusty bolt"]
    truth = own_logits(network, processor, texts, padding)
    model: Any = seewhy.load(network, processor=processor, texts=texts)
    torch.testing.assert_close(model(model.preprocessing(PICTURE)[0]).classes[0], truth)
    found = seewhy.explain(model, PICTURE)
    assert found.said().startswith(texts[int(truth.argmax())])
    on_the_fly = seewhy.explain(seewhy.load(network, processor=processor), PICTURE, texts)
    torch.testing.assert_close(on_the_fly.probabilities[0], truth.softmax(0))
    assert on_the_fly.labels == [texts]


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_a_text_target_is_the_cosine(kind: str) -> None:
    network, processor = clip(kind)
    model: Any = seewhy.load(network, processor=processor)
    found = seewhy.explain(model, PICTURE, seewhy.TextTarget("a rusty bolt"))
    logit = own_logits(network, processor, ["a rusty bolt"], "max_length" if kind == "Siglip" else True)
    towers = model.network
    assert float(found.probabilities) == pytest.approx(float((logit - towers.bias) / towers.scale), abs=1e-5)
    assert found.labels == [["a rusty bolt"]]
    assert (found.quantity, found.predicted) == ("similarity", [None])
    among = seewhy.explain(seewhy.load(network, processor=processor, texts=["cat"]), PICTURE, seewhy.TextTarget("dog"))
    assert (among.labels, among.predicted) == ([["dog"]], [None])


def test_several_texts_of_one_class_are_averaged() -> None:
    network, processor = clip()
    model: Any = seewhy.load(network, processor=processor, texts={"cat": ["a cat", "a photo of a cat"], "dog": "dog"})
    assert model.labels == ("cat", "dog")
    each = model.network.embedded(["a cat", "a photo of a cat"])
    torch.testing.assert_close(model.network.embeddings[0], F.normalize(each.mean(0), dim=0))


def test_grad_cam_of_a_text_by_hand() -> None:
    network, processor = clip("Siglip")
    model: Any = seewhy.load(network, processor=processor)
    inputs = model.preprocessing(PICTURE)[0]
    model, target = seewhy.spoken(model, seewhy.TextTarget("a dog"))
    found = GradCAM(model).run(inputs, target)
    kept: list[Any] = []
    handle = network.get_submodule(found.layer or "").register_forward_hook(lambda _m, _a, out: kept.append(out))
    tower: Any = network
    embedded = tower.get_image_features(pixel_values=inputs)
    handle.remove()
    embedded = getattr(embedded, "pooler_output", embedded)
    (slope,) = torch.autograd.grad(F.cosine_similarity(embedded, target[0].embedding[None]).sum(), kept[0])
    maps, slopes = (t.transpose(1, 2).unflatten(2, (4, 4)) for t in (kept[0].detach(), slope))
    by_hand = (maps * slopes.mean((2, 3), keepdim=True)).sum(1).relu()
    torch.testing.assert_close(found.raw[:, 0], by_hand, atol=1e-6, rtol=1e-4)


# What these methods need, a tower of tokens without ReLUs and boxes does not have.
UNDEFINED = {
    "deconvolution": "Deconvolution is defined for ReLU, and the network has none.",
    "guided_backprop": "GuidedBackprop is defined for ReLU, and the network has none.",
    "det_class_probability_map": "It is not known how the candidates of CLIPModel lie in the picture.",
    "instance_maps": "InstanceMaps needs instance masks with boxes: CLIPModel gives no instance masks.",
    "recipro_cam": "ReciproCAM is defined for a spatial map; layer",
}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"rise_plus"}))  # that needs an out-of-distribution network
def test_every_explainer_explains_a_text_or_says_why_not(name: str) -> None:
    network, processor = clip()
    model = seewhy.load(network, processor=processor)
    target, options = seewhy.TextTarget("a cat"), SMALL.get(name, {})
    if name in UNDEFINED:
        with pytest.raises(SeewhyError) as error:
            seewhy.explain(model, PICTURE, target, name, **options)
        assert str(error.value).startswith(UNDEFINED[name])
    else:
        found = seewhy.explain(model, PICTURE, target, name, **options)
        assert bool(torch.isfinite(found.raw).all())
        assert found.labels == [["a cat"]]


def test_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip")
    sizes = {"width": 32, "heads": 2, "layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = open_clip.model.CLIP(
            embed_dim=24, vision_cfg={"width": 32, "layers": 2, "head_width": 16, "image_size": 64, "patch_size": 16},
            text_cfg={**sizes, "context_length": 77, "vocab_size": 49408},
        ).eval()  # fmt: skip
    transform = open_clip.image_transform(64, is_train=False)
    read, texts = open_clip.SimpleTokenizer(), ["a cat", "a rusty bolt"]
    model: Any = seewhy.load(network, preprocessing=transform, tokenizer=read, texts=texts)
    found = seewhy.explain(model, PICTURE)
    with torch.no_grad():
        image, text, scale = network(transform(PICTURE)[None], read(texts))[:3]
    truth = (scale * image @ text.T)[0].softmax(-1)
    assert float(found.probabilities) == pytest.approx(float(truth.max()), abs=1e-5)
    cosine = seewhy.explain(model, PICTURE, seewhy.TextTarget("a rusty bolt"), "grad_cam")
    assert float(cosine.probabilities) == pytest.approx(float(image[0] @ text[1]), abs=1e-5)


def test_what_cannot_be_read_is_said() -> None:
    network, processor = clip()
    bare, model = seewhy.load(network), seewhy.load(network, processor=processor)
    inputs = torch.rand(1, 3, 64, 64)
    with pytest.raises(InvalidInput, match="CLIPModel cannot read texts without its tokenizer"):
        seewhy.explain(bare, inputs, seewhy.TextTarget("a cat"))
    with pytest.raises(InvalidTarget, match="gives an embedding of 24 numbers and no classes: they are the embedding"):
        seewhy.explain(model, inputs)
    with pytest.raises(InvalidTarget, match="Linear reads no texts: it is no network of images and texts such as"):
        seewhy.load(nn.Linear(3, 2), texts=["a cat"])
    with pytest.raises(InvalidTarget, match="TextTarget cannot stand beside other targets"):
        seewhy.explain(model, inputs, [seewhy.TextTarget("a cat"), seewhy.ClassTarget(label=1)])
    with pytest.raises(InvalidTarget, match="The text 'a cat' has not been read by the model"):
        GradCAM(model).run(inputs, seewhy.TextTarget("a cat"))
    for wrong in ("a cat", 3, [3], ["a cat", 4]):
        with pytest.raises(InvalidType, match=r"^texts: expected"):
            seewhy.load(network, processor=processor, texts=wrong)  # type: ignore[arg-type]
    lists: list[Any] = [[], ["a cat", "a cat"], {"cat": []}]
    for wrong_list in lists:
        with pytest.raises(InvalidInput, match=r"^texts: expected different texts, at least one"):
            seewhy.load(network, processor=processor, texts=wrong_list)
    for empty in ("", "  "):
        with pytest.raises(InvalidTarget, match="TextTarget: expected a text"):
            seewhy.TextTarget(empty)


def test_the_network_is_left_as_it_was_and_a_model_can_be_sent() -> None:
    network, processor = clip()
    network.train()
    model: Any = seewhy.load(network, processor=processor, texts=["cat", "dog"])
    seewhy.explain(model, PICTURE)
    assert network.training
    assert all(part.training for part in network.modules())
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again.network, Towers)
    inputs = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again(inputs).scores, model(inputs).scores)

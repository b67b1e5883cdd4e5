"""Objects of Hugging Face's transformers: networks, pipelines, and folders that hold both.

What their own files say is used: class names from ``config.id2label``, the image processor as preprocessing (its own
tensors, see `seewhy.images.transform`), and how the boxes of a detector are meant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from seewhy.errors import CheckpointError, InvalidInput, InvalidType, MissingDependency, one_line
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.transform import as_preprocessing
from seewhy.models import Model
from seewhy.models.box_formats import corners, in_pixels
from seewhy.models.dense_readers import Heatmaps, MaskQueries, Segmentation
from seewhy.models.head_readers import DETR
from seewhy.models.reading import Selector
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.towers import Towers
from seewhy.types import Grid, Outputs

__all__ = ["Boxes", "ImagesAndTexts", "QueriedBoxes", "Transformers", "opened"]

_EVERYWHERE: dict[str, Selector] = {  # networks that answer at every place
    "ForSemanticSegmentation": Segmentation(scores="logits"),
    "ForUniversalSegmentation": MaskQueries(),
    "ForInstanceSegmentation": MaskQueries(),
    "ForPoseEstimation": Heatmaps(scores="heatmaps"),
}
_processors: WeakKeyDictionary[nn.Module, Preprocessing | None] = WeakKeyDictionary()


class Transformers:
    """``transformers.PreTrainedModel`` and ``transformers.Pipeline``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        if isinstance(network, nn.Module):
            return _model(network, _kept(network), _kept_tokenizer(network)) if hasattr(network, "config") else None
        inner, processor = getattr(network, "model", None), getattr(network, "image_processor", None)
        if not isinstance(inner, nn.Module) or not hasattr(network, "task"):
            return None
        if processor is None:
            raise InvalidType(f"The pipeline for {network.task!r} takes no images, so there is nothing to explain.")
        return _model(inner, as_preprocessing(processor), getattr(network, "tokenizer", None))


class Boxes(nn.Module):
    """A detector whose boxes are in pixels of its input, whatever its size.

    Its parts have their own names. Whether the last class means "no object" is seen in the number of scores: a head
    with one more than there are classes was trained with a softmax, others with a sigmoid.

    Attributes:
        title: the class of the detector.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        self.title = type(network).__name__
        self.own = [network]  # in a list, since its parts are ours already
        self.train(network.training)

    @property
    def whole(self) -> nn.Module:
        """The detector itself, whose output has its own form."""
        return self.own[0]

    def forward(self, pixel_values: Tensor, **further: Any) -> Outputs:
        """(N, C, H, W) -> every candidate."""
        network: Any = self.whole
        found = network(pixel_values=pixel_values, **further)
        void = found.logits.shape[-1] == network.config.num_labels + 1
        size = (pixel_values.shape[2], pixel_values.shape[3])
        return DETR(size=size, activation_fn="softmax" if void else "sigmoid")(found)


class ImagesAndTexts(Towers):
    """CLIP, SigLIP and others with ``get_image_features`` and ``get_text_features``."""

    def image(self, images: Tensor) -> Tensor:
        """See `Towers`."""
        network: Any = self.whole
        return _pooled(network.get_image_features(pixel_values=images))

    def text(self, texts: list[str]) -> Tensor:
        """See `Towers`."""
        network: Any = self.whole
        # SigLIP was trained on texts of one length, as its own pipeline fills them up.
        padding = "max_length" if str(network.config.model_type).startswith("siglip") else True
        words = self.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        return _pooled(
            network.get_text_features(**{name: value.to(self.scale.device) for name, value in words.items()})
        )


class QueriedBoxes(Towers):
    """OWL-ViT and OWLv2, whose classes are texts (Minderer et al. 2022, arXiv 2205.06230).

    Each patch of the image is a candidate with a box, and its score for a text is a sigmoid. Texts go through the
    network once, when they are named.
    """

    def image(self, images: Tensor) -> Tensor:
        """Raises InvalidInput: without texts there is nothing that such a network looks for."""
        raise InvalidInput(f"{self.title} looks for texts. Pass them: seewhy.load(network, ..., texts=['a cat']).")

    def text(self, texts: list[str]) -> Tensor:
        """See `Towers`."""
        network: Any = self.whole
        inner = getattr(network, network.base_model_prefix)
        words = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.scale.device)
        return _pooled(inner.get_text_features(words["input_ids"], words["attention_mask"]))

    def forward(self, images: Tensor) -> Outputs:
        """(N, C, H, W) -> every patch with its box and its scores of the texts."""
        if not len(self.embeddings):
            self.image(images)
        network: Any = self.whole
        places = network.image_embedder(pixel_values=images)[0]
        n, height, width, _ = places.shape
        patches, queries = places.flatten(1, 2), self.embeddings.to(places).expand(n, -1, -1)
        logits = network.class_predictor(patches, queries)[0]
        boxes = network.box_predictor(patches, places)
        objects = network.objectness_predictor(patches).sigmoid() if hasattr(network, "objectness_predictor") else None
        return Outputs(
            scores=logits.float().sigmoid(),
            boxes=in_pixels(corners(boxes.float(), "cxcywh"), (images.shape[2], images.shape[3])),
            activated=True,
            grids=(Grid(height, width),),
            objectness=objects,
        )


def _pooled(found: Any) -> Tensor:
    """Returns the embeddings; before version 5 they came alone."""
    pooled: Tensor = getattr(found, "pooler_output", found)
    return pooled


def opened(name: str, pretrained: bool, trust: bool) -> Model:
    """Returns the network of a folder, or of the hub, with its weights, and the processor that lies beside it.

    Args:
        name: a folder with config.json, model.safetensors and preprocessor_config.json; or a name on the hub.
        pretrained: whether its weights are read.
        trust: code and pickled weights that come with it may be run.

    Raises:
        MissingDependency: transformers is not installed.
        InvalidInput: the folder's network is none that transformers has.
        CheckpointError: what is needed is not there, or cannot be fetched.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency("hf: models need transformers. Install it: pip install transformers.") from error
    here = Path(name).is_dir()
    options: dict[str, Any] = {"local_files_only": here, "trust_remote_code": trust}
    weights = {"use_safetensors": None if trust else True}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        known = _architecture(transformers, config, name)
        network = known.from_pretrained(name, config=config, **options, **weights) if pretrained else known(config)
    except (OSError, ValueError, json.JSONDecodeError) as error:  # what transformers raises for files
        reason = one_line(error).rstrip(".")
        where = f"the folder {name!r}" if here else f"{name!r}, which is no folder here, from the hub"
        raise CheckpointError(
            f"transformers cannot load {where}: {reason}. Expected config.json and model.safetensors"
            f"{'' if trust else ' (weights of other kinds need trust=True, --trust)'}."
        ) from error
    return _model(network.eval(), _beside(name, options), _tokenizer(name, options) if _reads(network) else None)


def _architecture(transformers: Any, config: Any, name: str) -> Any:
    """Returns the class that the configuration names."""
    named = (config.architectures or [""])[0]
    found = getattr(transformers, named, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise InvalidInput(
            f"config.json of {name!r} names the architecture {named!r}, which transformers "
            f"{transformers.__version__} does not have. Load it yourself, and pass seewhy.load(network, processor=...)."
        )
    return found


def _model(network: nn.Module, preprocessing: Preprocessing | None, tokenizer: Any = None) -> TorchModel:
    title, known = type(network).__name__, network
    if _takes_queries(network):
        known = QueriedBoxes(network, tokenizer)
    elif title.endswith("ForObjectDetection") and _from_images_alone(network):
        known = Boxes(network)
    elif hasattr(network, "get_image_features") and hasattr(network, "get_text_features"):
        known = ImagesAndTexts(network, tokenizer)
    labels = None if isinstance(known, Towers) else _names(network)
    output = next((reader for ending, reader in _EVERYWHERE.items() if title.endswith(ending)), None)
    return TorchModel(known, labels=labels, preprocessing=preprocessing, title=title, output=output)


def _takes_queries(network: Any) -> bool:
    """Says whether it is a detector for texts that go through the network on their own (OWL-ViT, OWLv2)."""
    return all(hasattr(network, name) for name in ("image_embedder", "class_predictor", "box_predictor"))


def _reads(network: Any) -> bool:
    """Says whether texts can be its classes."""
    return hasattr(network, "get_text_features") or _takes_queries(network)


def _from_images_alone(network: Any) -> bool:
    """Says whether a detector needs no text beside the image."""
    return getattr(network, "main_input_name", "pixel_values") == "pixel_values"


def _names(network: Any) -> tuple[str, ...] | None:
    """Returns the class names of the configuration; None where they are those that stand for missing ones."""
    known = getattr(network.config, "id2label", None) or {}
    names = tuple(str(known[i]) for i in sorted(known) if isinstance(i, int))
    made_up = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return None if made_up or sorted(known) != list(range(len(known))) else names


def _kept(network: Any) -> Preprocessing | None:
    """What the processor does that lies where the network was loaded from, on this machine."""
    if network not in _processors:
        place = getattr(network.config, "_name_or_path", "")
        _processors[network] = _beside(place, {"local_files_only": True}) if place else None
    return _processors[network]


def _beside(name: str, options: dict[str, Any]) -> Preprocessing | None:
    from transformers import AutoImageProcessor

    reader: Any = AutoImageProcessor
    try:
        processor = reader.from_pretrained(name, **options)
    except (OSError, ValueError, ImportError):
        return None
    return as_preprocessing(processor)


def _kept_tokenizer(network: Any) -> Any:
    """Returns the tokenizer that lies where the network was loaded from, on this machine."""
    place = getattr(network.config, "_name_or_path", "")
    return _tokenizer(place, {"local_files_only": True}) if place and _reads(network) else None


def _tokenizer(name: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    reader: Any = AutoTokenizer
    try:
        return reader.from_pretrained(name, **options)
    except (OSError, ValueError, ImportError):
        return None

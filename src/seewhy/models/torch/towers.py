"""Networks of images and texts (CLIP, SigLIP and their family): the image tower, with texts as classes.

An image and a text each become an embedding, and the cosine between the two says how well they fit (Radford et al.,
"Learning Transferable Visual Models From Natural Language Supervision", 2021, arXiv 2103.00020). With texts given, the
network is a classifier over them:

    logit of text t = scale * cos(image, text t) + bias

Without, it is an embedding, to be explained by a `seewhy.TextTarget` or a `seewhy.SimilarityTarget`. Texts are embedded
once; no text goes through the network while an image is explained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidInput, InvalidTarget, InvalidType, raised_by
from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from seewhy.targets import SimilarityTarget, TextTarget
from seewhy.types import Outputs

__all__ = ["Texts", "Towers", "named", "spoken", "with_texts"]

Texts = Sequence[str] | Mapping[str, str | Sequence[str]]


class Towers(nn.Module):
    """The image tower of a network, whose parts have their own names.

    Attributes:
        title: the class of the network.
        embeddings: (T, D) of the texts that are its classes; (0, 0) where it has none.
    """

    embeddings: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, tokenizer: Any = None) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        self.title = type(network).__name__
        self.own = [network]  # in a list, since its parts are ours already
        self.tokenizer = tokenizer
        known: Any = network
        first = next(network.parameters())
        scale, bias = getattr(known, "logit_scale", None), getattr(known, "logit_bias", None)
        self.register_buffer("scale", first.new_ones(()) if scale is None else scale.detach().exp().reshape(()))
        self.register_buffer("bias", first.new_zeros(()) if bias is None else bias.detach().reshape(()))
        self.register_buffer("embeddings", first.new_zeros((0, 0)))
        self.train(network.training)

    @property
    def whole(self) -> nn.Module:
        """The network itself."""
        return self.own[0]

    def forward(self, images: Tensor) -> Tensor | Outputs:
        """(N, C, H, W) -> (N, T) logits of the texts, or the embeddings (N, D) of length 1 where there are none."""
        made = self.image(images).float()
        found = made / made.norm(dim=-1, keepdim=True)
        if len(self.embeddings):
            logits: Tensor = self.scale * found @ self.embeddings.T.to(found) + self.bias
            return logits
        how = "they are the embedding of an image, for a seewhy.TextTarget or texts=[...]"
        return Outputs(scores=found.unsqueeze(1), meaning="embedding", how=how, seen=True)

    def image(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D), before it is divided by its length."""
        raise NotImplementedError

    def text(self, texts: list[str]) -> Tensor:
        """Texts -> (T, D), before each is divided by its length."""
        raise NotImplementedError

    def embedded(self, texts: Sequence[str]) -> Tensor:
        """(T, D) of length 1.

        Raises:
            InvalidInput: there is no tokenizer, or the network's own code raises.
        """
        if self.tokenizer is None:
            raise InvalidInput(
                f"{self.title} cannot read texts without its tokenizer. Pass the whole processor, seewhy.load(network, "
                "processor=...), or seewhy.load(network, tokenizer=...)."
            )
        training = self.whole.training
        self.whole.eval()
        try:
            with torch.no_grad(), raised_by(f"{self.title}, while it read {len(texts)} texts,"):
                return F.normalize(self.text([str(text) for text in texts]).detach(), dim=-1)
        finally:
            self.whole.train(training)

    def of(self, embeddings: Tensor | None) -> Towers:
        """Returns the same parts with other texts as classes, or none."""
        made = copy.copy(self)
        made._buffers = dict(self._buffers)
        made.embeddings = self.embeddings[:0, :0] if embeddings is None else embeddings
        return made

    def with_tokenizer(self, tokenizer: Any) -> Towers:
        """Returns the same parts, reading texts with this tokenizer."""
        made = copy.copy(self)
        made.tokenizer = tokenizer
        return made


def named(texts: Texts) -> dict[str, list[str]]:
    """Class names, and what is read for each.

    Raises:
        InvalidType: not texts.
        InvalidInput: none, or one of them twice.
    """
    if isinstance(texts, str) or not isinstance(texts, Mapping | Sequence):
        raise InvalidType(
            f"texts: expected a list of texts, or a dictionary of class names to texts, got {texts!r}. Write "
            "texts=['a cat', 'a dog']."
        )
    given = texts if isinstance(texts, Mapping) else {text: text for text in texts}
    read: dict[str, list[Any]] = {
        str(name): list(one) if isinstance(one, list | tuple) else [one] for name, one in given.items()
    }
    if not read or len(given) < len(texts) or not all(read.values()):
        raise InvalidInput(f"texts: expected different texts, at least one, got {texts!r}.")
    others = [one for several in read.values() for one in several if not isinstance(one, str)]
    if others:
        raise InvalidType(f"texts: expected texts, got {others[0]!r}.")
    return read


def with_texts(model: Model, texts: Texts) -> TorchModel:
    """Returns a network of images and texts as a classifier whose classes are texts.

    Args:
        model: of CLIP's kind, with its tokenizer.
        texts: a list, each the name of its class; or class names with a text each, or several whose embeddings' mean
            is taken.

    Raises:
        InvalidInput: the model reads no texts.
    """
    towers, read = _towers(model), named(texts)
    embedded = [F.normalize(towers.embedded(several).mean(0), dim=0) for several in read.values()]
    assert isinstance(model, TorchModel)
    return replace(model, network=towers.of(torch.stack(embedded)), labels=tuple(read))


def spoken(model: Model, targets: Any) -> tuple[Model, Any]:
    """Returns the model and the targets, with every text read.

    A list of class names for a network that has no classes yet makes them its classes.

    Raises:
        InvalidTarget: texts for a model that reads none.

    Example:
        >>> spoken(seewhy.load(network), 2)[1]  # no text: as it was
        2
    """
    several = list(targets) if isinstance(targets, list | tuple) else [targets]
    if any(isinstance(one, TextTarget) for one in several):
        if not all(isinstance(one, TextTarget) for one in several):
            raise InvalidTarget("A TextTarget cannot stand beside other targets. Explain them in two calls.")
        towers = _towers(model)
        read = towers.embedded([one.text for one in several])
        found = [SimilarityTarget(embedding=row, text=one.text) for one, row in zip(several, read, strict=True)]
        return replace(model, network=towers.of(None), labels=None), found  # type: ignore[type-var]  # a TorchModel
    words = bool(several) and all(isinstance(one, str) and not one.isdecimal() for one in several) and targets != "all"
    bare = isinstance(model, TorchModel) and isinstance(model.network, Towers) and not model.labels
    if words and bare:
        made = with_texts(model, list(dict.fromkeys(several)))
        return made, targets
    return model, targets


def _towers(model: Model) -> Towers:
    network = getattr(model, "network", None)
    if not isinstance(network, Towers):
        raise InvalidTarget(
            f"{model.name} reads no texts: it is no network of images and texts such as CLIP, SigLIP or open_clip's. "
            "Pass a class, or a SimilarityTarget with an embedding."
        )
    return network

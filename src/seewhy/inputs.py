"""What the caller brings becomes a batch: images are read, preprocessed, and put where the network is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType
from seewhy.foreign import as_torch
from seewhy.images.deep import deep, narrow
from seewhy.images.preprocessing import Preprocessing, stretched, stretched_slices
from seewhy.images.reading import read
from seewhy.images.statistics import check_statistics
from seewhy.images.transform import Transform
from seewhy.images.view import View
from seewhy.maps import VOLUME, size_of
from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.parts import like
from seewhy.types import check_inputs

__all__ = ["Batch", "Opened", "count", "opened", "placed", "prepare", "together", "unpacked"]


@dataclass(frozen=True)
class Opened:
    """Images that are read; no network was needed for that.

    Attributes:
        pictures: the originals, upright and RGB.
        names: what each is called.
    """

    pictures: list[Image.Image]
    names: list[str]


@dataclass(frozen=True)
class Batch:
    """Images as the network takes them, and the way back.

    Attributes:
        inputs: (N, C, H, W), or volumes and clips (N, C, D, H, W).
        pictures: the originals; of a volume its middle slice.
        views: where each was seen by the network.
        names: what each is called.
        warnings: about the inputs.
        stacks: the slices of each volume or clip; empty where the inputs are pictures.
    """

    inputs: Tensor
    pictures: list[Image.Image]
    views: list[View]
    names: list[str]
    warnings: tuple[str, ...] = ()
    stacks: list[list[Image.Image]] = field(default_factory=list)

    def some(self, places: list[int]) -> Batch:
        """Returns the images at these places; what is said about the inputs is said of each."""
        return replace(
            self, inputs=self.inputs[places], pictures=[self.pictures[i] for i in places],
            views=[self.views[i] for i in places], names=[self.names[i] for i in places],
            stacks=[self.stacks[i] for i in places if self.stacks],
        )  # fmt: skip


def opened(image: Any) -> Any:
    """Reads everything that can be read before there is a network, so that a wrong path never waits for one.

    Args:
        image: as in `seewhy.explain`.

    Returns:
        `Opened` images; a tensor, which is checked, or a dictionary of a forward's arguments, as it came.

    Raises:
        InvalidInput, InvalidType: it cannot be read, or there is none.
    """
    image = as_torch(image)
    if isinstance(image, Tensor):
        check_inputs(_batched(image), volumes=True)
    if isinstance(image, Tensor | Mapping | Opened):
        return image
    several = image if isinstance(image, list | tuple) else [image]
    if not several:
        raise InvalidInput("There is no picture to explain: the list is empty.")
    return Opened([read(one) for one in several], [_name(one, i) for i, one in enumerate(several)])


def count(image: Any) -> int | None:
    """How many images there are, as `opened` gives them; None where the network has to say which argument they are."""
    if isinstance(image, Mapping):
        return None
    return len(image.names) if isinstance(image, Opened) else len(_batched(image))


def unpacked(network: Model, image: Any) -> tuple[Model, Any]:
    """Returns the images in a dictionary of a forward's arguments, and the model with the others.

    Raises:
        InvalidType: a dictionary, and no torch module.
    """
    if not isinstance(image, Mapping):
        return network, image
    if not isinstance(network, TorchModel):
        raise InvalidType(f"A dictionary of arguments is for torch modules; {network.name} takes the pictures alone.")
    name = network.picture_in(image)
    others = {key: value for key, value in image.items() if key != name}
    return replace(network, forward_kwargs={**network.forward_kwargs, **others}, input_name=name), opened(image[name])


def prepare(network: Model, image: Any) -> Batch:
    """Returns the network's input from whatever form of image the caller has; see `seewhy.explain`.

    Raises:
        InvalidInput: how an image becomes an input is not known, or images become inputs of several sizes.
    """
    found = together(network, image)
    if len(found) > 1:
        sizes = ", ".join(f"{b.inputs.shape[2]} x {b.inputs.shape[3]}" for b, _ in found)
        raise InvalidInput(f"The pictures become inputs of several sizes: {sizes}. Pass them one by one.")
    return found[0][0]


def preprocessing_of(network: Model) -> Preprocessing:
    """Returns how a picture becomes the network's input.

    Raises:
        InvalidInput: it is not known.
    """
    found: Preprocessing | None = getattr(network, "preprocessing", None)
    if found is None:
        raise InvalidInput(
            f"How a picture becomes an input of {network.name} is not known. Pass "
            "seewhy.load(model, preprocessing=seewhy.Preprocessing(size=..., mean=..., std=...)), or a tensor that is "
            "ready for the network."
        )
    return found


def together(network: Model, image: Any, *, apart: bool = False) -> list[tuple[Batch, list[int]]]:
    """Returns the images whose inputs have one size, and where each stands among all.

    Args:
        network: whose preprocessing is used.
        image: as in `seewhy.explain`, or as `opened` gives it.
        apart: each image alone.

    Raises:
        InvalidInput: how an image becomes an input is not known.
    """
    given = opened(image)
    if isinstance(given, Tensor):
        batch = _prepared_already(network, _batched(given))
        every = list(range(len(batch.names)))
        return [(batch.some([i]), [i]) for i in every] if apart and len(every) > 1 else [(batch, every)]
    preprocessing = preprocessing_of(network)
    made = [preprocessing(picture) for picture in given.pictures]
    shown = [preprocessing.seen(picture) for picture in given.pictures]
    said = [_narrow(preprocessing, *pair) for pair in zip(given.pictures, given.names, strict=True)]
    alike: dict[Any, list[int]] = {}
    for i, (tensor, _) in enumerate(made):
        alike.setdefault(i if apart else tensor.shape, []).append(i)
    return [
        (
            Batch(
                placed(network, torch.cat([made[i][0] for i in places])), [shown[i] for i in places],
                [made[i][1] for i in places], [given.names[i] for i in places],
                tuple(text for i in places if (text := said[i])),
            ),
            places,
        )
        for places in alike.values()
    ]  # fmt: skip


def _narrow(preprocessing: Preprocessing, picture: Image.Image, name: str) -> str:
    """What is to be said about the depth of a picture."""
    known = deep(picture)
    if isinstance(preprocessing, Transform) and known is not None and known.bands > 3:
        raise InvalidInput(
            f"{name} has {known.bands} channels, and {preprocessing.title} would be given 3 of them. Use "
            f"seewhy.Preprocessing(channels={known.bands}, ...)."
        )
    if isinstance(preprocessing, Transform) and known is not None:
        return f"{name}: {preprocessing.title} was given 8 bits of a picture that has more. Use seewhy.Preprocessing."
    text = "" if preprocessing.window is not None else narrow(picture)
    return f"{name}: {text}" if text else ""


def _batched(image: Tensor) -> Tensor:
    return image.unsqueeze(0) if image.ndim == 3 else image


def _prepared_already(network: Model, inputs: Tensor) -> Batch:
    preprocessing: Preprocessing | None = getattr(network, "preprocessing", None)
    fits = preprocessing is not None and len(preprocessing.mean) == inputs.shape[1]
    warnings: list[str] = []
    if fits and preprocessing is not None:  # the slices of a volume one below the other are a picture as well
        warnings = check_statistics(inputs.flatten(2, -2), preprocessing)
    own = preprocessing if fits else None
    stacks = [_slices(one, own) for one in inputs] if inputs.ndim == VOLUME else []
    show = stretched if own is None else own.denormalise
    pictures = [stack[len(stack) // 2] for stack in stacks] or [show(one) for one in inputs]
    height, width = size_of(inputs)[-2:]
    views = [View.identity(height, width)] * len(inputs)
    return Batch(inputs, pictures, views, [f"image {i}" for i in range(len(inputs))], tuple(warnings), stacks)


def _slices(volume: Tensor, preprocessing: Preprocessing | None) -> list[Image.Image]:
    """The slices of a volume (C, D, H, W) as people see them."""
    if preprocessing is None:
        return stretched_slices(volume)
    return [preprocessing.denormalise(one) for one in volume.unbind(1)]


def placed(network: Model, inputs: Tensor) -> Tensor:
    """Images go where the network is; tensors that the caller made are left alone."""
    module = getattr(network, "module", None)
    first = None if module is None else like(module)
    return inputs if first is None else inputs.to(first.device, first.dtype)


def _name(image: Any, number: int) -> str:
    path = image if isinstance(image, str | Path) else getattr(image, "filename", None)
    return Path(path).name if path else f"image {number}"

"""A model from what people write: "timm:resnet50", "package.module:factory", "model.onnx", an object.

Preprocessing and class names come from the model's own metadata where it has any.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seewhy.checks import check_count
from seewhy.errors import (
    CheckpointError,
    InvalidInput,
    InvalidType,
    MissingDependency,
    UnknownName,
    nearest,
    one_line,
    raised_by,
)
from seewhy.foreign import is_cell
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.transform import Transform, as_preprocessing
from seewhy.models import Model, files
from seewhy.models import checkpoint as checkpoints
from seewhy.models.adapters import as_model
from seewhy.models.adapters.transformers import opened as hugging_face
from seewhy.models.exported.model import ExportedModel
from seewhy.models.function import FunctionModel
from seewhy.models.mindspore.model import MindSporeModel
from seewhy.models.named_heads import named_head
from seewhy.models.reading import Selector
from seewhy.models.torch import detectors
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.towers import Texts, Towers, with_texts

__all__ = ["load", "read_labels"]

FORMS = (
    "Expected 'timm:NAME', 'torchvision:NAME', 'hf:FOLDER', 'package.module:factory', a model file (.onnx, .xml, "
    ".tflite, .pt2, TorchScript), a torch.nn.Module, a seewhy model or a callable (N,C,H,W) -> (N,K)."
)


@dataclass(frozen=True)
class _Built:
    model: Any
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None


def load(
    spec: Any, *, checkpoint: str | Path | None = None, trust: bool = False, num_classes: int | None = None,
    preprocessing: Any = None, processor: Any = None, labels: Sequence[str] | str | Path | None = None,
    output: Selector = None, forward_kwargs: Mapping[str, Any] | None = None, input_name: str | None = None,
    changes: Mapping[str, Any] | None = None, backend: str = "auto", texts: Texts | None = None, tokenizer: Any = None,
    head: str | None = None,
) -> Model:  # fmt: skip
    """Returns a model that can be explained.

    Args:
        spec: "timm:NAME", "torchvision:NAME", "hf:FOLDER" (Hugging Face), "package.module:factory", a model file
            (.onnx, .xml, .tflite, .pt2, TorchScript), a ``torch.nn.Module``, a pipeline of Hugging Face, a callable, a
            model.
        checkpoint: weights (.pth, .pt, .safetensors). Without it named models fetch their published weights.
        trust: read files that run code; only for files from people you trust.
        num_classes: of a fine-tuned head, for timm and torchvision.
        preprocessing: how a picture becomes the input, where the model's own metadata do not say or are not right: a
            `seewhy.Preprocessing`, a transform of torchvision, timm or albumentations, a processor of Hugging Face, or
            any callable that makes a tensor (C, H, W) of a PIL image.
        processor: the same, as users of Hugging Face call it.
        labels: class names, or a text file with one a line.
        output: where the scores are in what the network returns: a name, an index or a callable.
        forward_kwargs: further arguments of the network's forward, or values of an exported graph's other inputs. A
            tensor with one row an image goes with its image, and one with a single row is for all of them.
        input_name: the argument of the network's forward that takes the pictures, or their key where it takes one
            dictionary; by default it is read from the signature.
        changes: fields of `seewhy.Preprocessing` that differ from what the model's own metadata say.
        backend: what runs a model file: "auto" for the first that is installed, or a name, see `seewhy.models.backends`
            (an .onnx file: "onnxruntime", "openvino").
        texts: for networks of images and texts (CLIP, SigLIP, open_clip): the texts that are its classes, or class
            names with the text that is read for each, or with several.
        tokenizer: of such a network, where it is not part of ``processor``.
        head: instead of ``output``, the name of a detector's head ("yolov8", "detr", ...), whose reader gets the
            input's size and the number of classes from the model.

    Raises:
        UnknownName, CheckpointError, InvalidInput, InvalidType, MissingDependency: see the message.

    Example:
        >>> model = load(network, labels=list("abcde"), preprocessing=preprocessing)
        >>> model(inputs).classes.shape
        torch.Size([2, 5])
    """
    files.check_backend(backend)
    check_count("num_classes", num_classes, optional=True)
    named = None if labels is None else read_labels(labels)
    weights = None if checkpoint is None or _is_late(spec, checkpoint) else checkpoints.read(Path(checkpoint), trust)
    given = _given(preprocessing, processor)
    built = _build(
        spec, checkpoint is None, num_classes, {"backend": backend, "forward_kwargs": forward_kwargs, "trust": trust}
    )
    model = as_model(built.model)
    if output is not None and isinstance(model, TorchModel):  # then it is the network's own output that is meant
        model = replace(model, network=getattr(model.network, "whole", model.network))
    if isinstance(model, ExportedModel):
        model = files.described(model)
    model = _reading(model, tokenizer or getattr(processor, "tokenizer", None), texts)
    if checkpoint is not None and weights is None:
        weights = _late(model, Path(checkpoint), trust)
    notes = () if weights is None else _fitted(model, weights, Path(str(checkpoint)).name)
    known = given or getattr(model, "preprocessing", None) or built.preprocessing or _of_module(model)
    about = {
        "preprocessing": _changed(spec if isinstance(spec, str) else model.name, known, _sized(model, changes)),
        "labels": built.labels if named is None else named, "output": output, "forward_kwargs": forward_kwargs,
        "input_name": input_name,
    }  # fmt: skip
    if isinstance(model, TorchModel):
        title = model.title or (spec if isinstance(spec, str) else None)
        about |= {"title": title, "notes": (*model.notes, *notes)}
    found = _with(model, about)
    return found if head is None else _with_head(found, head, output)


def _with_head(model: Model, head: str, output: Selector) -> Model:
    """Returns the model with the reader of a named head."""
    if output is not None:
        raise InvalidInput("head and output are two ways to say how boxes are read: pass one of them.")
    own = getattr(model, "preprocessing", None)
    size = (model.size if isinstance(model, ExportedModel) else None) or getattr(own, "size", None)
    labels = getattr(model, "labels", None)
    return _with(model, {"output": named_head(head, model.name, size, len(labels) if labels else None)})


_NOT_FOR = {
    "forward_kwargs": "forward_kwargs are for torch modules. Give a callable its arguments by functools.partial.",
    "input_name": "input_name is for torch modules, whose forward has arguments with names.",
}


def _with(model: Model, about: Mapping[str, Any]) -> Model:
    """Returns the model with what the caller says about it; the caller's own object stays as it is.

    Args:
        model: one of seewhy's, or somebody's own, which may have ``preprocessing`` and ``labels``.
        about: what is None or empty is left as it is.

    Raises:
        InvalidInput: it cannot be told.
    """
    own: Any = model
    new = {
        name: value
        for name, value in about.items()
        if value not in (None, ()) and value is not getattr(own, name, None)
    }
    plain = not is_dataclass(own) and hasattr(own, "__dict__")
    known = ("preprocessing", "labels") if plain else [f.name for f in fields(own)] if is_dataclass(own) else ()
    if wrong := [name for name in new if name not in known]:
        if wrong[0] in _NOT_FOR and isinstance(model, FunctionModel | ExportedModel):
            raise InvalidInput(_NOT_FOR[wrong[0]])
        raise InvalidInput(
            f"{wrong[0]} cannot be given to {model.name}: {type(model).__name__} has no {wrong[0]!r} of its own. Make "
            "it with one, or a function of it: seewhy.load(lambda x: model(x).scores[:, 0], ...)."
        )
    if not new:
        return model
    found: Model = copy(own) if plain else replace(own, **new)
    for name, value in new.items() if plain else ():
        setattr(found, name, value)
    return found


def _reading(model: Model, tokenizer: Any, texts: Texts | None) -> Model:
    """Returns the model with its tokenizer, and with texts as classes."""
    if isinstance(model, TorchModel) and isinstance(model.network, Towers) and tokenizer is not None:
        model = replace(model, network=model.network.with_tokenizer(tokenizer))
    return model if texts is None else with_texts(model, texts)


def _given(preprocessing: Any, processor: Any) -> Preprocessing | None:
    if preprocessing is not None and processor is not None:
        raise InvalidInput("preprocessing and processor are two names of one thing: pass one of them.")
    known = processor if preprocessing is None else preprocessing
    return None if known is None else as_preprocessing(known)


def _sized(model: Model, changes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The changes; where they are a whole preprocessing but for the size, with the only size that the graph takes."""
    size = model.size if isinstance(model, ExportedModel) and model.preprocessing is None else None
    return {"size": size, **changes} if changes and size is not None else changes


def _changed(name: str, known: Preprocessing | None, changes: Mapping[str, Any] | None) -> Preprocessing | None:
    if not changes:
        return known
    if isinstance(known, Transform):
        raise InvalidInput(
            f"The preprocessing of {name} is somebody else's ({known.title}), so {', '.join(changes)} cannot be "
            "changed. Change it there, or pass preprocessing=seewhy.Preprocessing(...)."
        )
    if known is not None:
        return replace(known, **changes)
    if missing := [field for field in ("size", "mean", "std") if field not in changes]:
        raise InvalidInput(f"The preprocessing of {name} is not known: {', '.join(missing)} must be given too.")
    return Preprocessing(**changes)


def _build(spec: Any, pretrained: bool, num_classes: int | None, options: Mapping[str, Any]) -> _Built:
    if not isinstance(spec, str | Path):
        return _Built(spec)
    kind, _, name = str(spec).partition(":")
    if files.is_file(Path(spec)):
        if num_classes is not None:
            raise InvalidInput(f"num_classes is for named networks; {str(spec)!r} has its classes.")
        return _Built(files.opened(Path(spec), **options))
    if not name:
        raise InvalidInput(f"There is no model {str(spec)!r}. {FORMS}")
    makers: dict[str, Callable[..., _Built]] = {"timm": _timm, "torchvision": _torchvision}
    if kind == "hf":
        return _hugging_face(name, pretrained, num_classes, bool(options["trust"]))
    if kind in makers:
        return makers[kind](name, pretrained, {} if num_classes is None else {"num_classes": num_classes})
    return _Built(_factory(kind, name))


def _hugging_face(name: str, pretrained: bool, num_classes: int | None, trust: bool) -> _Built:
    if num_classes is not None:
        raise InvalidInput(f"num_classes is for timm and torchvision; config.json of {name!r} says its classes.")
    return _Built(hugging_face(name, pretrained, trust))


def _timm(name: str, pretrained: bool, options: dict[str, Any]) -> _Built:
    try:
        import timm
        from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
    except ImportError as error:
        raise MissingDependency("timm models need timm. Install it: pip install 'seewhy[demo]' or timm.") from error
    if not timm.is_model(name):
        raise UnknownName(f"timm has no model {name!r}. {nearest(name, timm.list_models())}")
    network = _fetched(lambda: timm.create_model(name, pretrained=pretrained, **options), name, pretrained)
    subset = infer_imagenet_subset(network) if not options else None
    info = ImageNetInfo(subset) if subset else None
    labels = tuple(info.index_to_description(i) for i in range(info.num_classes())) if info else None
    return _Built(network, _timm_preprocessing(network), labels)


def _timm_preprocessing(network: nn.Module) -> Preprocessing | None:
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= config.keys():
        return None
    channels, height, width = config["input_size"]
    if channels not in (1, 3):
        return None
    return Preprocessing(
        size=(height, width),
        mean=tuple(config["mean"])[:channels],
        std=tuple(config["std"])[:channels],
        fit="squash" if config.get("crop_mode") == "squash" else "crop",
        crop_fraction=config.get("crop_pct") or 0.875,
        interpolation=config.get("interpolation") or "bicubic",
        channels="RGB" if channels == 3 else "L",
    )


def _torchvision(name: str, pretrained: bool, options: dict[str, Any]) -> _Built:
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingDependency("torchvision models need torchvision: pip install torchvision.") from error
    if name not in models.list_models():
        raise UnknownName(f"torchvision has no model {name!r}. {nearest(name, models.list_models())}")
    weights = models.get_model_weights(name).DEFAULT
    chosen = weights if pretrained else None
    if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
        options = options | {"weights_backbone": None}  # else a detector would fetch a backbone to be overwritten
    network = _fetched(lambda: models.get_model(name, weights=chosen, **options), name, pretrained)
    labels = tuple(weights.meta.get("categories", ())) if "num_classes" not in options else ()
    return _Built(network, _torchvision_preprocessing(weights.transforms()), labels or None)


def _torchvision_preprocessing(transforms: Any) -> Preprocessing | None:
    crop, resize = getattr(transforms, "crop_size", None), getattr(transforms, "resize_size", None)
    if not crop or not resize:
        return None
    return Preprocessing(
        size=(crop[0], crop[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        crop_fraction=crop[0] / resize[0],
        interpolation=transforms.interpolation.value,
    )


def _fetched(make: Callable[[], nn.Module], name: str, pretrained: bool) -> nn.Module:
    try:
        return make()
    except Exception as error:
        if not pretrained:
            raise
        # The hubs' clients raise many types; whichever it is, the weights are not there.
        reason = one_line(error).rstrip(".")
        raise CheckpointError(
            f"The published weights of {name!r} could not be fetched: {reason}. "
            "Pass a file: checkpoint=PATH (--checkpoint)."
        ) from error


def _factory(module: str, name: str) -> Any:
    spec = f"{module}:{name}"
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput(f"There is no model {spec!r}. {FORMS}")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UnknownName(f"There is no model {spec!r}: {module} is a module of Python itself. {FORMS}")
    try:
        with raised_by(f"Module {module!r}, while it was imported,"):
            found = importlib.import_module(module)
    except InvalidInput as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise UnknownName(f"There is no model {spec!r}: {error.__cause__}. {FORMS}") from error.__cause__
    if not hasattr(found, name):
        known = [n for n in dir(found) if not n.startswith("_")]
        raise UnknownName(f"Module {module!r} has no {name!r}. {nearest(name, known)}")
    made = getattr(found, name)
    if isinstance(made, nn.Module | Model):
        return made
    with raised_by(spec):
        made = made()
    if not isinstance(made, nn.Module | Model) and not callable(made):
        raise InvalidType(f"{spec} must return a network, got {type(made).__name__}. {FORMS}")
    return made


def _is_late(spec: Any, checkpoint: str | Path) -> bool:
    """Says whether who reads a checkpoint is known only when the network is there: a cell's is read by MindSpore."""
    return is_cell(spec) or (Path(checkpoint).suffix == ".ckpt" and isinstance(spec, str))


def _late(model: Model, checkpoint: Path, trust: bool) -> dict[str, Tensor] | None:
    """Returns the weights; None where they are in the network already."""
    if not isinstance(model, MindSporeModel):
        return checkpoints.read(checkpoint, trust)
    model.with_weights(checkpoint)
    return None


def _fitted(model: Model, weights: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
    if not isinstance(model, TorchModel):
        raise InvalidInput(f"A checkpoint can be loaded into a torch network only; {model.name} is not one.")
    return checkpoints.fit(model.module, weights, repr(name))


def _of_module(model: Model) -> Preprocessing | None:
    return (
        _timm_preprocessing(model.module) or detectors.preprocessing(model.module)
        if isinstance(model, TorchModel)
        else None
    )


def read_labels(labels: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Class names from a list, or from a UTF-8 text file with one name a line.

    Raises:
        InvalidInput: no such file, it is no text, or it is empty.
    """
    if not isinstance(labels, str | Path):
        return tuple(str(label) for label in labels)
    if not Path(labels).is_file():
        raise InvalidInput(f"There is no file of class names {str(labels)!r}. Expected a text file, one name a line.")
    try:
        text = Path(labels).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file of class names {str(labels)!r} cannot be read as UTF-8 text: {error}.") from error
    names = tuple(line.strip() for line in text.splitlines())
    if not any(names):
        raise InvalidInput(f"The file of class names {str(labels)!r} is empty.")
    return names

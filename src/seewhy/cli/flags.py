"""What several commands have in common: the network, how a picture becomes its input, which pictures."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from seewhy.errors import InvalidInput

__all__ = [
    "Command", "NetworkFlags", "PictureFlags", "PixelFlags", "SieveFlags", "activation", "changes", "emit", "parameter",
    "printable", "say", "sieve", "source", "split",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with its flags. What it does stands in `seewhy.cli.work`, so that asking for help loads no torch."""

    work: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]

    @classmethod
    def told(cls) -> str:
        """What it does, with examples of how it is typed, for --help."""
        about = inspect.cleandoc(cls.__doc__ or "")
        return "\n".join([about, "", *(f"$ {one}" for one in cls.examples)])

    def run(self) -> int:
        """Does it, and gives the exit code."""
        code: int = importlib.import_module(f"seewhy.cli.work.{self.work}").run(self)
        return code


@dataclass(frozen=True, kw_only=True)
class PixelFlags(Command):
    """How large pictures may be, of commands that open some."""

    max_pixels: int | None = None
    """Larger pictures and masks are not opened (89478485 pixels; of WebP and AVIF half of it, of JPEG 2000 a third)."""


@dataclass(frozen=True, kw_only=True)
class NetworkFlags(PixelFlags):
    """Which network, and how pictures become its input."""

    model: str | None = None
    """timm:NAME, torchvision:NAME, hf:FOLDER, package.module:factory or a model file (.onnx, .xml, ...)."""
    checkpoint: Path | None = None
    """Weights (.pth, .pt, .safetensors) of a named model; without it they are fetched. Alone: a model file."""
    backend: str = "auto"
    """What runs an .onnx file."""
    trust: bool = False
    """Read a model file or checkpoint that runs code. Only for files from people you trust."""
    num_classes: int | None = None
    """Number of classes of a fine-tuned head."""
    labels: Path | None = None
    """Class names, a text file with one a line."""
    texts: tuple[str, ...] = ()
    """Of a network of images and texts (CLIP, SigLIP): the texts that are its classes."""
    head: str | None = None
    """Of a detector whose file does not say it: yolov5, yolov8, yolox, endtoend, rtdetr, detr, nanodet."""
    activation: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
    """How scores become probabilities; auto: softmax of several scores, sigmoid of one, nothing where they are some."""
    quiet: bool = False
    """No progress bar and no notes."""
    size: tuple[int, int] | None = None
    """Height and width of the network's input, if the model does not say."""
    mean: tuple[float, ...] | None = None
    """Mean a channel, subtracted from values in 0..1."""
    std: tuple[float, ...] | None = None
    """Deviation a channel, by which values are divided."""
    fit: Literal["crop", "squash", "letterbox", "keep"] | None = None
    """How a picture of another shape is fitted into the input."""
    channels: Literal["RGB", "BGR", "L"] | int | None = None
    """Order of the channels; or how many, for pictures of several bands."""
    window: tuple[float, float] | None = None
    """The values of the files that are black and white, where these are not 0 and the largest value."""
    show: tuple[int, int, int] | None = None
    """Of pictures of several bands, those that are shown as red, green and blue, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class SieveFlags:
    """Which boxes of a detector are explained."""

    score_threshold: float = 0.5
    """Of a detector: boxes with a score above it are explained."""
    nms_threshold: float | None = 0.5
    """Of a detector: boxes of one class that overlap a better one by more are dropped; None keeps them, as for DETR."""
    max_detections: int = 20
    """Of a detector: at most so many boxes a picture are explained."""


@dataclass(frozen=True, kw_only=True)
class PictureFlags(NetworkFlags):
    """The network and pictures."""

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files."""
    data_root: Path | None = None
    """Take every picture below this folder."""
    accelerate: bool = False
    """Runs what needs scores alone with the form of the network that is measured to be the quickest here."""


def printable(text: str) -> str:
    """Returns the text without what a terminal would act on: names come from files and folders of others."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def say(line: str) -> None:
    """A note or an error, on stderr."""
    sys.stderr.write(printable(line) + "\n")


def emit(line: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


def sieve(command: SieveFlags) -> dict[str, Any]:
    """Returns the thresholds as `seewhy.detections` takes them."""
    return {field.name: getattr(command, field.name) for field in fields(SieveFlags)}


def source(command: NetworkFlags) -> tuple[str, Path | None]:
    """What names the network, and its weights; a checkpoint alone is a model file."""
    if command.model is not None:
        return command.model, command.checkpoint
    if command.checkpoint is None:
        raise InvalidInput("Name the network: --model timm:NAME, or a model file (--model model.onnx).")
    return str(command.checkpoint), None


def changes(command: NetworkFlags) -> dict[str, Any]:
    """Returns what these flags change of the preprocessing that the model's metadata give."""
    names = ("size", "mean", "std", "fit", "channels", "window", "show")
    return {name: value for name in names if (value := getattr(command, name)) is not None}


def activation(command: NetworkFlags) -> str | None:
    """How scores become probabilities."""
    return None if command.activation == "none" else command.activation


def split(text: str) -> list[str]:
    """Commas inside brackets belong to the parameters."""
    return [p.strip() for p in re.findall(r"(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|[^,(])+", text) if p.strip()]


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InvalidInput(f"--set takes NAME=VALUE, got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value

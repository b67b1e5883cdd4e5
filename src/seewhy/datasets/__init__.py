"""Images that come with their truth.

A data set is one file here: a folder, Pascal VOC, COCO, arrays, a data set of torch or anything like one, a CSV table;
the registry finds them, and those of other packages.
All of them are `Data`: `Sample` objects by number, with a key that names each for good. `open_data` finds out which of
them a path or an object is. `seewhy.datasets.shapes` draws images of textured shapes and knows every pixel of them,
for tests that need the right answer.

    data = open_data("voc:VOCdevkit/VOC2012?val").bind(model.labels, num_classes)
    data[0].image, data[0].labels, data[0].boxes
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from seewhy import registry
from seewhy.datasets._files import PICTURES, is_picture
from seewhy.datasets._frames import held
from seewhy.datasets.arrays import Arrays
from seewhy.datasets.folder import Folder
from seewhy.datasets.torch_dataset import TorchDataset
from seewhy.errors import InvalidInput, UnknownParameter, nearest
from seewhy.types import Sample

__all__ = ["PICTURES", "Data", "Kind", "is_picture", "open_data", "reopen"]


class Kind(Protocol):
    """A kind of data that a path can mean: a class in a file here, or of an entry point ``seewhy.datasets``.

    Attributes:
        word: stands before the colon in "voc:ROOT", and is the entry point's name.
    """

    word: ClassVar[str]

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether a path that is there, written without a word before it, is of this kind."""
        ...

    @classmethod
    def open(cls, root: str, **options: Any) -> Data:
        """Returns the data at a path; `Data.describe` gives the word as kind, the root and the options."""
        ...


@runtime_checkable
class Data(Protocol):
    """Samples by number."""

    @property
    def name(self) -> str:
        """How the data are called in reports."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The data's own class names, if it has any."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, for the reader of the results."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """What the sample is called for good: valid Unicode, no two alike."""

    def stamp(self, index: int) -> str:
        """Returns a cheap sign that the sample is the same as before; "" where that cannot be known without reading it.

        "missing" for a file that is gone. Never an error.
        """

    def source(self, index: int) -> str | None:
        """Returns the absolute path of the image, None where it is no file."""

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample; a file is not decoded: `Sample.image` is its path.

        Raises:
            SeewhyError: what is known about it cannot be used; the message names the file or the sample.
        """

    def describe(self) -> dict[str, Any]:
        """Kind, root, options and length, fit for JSON; see `reopen`."""

    def bind(self, classes: Sequence[str] | None, num_classes: int | None) -> Self:
        """Returns the same data with truth given as the class indices of a network with these names, so many classes.

        Raises:
            InvalidInput: some of the data's names are the network's and others are not.
        """


def open_data(spec: Any, **options: Any) -> Data:
    """Returns the data that a path or an object means.

    Args:
        spec: a folder of images; "voc:ROOT" or "voc:ROOT?SET"; "coco:FILE.json"; "csv:FILE.csv"; "npz:FILE.npz";
            "tar:FILE.tar" (WebDataset; a folder or a pattern of them, too); a path without such a beginning, which is
            recognised; an image file. Or an object: a torch Dataset or DataLoader, a Hugging Face data set, a data
            module of Lightning, a data frame of pandas, polars or pyarrow with a column of paths, a list of paths or
            rows, a tuple of arrays (images, labels, boxes, masks), a dict of them with "images", an array or a tensor
            of many images, any iterable; or `Data`, which comes back as it is.
        options: of the kind, see the `open` or `of` of each class.

    Raises:
        InvalidInput: the path is nothing that is known, or has no images.
        InvalidType: the object is no data set.
        UnknownParameter: an option that the kind does not have.
    """
    if isinstance(spec, str | os.PathLike):
        return _of_path(os.fspath(spec), options)
    if isinstance(spec, Data):
        _check_options("Data", lambda: None, options)
        return spec
    spec = held(spec)
    parts = _array_parts(spec)
    if parts is not None:
        return _made("arrays", Arrays.of, (), {**parts, **options})
    return _made(type(spec).__name__, TorchDataset.of, (spec,), options)


def reopen(description: Mapping[str, Any]) -> Data:
    """Returns the data that `Data.describe` described.

    Raises:
        InvalidInput: they came from an object of Python, which has to be passed again.
    """
    kind, root, options = (description[name] for name in ("kind", "root", "options"))
    if kind == "files":
        return Folder.of_files(options["files"], root)
    if kind not in _words():
        raise InvalidInput(f"The data came from an object ({options.get('type', kind)}), not a path: pass it again.")
    return _made(kind, _kind(kind).open, (root,), options)


def _of_path(path: str, options: dict[str, Any]) -> Data:
    kind, colon, rest = path.partition(":")
    if not colon or kind not in _words():
        kind, rest = _recognised(path), path
    if kind == "picture":
        _check_options("A picture", lambda: None, options)
        return Folder.of_files([path])
    if kind == "voc" and not os.path.isdir(rest) and "?" in rest:
        rest, _, chosen = rest.rpartition("?")
        options = {"set": chosen, **options}
    return _made(kind, _kind(kind).open, (rest,), options)


def _own() -> dict[str, Kind]:
    """Word -> kind, of the files here."""
    found = [registry.load("datasets", name) for name in registry.class_names("datasets").values()]
    return {kind.word: kind for kind in found if hasattr(kind, "word")}


def _words() -> list[str]:
    return [*_own(), *(word for word in registry.outside("datasets") if word not in _own())]


def _kind(word: str) -> Kind:
    found: Kind = _own()[word] if word in _own() else registry.load("datasets", word)
    return found


def _recognised(path: str) -> str:
    there = os.path.lexists(path)
    for word in _words() if there else ():
        if _kind(word).recognises(path):
            return word
    if os.path.isdir(path):
        return "folder"
    if there and is_picture(path):
        return "picture"
    what = "is no picture, .json, .csv, .npz or .tar file" if there else "does not exist"
    known = ["a folder", "voc:ROOT", "coco:FILE", "csv:FILE", "npz:FILE", "tar:FILE"]
    known += [f"{word}:PATH" for word in registry.outside("datasets")]
    raise InvalidInput(f"Expected {', '.join(known[:-1])} or {known[-1]}; {path!r} {what}.")


def _array_parts(spec: Any) -> dict[str, Any] | None:
    """Arrays by name, if the object is arrays: many images alone, in a tuple or in a dict."""
    names = ("images", "labels", "boxes", "masks")
    if isinstance(spec, np.ndarray | Tensor):
        return {"images": spec}
    if isinstance(spec, dict) and "images" in spec and set(spec) <= set(names):
        return dict(spec)
    if not isinstance(spec, tuple) or not 1 <= len(spec) <= 4 or not isinstance(spec[0], np.ndarray | Tensor):
        return None
    grey = spec[0].ndim == 3 and len(spec) > 1 and 1 <= np.ndim(spec[1]) <= 2 and len(spec[1]) == len(spec[0])
    return dict(zip(names, spec, strict=False)) if spec[0].ndim == 4 or grey else None


def _made(kind: str, make: Callable[..., Any], given: tuple[Any, ...], options: dict[str, Any]) -> Data:
    known = Arrays.of if kind == "npz" else make
    _check_options(kind, known, options)
    made: Data = make(*given, **options)
    return made


def _check_options(kind: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = list(inspect.signature(make).parameters)
    for name in options:
        if name not in known:
            hint = nearest(name, [n for n in known if n not in ("root", "data", "images", "path")])
            raise UnknownParameter(f"{kind} has no option {name!r}. {hint}")

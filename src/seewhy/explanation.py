"""The result of one explain call: maps, what they are about, what they cost, and what to be careful about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy import explanation_file
from seewhy.attribution import faint, sentences
from seewhy.boxes import Box
from seewhy.draw import figure as figures
from seewhy.draw import overlay
from seewhy.draw import sheet as sheets
from seewhy.draw.document import captioned
from seewhy.draw.scale import Scale, white
from seewhy.errors import InvalidInput, MissingCapability
from seewhy.explanation_file import plain
from seewhy.images.view import View
from seewhy.maps import scale, upsample
from seewhy.plain import Meaning
from seewhy.trust import Trust
from seewhy.types import Note, Passes

__all__ = ["COLOURS", "Explanation", "joined"]

COLOURS = (
    "Bright: speaks for the class. Where a clear part of a map is against it, red is for and blue against, and 0 has "
    "no colour. Each map has its own scale, to its strongest value; of more than 1024 cells the strongest 0.5 % share "
    "the last colour. Faint: the map shows nothing. Grey and dark: outside the network's view."
)
AS_IT_IS = "The colours run from 0 to 1, the same in every map. Grey and dark: outside the network's view."


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """Maps for N images and T targets each.

    Attributes:
        raw: (N, T, h, w) signed, unscaled, at the method's own resolution.
        size: (H, W) of the network's input.
        targets: (N, T) class indices, or None where the targets are not classes.
        labels: N lists of T names.
        probabilities: (N, T) what the network says of the targets, after the activation; see ``quantity``.
        predicted: N pairs (name, number) of what the network says; None where its numbers are no classes, and beside a
            similarity.
        method: the registry's name.
        parameters: of the method.
        model: the model's name.
        layer: the layer that was explained, or None.
        passes: images that went forward and backward through the network.
        seconds: wall-clock time of the maps.
        notes: what the reader should know; empty when nothing is suspicious. `warnings` gives them as sentences.
        preprocessing: how the pictures became the input, in words.
        pictures: the originals.
        views: where each picture was seen by the network.
        names: what each picture is called.
        boxes: N lists of T boxes in pixels of the network's input, None where a target is no box; empty where none is.
        quantity: what the numbers are: "probability", "logit", "similarity" (a cosine) or "value".
        values: what the raw values are (`seewhy.plain.Meaning`), which decides how they are drawn.
        error: (N, T, h, w) standard errors of ``raw``, where the method draws at random and was asked for them
            (``rise(error=True)``); `error_map` shows them.
        asker: asks the network how far a map can be trusted; None where it is not there. It is not pickled.

    Example:
        >>> model = seewhy.load(network, labels=list("abcde"), preprocessing=preprocessing)
        >>> explanation = seewhy.explain(model, photo, [0, 3], "recipro_cam", progress=False)
        >>> explanation.raw.shape, explanation.labels
        (torch.Size([1, 2, 8, 8]), [['a', 'd']])
    """

    raw: Tensor
    size: tuple[int, int]
    targets: Tensor | None
    labels: list[list[str]]
    probabilities: Tensor
    predicted: list[tuple[str, float] | None]
    method: str
    parameters: dict[str, Any]
    model: str
    layer: str | None
    passes: Passes
    seconds: float
    notes: tuple[Note, ...] = ()
    preprocessing: str | None = None
    pictures: list[Image.Image] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: list[list[Box | None]] = field(default_factory=list)
    quantity: str = "probability"
    values: Meaning = "unknown"
    error: Tensor | None = None
    asker: Callable[[int, int, Tensor], Trust] | None = None
    _trust: dict[tuple[int, int], Trust] = field(init=False, default_factory=dict)

    def trust(self, i: int = 0, t: int = 0) -> Trust:
        """How far the map of image ``i`` and target ``t`` can be trusted, as a grade with its reasons in one line.

        Asks the network, once for each map: the image and 54 changed copies of the image, three passes to see the
        classes, the order of the layers and what random weights say, and three further maps by the same method (four
        where it draws at random).
        The weights are random for the time of one of them and put back as they were. What the grades are worth:
        docs/trust.md.

            print(seewhy.explain(model, "cat.jpg").trust().line)

        Raises:
            MissingCapability: the network is not there: the maps were read from a run, or unpickled.
            IndexError: there is no such map.
        """
        place = range(len(self.raw))[i], range(self.raw.shape[1])[t]
        if place not in self._trust:
            if self.asker is None:
                raise MissingCapability(
                    "How far a map can be trusted is asked of the network, which is not there with these maps. Explain "
                    "the picture again with seewhy.explain, or run with --trust-grade."
                )
            self._trust[place] = self.asker(*place, self.raw[place])
        return self._trust[place]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what holds the network."""
        return self.__dict__ | {"asker": None}

    @property
    def saliency(self) -> Tensor:
        """(N, T, H, W) in [0, 1] at the input's size; made when it is looked at."""
        raw = upsample(self.raw, self.size)
        return raw if self.values == "score" else scale(raw)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes as sentences; of many of one kind the first, and how many more there are."""
        return sentences(self.notes, self._target_name)

    def _target_name(self, i: int, t: int) -> str:
        return f"target {t}" if self.targets is None else f"class {int(self.targets[i, t])}"

    def overlay(
        self, i: int = 0, t: int = 0, *, opacity: float = 0.75, colour_map: str | None = None,
        clip: float | None = None,
    ) -> Image.Image:  # fmt: skip
        """Returns the map of image ``i`` and target ``t`` over the whole original picture.

        What the network did not see of the picture (a centre crop cuts the margins) is shown grey and dark. The box
        of a detection is drawn.

        Args:
            i: the image.
            t: its target.
            opacity: 0 shows the picture alone.
            colour_map: a name of the ``cmap`` catalogue; None for inferno, or for blue and red where a clear part of
                the map is against the class.
            clip: the percentile of the map from which on the strongest colour is used; 100 for the strongest value,
                None for the rule of `seewhy.draw.scale`.
        """
        where = self.scale_of(i, t, colour_map=colour_map, clip=clip)
        seen = self.views[i].to_original(self._shown(i, t, where))
        shown = overlay.overlay(self.pictures[i], seen, opacity=opacity, colour_map=colour_map, signed=where.signed)
        box = self.box(i, t)
        return shown if box is None else overlay.outlined(shown, box)

    def agreement(self, i: int = 0, t: int = 0) -> float:
        """Returns the correlation expected between the map and another one from as many other random draws, 0 to 1.

        1 - the mean squared standard error over the variance of the map, for noise counts in both.

        Raises:
            MissingCapability: the method was not asked for standard errors, or does not draw at random.
        """
        noise, one = self._errors[i, t].double().square().mean(), self.raw[i, t].double()
        spread = float((one - one.mean()).square().mean())
        return max(0.0, 1 - float(noise) / spread) if spread else 0.0

    def error_map(self, i: int = 0, t: int = 0) -> Image.Image:
        """Returns the standard error of each pixel as a picture of the input's size, black for 0.

        White is the strongest value of the map, for or against: what is bright here may be chance.

        Raises:
            MissingCapability: as `agreement`.
        """
        most = self.raw[i, t].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        shown = upsample((self._errors[i : i + 1, t : t + 1] / most).clamp(max=1).float().cpu(), self.size)[0, 0]
        return overlay.colourise(shown, "gray")

    @property
    def _errors(self) -> Tensor:
        if self.error is None:
            raise MissingCapability(
                f"{self.method} gave no standard errors. Methods that draw at random can be asked for them: "
                'seewhy.explain(model, picture, method="rise", error=True).'
            )
        return self.error

    def box(self, i: int = 0, t: int = 0) -> Box | None:
        """The box that is explained: x0, y0, x1, y1 in pixels of the original picture; None where it is no box."""
        found = self.boxes[i][t] if self.boxes else None
        return None if found is None else self.views[i].box_to_original(found, self.size)

    def heatmap(
        self, i: int = 0, t: int = 0, *, colour_map: str | None = None, clip: float | None = None
    ) -> Image.Image:
        """Returns the map alone, at the input's size: what to look at when it has a pixel's detail. See `overlay`."""
        where = self.scale_of(i, t, colour_map=colour_map, clip=clip)
        return overlay.colourise(self._shown(i, t, where), _colours(where) if colour_map is None else colour_map)

    def scale_of(self, i: int = 0, t: int = 0, *, colour_map: str | None = None, clip: float | None = None) -> Scale:
        """Which values the first and the last colour of a map stand for. See `overlay`."""
        one = self.raw[i, t].detach().float().cpu().numpy()
        return Scale.of(
            float(one.min()), float(one.max()), white(one, self.values, clip=clip), meaning=self.values,
            faint=self.shows_nothing(i, t), signed=None if colour_map is None else overlay.diverges(colour_map),
        )  # fmt: skip

    def shows_nothing(self, i: int = 0, t: int = 0) -> bool:
        """Says whether a map shows nothing, so that it is drawn faint; `warnings` says why."""
        return bool(self._nothing(i, t))

    def _nothing(self, i: int, t: int) -> list[Note]:
        return [note for note in faint(self.notes) if note.image in (None, i) and note.target in (None, t)]

    def seen(self, i: int = 0, picture: Image.Image | None = None) -> Image.Image:
        """Returns the part of an image (or of an overlay on it) that the network saw."""
        x0, y0, x1, y1 = self.views[i].box
        shown = self.pictures[i] if picture is None else picture
        return shown.crop(
            (max(0, round(x0)), max(0, round(y0)), min(shown.width, round(x1)), min(shown.height, round(y1)))
        )

    def _shown(self, i: int, t: int, where: Scale) -> Tensor:
        """(H, W) in [0, 1]: where the values lie on a scale."""
        one = self.raw[i : i + 1, t : t + 1].detach().float().cpu()
        places = torch.from_numpy(where.places(one[0, 0].numpy()))
        return upsample(places[None, None], self.size)[0, 0]

    def save(self, directory: str | Path, *, values: bool = True) -> list[Path]:
        """Writes an overlay for every map, one JSON, and with ``values`` one .npz with the raw maps.

        Args:
            directory: made if it is not there.
            values: write the .npz too: raw (N,T,h,w), targets (N,T), probabilities (N,T), and everything else that
                `load` needs, the originals included.

        Returns:
            The files, the overlays first.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        stem = _stem(self.names[0]) if len(self.names) == 1 else "explanation"
        written = []
        for i, t in np.ndindex(*self.raw.shape[:2]):
            path = folder / f"{self._map_stem(i)}-{self.method}-{_stem(self._target_stem(i, t))}.png"
            self.overlay(i, t).save(path)
            written.append(path)
            if self.error is not None:
                path = path.with_name(f"{path.stem}-error.png")
                self.error_map(i, t).save(path)
                written.append(path)
        if values:
            written.append(explanation_file.write(folder / f"{stem}-{self.method}.npz", vars(self)))
        path = folder / f"{stem}-{self.method}.json"
        files = [p.name for p in written]
        text = json.dumps(self.summary() | {"files": files}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return [*written, path]

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Returns the explanation that `save` wrote, bit for bit; without the network, which `trust` would ask.

        A parameter that was an object of Python comes back as its name.

        Args:
            path: the .npz file, or the folder if it holds one.

        Raises:
            InvalidInput: there is no such file, or it is no explanation.
        """
        place = Path(path)
        if place.is_dir():
            found = sorted(place.glob("*.npz"))
            if len(found) != 1:
                raise InvalidInput(
                    f"The folder {str(path)!r} has {len(found)} .npz files: pass the file of one explanation."
                )
            place = found[0]
        return cls(**explanation_file.read(place))

    def summary(self) -> dict[str, Any]:
        """Everything but the maps and pictures, ready for JSON."""
        shape = list(self.raw.shape)
        images = [self._image_summary(i) for i in range(len(self.raw))]
        return {
            "model": self.model, "method": self.method,
            "parameters": {name: plain(value) for name, value in self.parameters.items()},
            "quantity": self.quantity,
            "layer": self.layer, "preprocessing": self.preprocessing, "input_size": list(self.size), "raw_shape": shape,
            "forward_passes": self.passes.forward, "backward_passes": self.passes.backward,
            "seconds": round(self.seconds, 4), "warnings": list(self.warnings), "images": images,
        }  # fmt: skip

    def said(self, i: int = 0, t: int = 0, digits: int = 3) -> str:
        """What the network says of a target, with its unit: "tabby 0.93", "tabby 4.31 (logit)", "output 0 = 0.36"."""
        return told(self.labels[i][t], float(self.probabilities[i, t]), self.quantity, digits)

    def plot(self) -> Any:
        """Returns a matplotlib figure with all overlays (extra ``plot``)."""
        where = list(np.ndindex(*self.raw.shape[:2]))
        titles = [f"{self.names[i]}: {self._told(i, t)}" for i, t in where]
        return figures.figure([self.overlay(i, t) for i, t in where], titles)

    def sheet(self) -> Image.Image:
        """Every original beside its overlays, each with its key: the colours and the raw values they stand for."""
        rows: list[list[Image.Image | None]] = []
        titles = []
        for i in range(len(self.raw)):
            rows.append([self.pictures[i], *(self._with_key(i, t) for t in range(self.raw.shape[1]))])
            titles.append("\n".join([self.names[i], *(self._told(i, t) for t in range(self.raw.shape[1]))]))
        asked = [f"{self.names[i]}, {self.labels[i][t]}: {one.line}" for (i, t), one in sorted(self._trust.items())]
        why = sentences(faint(self.notes), self._target_name)
        footer = "\n".join([AS_IT_IS if self.values == "score" else COLOURS, *why, *asked])
        return sheets.grid(rows, row_titles=titles, cell=320, title=f"{self.method} of {self.model}", footer=footer)

    def _told(self, i: int, t: int) -> str:
        """What the network says of a target, that its map shows nothing where it does, and its trust if asked."""
        said = self.said(i, t, 2) + (" (faint: shows nothing)" if self.shows_nothing(i, t) else "")
        said += "" if self.error is None else f"\nagreement {self.agreement(i, t):.2f} with another draw"
        return said + (f"\ntrust {self._trust[i, t].word}" if (i, t) in self._trust else "")

    def _with_key(self, i: int, t: int) -> Image.Image:
        shown = self.overlay(i, t)
        shown = shown.resize((320, max(1, round(320 * shown.height / shown.width))), Image.Resampling.LANCZOS)
        where = self.scale_of(i, t)
        key = overlay.colour_bar(
            where.low,
            where.high,
            width=320,
            colour_map=_colours(where),
            words=where.words,
        )
        both = Image.new("RGB", (320, shown.height + key.height + 4), "white")
        both.paste(shown, (0, 0))
        both.paste(key, (0, shown.height + 4))
        return both

    def _repr_png_(self) -> bytes:
        out = BytesIO()
        self.sheet().save(out, format="PNG")
        return out.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows: the sheet, what the network says, warnings, and on demand how it was made."""
        said = [f"{self.names[i]}: {self._told(i, t)}" for i, t in np.ndindex(*self.raw.shape[:2])]
        caption = "\n".join([f"{self.method} of {self.model}", *(line.replace("\n", ", ") for line in said)])
        facts = {name: plain(value) for name, value in self.parameters.items()}
        facts |= {"layer": self.layer, "preprocessing": self.preprocessing, "input": " x ".join(map(str, self.size))}
        facts |= {"passes": f"{self.passes.forward} forward, {self.passes.backward} backward, {self.seconds:.2f} s"}
        return captioned(self.sheet(), caption, warnings=self.warnings, facts=facts)

    def __repr__(self) -> str:
        """What it is about, in one line, with the unit of its numbers."""
        n, t = self.raw.shape[:2]
        maps = f"{n} x {t} maps {tuple(self.raw.shape[2:])}"
        return f"Explanation({self.method} of {self.model}: {maps}, {self.labels}, {self.quantity})"

    def _image_summary(self, i: int) -> dict[str, Any]:
        low, high = self.raw[i].amin((1, 2)).tolist(), self.raw[i].amax((1, 2)).tolist()
        targets = [
            {"target": None if self.targets is None else int(self.targets[i, t]), "label": self.labels[i][t],
             self.quantity: float(self.probabilities[i, t]), "raw_min": low[t], "raw_max": high[t]}
            | ({} if (box := self.box(i, t)) is None else {"box": list(box)})
            | ({} if self.error is None else {"agreement": round(self.agreement(i, t), 4)})
            | ({} if (trust := self._trust.get((i, t))) is None else {"trust": trust.as_dict()})
            for t in range(self.raw.shape[1])
        ]  # fmt: skip
        view = self.views[i]
        return {
            "name": self.names[i], "size": list(view.original), "seen": list(view.box),
            "predicted": self._prediction(i), "targets": targets,
        }  # fmt: skip

    def _prediction(self, i: int) -> dict[str, Any] | None:
        found = self.predicted[i]
        return None if found is None else {"label": found[0], self.quantity: found[1]}

    def _map_stem(self, i: int) -> str:
        stem = _stem(self.names[i])
        return f"{stem}-{i}" if self.names.count(self.names[i]) > 1 else stem

    def _target_stem(self, i: int, t: int) -> str:
        return self.labels[i][t] if self.targets is None else f"{int(self.targets[i, t])}"


def _colours(where: Scale) -> str:
    return overlay.DIVERGING if where.signed else overlay.COLOUR_MAP


def told(label: str, value: float, quantity: str, digits: int = 3) -> str:
    """Returns a name and its number; what the number is stands beside it, unless it is a probability."""
    if quantity == "probability":
        return f"{label} {value:.{digits}f}"
    return f"{label} = {value:.{digits}f}" + ("" if quantity == "value" else f" ({quantity})")


def joined(parts: Sequence[Explanation], places: Sequence[Sequence[int]]) -> Explanation:
    """One explanation of pictures that were explained apart because their inputs have several sizes.

    Each input becomes the upper left corner of one that is as high as the highest and as wide as the widest of them.
    What is added lies outside of the picture, as in a letter box, and the map is as low there as its lowest value.

    Args:
        parts: of one network by one method, with equally many targets.
        places: where each picture of each part stands in the whole.
    """
    order = [(p, i) for _, p, i in sorted((n, p, i) for p, some in enumerate(places) for i, n in enumerate(some))]
    size = (max(part.size[0] for part in parts), max(part.size[1] for part in parts))
    maps = [_on_canvas(part.raw, part.size, size) for part in parts]
    errors = [None if part.error is None else _on_canvas(part.error, part.size, size) for part in parts]
    targets = [part.targets for part in parts]
    notes = [_renumbered(note, some) for part, some in zip(parts, places, strict=True) for note in part.notes]

    def each(name: str) -> list[Any]:
        return [getattr(parts[p], name)[i] for p, i in order if getattr(parts[p], name)]

    return replace(
        parts[0],
        raw=torch.stack([maps[p][i] for p, i in order]),
        error=None if any(e is None for e in errors) else torch.stack([_row(errors[p], i) for p, i in order]),
        size=size,
        targets=None if any(t is None for t in targets) else torch.stack([_row(targets[p], i) for p, i in order]),
        probabilities=torch.stack([parts[p].probabilities[i] for p, i in order]),
        passes=Passes(sum(part.passes.forward for part in parts), sum(part.passes.backward for part in parts)),
        seconds=sum(part.seconds for part in parts),
        notes=tuple(dict.fromkeys(notes)),
        views=[_wider(parts[p].views[i], parts[p].size, size) for p, i in order],
        labels=each("labels"),
        predicted=each("predicted"),
        pictures=each("pictures"),
        names=each("names"),
        boxes=each("boxes"),
        asker=_Joined(parts, order),
    )


@dataclass(frozen=True, eq=False)
class _Joined:
    """Asks the part that an image came from, of its own map: the one on the canvas is larger."""

    parts: Sequence[Explanation]
    order: list[tuple[int, int]]

    def __call__(self, i: int, t: int, _raw: Tensor) -> Trust:
        part, image = self.order[i]
        return self.parts[part].trust(image, t)


def _row(targets: Tensor | None, i: int) -> Tensor:
    assert targets is not None
    return targets[i]


def _on_canvas(raw: Tensor, own: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(N, T, H, W) maps at the input's own size, in the upper left corner of a larger one."""
    maps = upsample(raw, own)
    canvas = maps.amin((2, 3), keepdim=True).repeat(1, 1, *size)
    canvas[..., : own[0], : own[1]] = maps
    return canvas


def _wider(view: View, size: tuple[int, int], canvas: tuple[int, int]) -> View:
    corners = (0.0, 0.0, float(canvas[1]), float(canvas[0]))
    return View(original=view.original, box=view.box_to_original(corners, size))


def _renumbered(note: Note, places: Sequence[int]) -> Note:
    """Returns a note of a part, with the image's number in the whole."""
    return note if note.image is None else replace(note, image=places[note.image])


def _stem(name: str) -> str:
    """Returns a file name that every system takes; the true name stands in the JSON."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("_")[:80] or "picture"

"""The result of one explain call: maps, what they are about, what they cost, and what to be careful about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy import explanation_file
from seewhy.attribution import faint, sentences
from seewhy.boxes import Box
from seewhy.draw import figure as figures
from seewhy.draw import overlay, slices
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

__all__ = ["COLOURS", "Explanation"]

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
        raw: (N, T, h, w) signed, unscaled, at the method's own resolution; of volumes and clips (N, T, d, h, w).
        size: (H, W) of the network's input, or (D, H, W).
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
        pictures: the originals; of a volume or clip its middle slice.
        views: where each picture was seen by the network.
        names: what each picture is called.
        boxes: N lists of T boxes in pixels of the network's input, None where a target is no box; empty where none is.
        quantity: what the numbers are: "probability", "logit", "similarity" (a cosine) or "value".
        values: what the raw values are (`seewhy.plain.Meaning`), which decides how they are drawn.
        stacks: the slices of each volume, or frames of each clip; empty where pictures were explained.
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
    size: tuple[int, ...]
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
    stacks: list[list[Image.Image]] = field(default_factory=list)
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
        """(N, T, H, W) in [0, 1] at the input's size, or (N, T, D, H, W); made when it is looked at."""
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
        clip: float | None = None, depth: int | None = None,
    ) -> Image.Image:  # fmt: skip
        """Returns the map of image ``i`` and target ``t`` over the whole original picture.

        What the network did not see of the picture (a centre crop cuts the margins) is shown grey and dark. The box
        of a detection is drawn. Of a volume or clip one slice, or a sheet of up to 12, the strongest among them.

        Args:
            i: the image.
            t: its target.
            opacity: 0 shows the picture alone.
            colour_map: a name of the ``cmap`` catalogue; None for inferno, or for blue and red where a clear part of
                the map is against the class.
            clip: the percentile of the map from which on the strongest colour is used; 100 for the strongest value,
                None for the rule of `seewhy.draw.scale`.
            depth: which slice of a volume, or frame of a clip, from 0 on; None for the sheet.

        Raises:
            InvalidInput: there is no such slice, or a picture was explained.
        """
        where = self.scale_of(i, t, colour_map=colour_map, clip=clip)
        places, box = self._shown(i, t, where), self.box(i, t)

        def drawn(picture: Image.Image, values: Tensor) -> Image.Image:
            seen = self.views[i].to_original(values)
            return overlay.overlay(picture, seen, opacity=opacity, colour_map=colour_map, signed=where.signed)

        if self.stacks:
            return self._slices(i, t, depth, lambda d: drawn(self.stacks[i][d], places[d]))
        self._no_slices(depth)
        shown = drawn(self.pictures[i], places)
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

    def error_map(self, i: int = 0, t: int = 0, *, depth: int | None = None) -> Image.Image:
        """Returns the standard error of each pixel as a picture of the input's size, black for 0.

        White is the strongest value of the map, for or against: what is bright here may be chance.

        Raises:
            MissingCapability: as `agreement`.
        """
        most = self.raw[i, t].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        shown = upsample((self._errors[i : i + 1, t : t + 1] / most).clamp(max=1).float().cpu(), self.size)[0, 0]
        if self.stacks:
            return self._slices(i, t, depth, lambda d: overlay.colourise(shown[d], "gray"))
        self._no_slices(depth)
        return overlay.colourise(shown, "gray")

    @property
    def _errors(self) -> Tensor:
        if self.error is None:
            raise MissingCapability(
                f"{self.method} gave no standard errors. Methods that draw at random can be asked for them: "
                'seewhy.explain(model, picture, method="rise", error=True).'
            )
        return self.error

    def strongest(self, i: int = 0, t: int = 0) -> int:
        """Returns the slice of a volume, or the frame of a clip, in which the map has its strongest value, from 0 on.

        Raises:
            InvalidInput: a picture was explained.
        """
        if not self.stacks:
            self._no_slices(0)
        return slices.peak(self._at_size(i, t))

    def _at_size(self, i: int, t: int) -> NDArray[Any]:
        return upsample(self.raw[i : i + 1, t : t + 1].detach().float().cpu(), self.size)[0, 0].numpy()

    def _slices(self, i: int, t: int, depth: int | None, draw: Callable[[int], Image.Image]) -> Image.Image:
        """Returns one slice, or a sheet of several."""
        total = len(self.stacks[i])
        if depth is not None:
            if isinstance(depth, bool) or not isinstance(depth, int) or not -total <= depth < total:
                raise InvalidInput(f"depth must be an integer from 0 to {total - 1}, got {depth!r}.")
            return draw(depth)
        maps = self._at_size(i, t)
        numbers = slices.which(maps)
        return slices.contact([draw(d) for d in numbers], numbers, slices.peak(maps))

    def _no_slices(self, depth: int | None) -> None:
        if depth is not None:
            raise InvalidInput("A picture was explained, which has no slices: depth is for volumes and clips.")

    def box(self, i: int = 0, t: int = 0) -> Box | None:
        """The box that is explained: x0, y0, x1, y1 in pixels of the original picture; None where it is no box."""
        found = self.boxes[i][t] if self.boxes else None
        return None if found is None else self.views[i].box_to_original(found, (self.size[-2], self.size[-1]))

    def heatmap(
        self, i: int = 0, t: int = 0, *, colour_map: str | None = None, clip: float | None = None,
        depth: int | None = None,
    ) -> Image.Image:  # fmt: skip
        """Returns the map alone, at the input's size: what to look at when it has a pixel's detail. See `overlay`."""
        where = self.scale_of(i, t, colour_map=colour_map, clip=clip)
        colours, places = _colours(where) if colour_map is None else colour_map, self._shown(i, t, where)
        if self.stacks:
            return self._slices(i, t, depth, lambda d: overlay.colourise(places[d], colours))
        self._no_slices(depth)
        return overlay.colourise(places, colours)

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
        """(H, W) or (D, H, W) in [0, 1]: where the values lie on a scale."""
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
            own = self._slices(i, 0, None, self.stacks[i].__getitem__) if self.stacks else self.pictures[i]
            rows.append([own, *(self._with_key(i, t) for t in range(self.raw.shape[1]))])
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
        low, high = (found(self.raw[i].flatten(1), 1).tolist() for found in (torch.amin, torch.amax))
        targets = [
            {"target": None if self.targets is None else int(self.targets[i, t]), "label": self.labels[i][t],
             self.quantity: float(self.probabilities[i, t]), "raw_min": low[t], "raw_max": high[t]}
            | ({} if (box := self.box(i, t)) is None else {"box": list(box)})
            | ({} if self.error is None else {"agreement": round(self.agreement(i, t), 4)})
            | ({"strongest_slice": self.strongest(i, t)} if self.stacks else {})
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


def _stem(name: str) -> str:
    """Returns a file name that every system takes; the true name stands in the JSON."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("_")[:80] or "picture"

"""What works with other people's networks: maps of every method, judged by hooks, autograd and the whole network alone.

The networks are those of `tests/clients/`, small and not trained. Nothing that judges asks seewhy anything
(`tests/support/slow_twins.py`): GradCAM, LayerCAM, ReciproCAM and ViTReciproCAM are computed at the layer that seewhy
chose by replacing or differentiating that layer's output in the whole network; Occlusion by covering pictures;
Gradient by autograd. Whether all that the scores know of the picture passes through the layer is shown by putting
another picture's output there.

    python benchmarks/other_libraries.py --rows ROWS.jsonl [--only timm,monai] [--out docs/other_libraries.md]

Networks that the file of rows holds already are not tried again; the page is written from all of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from seewhy import registry
from seewhy.errors import SeewhyError
from seewhy.models.torch.model import TorchModel
from support.slow_twins import Client, Place, Twin

LIBRARIES = ("timm", "transformers", "monai", "open_clip", "peft_and_lightning", "segmentation_models")
METHODS = ("grad_cam", "layer_cam", "recipro_cam", "vit_recipro_cam", "gradient", "occlusion")
CLOSE = 1e-3  # share of the largest value


@dataclass
class Row:
    """One network's line: for each method "right", "wrong", "error", "empty" or "-"."""

    library: str
    name: str
    layer: str = "-"
    grid: str = ""
    passes: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Case:
    """One network, a class, and the layer that seewhy chose."""

    client: Client
    model: TorchModel
    twin: Twin
    place: Place | None

    def map(self, method: str, **parameters: Any) -> Any:
        """What seewhy gives."""
        return registry.load("explainers", method)(self.model, **parameters).run(self.twin.x, self.twin.label)

    def gradient(self) -> tuple[Tensor, Tensor]:
        return self.map("gradient").raw[:, 0], self.twin.gradient().abs().amax(1)

    def occlusion(self) -> tuple[Tensor, Tensor]:
        side = self.client.side // 4
        found = self.map("occlusion", window=side, stride=side)
        return found.raw[:, 0], self.twin.occlusion(side, self.client.activate)

    def grad_cam(self) -> tuple[Tensor, Tensor]:
        found = self.map("grad_cam")
        return found.raw, self.twin.grad_cam(self._place(found))

    def layer_cam(self) -> tuple[Tensor, Tensor]:
        found = self.map("layer_cam")
        return found.raw, self.twin.layer_cam(self._place(found))

    def recipro_cam(self) -> tuple[Tensor, Tensor]:
        found = self.map("recipro_cam")
        cells = [(0, 1), (found.raw.shape[2] - 1, 0)]
        return _at(found.raw, cells), self.twin.recipro_cam(self._place(found), cells)

    def vit_recipro_cam(self) -> tuple[Tensor, Tensor]:
        found = self.map("vit_recipro_cam")
        with self.model.opened():
            body = self.model.transformer(self.twin.x)
        block, height, width = body.blocks[-1].name, found.raw.shape[2], found.raw.shape[3]
        place = Place(layer=block, prefix=body.prefix, grid=(height, width))
        cells = [(0, 1), (height - 1, 0)]
        norm = found.layer if found.layer != block else ""
        return _at(found.raw, cells), self.twin.vit_recipro_cam(place, block, norm, cells)

    def _place(self, found: Any) -> Place:
        assert self.place is not None
        return Place(layer=found.layer, prefix=self.place.prefix, grid=(found.raw.shape[2], found.raw.shape[3]))


def _at(raw: Tensor, cells: list[tuple[int, int]]) -> Tensor:
    return torch.stack([raw[:, 0, i, j] for i, j in cells], 1)


def cell(compare: Callable[[], tuple[Tensor, Tensor]]) -> str:
    """Whether a map is what the slow twin says."""
    got, want = compare()
    largest = float(want.abs().max())
    if largest == 0:
        return "empty" if not bool(got.any()) else "wrong"
    return "right" if float((got - want).abs().max()) <= CLOSE * largest else "wrong"


def look(library: str, client: Client) -> Row:
    """Tries all methods on one network."""
    row, network, x = Row(library, client.name), client.built(), client.pictures()
    model, place = TorchModel(network, **client.options), None
    label = min(1, client.say(network, x).shape[1] - 1)
    twin = Twin(network, client.say, x, label)
    try:
        with model.opened():
            row.layer = model.auto_layer(x)
            found = model.features(x, row.layer)
            row.notes = list(model.noticed(x))
        size = (found.maps.shape[2], found.maps.shape[3])
        place = Place(layer=row.layer, prefix=found.prefix, grid=size)
        row.grid = ("" if found.prefix is None else f"{found.prefix} + ") + f"{size[0]} x {size[1]}"
        row.passes = "all" if twin.funnel(place) < CLOSE else "all but the class token's"
    except SeewhyError as error:
        row.layer, row.errors["layer"] = "-", str(error)
    case = Case(client, model, twin, place)
    for method in METHODS:
        try:
            row.cells[method] = cell(getattr(case, method))
        except SeewhyError as error:
            row.cells[method], row.errors[method] = "error", str(error)
    return row


def page(rows: list[Row]) -> str:
    """The whole page."""
    titles = [registry.load("explainers", m).__name__ for m in METHODS]
    lines = ["| library | network | layer chosen | positions | what passes it | " + " | ".join(titles) + " |"]
    lines.append("|---" * (5 + len(titles)) + "|")
    for row in rows:
        cells = " | ".join(row.cells[m] for m in METHODS)
        lines.append(f"| {row.library} | {row.name} | `{row.layer}` | {row.grid} | {row.passes} | {cells} |")
    said: dict[str, list[str]] = {}
    for row in rows:
        for method, text in row.errors.items():
            if not text.startswith(("No block with an attention", "ReciproCAM is defined")):
                said.setdefault(text, []).append(f"{row.name} ({method})")
    listed = "\n".join(f"- {', '.join(who)}: {text}" for text, who in said.items())
    counts = {kind: sum(c == kind for row in rows for c in row.cells.values()) for kind in KINDS}
    counted = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    return PAGE.format(count=len(rows), counted=counted, table="\n".join(lines), errors=listed)


KINDS = ("right", "empty", "error", "wrong")
PAGE = """# Networks of other libraries

{count} small networks of other people's libraries, none trained, and what each method makes of them. Made by
`benchmarks/other_libraries.py` from the networks of `tests/clients/`; layers and tokens are found automatically.

What judges asks seewhy nothing: hooks, autograd and the whole network give every map a second time, slowly
(`tests/support/slow_twins.py`). Cells: {counted}.

- **right**: equal to the slow twin, up to a thousandth of its largest value.
- **empty**: both are zero everywhere, and a warning says so.
- **error**: refused, and the message says why and what to use instead.
- **wrong**: not what the slow twin says.

"What passes it": whether the scores are those of another picture when that picture's output of the layer is put in
(all), or whether a class token, which gathered something before, goes on beside it. Positions are "prefix + height x
width". ReciproCAM refuses tokens that speak to each other, ViTReciproCAM networks without an attention among tokens.

{table}

## Other refusals

{errors}
"""


def main() -> None:
    """Tries the networks and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="where the results are kept")
    parser.add_argument("--only", default=",".join(LIBRARIES), help="libraries, separated by commas")
    parser.add_argument("--out", type=Path, help="the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = _kept(options.rows)
    for library in options.only.split(","):
        for client in importlib.import_module(f"clients.test_{library}").NETWORKS:
            if (library, client.name) in kept:
                continue
            started = time.perf_counter()
            row = look(library, client)
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
            print(library, client.name, row.layer, row.cells, f"{time.perf_counter() - started:.1f} s", flush=True)
    if options.out:
        rows = sorted(_kept(options.rows).values(), key=lambda row: LIBRARIES.index(row.library))
        options.out.write_text(page(rows), encoding="utf-8")


def _kept(path: Path) -> dict[tuple[str, str], Row]:
    if not path.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row.library, row.name): row for row in rows}


if __name__ == "__main__":
    main()

"""``seewhy explain``: overlays and a JSON for each picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from seewhy.cli.flags import PictureFlags, SieveFlags

__all__ = ["Explain"]


@dataclass(frozen=True, kw_only=True)
class Explain(PictureFlags, SieveFlags):
    """Explain pictures: writes overlays and a JSON for each, and prints one line a picture, of a detector one a box."""

    work = "explain"
    examples = (
        "seewhy explain cat.jpg --model timm:resnet50",
        'seewhy explain cat.jpg --model model.onnx --size 224 224 --mean 0 0 0 --std 1 1 1 --targets 281,"tiger cat"',
        "seewhy explain --data-root photos --model timm:resnet50 --method rise --set num_masks=2000 --out maps",
    )

    method: str = "auto"
    """An explainer (see `seewhy list`), or auto."""
    targets: str | None = None
    """Class indices or names, separated by commas; quote a name that has a comma. Default: the predicted class, or
    every box that a detector finds."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the method, NAME=VALUE. May be repeated."""
    out: Path = Path("seewhy-out")
    """Where the results are written."""
    dump: bool = False
    """Write the raw values of the maps too (.npz), and all that Explanation.load needs."""
    trust_grade: bool = False
    """Asks how far each map can be trusted, and says it in a line: 58 passes and three or four further maps."""
    strict: bool = False
    """Exit with 1 when any picture failed, not only when all did."""

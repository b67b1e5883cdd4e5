"""The saliency page of a run inside a notebook: the same look, without a server.

    seewhy.show("runs/demo", sample="cat.jpg")                # one picture
    seewhy.show("runs/demo", view="flags=FN&sort=probability")  # what stands behind the ? of a page's address

The page is one document with all its pictures in it, in a frame of its own that can reach neither the notebook nor the
network.
"""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from pathlib import Path

from seewhy.checks import is_count
from seewhy.errors import InvalidInput, MissingDependency

__all__ = ["Shown", "show"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A page that a notebook shows.

    Attributes:
        page: the document.
        height: of the frame, in pixels.
    """

    page: str = field(repr=False)
    height: int

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page as one file."""
        out = Path(path)
        out.write_text(self.page, encoding="utf-8")
        return out

    def _repr_html_(self) -> str:
        """Returns a frame with the page; its scripts run, but know nothing of what is around it."""
        return (
            f'<iframe title="seewhy" sandbox="allow-scripts" srcdoc="{html.escape(self.page)}" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(
    root: str | os.PathLike[str], sample: str | None = None, *, view: str = "", run: str | None = None,
    height: int | None = None,
) -> Shown:  # fmt: skip
    """Returns the saliency page of a run, to be looked at in a notebook.

    Args:
        root: a run folder, or a folder with run folders.
        sample: the key or the name of one picture; None for those of ``view``.
        view: what stands after the question mark in the page's address: "flags=FN&sort=probability".
        run: the name of the run, where there are several.
        height: of the frame in pixels; by default 780 for one picture, 900 for several.

    Raises:
        InvalidInput: no such run, or a view that cannot be used.
        UnknownName: the run has no such picture.
        MissingDependency: the extra ``web`` is not installed.

    Example:
        >>> import tempfile
        >>> folder, data = tempfile.mkdtemp(), (inputs, [1, 2])
        >>> runner = seewhy.ImageClassificationRunner(folder, network, data=data, progress=False)
        >>> runner.register_saliency(["grad_cam"])
        >>> place = runner.run().place
        >>> show(place, "000000")
        Shown(height=780)
    """
    if height is not None and not is_count(height):
        raise InvalidInput(f"height is a positive number of pixels, got {height!r}.")
    try:
        from seewhy.web.downloads import html_of
        from seewhy.web.queries import SaliencyQuery
        from seewhy.web.serving import opened, parsed
    except ImportError as error:
        raise MissingDependency("seewhy.show needs the packages of the pages: pip install 'seewhy[web]'.") from error
    page = html_of(opened(root, run), parsed(SaliencyQuery, view), sample).decode()
    return Shown(page=page, height=height or (900 if sample is None else 780))

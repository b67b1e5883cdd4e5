"""What a notebook shows of a result: an image with words beside it, and a table, as HTML that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

from PIL import Image

__all__ = ["captioned", "table"]

_LEFT = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


def captioned(
    image: Image.Image, caption: str, *, warnings: Iterable[str] = (), facts: Mapping[str, Any] | None = None
) -> str:
    """Returns an image, what it shows, what is to be known of it, and facts that are opened on demand.

    Args:
        image: shown no wider than the notebook.
        caption: one line a paragraph; also what is read out where the image cannot be seen.
        warnings: sentences.
        facts: name -> value.
    """
    out = BytesIO()
    image.save(out, format="PNG")
    data = base64.b64encode(out.getvalue()).decode("ascii")
    parts = [f'<img style="max-width:100%" alt="{escape(caption)}" src="data:image/png;base64,{data}">']
    parts += [f"<figcaption>{'<br>'.join(map(escape, caption.splitlines()))}</figcaption>"]
    if said := [f"<li>{escape(text)}</li>" for text in warnings]:
        parts.append(f"<p><strong>Take care</strong></p><ul>{''.join(said)}</ul>")
    if facts:
        rows = [[name, str(value)] for name, value in facts.items()]
        parts.append(f"<details><summary>Parameters</summary>{table((), rows)}</details>")
    return f'<figure style="margin:0">{"".join(parts)}</figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """Returns a table; the first cell of each row names it."""
    top = "".join(f'<th scope="col" style="{_LEFT}">{escape(text)}</th>' for text in head)
    lines = [
        f'<tr><th scope="row" style="{_LEFT}">{escape(first)}</th>'
        + "".join(f'<td style="{_LEFT}">{escape(text)}</td>' for text in rest)
        + "</tr>"
        for first, *rest in rows
    ]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{above}{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{''.join(lines)}</tbody></table>"

"""Templates: what they may use, and the two ways a page is delivered: by the server, or as one file with all in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import BaseModel

from seewhy.web.colours import SIGNED, alpha, tables
from seewhy.web.navigation import PAGES
from seewhy.web.pictures import Picture
from seewhy.web.queries import GridQuery, address, asking
from seewhy.web.queue_words import QUEUES
from seewhy.web.runs import RunCard

__all__ = ["STATIC", "Inline", "asset_version", "render"]

STATIC = {
    "app.css": "text/css", "pages.css": "text/css", "desk.css": "text/css",
    "theme.js": "text/javascript", "main.js": "text/javascript",
    "look.js": "text/javascript", "swap.js": "text/javascript", "viewer.js": "text/javascript",
    "keys.js": "text/javascript", "combo.js": "text/javascript", "follow.js": "text/javascript",
    "play.js": "text/javascript", "stage.js": "text/javascript", "lazy.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}  # fmt: skip
NAME = 300  # characters of a name on a page
Inline = Callable[[str], Picture | None]


@cache
def asset(name: str) -> bytes:
    """Returns a static file."""
    return (files("seewhy.web") / "static" / name).read_bytes()


@cache
def asset_version() -> str:
    """Changes when any static file does; part of their addresses, so that browsers may keep them for ever."""
    every = hashlib.blake2b(digest_size=6)
    for name in sorted(STATIC):
        every.update(asset(name))
    return every.hexdigest()


def render(
    template: str, *, base: str = "", run: RunCard | None = None, query: BaseModel | None = None,
    inline: Inline | None = None, **values: Any,
) -> str:  # fmt: skip
    """Renders a page.

    Args:
        template: its file.
        base: what comes before every address of the server (behind a proxy).
        run: that the page is about.
        query: what was asked.
        inline: gives the picture of an address, where the page is to be one file.
        values: for the template.
    """
    below = f"{base}/runs/{run.key}/" if run else f"{base}/"

    def picture(url: str) -> str:
        if not url or inline is None:
            return below + url if url else ""
        found = inline(url)
        return f"data:{found.media};base64,{base64.b64encode(found.data).decode()}" if found else ""

    return _environment().get_template(template).render(
        base=base, below=below, run=run, query=query, picture=picture, exported=inline is not None,
        static=f"{base}/static/{asset_version()}/", here=lambda **changes: address(query, **changes) if query else "",
        **values,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("seewhy.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    made.filters |= {
        "number": number, "percent": percent, "size": size, "when": when, "clean": clean, "place": place, "time": time,
        "digits": digits, "fixed": fixed, "soft": soft, "span": lambda sides: Markup(span(sides)),
        "share": share,
    }  # fmt: skip
    made.tests["match_position"] = lambda one, position: one.split(".")[0] == str(position)
    made.globals |= {"colour_maps": tables(), "alpha": alpha, "style": _style, "signed": SIGNED}
    made.globals |= {"navigation": PAGES, "ends": ends, "ask": partial(asking, GridQuery)}
    made.globals["queue_words"] = QUEUES
    made.globals |= {"exported_script": _exported_script, "exported_policy": _exported_policy}
    return made


def _style(name: str) -> Markup:
    """Returns a style sheet, for a page that is one file. The files are ours: nothing in them is escaped."""
    return Markup(f"<style>{asset(name).decode()}</style>")


@cache
def _exported_code() -> str:
    """What the sliders of a page without a server need: one module, made a plain script."""
    return asset("look.js").decode().replace("export function", "function") + "watch(() => {});\n"


def _exported_script() -> Markup:
    return Markup(f"<script>{_exported_code()}</script>")


def _exported_policy() -> str:
    """What such a page may load: its own pictures and styles, and this one script."""
    digest = base64.b64encode(hashlib.sha256(_exported_code().encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


# --------------------------------------------------------------------------------------------------------- filters


def number(value: float | None, missing: str = "no data") -> str:
    """Four digits that count."""
    if value is None or value != value:
        return missing
    if value == 0:
        return "0"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def digits(value: float | None, missing: str = "no data") -> str:
    """Returns the same with the zeros at the end, so that numbers below each other can be compared."""
    plain = number(value, missing)
    return plain if value is None or "e" in plain or value != value else f"{value:#.4g}".rstrip(".")


def fixed(value: float | None, decimals: int) -> str:
    """So many digits behind the point, so that numbers below each other can be compared."""
    if value is None or value != value:
        return "no data"
    return f"{value:.{decimals}f}" if decimals <= 6 and abs(value) < 1e6 else f"{value:.3g}"


def span(sides: tuple[float, float]) -> str:
    """Width and height of a drawing that is made smaller to fit, and never gets another shape."""
    width, height = sides
    times = 2000 / max(width, height)
    return f'width="{place(width * times)}" height="{place(height * times)}"'


def place(value: float) -> str:
    """Returns a length in a drawing."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def percent(value: float | None) -> str:
    """Returns a share in percent; never a rounded 0 % or 100 %."""
    if value is None:
        return "no data"
    if 0 < value < 0.001 or 0.999 < value < 1:
        return "< 0.1 %" if value < 0.5 else "> 99.9 %"
    return f"{100 * value:.1f} %"


def share(value: float | None, n: int) -> str:
    """Returns a share of n in percent, with the digits that n allows; no data where there are none."""
    if value is None or value != value:
        return "no data"
    return f"{100 * value:.{0 if n < 100 else 1 if n < 10_000 else 2}f} %"


def ends(low: float, high: float, last: bool) -> str:
    """Returns a range of confidence as an address has it; the last one has no end."""
    return f"{low:g},{'' if last else f'{high:g}'}"


def size(value: int | None) -> str:
    """Bytes for people."""
    if value is None:
        return "unknown"
    amount, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def when(value: float | None) -> str:
    """Seconds since 1970 as UTC, in the form that a <time> has."""
    return "" if value is None else datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time(value: str) -> str:
    """Returns an ISO time for people."""
    return value.replace("T", " ")[:16] + " UTC" if value else "unknown"


def soft(value: object) -> Markup:
    """Clean text that may break after the signs that names are made of."""
    return Markup("".join(str(escape(c)) + ("<wbr>" if c in "_(,./=-" else "") for c in clean(value)))


def clean(value: object, most: int = NAME) -> str:
    """Text without control characters and those that turn the direction of what follows; cut where it is over-long."""
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() or c == "\u200d" else "\ufffd" for c in text)

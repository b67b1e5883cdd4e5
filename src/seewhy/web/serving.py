"""Starts the server, says where it is, and opens the browser."""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from pydantic import ValidationError

from seewhy.errors import InvalidInput
from seewhy.runs.folder.reviews import Review
from seewhy.web.app import application
from seewhy.web.downloads import html_of
from seewhy.web.library import DEPTH, Library, Opened
from seewhy.web.queries import SaliencyQuery
from seewhy.web.security import Rules

__all__ = ["export", "opened", "parsed", "serve"]


def serve(
    root: str | os.PathLike[str], *, host: str = "127.0.0.1", port: int = 8484, browser: bool = True,
    root_path: str = "", allow_hosts: Iterable[str] = (), reviewer: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:  # fmt: skip
    """Serves the pages until it is interrupted.

    Args:
        root: a run folder, or a folder with run folders.
        host: what it listens to. For any other than this machine a token is made, and printed with the address.
        port: 0 for any that is free.
        browser: opens the pages in the browser.
        root_path: what a proxy takes away from the front of every path, "/why".
        allow_hosts: names by which the server may be called, beside its address.
        reviewer: in whose name verdicts are kept in the run folder; None where nothing may be written.
        say: takes what people should know.

    Raises:
        InvalidInput: there is nothing to show, or the port cannot be used.
    """
    if root_path and (not root_path.startswith("/") or root_path.startswith("//")):
        raise InvalidInput(f"root_path must begin with one slash, as in '/why', got {root_path!r}.")
    if reviewer is not None:
        Review(sample="-", author=reviewer, written=0.0)  # a name that cannot be kept is said before anybody writes
    library, rules = Library(root), Rules.of(host, allow_hosts, reviewer)
    listening = _listening(host, port)
    app = application(library, rules, root_path=root_path.rstrip("/"))
    address = _address(host, listening.getsockname()[1], library, rules, root_path)
    runs = len(library.places())
    told = (
        f"{runs} run{'s' if runs != 1 else ''}" if runs else f"There is no run yet (no run.json, {DEPTH} folders deep)"
    )

    def ready() -> None:
        say(f"{told} in {library.root}: {address}   (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30)
    _Server(config, ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that tells when it answers: from then on Ctrl-C ends it as it should."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to answer, and tells so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"Cannot listen to {host} port {port}: {error}. Try another --port.") from error
    return made


def _address(host: str, port: int, library: Library, rules: Rules, root_path: str) -> str:
    known = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}
    name = known.get(host, f"[{host}]" if ":" in host else host)
    only = library.single
    page = f"/runs/{only.key}/overview" if only else "/"
    token = f"?token={rules.token}" if rules.token else ""
    return f"http://{name}:{port}{root_path.rstrip('/')}{page}{token}"


def export(root: str | os.PathLike[str], out: Path, *, run: str | None = None, view: str = "") -> Path:
    """Writes a saliency page as one file that needs no server.

    Args:
        root: a run folder, or a folder with run folders.
        out: the file.
        run: the name of the run, where there are several.
        view: what stands after the question mark in the page's address: "flags=FN&sort=probability".

    Raises:
        InvalidInput: no such run, or a view that cannot be used.
    """
    out.write_bytes(html_of(opened(root, run), parsed(SaliencyQuery, view)))
    return out


def opened(root: str | os.PathLike[str], run: str | None) -> Opened:
    """Returns a run of a folder.

    Raises:
        InvalidInput: there is none of that name, or it is not said which.
    """
    library = Library(root)
    found = [place for place in library.places().values() if run is None or place.name == run]
    if len(found) != 1:
        names = ", ".join(repr(place.name) for place in library.places().values())
        raise InvalidInput(f"Say which run is to be shown (run, --run-name): one of {names or 'none'}.")
    there = library.opened(found[0].key)
    assert there is not None
    return there


def parsed(kind: Any, view: str) -> Any:
    """Returns a query string, as the server reads it.

    Raises:
        InvalidInput: something in it cannot be asked.
    """
    asked: dict[str, Any] = {}
    lists = {name for name, about in kind.model_fields.items() if "list" in str(about.annotation)}
    for name, value in parse_qsl(view.partition("?")[2] or view.lstrip("?"), keep_blank_values=True):
        asked[name] = [*asked.get(name, []), value] if name in lists else value
    try:
        return kind(**asked)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidInput(f"The view {view!r} cannot be used. {told}") from error

"""What is checked before a page is made: who asks, from where, and how much.

- Host: only addresses and the names that were allowed, so that a foreign name which is pointed at this machine (DNS
  rebinding) reaches nothing.
- Origin and Sec-Fetch-Site: no other page may read from here.
- Forms: taken only where the server was started for a reviewer, at one address, from a page of this server.
- Token: needed when the server listens to more than this machine; compared in constant time, kept in a cookie.
- Headers of every answer: no script, style, picture or frame from anywhere else, and none written into a page.
"""

from __future__ import annotations

import hashlib
import html
import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Rules"]

LONGEST = 8192  # bytes of a query string
_FORM = re.compile(r"/runs/[0-9a-f]{8}/review")
COOKIE = "seewhy"  # the cookie's name begins so
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may ask.

    Attributes:
        names: host names that are allowed beside "localhost" and plain addresses, in lower case.
        token: what has to be known, or None on this machine alone.
        reviewer: in whose name forms are taken; None where nothing may be written.
        form_token: what a form has to bring, which only pages of this server know.
    """

    names: frozenset[str] = frozenset()
    token: str | None = None
    reviewer: str | None = None
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def of(cls, host: str, names: Iterable[str] = (), reviewer: str | None = None) -> Rules:
        """Makes the rules for a server that binds this host, with a token unless only this machine can reach it."""
        allowed = {name.lower() for name in names} | ({host.lower()} if host else set())
        token = None if loopback(host) else secrets.token_urlsafe(32)
        return cls(names=frozenset(allowed), token=token, reviewer=reviewer)

    def host_allowed(self, host: str) -> bool:
        """Says whether the Host header names this server."""
        name = _host_name(host)
        if name is None:
            return False
        if name == "localhost" or name in self.names:
            return True
        address = _address(name)
        return address is not None and (self.token is not None or address.is_loopback)

    def knows(self, given: str) -> bool:
        """Says whether a token is the right one."""
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())

    def made(self, given: str) -> bool:
        """Says whether the token of a form is that of this server."""
        return secrets.compare_digest(given.encode(errors="replace"), self.form_token.encode())


class Guard:
    """The checks, around an application; ``root_path`` is what a proxy takes away from the front of every path."""

    def __init__(self, app: ASGIApp, rules: Rules, root_path: str = "") -> None:
        self.app, self.rules, self.root_path = app, rules, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself what must not come through; adds the headers to every answer."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.root_path:
            scope = {**scope, "root_path": self.root_path}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if self.rules.reviewer is not None:  # with no-referrer browsers do not say which page a form is from
                    headers["Referrer-Policy"] = "same-origin"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if len(scope["query_string"]) > LONGEST:
            return _plain(414, f"The address is too long: at most {LONGEST} characters after the question mark.")
        if not self.rules.host_allowed(headers.get("host", "")):
            return _plain(400, "This server does not go by that name. Allow it with --allow-host NAME.")
        if self._foreign(headers):
            return _plain(403, "Other pages may not read from here.")
        if scope["method"] not in ("GET", "HEAD") and (refused := self._writing(scope, headers)):
            return refused
        return self._stranger(scope, headers) if self.rules.token else None

    def _writing(self, scope: Scope, headers: Headers) -> Response | None:
        """None for a form of a page of this server, where reviews are taken."""
        if self.rules.reviewer is None or scope["method"] != "POST" or not _FORM.fullmatch(_path(scope)):
            return _plain(405, "These pages only read: GET and HEAD.", {"Allow": "GET, HEAD"})
        if headers.get("origin") is None:
            return _plain(403, "A form must say which page it is from.")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            return _plain(415, "A review is sent as a form.")
        return None

    def _foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and not _same(origin, headers.get("host", "")):
            return True
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        return site in ("cross-site", "same-site") and mode != "navigate"

    def _stranger(self, scope: Scope, headers: Headers) -> Response | None:
        """Answers a request without the token; None for one with it. A token in the address becomes the cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and self.rules.knows(given):
            return _welcome(scope, urlencode([(n, v) for n, v in query if n != "token"]), given)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.rules.knows(bearer.strip()):
            return None
        if any(map(self.rules.knows, _cookies(headers.getlist("cookie"), _cookie_name(scope)))):
            return None
        return _plain(401, "Open the address with the token that seewhy view printed when it started.")


def loopback(host: str) -> bool:
    """Says whether only this machine can reach a server that binds this host."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _host_name(host: str) -> str | None:
    """Returns the host without its port; None where it is not one."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  # raises for a port that is none
    except ValueError:
        return None
    plain = parts.path or parts.query or parts.fragment or "@" in host
    return None if plain or not parts.hostname else parts.hostname.lower()


def _same(origin: str, host: str) -> bool:
    """Says whether a page comes from this server."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _cookie_name(scope: Scope) -> str:
    """One for each server: browsers give the cookies of a host to all its ports and paths."""
    _, port = scope.get("server") or ("", None)
    root = scope.get("root_path", "")
    path = f"-{hashlib.blake2b(root.encode(), digest_size=4).hexdigest()}" if root else ""
    return f"{COOKIE}-{port or 0}{path}"


def _cookies(headers: Iterable[str], name: str) -> Iterator[str]:
    """Returns the values under a name. Cookies of other programs may be written in any way and are passed over."""
    for pair in ";".join(headers).split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            yield value.strip().strip('"')


def _welcome(scope: Scope, query: str, token: str) -> Response:
    # A page and no redirect: a SameSite=Strict cookie is not sent along a redirect that began on another site.
    there = html.escape(scope.get("root_path", "") + _path(scope) + (f"?{query}" if query else ""), quote=True)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>seewhy</title>'
        f'<meta http-equiv="refresh" content="0;url={there}"><p><a href="{there}">Go on</a></p></html>'
    )
    response = HTMLResponse(page)
    response.set_cookie(
        _cookie_name(scope), token, httponly=True, samesite="strict", path=scope.get("root_path") or "/",
        secure=scope["scheme"] == "https",
    )  # fmt: skip
    return response


def _path(scope: Scope) -> str:
    """Returns the path that was asked for, which never begins with two slashes: that would be another host."""
    root = scope.get("root_path", "")
    path: str = scope.get("raw_path", b"/").decode("latin-1").partition("?")[0]
    path = path[len(root) :] if root and path.startswith(root) else path
    return "/" + path.lstrip("/\\")


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text + "\n", status, headers)

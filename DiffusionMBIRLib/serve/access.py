"""Who gets anything from the server: those who know its token.  All others get an empty answer.

The token comes once, in the address that the server prints; the browser gets a cookie for it and an address without it.
Cookies go to every port of a host, and pages of other servers there count as the same site: so a connection that a page
opens must come from a page of this very server.  Needs the standard library; aiohttp is imported to guard a server.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

PARAMETER = "token"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "DiffusionMBIR",
}


class Access:
    """The token of one server, and what a browser is known by that has shown it."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._cookie_name = f"diffusionmbir-{secrets.token_hex(4)}"  # two servers on a host have two
        self._cookie = secrets.token_urlsafe(32)

    def address(self, host: str, port: int) -> str:
        """What the user opens: the only place where the token is written."""
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/?{PARAMETER}={self.token}"

    def has_token(self, query: Mapping[str, str]) -> bool:
        return _same(query.get(PARAMETER, ""), self.token)

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a browser that has shown the token, and from a page of this server if from any.

        headers: of the request, whose names are looked up as written here.
        """
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return False
        try:
            cookies = SimpleCookie(headers.get("Cookie", ""))
        except CookieError:
            return False
        shown = cookies.get(self._cookie_name)
        return shown is not None and _same(shown.value, self._cookie)

    @property
    def cookie(self) -> str:
        """The header that lets the browser in from now on, until it is closed; scripts do not see it."""
        return f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"

    def guard(self, app: Any) -> None:
        """Stand before everything that an aiohttp application answers, whatever is added to it later."""
        from aiohttp import web

        async def only_those_who_know(request: Any, handler: Any) -> Any:
            if request.method == "GET" and request.path == "/" and self.has_token(request.query):
                return web.Response(status=303, headers={"Location": "/", "Set-Cookie": self.cookie})
            if not self.is_known(request.headers):
                return web.Response(status=403)
            return await handler(request)

        async def protect(request: Any, response: Any) -> None:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)

        app.middlewares.append(web.middleware(only_those_who_know))
        app.on_response_prepare.append(protect)


def _same(shown: str, known: str) -> bool:
    """Without telling by the time it takes how much of it fits."""
    return secrets.compare_digest(shown.encode("utf-8", "replace"), known.encode())

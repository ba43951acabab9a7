"""Who is answered: this machine, under its own names, by pages of its own. All else is refused before it sees a run."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "cohort_view"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware: the Host header (against DNS rebinding), the token, the origin of whatever asks for work, and the
    headers of every answer.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], token: str, csrf: str):
        self.app, self.hosts, self.token, self.csrf = app, hosts, token, csrf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        answer: Any = self._refusal(scope, headers)
        await (answer or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Any:
        host = _name(headers.get("host", ""))
        if not (_is_loopback(host) or host in self.hosts or (self.token and _is_address(host))):
            return PlainTextResponse("this name is not one of this viewer's", 421)
        if self.token and (refused := self._token(scope, headers)) is not None:
            return refused
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = urlsplit(headers.get("origin", "")).netloc
        if scope["method"] != "POST" or (origin and origin != headers.get("host")):
            return PlainTextResponse("only pages of this viewer may ask for this", 403)
        if not secrets.compare_digest(headers.get("x-cohort-csrf", ""), self.csrf):
            return PlainTextResponse("this form is of an older page: load it again", 403)
        return None

    def _token(self, scope: Scope, headers: Headers) -> Any:
        """Refuse who has no token; who brings it in the link gets it as a cookie, and the link without it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if given and secrets.compare_digest(given.encode(), self.token.encode()):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            answer = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            return answer
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            kept = None
        if kept is None or not secrets.compare_digest(kept.value.encode(), self.token.encode()):
            return PlainTextResponse("open the link that `cohort view` has printed: it has a token", 401)
        return None


def _name(host: str) -> str:
    """The name of a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.rpartition(":")[2].isdecimal() and ":" in host else host.lower()


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

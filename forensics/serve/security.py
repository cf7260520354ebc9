"""Who may talk to the server: Host, Origin and token of every request, headers of every answer.

A page of any site may send requests to this machine's ports, and a name of its own may point here
(DNS rebinding). So: the Host must be ours, which a rebound name is not; requests that a browser
marks as coming from another site are refused, so that it neither submits nor reads.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import re
import socket
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forensics.config import is_loopback

# Nothing from elsewhere, no inline script, no string becomes markup or script.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# The report is one file with its own script in it: shown in an origin of its own, it can reach
# neither this API nor any network.
REPORT_CSP = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": PAGE_CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",  # what is examined here is nobody's cache's business
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the server listens, and the token it asks for, if any."""

    host: str
    token: str | None = field(default=None, repr=False)

    def knows(self, host_header: str) -> bool:
        """Whether a request with this Host is meant for us. Any port: it may be forwarded."""
        match = _HOST.fullmatch(host_header.lower())
        if match is None:
            return False
        name = match[1]
        if name in _LOOPBACK or name.strip("[]") == self.host.lower():
            return True
        # Open to the network: by address, which nobody can rebind, or by the machine's own name.
        return not is_loopback(self.host) and (
            _is_address(name.strip("[]")) or name == socket.gethostname().lower()
        )

    def admits(self, authorization: str) -> bool:
        """Whether the Authorization header carries the token: as Bearer, or as Basic's password,
        which browsers ask for themselves."""
        if self.token is None:
            return True
        scheme, _, value = authorization.partition(" ")
        offered = value.strip() if scheme.lower() == "bearer" else ""
        if scheme.lower() == "basic":
            try:
                decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8")
            except (binascii.Error, ValueError):
                return False
            offered = decoded.partition(":")[2]
        return hmac.compare_digest(offered.encode(), self.token.encode())


class Guard:
    """Wraps the whole application, its error answers included."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent: list[tuple[bytes, bytes]] = list(message.get("headers", []))
                names = {name.lower() for name, _ in sent}
                sent += [
                    (name.encode(), value.encode())
                    for name, value in _HEADERS.items()
                    if name.encode() not in names
                ]
                message["headers"] = sent
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, detail = refusal
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if status == 401:
            headers.append((b"www-authenticate", b'Basic realm="deepfake", charset="UTF-8"'))
        start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await send_with_headers(start)
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why this request is refused, as status and sentence; None where it is not."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        for name in ("host", "origin", "authorization"):
            if len(headers.get(name, [])) > 1:
                return 400, f"more than one {name} header"
        host = headers.get("host", [""])[0]
        if not self._access.knows(host):
            return 421, "this server does not answer for that host name"
        page = scope["method"] == "GET" and scope["path"] == "/"
        origin = headers.get("origin", [None])[0]
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return 403, "requests from pages of other origins are refused"
        site = headers.get("sec-fetch-site", ["none"])[-1]
        # A link from elsewhere may lead to the page; nothing else may be asked for from there.
        if site not in ("same-origin", "none") and not page:
            return 403, "requests from other sites are refused"
        if not self._access.admits(headers.get("authorization", [""])[0]):
            return 401, "this server asks for its token"
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

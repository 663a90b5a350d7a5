"""Who may talk to the server: checks before any request is read.

A page in the user's browser can reach every port of this machine. Host is checked against DNS
rebinding, Origin against other sites' scripts, a JSON content type against forms; the key, if there
is one, in constant time. No response allows every origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, MutableMapping

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.server.failures import ApiError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OPEN_PATHS = frozenset({"/health"})


class Guard:
    """ASGI middleware; const after construction."""

    def __init__(
        self,
        app: ASGIApp,
        api_key: str | None,
        hosts: Iterable[str],
        origins: Iterable[str],
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._key = api_key.encode() if api_key else None
        self._hosts = _LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = scope["headers"]
        origin = _header(headers, b"origin")
        cross_origin = origin is not None and origin.lower() in self._origins
        answer_to = _with_origin(send, origin) if origin and cross_origin else send
        try:
            self._check(scope, origin)
            if scope["method"] == "OPTIONS" and cross_origin:
                await _preflight().__call__(scope, receive, answer_to)
                return
            self._check_key(scope)
            self._check_body(scope)
        except ApiError as error:
            await error.response()(scope, receive, answer_to)
            return
        await self._app(scope, self._counted(receive), answer_to)

    def _check(self, scope: Scope, origin: str | None) -> None:
        host = _header(scope["headers"], b"host") or ""
        if _without_port(host.lower()) not in self._hosts:
            raise ApiError(
                403,
                f'this server is not called "{host[:100]}"; --allow-host adds a name',
                "host_not_allowed",
            )
        if origin is None or origin.lower() in self._origins:
            return
        if origin.lower() != f"{scope.get('scheme', 'http')}://{host.lower()}":
            raise ApiError(
                403,
                f'pages of "{origin[:100]}" may not call this server; --allow-origin adds one',
                "origin_not_allowed",
            )

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["path"] in _OPEN_PATHS:
            return
        given = (_header(scope["headers"], b"authorization") or "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, b"Bearer " + self._key):
            raise ApiError(
                401, "the API key is missing or wrong", "invalid_api_key", kind="authentication"
            )

    def _check_body(self, scope: Scope) -> None:
        length = _header(scope["headers"], b"content-length") or "0"
        if not length.isascii() or not length.isdigit() or len(length) > 15:
            raise ApiError(400, "Content-Length is not a number")
        if int(length) > self._max_body_bytes:
            raise self._too_large()
        if scope["method"] == "POST":
            kind = (_header(scope["headers"], b"content-type") or "").partition(";")[0]
            if kind.strip().lower() != "application/json":
                raise ApiError(415, "send JSON with the header Content-Type: application/json")

    def _too_large(self) -> ApiError:
        limit = self._max_body_bytes
        return ApiError(413, f"the request is over {limit} bytes", "request_too_large")

    def _counted(self, receive: Receive) -> Receive:
        """A body without a declared length is held to the limit as it comes."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_bytes:
                raise self._too_large()
            return message

        return counted


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The header's value; "" if it stands there more than once, which fits no check."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else "" if values else None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _preflight() -> Response:
    allowed = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "authorization, content-type",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=allowed)


def _with_origin(send: Send, origin: str) -> Send:
    async def answer(message: MutableMapping[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))  # type: ignore[call-overload]
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"vary", b"Origin"),
            ]
            message["headers"] = headers
        await send(message)

    return answer

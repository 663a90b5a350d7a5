"""One answer on its way to one client, streamed or whole; the client's going away ends it."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coterie.protocol import Assistant, Message, Reply, ReplyStream
from coterie.server.chat_response import Chunks, completion, event
from coterie.server.failures import ApiError, api_error_of
from coterie.server.traffic import Traffic

_T = TypeVar("_T")


class Answer(Response):
    """The response to a chat request: asks the assistant when it is sent, not when it is made.

    The first piece is awaited before the status is chosen, so that a failure until then is an HTTP
    error; a failure after it is an error event. Waiting happens on threads; the event loop never
    blocks.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        assistant: Assistant,
        traffic: Traffic,
        messages: Sequence[Message],
        options: dict[str, Any],
        stream: bool,
        include_usage: bool,
        on_reply: Callable[[Reply], None],
    ) -> None:
        super().__init__()
        self._assistant = assistant
        self._traffic = traffic
        self._messages = messages
        self._options = options
        self._stream = stream
        self._include_usage = include_usage
        self._on_reply = on_reply
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._pieces: ReplyStream | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._traffic.enter():
            busy = ApiError(503, "too many answers at once; try again", "busy", kind="server_error")
            await busy.response()(scope, receive, send)
            return
        finished = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
                await self._answer(scope, receive, send)
                finished = True
                group.cancel_scope.cancel()
        finally:
            self._traffic.leave(cancelled=not finished)
            if self._pieces is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._pieces.close)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            open_stream = functools.partial(self._assistant.stream, self._messages, **self._options)
            pieces = self._pieces = await self._on_thread(open_stream)
            first = await self._on_thread(lambda: next(pieces, None))
            if not self._stream:
                await self._send_whole(pieces, first, scope, receive, send)
                return
        except Exception as error:
            self._traffic.failed()
            await api_error_of(error).response()(scope, receive, send)
            return
        await self._send_stream(pieces, first, send)

    async def _send_whole(
        self, pieces: ReplyStream, first: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if first is not None:
            await self._on_thread(lambda: [None for _ in pieces])
        reply = self._finish(pieces)
        headers = {"X-Coterie-Expert": reply.expert}
        response = JSONResponse(completion(reply, self._id, self._created), headers=headers)
        await response(scope, receive, send)

    async def _send_stream(self, pieces: ReplyStream, first: str | None, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        expert = self._options.get("expert")
        model = f"coterie/{expert}" if expert else "coterie"
        chunks = Chunks(self._id, self._created, model, self._include_usage)
        await _send_part(send, chunks.role())
        try:
            piece = first
            while piece is not None:
                await _send_part(send, chunks.text(piece))
                piece = await self._on_thread(lambda: next(pieces, None))
            for part in chunks.end(self._finish(pieces)):
                await _send_part(send, part)
        except Exception as error:
            self._traffic.failed()
            await _send_part(send, event(api_error_of(error).body()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _finish(self, pieces: ReplyStream) -> Reply:
        reply = pieces.reply
        self._traffic.answered(reply)
        self._on_reply(reply)
        return reply

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        # Abandoned when the client goes: close() then ends the wait inside.
        return await anyio.to_thread.run_sync(
            call, abandon_on_cancel=True, limiter=self._traffic.threads
        )


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send_part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})

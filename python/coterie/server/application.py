"""The HTTP application: OpenAI's chat endpoints over an assistant, and a few of coterie's own."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException

from coterie.errors import Error, sentence_of
from coterie.protocol import Assistant, Edited, Feedback, Reply, route_fields
from coterie.server.answering import Answer
from coterie.server.chat_request import ChatMessage, ChatRequest, expert_of
from coterie.server.conversations import Conversations
from coterie.server.failures import ApiError, api_error_of
from coterie.server.guard import Guard
from coterie.server.traffic import Traffic


@dataclasses.dataclass(frozen=True)
class Settings:
    """hosts and origins are allowed beside this machine's own; see guard.py."""

    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 << 20
    max_active: int = 64  # Answers at once; more are refused with 503.
    default_max_tokens: int = 1024
    memory_timeout_s: float = 60.0  # How long a request may wait for memory before it is told so.


class RouteRequest(BaseModel):
    """A text, or messages of which the last of the user counts."""

    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: list[ChatMessage] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> RouteRequest:
        if (self.prompt is None) == (not self.messages):
            raise ValueError('give either "prompt" or "messages"')
        return self

    def text(self) -> str:
        if self.prompt is not None:
            return self.prompt
        users = [one.plain()["content"] for one in self.messages or () if one.role == "user"]
        if not users:
            raise ApiError(400, "no message is of the user", "invalid_value", "messages")
        return users[-1]


class FeedbackRequest(BaseModel):
    """What a user says of an answer, by the "id" under "coterie" in its response."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    feedback: Literal["accepted", "rejected", "edited", "none"]
    text: str | None = None
    domain: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _text_of_an_edit_alone(self) -> FeedbackRequest:
        if (self.feedback == "edited") != (self.text is not None):
            raise ValueError('"text" is for "edited", which needs it')
        return self

    def given(self) -> Feedback:
        return Edited(self.text or "") if self.feedback == "edited" else self.feedback


class Endpoints:
    """The handlers. Calls into the assistant that may wait are made on threads."""

    def __init__(self, assistant: Assistant, settings: Settings) -> None:
        self._assistant = assistant
        self._settings = settings
        self._traffic = Traffic(settings.max_active)
        self._conversations = Conversations()
        self._since = int(time.time())

    async def chat(self, request: Request) -> Response:
        asked = ChatRequest.model_validate_json(await request.body())
        expert = expert_of(asked.model, await self._experts())
        messages = asked.plain_messages()
        name = asked.coterie.conversation or self._conversations.name_of(messages)
        options = asked.options(self._settings.default_max_tokens)

        def remember(reply: Reply) -> None:
            self._conversations.remember(messages, reply.text, name)

        return Answer(
            self._assistant,
            self._traffic,
            messages,
            {**options, "timeout": self._settings.memory_timeout_s}
            | {"expert": expert, "conversation": name},
            bool(asked.stream),
            asked.include_usage,
            remember,
        )

    async def models(self) -> dict[str, Any]:
        names = ["coterie", *(f"coterie/{name}" for name in await self._experts())]
        return {"object": "list", "data": [self._model(name) for name in names]}

    async def model(self, model: str) -> dict[str, Any]:
        expert_of(model, await self._experts())
        return self._model(model)

    async def route(self, request: Request) -> dict[str, Any]:
        text = RouteRequest.model_validate_json(await request.body()).text()
        route = await anyio.to_thread.run_sync(self._assistant.route, text)
        return route_fields(route)

    async def feedback(self, request: Request) -> dict[str, str]:
        said = FeedbackRequest.model_validate_json(await request.body())
        call = functools.partial(self._assistant.feedback, domain=said.domain)
        try:
            await anyio.to_thread.run_sync(call, said.id, said.given())
        except KeyError as error:
            raise ApiError(404, sentence_of(error), "interaction_not_found", "id") from None
        return {"id": said.id, "feedback": said.feedback}

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def metrics(self) -> PlainTextResponse:
        stats = await anyio.to_thread.run_sync(self._assistant.stats)
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(self._traffic.metrics(stats), media_type=kind)

    async def stats(self) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(self._assistant.stats)

    async def _experts(self) -> list[str]:
        experts = await anyio.to_thread.run_sync(self._assistant.experts)
        return [str(expert["name"]) for expert in experts]

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "coterie"}


def make_application(assistant: Assistant, settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    endpoints = Endpoints(assistant, settings)
    app = FastAPI(title="coterie", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        Guard,
        api_key=settings.api_key,
        hosts=settings.hosts,
        origins=settings.origins,
        max_body_bytes=settings.max_body_bytes,
    )
    add = functools.partial(app.add_api_route, response_model=None)
    add("/v1/chat/completions", endpoints.chat, methods=["POST"])
    add("/v1/models", endpoints.models, methods=["GET"])
    add("/v1/models/{model:path}", endpoints.model, methods=["GET"])
    add("/v1/route", endpoints.route, methods=["POST"])
    add("/v1/feedback", endpoints.feedback, methods=["POST"])
    add("/v1/stats", endpoints.stats, methods=["GET"])
    add("/health", endpoints.health, methods=["GET"])
    add("/metrics", endpoints.metrics, methods=["GET"])
    # Named one by one: what only Exception matches is logged as a defect.
    for kind in (ApiError, Error, LookupError, MemoryError, OSError, ValueError, Exception):
        app.add_exception_handler(kind, _failure)
    app.add_exception_handler(HTTPException, _http_failure)
    return app


async def _failure(request: Request, error: Exception) -> JSONResponse:
    return api_error_of(error).response()


async def _http_failure(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    said = {404: f"there is nothing at {path[:100]}", 405: f"{path[:100]} has no {request.method}"}
    return ApiError(status, said.get(status, "the request failed")).response()

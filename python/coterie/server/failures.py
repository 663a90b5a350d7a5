"""Failures as OpenAI's error objects: {"error": {message, type, param, code}} and a status."""

from __future__ import annotations

import logging
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from coterie.errors import Busy, Error, sentence_of

_log = logging.getLogger("coterie.server")


class ApiError(Exception):
    """An answer that is an error. Clients try 429 and 5xx again by themselves, the rest not."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind

    def body(self) -> dict[str, Any]:
        fields = {"type": self.kind, "param": self.param, "code": self.code}
        return {"error": {"message": self.message, **fields}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(self.body(), self.status, headers)


def api_error_of(error: Exception) -> ApiError:
    """The answer to an exception of the assistant. What nobody expected is logged, not shown."""
    sentence = sentence_of(error)
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, Error) and error.code == "out_of_range":
        return ApiError(400, sentence, "context_length_exceeded", "messages")
    if isinstance(error, (Busy, TimeoutError)):
        return ApiError(503, sentence, "busy", kind="server_error")
    if isinstance(error, MemoryError):
        # Never fits: trying again is in vain, so it is no 5xx.
        return ApiError(422, sentence, "memory_budget_exceeded")
    if isinstance(error, KeyError):
        return ApiError(404, sentence, "model_not_found", "model")
    if isinstance(error, ValueError):
        return ApiError(400, sentence, "invalid_value")
    if isinstance(error, (Error, OSError)):
        return ApiError(500, sentence, getattr(error, "code", None), kind="server_error")
    _log.error("unexpected failure", exc_info=error)
    return ApiError(500, "coterie failed inside; its log says more", kind="server_error")


def unknown_model(model: str) -> ApiError:
    return ApiError(
        404,
        f'there is no model "{model[:100]}": use "coterie", or "coterie/EXPERT" with an expert '
        "that /v1/models lists",
        "model_not_found",
        "model",
    )


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, "invalid_value", param)

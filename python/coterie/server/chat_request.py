"""The body of POST /v1/chat/completions, read strictly where meaning depends on it.

Fields that change an answer and are not supported are refused rather than ignored; fields that only
describe the caller (user, metadata, ...) are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coterie.protocol import Message
from coterie.server.failures import ApiError, unknown_model

MAX_MESSAGES = 4096
_MAX_TOKENS = 1 << 20
_Count = Annotated[int, Field(ge=1, le=_MAX_TOKENS, strict=True)]
_Flag = Annotated[bool, Field(strict=True)]


class _Part(BaseModel):
    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    def plain(self) -> Message:
        content = self.content
        if not isinstance(content, str):
            for part in content:
                if part.type != "text" or part.text is None:
                    raise ApiError(
                        400,
                        f'a content part of type "{part.type[:40]}" is not supported: only "text"',
                        "unsupported_content",
                        "messages",
                    )
            content = "".join(part.text or "" for part in content)
        # "developer" is the newer name of the same thing; templates know the older.
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class _StreamOptions(BaseModel):
    include_usage: _Flag = False


class _ResponseFormat(BaseModel):
    type: str = "text"


class _Extension(BaseModel):
    model_config = ConfigDict(extra="forbid")
    conversation: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class ChatRequest(BaseModel):
    """A request whose every number is in range. plan() is what the assistant is asked."""

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 20, strict=True)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63, strict=True)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: _Flag | None = None
    stream_options: _StreamOptions | None = None
    logprobs: _Flag | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    n: Annotated[int, Field(ge=1, le=128, strict=True)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: _ResponseFormat | None = None
    store: _Flag | None = None
    coterie: _Extension = _Extension()

    @field_validator("stop")
    @classmethod
    def _stop_says_something(cls, stop: str | list[str] | None) -> str | list[str] | None:
        strings = [stop] if isinstance(stop, str) else stop or []
        if any(not 1 <= len(one) <= 1000 for one in strings):
            raise ValueError("a stop string has 1 to 1000 characters")
        return stop

    @model_validator(mode="after")
    def _nothing_is_ignored_silently(self) -> ChatRequest:
        unsupported = {
            "n": self.n not in (None, 1),
            "frequency_penalty": bool(self.frequency_penalty),
            "presence_penalty": bool(self.presence_penalty),
            "logit_bias": bool(self.logit_bias),
            "tools": bool(self.tools),
            "functions": bool(self.functions),
            "response_format": self.response_format is not None
            and self.response_format.type != "text",
        }
        for name, asked in unsupported.items():
            if asked:
                raise ValueError(f"{name} is not supported by this server; leave it out")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def plain_messages(self) -> list[Message]:
        return [message.plain() for message in self.messages]

    def options(self, default_max_tokens: int) -> dict[str, Any]:
        """Keyword arguments of Assistant.stream; what was not asked keeps the expert's default."""
        given = {
            "max_tokens": self.max_completion_tokens or self.max_tokens or default_max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "seed": None if self.seed is None else self.seed % (1 << 63),
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
            "log": None if self.store is None else self.store,
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
        }
        return {name: value for name, value in given.items() if value is not None}


def expert_of(model: str, known: list[str]) -> str | None:
    """None for "coterie", which chooses by itself; the expert's name otherwise."""
    if model == "coterie":
        return None
    prefix, slash, name = model.partition("/")
    if prefix != "coterie" or not slash or name not in known:
        raise unknown_model(model)
    return name

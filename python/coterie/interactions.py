"""What was asked and answered on this machine, and what the user said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from coterie import _coterie
from coterie.native import Native

Verdict = Literal["none", "accepted", "rejected", "edited"]


@dataclass(frozen=True)
class Interaction:
    """One prompt with its answer.

    messages: as the expert read them, its system prompt included. domain, confidence, reason: the
    router's; empty for an expert asked for by name. feedback: "none", "accepted", "rejected" or
    "edited", and then edit is the better text. right_domain: where the prompt belongs, if the
    router was corrected.
    """

    id: str
    time: datetime
    conversation: str
    messages: list[dict[str, Any]]
    reply: str
    expert: str
    base: str
    adapter: str
    domain: str
    confidence: float
    reason: str
    finish_reason: str
    feedback: Verdict
    edit: str | None
    right_domain: str | None
    feedback_time: datetime | None

    @property
    def asked(self) -> str:
        """The last message of the user."""
        users = [message["content"] for message in self.messages if message["role"] == "user"]
        return str((users or [self.messages[-1]["content"]])[-1])

    def fields(self) -> dict[str, Any]:
        """As JSON takes it; times in ISO 8601."""
        row = asdict(self)
        for name in ("time", "feedback_time"):
            row[name] = row[name].isoformat() if row[name] else None
        return row


def _interaction(fields: dict[str, Any]) -> Interaction:
    given = fields["feedback_time"]
    messages = [
        {"role": one["role"], "content": one["content"], **json.loads(one.get("fields", "{}"))}
        for one in fields["messages"]
    ]
    return Interaction(
        **{
            **fields,
            "time": datetime.fromtimestamp(fields["time"], UTC),
            "messages": messages,
            "feedback_time": None if given is None else datetime.fromtimestamp(given, UTC),
        }
    )


class InteractionLog(Native[_coterie.InteractionLog]):
    """The log of a store or a coterie.toml; needs no model. Thread-safe, also against other
    processes. Feedback is given to the assistant, which learns from it: Assistant.feedback."""

    @classmethod
    def open(
        cls,
        config: str | os.PathLike[str] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
    ) -> InteractionLog:
        """coterie.Error ("failed_precondition") if none is kept, or its key is missing; OSError for
        a damaged file."""
        return cls(
            _coterie.InteractionLog.open(
                None if config is None else os.fspath(config),
                home=None if home is None else os.fspath(home),
            )
        )

    def list(
        self,
        *,
        expert: str | None = None,
        with_feedback: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Interaction]:
        """Interactions in the order in which they were logged."""
        rows = self._native.list(
            expert=expert or "",
            with_feedback=with_feedback,
            newest_first=newest_first,
            limit=limit or 0,
        )
        return [_interaction(row) for row in rows]

    def get(self, id: str, /) -> Interaction:
        """KeyError if there is none, or none any more."""
        return _interaction(self._native.get(id))

    def forget(self, id: str, /) -> None:
        """Erases one; with a key, also its key, so that copies of the file cannot be read either.
        Assistant.forget also undoes what the router learned from it and drops what is kept of
        prompts."""
        self._native.forget(id)

    def __iter__(self) -> Iterator[Interaction]:
        return iter(self.list())

    @property
    def path(self) -> str:
        """Where the file lies."""
        return self._native.path

    @property
    def encrypted(self) -> bool:
        """Whether what was written is sealed under a key."""
        return self._native.encrypted

    @property
    def used_bytes(self) -> int:
        """Of the file; log_bytes in the configuration bounds them."""
        return self._native.used_bytes()

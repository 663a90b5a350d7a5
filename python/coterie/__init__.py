"""A small company of expert language models on one machine.

    import coterie

    assistant = coterie.Assistant.open()
    reply = assistant.generate("How do I reverse a list in Python?")
    print(reply.expert, reply.text)

Importing this package opens nothing; the compiled part is loaded with the first name that needs it,
so that `coterie pull` works, and works at once, without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coterie.errors import Busy, Error

if TYPE_CHECKING:
    from coterie.assistant import Assistant, Reply, ReplyStream, Route
    from coterie.expert import Expert, inspect
    from coterie.router import DomainScores, Router

__version__ = "0.1.0"
__all__ = [
    "Assistant",
    "Busy",
    "DomainScores",
    "Error",
    "Expert",
    "Reply",
    "ReplyStream",
    "Route",
    "Router",
    "inspect",
]

_MODULE_OF = {
    "Assistant": "assistant",
    "Reply": "assistant",
    "ReplyStream": "assistant",
    "Route": "assistant",
    "Expert": "expert",
    "inspect": "expert",
    "DomainScores": "router",
    "Router": "router",
}


if not TYPE_CHECKING:  # Checkers know the names from above, and _coterie from its stub.

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'coterie' has no attribute '{name}'")
        try:
            module = importlib.import_module(f"coterie.{_MODULE_OF[name]}")
        except ImportError as error:
            raise ImportError(f"the compiled part of coterie is not installed: {error}") from error
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])

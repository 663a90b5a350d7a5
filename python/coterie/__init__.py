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
    Assistant: Any
    Expert: Any
    Router: Any
    inspect: Any

__version__ = "0.1.0"
__all__ = ["Assistant", "Busy", "Error", "Expert", "Router", "inspect"]

_COMPILED = ("Assistant", "Expert", "Router", "inspect")


def __getattr__(name: str) -> Any:
    if name not in _COMPILED:
        raise AttributeError(f"module 'coterie' has no attribute '{name}'")
    try:
        compiled = importlib.import_module("coterie._coterie")
    except ImportError as error:
        raise ImportError(f"the compiled part of coterie is not installed: {error}") from error
    return getattr(compiled, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_COMPILED])

"""A small company of expert language models on one machine.

    import coterie

    assistant = coterie.Assistant.open()
    reply = assistant.generate("How do I reverse a list in Python?")
    print(reply.expert, reply.text)

Importing this package opens nothing; the compiled part is loaded with the first name that needs it,
so that `coterie pull` works, and works at once, without it.
"""

from __future__ import annotations

from coterie.errors import Busy, Error

# typing is not imported: the command must be ready for Ctrl-C before anything takes time.
# Checkers know the name TYPE_CHECKING by itself.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from coterie.adapter import Adapter
    from coterie.assistant import Assistant, Options, Reply, ReplyStream, Route, Timings, Usage
    from coterie.expert import Expert, ExpertReply, inspect
    from coterie.interactions import Interaction, InteractionLog
    from coterie.protocol import Edited
    from coterie.router import DomainScores, Router
    from coterie.training import Trainer, TrainerOptions, TrainingOptions, TrainingReport

    __version__: str

__all__ = [
    "Adapter",
    "Assistant",
    "Busy",
    "DomainScores",
    "Edited",
    "Error",
    "Expert",
    "ExpertReply",
    "Interaction",
    "InteractionLog",
    "Options",
    "Reply",
    "ReplyStream",
    "Route",
    "Router",
    "Timings",
    "Trainer",
    "TrainerOptions",
    "TrainingOptions",
    "TrainingReport",
    "Usage",
    "inspect",
]

_MODULE_OF = {
    "Adapter": "adapter",
    "Assistant": "assistant",
    "Options": "assistant",
    "Reply": "assistant",
    "ReplyStream": "assistant",
    "Route": "assistant",
    "Timings": "assistant",
    "Usage": "assistant",
    "Expert": "expert",
    "ExpertReply": "expert",
    "inspect": "expert",
    "Edited": "protocol",
    "Interaction": "interactions",
    "InteractionLog": "interactions",
    "DomainScores": "router",
    "Router": "router",
    "Trainer": "training",
    "TrainerOptions": "training",
    "TrainingOptions": "training",
    "TrainingReport": "training",
}


if not TYPE_CHECKING:  # Checkers know the names from above, and _coterie from its stub.

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'coterie' has no attribute '{name}'")
        import importlib

        try:
            module = importlib.import_module(f"coterie.{_MODULE_OF[name]}")
        except ImportError as error:
            raise ImportError(f"the compiled part of coterie is not installed: {error}") from error
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF, "__version__"])


def _version() -> str:
    """The installed package's version; CMakeLists.txt has the number."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("coterie")
    except PackageNotFoundError:
        return "0+source"

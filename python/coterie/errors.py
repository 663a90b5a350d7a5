"""The exceptions of coterie that Python has no name for.

Statuses of the compiled part arrive as ValueError (a mistake of the caller), KeyError (no such
thing), MemoryError (never fits), TimeoutError, OSError (a damaged file), Busy (not now) and Error
(the rest).
"""

from __future__ import annotations

TYPE_CHECKING = False  # As in coterie/__init__.py.
if TYPE_CHECKING:
    from collections.abc import Iterable


class Error(Exception):
    """A failure in one sentence: what, where, what to do.

    code is one lower-case word such as "not_found", "data_loss", "unavailable", "out_of_range",
    for programs that choose by kind.
    """

    def __init__(self, message: str, code: str = "unknown") -> None:
        super().__init__(message)
        self.code = code


class Busy(Error):
    """Not now: the same call may succeed later."""

    def __init__(self, message: str, code: str = "unavailable") -> None:
        super().__init__(message, code)


def sentence_of(error: BaseException) -> str:
    """The message for a person: KeyError shows its key in quotes otherwise, OSError its number."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean "x"?" for a sentence about an unknown name, or ";" if none is near."""
    import difflib

    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ";"

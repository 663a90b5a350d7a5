"""What Assistant, Expert, Router and ReplyStream share: a compiled object behind them."""

from __future__ import annotations

import os
from typing import Any, Generic, NoReturn, TypeVar

from coterie.errors import Error

Core = TypeVar("Core")


class Native(Generic[Core]):
    """Holds a compiled object for the process that opened it.

    A compiled object has threads, which fork() does not copy: in a child process every use of it
    raises coterie.Error (code "failed_precondition") instead of waiting for them for ever. Opening
    another one there works.
    """

    def __init__(self, core: Core) -> None:
        self._core: Core | None = core
        self._process = os.getpid()

    @property
    def _native(self) -> Core:
        name = type(self).__name__
        if self._process != os.getpid():
            raise Error(
                f"this {name} was opened before fork() and cannot be used in the child process: "
                "open another one here, or start processes by multiprocessing's "
                '"spawn" method',
                "failed_precondition",
            )
        if self._core is None:
            raise Error(f"this {name} is closed", "failed_precondition")
        return self._core

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: open one in each process"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__reduce__()

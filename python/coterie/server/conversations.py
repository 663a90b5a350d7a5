"""Recognises a conversation that goes on, though every request stands alone.

Chat clients send the whole history each time. After an answer, the history with it is remembered by
its hash; a request that begins with exactly that history continues the conversation, and the router
can stay with its expert. Nothing of the text is kept.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence

from coterie.protocol import Message


class Conversations:
    """The latest few thousand histories. Thread-safe."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._names: OrderedDict[bytes, str] = OrderedDict()

    def name_of(self, messages: Sequence[Message]) -> str:
        """The name of the conversation that these messages continue, or a new one."""
        key = _hash(messages[:-1])
        with self._lock:
            if len(messages) > 1 and (name := self._names.get(key)):
                self._names.move_to_end(key)
                return name
        return uuid.uuid4().hex

    def remember(self, messages: Sequence[Message], answer: str, name: str) -> None:
        key = _hash([*messages, {"role": "assistant", "content": answer}])
        with self._lock:
            self._names[key] = name
            self._names.move_to_end(key)
            while len(self._names) > self._capacity:
                self._names.popitem(last=False)


def _hash(messages: Sequence[Message]) -> bytes:
    digest = hashlib.sha256()
    for message in messages:
        for text in (message["role"], message["content"].strip()):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()

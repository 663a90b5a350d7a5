"""The compiled part; private. coterie/{assistant,expert,router}.py give its names their types."""

from typing import Any

def __getattr__(name: str) -> Any: ...

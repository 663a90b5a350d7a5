"""The command: `coterie`, or python -m coterie."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def main() -> None:
    """Runs the command line and exits. Ctrl-C is one line and exit code 130, whenever it comes."""
    try:
        # An exception in the middle of an import can get lost; nothing is at stake yet.
        usual = signal.signal(signal.SIGINT, _leave)
    except ValueError:  # Not the main thread.
        usual = signal.default_int_handler
    from coterie.cli.main import run

    signal.signal(signal.SIGINT, usual)
    code = run(sys.argv[1:])
    if code == 130:
        # Work that Ctrl-C left behind may still hold a core for a moment: do not wait for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""The command: `coterie`, or python -m coterie."""

from __future__ import annotations

import os
import sys

# What `signal` is made of; `signal` itself takes milliseconds to import.
from _signal import SIG_IGN, SIGINT, default_int_handler, signal  # type: ignore[import-not-found]


def _leave(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def main() -> None:
    """Runs the command line and exits. Ctrl-C is one line and exit code 130, whenever it comes."""
    try:
        # An exception in the middle of an import can get lost; nothing is at stake yet.
        usual = signal(SIGINT, _leave)
    except ValueError:  # Not the main thread.
        usual = default_int_handler
    from coterie.cli.main import run

    signal(SIGINT, usual)
    code = run(sys.argv[1:])
    # The work is done and its exit code said: Ctrl-C while Python ends changes neither.
    signal(SIGINT, SIG_IGN)
    if code == 130:
        # Work that Ctrl-C left behind may still hold a core for a moment: do not wait for it.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()

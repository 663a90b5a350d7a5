"""Runs Python that a model wrote, in a process that can do little harm.

The process has an empty folder, no environment, no network (a network namespace of its own where
the kernel allows one), and limits on processor time, memory, files and processes; an audit hook
refuses sockets, other programs and writing to files. That contains accidents and
the usual mischief of generated code; it is no wall against an attack on the interpreter itself.
"""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CPU_SECONDS = 5
_MEMORY_BYTES = 1 << 30
_FILE_BYTES = 1 << 20

# Runs in the child before the code: after it, nothing leaves the folder and nothing is started.
_PREAMBLE = """\
import os, sys
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def _refuse(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.spawn", "os.posix_spawn",
                         "os.fork", "os.kill", "os.system", "ctypes.", "shutil.", "os.remove",
                         "os.rename", "os.link", "os.symlink", "os.chmod", "os.chown", "os.mkdir",
                         "os.rmdir", "os.truncate")):
        raise PermissionError(event + " is not allowed here")
    if event == "open" and args[2] & _WRITES:
        raise PermissionError("writing files is not allowed here")
sys.addaudithook(_refuse)
del _refuse
"""


def run_python(code: str, timeout_s: float = 8.0) -> tuple[bool, str]:
    """Runs code to its end. Returns whether it got there, and the end of what it printed.

    Code that exits before its last line has not got there, whatever its exit status.
    """
    end = secrets.token_hex(16)
    # Made before the fork: between fork and exec nothing may be imported or allocated freely.
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    with tempfile.TemporaryDirectory(prefix="coterie-code-") as folder:
        program = f"{_PREAMBLE}{code}\nprint({end!r})\n"
        Path(folder, "answer.py").write_text(program, encoding="utf-8")
        with Path(folder, "output").open("w+b") as output:  # _FILE_BYTES bounds what is printed.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "answer.py"],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _confine(unshare),
            )
            try:
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False, f"it did not end in {timeout_s:g} s"
            finally:
                _kill(process)
            output.seek(0)
            text = output.read()[-2000:].decode("utf-8", "replace").rstrip("\n")
    return status == 0 and text.endswith(end), text.removesuffix(end)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _confine(unshare: Callable[[int], int]) -> None:
    unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # Refused in some containers; the audit hook remains.
    for limit, value in (
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))

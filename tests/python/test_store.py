"""The store, adding files that are here already, and sizes."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from coterie.add import add
from coterie.byte_size import format_bytes, parse_bytes
from coterie.errors import Error
from coterie.progress import Silence
from coterie.store import ModelRecord, Store
from model_sources import CONTENT, sha256


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "My Model-Q4.gguf"
    path.write_bytes(CONTENT)
    return path


def add_now(what: object, **options: Any) -> ModelRecord:
    return add(str(what), Store(), Silence(), **options)


def test_a_file_is_registered_where_it_lies(model: Path) -> None:
    record = add_now(model)
    assert record.name == "my-model-q4"
    assert record.path == str(model)
    assert record.sha256 == sha256(CONTENT) and record.bytes == len(CONTENT)
    assert Store().records() == ([record], [])
    assert (Store().models / "my-model-q4.gguf").read_bytes() == CONTENT


def test_adding_twice_is_no_error_and_does_not_hash_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = add_now(model)
    monkeypatch.setattr("coterie.add.hash_file", lambda *_: pytest.fail("hashed again"))
    assert add_now(model) == record


def test_a_name_that_is_taken_needs_a_word(model: Path, tmp_path: Path) -> None:
    add_now(model)
    other = tmp_path / "other.gguf"
    other.write_bytes(CONTENT + b"x")
    with pytest.raises(Error, match="--name, or --replace"):
        add_now(other, name="my-model-q4")
    assert add_now(other, name="my-model-q4", replace=True).path == str(other)


def test_a_folder_with_one_model_is_that_model(model: Path) -> None:
    assert add_now(model.parent).path == str(model)


def test_a_folder_with_two_models_names_them(model: Path) -> None:
    (model.parent / "second.gguf").write_bytes(CONTENT)
    with pytest.raises(Error, match=r"holds 2 \.gguf files: .*second"):
        add_now(model.parent)


def write_folder(folder: Path, shards: dict[str, bytes]) -> Path:
    """A Hugging Face folder as far as the store looks at it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name, content in shards.items():
        (folder / name).write_bytes(content)
    if "model.safetensors" not in shards:
        index = {"weight_map": {f"tensor{i}": name for i, name in enumerate(shards)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_hugging_face_folder_is_a_model(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "My Model", {"model.safetensors": b"weights"})
    record = add_now(folder)
    assert (record.name, record.path, record.bytes) == ("my-model", str(folder), 7)
    assert Store().problem_of(record) is None
    assert not (Store().models / "my-model.gguf").exists()
    (folder / "config.json").write_text('{"changed": true}')
    os.utime(folder / "config.json", ns=(1, record.mtime_ns + 10**9))
    assert Store().problem_of(record) == "file has changed since it was added"
    assert add_now(folder, replace=True).sha256 != record.sha256


def test_shards_count_together_and_none_may_be_missing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", {"a.safetensors": b"123", "b.safetensors": b"45"})
    record = add_now(folder)
    assert record.bytes == 5
    (folder / "b.safetensors").unlink()
    assert Store().problem_of(record) == "file is missing"


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin", ".x.safetensors"])
def test_shards_of_another_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "m", {})
    index = {"weight_map": {"tensor": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Error, match="names files that are not beside it"):
        add_now(folder)


def test_parts_of_a_file_are_one_model(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        (tmp_path / f"m-{part:05}-of-00003.gguf").write_bytes(CONTENT)
    record = add_now(tmp_path, name="m")
    assert record.path == str(tmp_path / "m-00001-of-00003.gguf")
    assert record.bytes == 3 * len(CONTENT)
    assert not (Store().models / "m.gguf").exists()


def test_a_folder_in_the_hugging_face_cache_is_found_by_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--owner--repo"
    folder = write_folder(repo / "snapshots" / "abc", {"model.safetensors": b"weights"})
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    record = add_now("hf:owner/repo")
    assert (record.name, record.path) == ("repo", str(folder))


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 no model"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(Error, match="is no GGUF model file"):
        add_now(path)
    assert Store().records() == ([], [])


def test_a_file_that_the_reader_refuses_is_not_registered(model: Path) -> None:
    def inspect(path: str) -> dict[str, Any]:
        raise OSError(f"{path}: the header is cut off")

    with pytest.raises(Error, match=r"cannot be used: .*header is cut off"):
        add_now(model, inspect=inspect)
    assert Store().records() == ([], [])


def test_a_hub_cache_entry_is_found_by_its_reference(tmp_path: Path) -> None:
    repo = tmp_path / "hf" / "hub" / "models--owner--repo"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    (repo / "blobs").mkdir()
    (repo / "blobs" / "blob").write_bytes(CONTENT)
    (repo / "snapshots" / "abc123").mkdir(parents=True)
    os.symlink("../../blobs/blob", repo / "snapshots" / "abc123" / "Model.gguf")
    record = add_now("hf:owner/repo/Model.gguf")
    assert record.path == str(repo / "blobs" / "blob")
    assert (record.name, record.source) == ("model", "hf:owner/repo/Model.gguf")


@pytest.mark.parametrize("what", ["hf:owner/repo/absent.gguf", "ollama:absent", "/no/such/file"])
def test_what_is_not_there_is_said_with_its_path(what: str) -> None:
    with pytest.raises(Error, match="/") as caught:
        add_now(what)
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("what", ["hf:owner/repo/../../x", "hf:owner", "ollama:../x", "ollama:a b"])
def test_names_that_leave_a_cache_are_refused(what: str) -> None:
    with pytest.raises(ValueError, match="not"):
        add_now(what)


def ollama_manifest(tmp_path: Path, layers: list[dict[str, str]]) -> None:
    manifest = tmp_path / "ollama/manifests/registry.ollama.ai/library/tiny/1b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": layers}))


def test_an_ollama_model_is_its_weight_layer(tmp_path: Path) -> None:
    blob = tmp_path / "ollama/blobs" / f"sha256-{sha256(CONTENT)}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    digest = f"sha256:{sha256(CONTENT)}"
    kind = "application/vnd.ollama.image."
    license_layer = {"mediaType": kind + "license", "digest": "sha256:0"}
    ollama_manifest(tmp_path, [license_layer, {"mediaType": kind + "model", "digest": digest}])
    record = add_now("ollama:tiny:1b")
    assert (record.name, record.path, record.sha256) == ("tiny-1b", str(blob), sha256(CONTENT))


def test_a_hostile_ollama_digest_leads_nowhere(tmp_path: Path) -> None:
    digest = "sha256:../../../etc/passwd"
    kind = "application/vnd.ollama.image.model"
    ollama_manifest(tmp_path, [{"mediaType": kind, "digest": digest}])
    with pytest.raises(Error, match="manifest"):
        add_now("ollama:tiny:1b")


def test_a_file_that_changed_after_it_was_added_is_noticed(model: Path) -> None:
    record = add_now(model)
    assert Store().problem_of(record) is None
    model.write_bytes(CONTENT[::-1])
    os.utime(model, ns=(1, 1))
    assert Store().problem_of(record) == "file has changed since it was added"
    model.unlink()
    assert Store().problem_of(record) == "file is missing"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot read"),
        ("[]", "not a JSON object"),
        ('{"name": "bad"}', "is missing"),
        ('{"name":"x","path":"p","sha256":"%s","bytes":1}' % ("0" * 64), "names itself"),
        ('{"name":"bad","path":"p","sha256":"q","bytes":1}', "cannot be right"),
        ('{"name":"bad","path":7,"sha256":"q","bytes":1}', "path is not a string"),
    ],
)
def test_a_damaged_record_is_named_and_hides_no_other(
    model: Path, text: str, complaint: str
) -> None:
    record = add_now(model)
    (Store().models / "bad.json").write_text(text)
    records, problems = Store().records()
    assert records == [record]
    assert len(problems) == 1 and "bad.json" in problems[0] and complaint in problems[0]


def test_a_pipe_among_the_records_is_named_and_not_waited_for(model: Path) -> None:
    record = add_now(model)
    os.mkfifo(Store().models / "bad.json")
    records, problems = Store().records()
    assert records == [record]
    assert len(problems) == 1 and "not a regular file" in problems[0]


def version(n: int) -> ModelRecord:
    """A record whose fields all say which version it is; long enough to be torn."""
    return ModelRecord("model", f"blobs/{n}", str(n) * 64, n, license=str(n) * 40_000)


def test_a_disk_without_room_keeps_the_old_record_and_nothing_beside() -> None:
    Store().write(version(1))
    # The limit on a file's size stands in for a full disk; Python ignores its signal.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError):
            Store().write(version(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Store().records() == ([version(1)], [])
    assert sorted(os.listdir(Store().models)) == ["model.gguf", "model.json"]


def test_a_killed_writer_leaves_a_whole_record() -> None:
    Store().write(version(1))
    for kill in range(10):
        child = os.fork()
        if child == 0:
            try:
                for n in itertools.cycle((2, 3)):
                    Store().write(version(n))
            finally:
                os._exit(1)
        time.sleep(0.005 * kill)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        records, problems = Store().records()
        assert not problems and records[0] in (version(1), version(2), version(3))


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("2GiB", 2 << 30), ("500 MB", 500_000_000), ("1.5gb", 1_500_000_000), ("4096", 4096)],
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "-1", "2 bananas", "1e9", "nan", "99999999 TiB", "0x10", "٣MB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more bytes"):
        parse_bytes(text)


def test_sizes_are_shown_in_decimal_units() -> None:
    assert [format_bytes(n) for n in (0, 999, 1500, 98362432, 491400064, 2.5e9)] == [
        "0 bytes", "999 bytes", "1.5 kB", "98.4 MB", "491 MB", "2.5 GB",
    ]  # fmt: skip

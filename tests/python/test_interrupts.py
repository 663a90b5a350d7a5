"""Ctrl-C at any moment: the call ends at once, and what it was called on goes on working."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer

coterie = pytest.importorskip("coterie")

MODEL = "smollm2-135m"
LONG = "Tell me more about the history of the bicycle. " * 50
PROMPT_S = 0.5
# The command as the `coterie` script runs it, saying first that Python is there.
COMMAND = "import os; os.write(1, b'!'); from coterie.__main__ import main; main()"


def interrupted_after(delay_s: float, call: Callable[[], Any]) -> float | None:
    """Seconds from SIGINT to KeyboardInterrupt; None if the call ended before."""
    sent = [0.0]

    def send() -> None:
        sent[0] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay_s, send)
    try:
        timer.start()
        call()
        timer.cancel()
        timer.join()  # A signal that was under way arrives here.
        time.sleep(0.001)
    except KeyboardInterrupt:
        timer.join()
        return time.monotonic() - sent[0]
    return None


def assert_prompt(call: Callable[[], Any], n_times: int = 5) -> None:
    """Interrupts a call of at least a few hundred milliseconds at random moments."""
    random_moments = random.Random(7)
    begin = time.monotonic()
    call()
    whole_s = time.monotonic() - begin
    took = [
        interrupted_after(random_moments.random() * whole_s * 0.8, call) for _ in range(n_times)
    ]
    caught = [seconds for seconds in took if seconds is not None]
    assert len(caught) >= n_times // 2, "the call ended before the signal came"
    # The machine may be busy: one late answer proves nothing, most of them do.
    assert statistics.median(caught) < PROMPT_S, caught


def test_fitting_and_measuring_a_router_stop_at_once() -> None:
    rows = [(f"word{i % 997} sort list number {i} in python", f"l{i % 6}") for i in range(3000)]
    router = coterie.Router.fit(rows[:600])
    before = router.classify("sort the list").probabilities
    assert_prompt(lambda: coterie.Router.fit(rows))
    assert_prompt(lambda: router.evaluate(rows * 3))
    assert router.classify("sort the list").probabilities == before


@pytest.mark.model
def test_an_assistant_is_as_before_after_any_number_of_interruptions() -> None:
    assistant = coterie.Assistant.open(threads=2)
    settings: dict[str, Any] = {"expert": MODEL, "temperature": 0}
    before = assistant.generate("Count to ten.", max_tokens=16, **settings).text
    assert_prompt(lambda: assistant.generate(LONG, max_tokens=40, **settings))
    assert_prompt(lambda: assistant.stream(LONG, max_tokens=40, **settings).reply, n_times=3)
    assert assistant.generate("Count to ten.", max_tokens=16, **settings).text == before
    assert all(expert["leases"] == 0 for expert in assistant.stats()["experts"])


@pytest.mark.model
def test_opening_an_assistant_stops_at_once_and_works_the_next_time() -> None:
    for delay_s in (0.0, 0.01, 0.03, 0.1):
        interrupted_after(delay_s, coterie.Assistant.open)
    assert coterie.Assistant.open().route("hello").expert


@pytest.mark.model
def test_logits_stop_between_two_layers() -> None:
    from coterie.store import Store

    store = Store()
    record = store.find(MODEL)
    assert record is not None, f"coterie pull {MODEL}"
    expert = coterie.Expert.open(store.path_of(record), threads=2)
    ids = expert.tokenizer.encode(LONG)[:400]
    assert_prompt(lambda: expert.logits(ids))
    assert expert.logits(ids[:3]).shape[0] == 3


def start(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    assert process.stdout is not None and process.stdout.read(1) == b"!"
    return process


def assert_command_stops(arguments: list[str], longest_s: float, n_times: int = 5) -> None:
    """SIGINT at random moments of a command's life, its imports included."""
    moments = random.Random(11)
    took = []
    for _ in range(n_times):
        process = start(arguments)
        time.sleep(moments.random() * longest_s)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=20)
        if process.returncode == 0:
            continue  # It was done already.
        took.append(time.monotonic() - begin)
        text = errors.decode()
        assert process.returncode == 130, text
        assert text.splitlines()[-1].startswith("error: interrupted"), text
        assert "Traceback" not in text and "Exception ignored" not in text, text
    assert took and statistics.median(took) < PROMPT_S, took


def rows_file(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    rows = [{"text": f"w{i % 997} sort list {i}", "label": f"l{i % 6}"} for i in range(20_000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_commands_stop_while_they_are_imported() -> None:
    assert_command_stops(["--help"], longest_s=0.15)


def test_a_command_that_is_done_keeps_its_exit_code_while_python_takes_itself_down() -> None:
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT); "
    process = subprocess.run(
        [sys.executable, "-c", late + COMMAND, "--version"], capture_output=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, b"")


def test_a_fit_stops_and_leaves_no_file(tmp_path: Path) -> None:
    output = tmp_path / "mine.gguf"
    fit = ["router", "fit", str(rows_file(tmp_path)), "-o", str(output)]
    assert_command_stops(fit, longest_s=1.0)
    assert list(tmp_path.glob("*.gguf*")) in ([], [output])


@pytest.mark.parametrize("behaviour", ["slow", "hang"])
def test_a_pull_stops_and_goes_on_where_it_stopped(
    behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"GGUF" + bytes(3_000_000)
    digest = hashlib.sha256(content).hexdigest()
    entry = {"name": "tiny", "file": "m.gguf", "license": "MIT", "bytes": len(content)}
    entry |= {"sha256": digest, "wheels": [], "hf": {"repo": "o/r", "file": "m.gguf"}}
    manifest = tmp_path / "list.json"
    manifest.write_text(json.dumps({"models": [entry]}))
    server = FileServer()
    try:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.files["/o/r/resolve/main/m.gguf"] = content
        server.behaviours["/o/r/resolve/main/m.gguf"] = [behaviour] * 3
        pull = ["pull", "tiny", "--manifest", str(manifest)]
        assert_command_stops(pull, longest_s=1.0, n_times=3)
        server.behaviours.clear()
        process = start([*pull, "--json"])
        output, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert json.loads(output)[0]["source"] in ("hf", "store")
    finally:
        server.stop()


def test_a_simulation_stops() -> None:
    bases = ["--base", "a=100MB@1", "--base", "b=100MB@1", "--base", "c=100MB@1"]
    requests = ["--workload", "zipf", "--requests", "300000"]
    assert_command_stops(["simulate", *requests, *bases], longest_s=2.0, n_times=3)


@pytest.mark.model
def test_an_answer_stops_while_it_is_loaded_read_and_written() -> None:
    assert_command_stops(["run", LONG, "--expert", MODEL, "--max-tokens", "500"], longest_s=2.0)


@pytest.mark.model
def test_a_server_stops_with_an_answer_on_its_way(tmp_path: Path) -> None:
    import httpx

    process = start(["serve", "--port", "0", "--json"])
    assert process.stdout is not None
    url = json.loads(
        process.stdout.readline() + process.stdout.readline() + process.stdout.readline()
    )["url"]
    body = {
        "model": f"coterie/{MODEL}",
        "messages": [{"role": "user", "content": LONG}],
        "max_tokens": 4000,
        "stream": True,
    }
    with (
        pytest.raises(httpx.HTTPError),
        httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        for _ in lines:
            pass
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begin < 4 * PROMPT_S
    assert process.returncode == 130, errors
    assert errors.decode().splitlines()[-1].startswith("error: interrupted")


@pytest.mark.model
def test_a_chat_loses_the_answer_and_goes_on() -> None:
    process = start(["chat", "--expert", MODEL, "--max-tokens", "2000"], stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"Write a very long story about a dog.\n")
    process.stdin.flush()
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(b"/stats\n/quit\n", timeout=30)
    assert process.returncode == 0, errors
    assert "stopped" in errors.decode() and MODEL in output.decode()

"""The server on a real socket: the openai client, disconnects, and the port."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from coterie.cli.main import run
from coterie.errors import Error
from coterie.server.application import Settings, make_application
from coterie.server.listening import check_exposure, listen, make_server, url_of
from fake_assistant import FakeAssistant
from fastapi import FastAPI

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def assistant() -> FakeAssistant:
    return FakeAssistant()


@contextlib.contextmanager
def serving(application: FastAPI) -> Iterator[str]:
    sock = listen("127.0.0.1", 0)
    server = make_server(application)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    eventually(lambda: server.started)
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def url(assistant: FakeAssistant) -> Iterator[str]:
    with serving(make_application(assistant, Settings(max_active=2))) as place:
        yield place
        assistant.released.set()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=9) as client:
        yield client


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_openai_client_reads_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="coterie", messages=HELLO)
    assert answer.choices[0].message.content == "Hello, wörld!"
    assert answer.usage is not None and answer.usage.total_tokens == 10
    assert answer.model_extra is not None
    assert answer.model_extra["coterie"]["expert"] == "coder"


def test_the_openai_client_reads_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="coterie", messages=HELLO, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == "Hello, wörld!"


def test_the_openai_clients_own_accumulation_agrees(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    with client.chat.completions.stream(
        model="coterie", messages=HELLO, stream_options=options, logprobs=True, top_logprobs=1
    ) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "Hello, wörld!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens == 3
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and len(logprobs.content) == 3


def test_the_openai_client_lists_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["coterie", "coterie/small", "coterie/coder"]


def test_the_openai_client_raises_its_own_errors(
    client: openai.OpenAI, assistant: FakeAssistant
) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assistant.fail_after, assistant.failure = 0, Error("9000 > 2048 tokens", "out_of_range")
    with pytest.raises(openai.BadRequestError, match="9000 > 2048") as caught:
        client.chat.completions.create(model="coterie", messages=HELLO)
    assert caught.value.code == "context_length_exceeded"


def test_an_error_amid_a_stream_reaches_the_openai_client(
    client: openai.OpenAI, assistant: FakeAssistant
) -> None:
    assistant.fail_after = 1
    stream = client.chat.completions.create(model="coterie", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="broken"):
        list(stream)


def test_words_reach_the_client_as_they_are_written(
    client: openai.OpenAI, assistant: FakeAssistant
) -> None:
    assistant.free_pieces = 1
    stream = client.chat.completions.create(model="coterie", messages=HELLO, stream=True)
    next(stream)
    assert next(stream).choices[0].delta.content == "Hello"
    assistant.released.set()
    assert "".join(c.choices[0].delta.content or "" for c in stream) == ", wörld!"


def test_a_client_that_leaves_ends_the_stream(
    client: openai.OpenAI, assistant: FakeAssistant
) -> None:
    assistant.free_pieces = 1
    stream = client.chat.completions.create(model="coterie", messages=HELLO, stream=True)
    next(stream)
    stream.close()
    eventually(lambda: assistant.streams[0].closed.is_set())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_word_ends_the_answer(
    url: str, assistant: FakeAssistant, stream: bool
) -> None:
    assistant.free_pieces = 0
    body = {"model": "coterie", "messages": HELLO, "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=0.3)
    eventually(lambda: assistant.streams[0].closed.is_set())
    assert "coterie_cancelled_total 1" in httpx.get(f"{url}/metrics").text


def test_more_answers_than_allowed_are_refused_at_once(url: str, assistant: FakeAssistant) -> None:
    assistant.free_pieces = 0
    body = {"model": "coterie", "messages": HELLO}
    held: list[int] = []

    def ask() -> None:
        held.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=9).status_code)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(assistant.streams) == 2)
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=9)
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assistant.released.set()
    for thread in threads:
        thread.join()
    assert held == [200, 200]


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Error, match=f"port {port} on 127.0.0.1 is in use: .*--port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(Error, match="--api-key"):
        check_exposure(host, None)
    check_exposure(host, "key")
    check_exposure("127.0.0.1", None)


def test_the_stats_command_shows_what_a_running_server_holds(
    url: str, assistant: FakeAssistant, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["stats", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == assistant.stats()
    assert run(["stats", "--url", f"{url}/v1/"]) == 0
    shown = capsys.readouterr().out
    assert "98 MB of 2 GB used" in shown and "1 evictions" in shown
    assert any("small" in line and "resident" in line for line in shown.splitlines())


def test_the_stats_command_names_what_is_missing(
    assistant: FakeAssistant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # Is not asked.
    with listen("127.0.0.1", 0) as sock:
        free = url_of(sock)
    with serving(make_application(assistant, Settings(api_key="secret"))) as guarded:
        cases = [
            (free, 1, "start one with `coterie serve`"),
            (guarded, 1, "--api-key"),
            ("file:///etc/passwd", 2, "http://"),
        ]
        for place, code, what in cases:
            assert run(["stats", "--url", place]) == code
            said = capsys.readouterr()
            assert said.out == "" and said.err.count("\n") == 1 and what in said.err
        assert run(["stats", "--url", guarded, "--api-key", "secret"]) == 0

"""The server through HTTP, with an assistant that has no models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from coterie.errors import Busy, Error
from coterie.server.application import Settings, make_application
from fake_assistant import FakeAssistant
from fastapi.testclient import TestClient
from httpx import Response

URL = "http://127.0.0.1:8808"
HELLO = {"model": "coterie", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def assistant() -> FakeAssistant:
    return FakeAssistant()


@pytest.fixture
def client(assistant: FakeAssistant) -> Iterator[TestClient]:
    with connect(assistant) as client:
        yield client


def connect(assistant: FakeAssistant, **settings: Any) -> TestClient:
    return TestClient(make_application(assistant, Settings(**settings)), base_url=URL)


def chat(client: TestClient, **changes: Any) -> Response:
    return client.post("/v1/chat/completions", json={**HELLO, **changes})


def events(response: Response) -> list[Any]:
    parts = response.text.split("\n\n")
    assert parts.pop() == ""
    lines = [part.removeprefix("data: ") for part in parts]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error_of(response: Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return dict(error)


def test_an_answer_says_who_gave_it_and_why(client: TestClient) -> None:
    response = chat(client)
    answer = response.json()
    assert answer["object"] == "chat.completion" and answer["model"] == "coterie/coder"
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "Hello, wörld!", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"lookup_tokens": 2},
    }
    assert answer["coterie"]["expert"] == "coder" and answer["coterie"]["confidence"] == 0.9
    assert answer["coterie"]["loaded_ms"] == 120.0 and answer["coterie"]["reason"] == "code 0.90"
    assert response.headers["x-coterie-expert"] == "coder"


def test_a_streamed_answer_keeps_the_order_that_clients_rely_on(client: TestClient) -> None:
    response = chat(client, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = events(response)
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["delta"]["content"] for c in chunks[1:]] == ["Hello", ", wörld", "!"]
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks)
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1
    assert not any("usage" in chunk for chunk in [*chunks, last])


def test_usage_streams_only_when_asked_and_without_choices(client: TestClient) -> None:
    *_, usage, done = events(chat(client, stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]" and usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 10


def test_log_probabilities_come_with_bytes(client: TestClient) -> None:
    choice = chat(client, logprobs=True, top_logprobs=2).json()["choices"][0]
    first = choice["logprobs"]["content"][0]
    assert first["token"] == "Hello" and first["bytes"] == list(b"Hello")
    assert first["top_logprobs"][1] == {"token": "�", "bytes": [0xC3], "logprob": -9999.0}
    assert chat(client, logprobs=True).json()["choices"][0]["logprobs"]["content"]


def test_options_reach_the_assistant(client: TestClient, assistant: FakeAssistant) -> None:
    settings = {"max_tokens": 5, "max_completion_tokens": 9, "temperature": 0, "top_p": 0.5}
    chat(client, model="coterie/small", **settings, seed=-1, stop="END", user="someone")
    _, options = assistant.asked[0]
    assert options["max_tokens"] == 9 and options["temperature"] == 0 and options["top_p"] == 0.5
    assert options["expert"] == "small" and options["stop"] == ["END"]
    assert options["seed"] == 2**63 - 1


def test_content_parts_and_the_developer_role_are_understood(
    client: TestClient, assistant: FakeAssistant
) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat(
        client,
        messages=[{"role": "developer", "content": "brief"}, {"role": "user", "content": parts}],
    )
    messages, _ = assistant.asked[0]
    assert messages == [
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "ab"},
    ]


def test_a_history_that_goes_on_is_one_conversation(
    client: TestClient, assistant: FakeAssistant
) -> None:
    first = [{"role": "user", "content": "hi"}]
    answer = {"role": "assistant", "content": "Hello, wörld! "}
    chat(client, messages=first)
    chat(client, messages=[*first, answer, {"role": "user", "content": "more"}])
    chat(client, messages=first)
    names = [options["conversation"] for _, options in assistant.asked]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"model": 7}, "model"),
        ({"coterie": {"unknown": 1}}, "coterie.unknown"),
    ],
)
def test_a_value_out_of_range_is_named(
    client: TestClient, changes: dict[str, Any], param: str
) -> None:
    response = chat(client, **changes)
    assert response.status_code == 400
    assert (error_of(response)["param"] or "").startswith(param)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"logit_bias": {"5": 1}},
        {"response_format": {"type": "json_object"}},
        {"presence_penalty": 0.5},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_what_is_not_supported_or_makes_no_sense_is_refused_by_name(
    client: TestClient, assistant: FakeAssistant, changes: dict[str, Any]
) -> None:
    response = chat(client, **changes)
    assert response.status_code == 400
    assert next(iter(changes)) in error_of(response)["message"]
    assert assistant.asked == []


def test_pictures_are_refused_by_name(client: TestClient) -> None:
    content = [{"type": "image_url", "image_url": {"url": "http://x"}}]
    response = chat(client, messages=[{"role": "user", "content": content}])
    assert response.status_code == 400 and "image_url" in error_of(response)["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 400 and error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize("model", ["gpt-4", "coterie/", "coterie/absent", "small", ""])
def test_an_unknown_model_is_not_found(client: TestClient, model: str) -> None:
    response = chat(client, model=model)
    assert response.status_code == 404 and error_of(response)["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Error("prompt has 9000 tokens, the context 2048", "out_of_range"), 400,
         "context_length_exceeded"),
        (MemoryError("needs 5 GB, the budget is 1 GB"), 422, "memory_budget_exceeded"),
        (Busy("another load is running"), 503, "busy"),
        (TimeoutError("no memory in time"), 503, "busy"),
        (ValueError("text is not UTF-8"), 400, "invalid_value"),
        (OSError("file is cut off"), 500, None),
        (RuntimeError("secret detail"), 500, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_failures_before_the_first_word_have_a_status(
    client: TestClient,
    assistant: FakeAssistant,
    failure: Exception,
    status: int,
    code: str | None,
    stream: bool,
) -> None:
    assistant.fail_after, assistant.failure = 0, failure
    response = chat(client, stream=stream)
    assert response.status_code == status
    error = error_of(response)
    assert error["code"] == code
    assert ("secret" in error["message"]) is False
    assert ("Retry-After" in response.headers) is (status == 503)


def test_a_failure_amid_a_stream_is_an_event(client: TestClient, assistant: FakeAssistant) -> None:
    assistant.fail_after = 1
    response = chat(client, stream=True)
    last = events(response)[-1]
    assert response.status_code == 200 and last["error"]["message"] == "broken"


def test_an_answer_cut_by_the_context_says_so(client: TestClient, assistant: FakeAssistant) -> None:
    assistant.finish_reason = "context"
    answer = chat(client).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["coterie"]["finish_reason"] == "context"


def test_models_are_the_automatic_one_and_each_expert(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [m["id"] for m in listed["data"]] == ["coterie", "coterie/small", "coterie/coder"]
    assert all(m.keys() == {"id", "object", "created", "owned_by"} for m in listed["data"])
    assert client.get("/v1/models/coterie/small").json()["id"] == "coterie/small"
    assert error_of(client.get("/v1/models/x"))["code"] == "model_not_found"


def test_a_route_is_decided_without_an_answer(client: TestClient, assistant: FakeAssistant) -> None:
    route = client.post("/v1/route", json={"prompt": "sort a list"}).json()
    assert (route["expert"], route["confidence"], route["abstained"]) == ("coder", 0.9, False)
    assert assistant.asked == []
    assert client.post("/v1/route", json={"messages": HELLO["messages"]}).status_code == 200
    assert client.post("/v1/route", json={}).status_code == 400


def test_metrics_are_prometheus_text(client: TestClient) -> None:
    chat(client)
    lines = client.get("/metrics").text.splitlines()
    assert "coterie_answers_total 1" in lines and "coterie_cache_evictions_total 1" in lines
    assert 'coterie_expert_resident{expert="small"} 1' in lines
    assert "coterie_memory_budget_bytes 2000000000" in lines
    assert all(line.startswith(("# TYPE coterie_", "coterie_")) for line in lines)


def test_statistics_are_the_assistants_own(client: TestClient, assistant: FakeAssistant) -> None:
    assert client.get("/v1/stats").json() == assistant.stats()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8808", "127.0.0.1.evil.example", "", "localhost.:8808"]
)
def test_another_host_name_is_dns_rebinding(client: TestClient, host: str) -> None:
    response = client.get("/v1/models", headers={"Host": host})
    assert response.status_code == 403 and error_of(response)["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "localhost:8808", "[::1]:8808", "127.0.0.1"])
def test_this_machines_names_are_allowed(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000"])
def test_pages_of_other_sites_are_refused(
    client: TestClient, assistant: FakeAssistant, origin: str
) -> None:
    response = client.post("/v1/chat/completions", json=HELLO, headers={"Origin": origin})
    assert response.status_code == 403 and assistant.asked == []
    assert "access-control-allow-origin" not in response.headers


def test_the_servers_own_pages_and_allowed_ones_may_call(assistant: FakeAssistant) -> None:
    page = "http://localhost:3000"
    with connect(assistant, origins=(page,)) as client:
        assert client.get("/v1/models", headers={"Origin": URL}).status_code == 200
        response = client.get("/v1/models", headers={"Origin": page})
        assert response.headers["access-control-allow-origin"] == page
        preflight = client.options("/v1/chat/completions", headers={"Origin": page})
        assert preflight.status_code == 204
        assert "authorization" in preflight.headers["access-control-allow-headers"]


def test_a_key_is_asked_of_everything_but_health(assistant: FakeAssistant) -> None:
    with connect(assistant, api_key="secrét") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        wrong = client.get("/v1/models", headers={"Authorization": "Bearer secre"})
        assert wrong.status_code == 401 and error_of(wrong)["code"] == "invalid_api_key"
        right = client.get("/v1/models", headers={"Authorization": "Bearer secrét".encode()})
        assert right.status_code == 200


def test_a_form_cannot_post(client: TestClient, assistant: FakeAssistant) -> None:
    body = json.dumps(HELLO)
    response = client.post("/v1/chat/completions", content=body)
    assert response.status_code == 415 and assistant.asked == []


def test_a_large_body_is_refused_declared_or_not(assistant: FakeAssistant) -> None:
    with connect(assistant, max_body_bytes=1000) as client:
        long = {"messages": [{"role": "user", "content": "x" * 2000}]}
        assert chat(client, **long).status_code == 413

        def pieces() -> Iterator[bytes]:
            yield b"{"
            yield b" " * 2000

        headers = {"Content-Type": "application/json"}
        chunked = client.post("/v1/chat/completions", content=pieces(), headers=headers)
        assert chunked.status_code == 413 and error_of(chunked)["code"] == "request_too_large"


def test_unknown_paths_and_methods_are_error_objects(client: TestClient) -> None:
    assert error_of(client.get("/v1/nothing"))["message"] == "there is nothing at /v1/nothing"
    assert client.get("/v1/chat/completions").status_code == 405

"""The command and the server over the compiled part and a real model of the store."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

coterie = pytest.importorskip("coterie")
pytestmark = pytest.mark.model

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def assistant() -> Any:
    from coterie.store import Store

    if Store().find(MODEL) is None:
        pytest.fail(f"{MODEL} is not in the store: coterie pull {MODEL}")
    return coterie.Assistant.open(threads=2)


@pytest.fixture(scope="module")
def client(assistant: Any) -> Iterator[openai.OpenAI]:
    from coterie.server.application import make_application
    from coterie.server.listening import listen, make_server, url_of

    sock = listen("127.0.0.1", 0)
    server = make_server(make_application(assistant))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with openai.OpenAI(base_url=f"{url_of(sock)}/v1", api_key="none", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()
    sock.close()


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    settings = {"model": f"coterie/{MODEL}", "max_tokens": 12, "temperature": 0, **options}
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(messages=messages, **settings)


def test_eight_answers_at_once_are_those_of_each_alone(assistant: Any) -> None:
    prompts = [f"Tell me {n} things about the sea." for n in range(1, 9)]

    def ask_for(prompt: str, seed: int) -> Any:
        return assistant.generate(
            prompt, expert=MODEL, max_tokens=16 + seed, temperature=seed % 2, seed=seed, log=False
        )

    alone = [ask_for(prompt, seed) for seed, prompt in enumerate(prompts)]
    before = assistant.stats()["queue"]["shared_passes"]
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as threads:
        together = list(threads.map(ask_for, prompts, range(len(prompts))))
    assert assistant.stats()["queue"]["shared_passes"] > before
    for one, other in zip(alone, together, strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.usage == other.usage


def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI) -> None:
    whole = ask(client, "What is the capital of France?")
    streamed = ask(client, "What is the capital of France?", stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text and text == whole.choices[0].message.content
    assert whole.coterie["expert"] == MODEL and whole.usage.completion_tokens <= 12


def test_what_is_known_of_a_prompt_is_said_and_changes_no_answer(assistant: Any) -> None:
    rules = "Answer in one short sentence. Name your source. " * 20

    def answer(question: str, **options: Any) -> Any:
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": question}]
        return assistant.generate(
            messages, expert=MODEL, max_tokens=8, temperature=0, log=False, **options
        )

    first = answer("What is a river?")
    again = answer("What is a river?")
    other = answer("What is a lake?")
    whole = answer("What is a lake?", reuse=False)
    assert again.usage.cached_tokens == (again.usage.prompt_tokens - 1) // 64 * 64 > 0
    assert 0 < other.usage.cached_tokens <= again.usage.cached_tokens
    assert whole.usage.cached_tokens == 0
    assert (first.text, whole.text) == (again.text, other.text)
    assert again.timings.prefill_ms < first.timings.prefill_ms
    prefixes = assistant.stats()["prefixes"]
    assert prefixes["hits"] >= 2 and 0 < prefixes["bytes"] <= prefixes["max_bytes"]


def test_what_an_answer_repeats_is_looked_up_and_changes_nothing(assistant: Any) -> None:
    text = "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind at all. "

    def answer(**options: Any) -> Any:
        prompt = "Repeat this text word for word: " + text
        return assistant.generate(
            prompt, expert=MODEL, max_tokens=60, temperature=0, log=False, **options
        )

    with_lookup, without = answer(), answer(lookup=False)
    assert with_lookup.text == without.text
    assert with_lookup.usage.completion_tokens == without.usage.completion_tokens
    assert with_lookup.usage.lookup_tokens > 0 == without.usage.lookup_tokens
    lookup = assistant.stats()["lookup"]
    assert lookup["proposed_tokens"] >= lookup["lookup_tokens"] >= with_lookup.usage.lookup_tokens


def test_log_probabilities_are_of_the_tokens_written(client: openai.OpenAI) -> None:
    choice = ask(client, "Say hi.", logprobs=True, top_logprobs=2).choices[0]
    tokens = choice.logprobs.content
    written = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert written.startswith(choice.message.content)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def test_a_prompt_beyond_the_context_is_refused_with_the_counts(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "word " * 20_000)
    assert caught.value.code == "context_length_exceeded"
    assert any(word.isdigit() for word in caught.value.message.split())
    assert ask(client, "Say hi.").choices[0].message.content


def test_leaving_a_stream_gives_its_memory_back(client: openai.OpenAI, assistant: Any) -> None:
    stream = ask(client, "Count to a thousand.", stream=True, max_tokens=1000)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while any(expert["leases"] for expert in assistant.stats()["experts"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_command_answers_as_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from coterie.cli.main import run

    arguments = ["run", "Say hi.", "--expert", MODEL, "--max-tokens", "8", "--temperature", "0"]
    assert run([*arguments, "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["expert"] == MODEL and reply["text"]
    assert run(arguments) == 0
    assert capsys.readouterr().out.strip() == reply["text"].strip()


def test_a_budget_that_holds_no_expert_is_said_with_the_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from coterie.cli.main import run

    assert run(["run", "hi", "--memory-budget", "20MB"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "20000000" in error or "20 MB" in error


def test_text_that_is_no_unicode_is_refused_in_words(assistant: Any) -> None:
    undecodable = b"\xff\xfe".decode(errors="surrogateescape")
    with pytest.raises(ValueError, match="not valid UTF-8"):
        assistant.generate(undecodable, expert=MODEL)
    with pytest.raises(ValueError, match="not valid UTF-8"):
        assistant.route(undecodable)
    with pytest.raises(ValueError, match="not valid UTF-8"):
        coterie.Router.default().classify(undecodable)
    with pytest.raises(TypeError, match="dict"):
        assistant.generate([("user", "hi")])

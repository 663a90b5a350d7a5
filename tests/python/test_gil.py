"""Blocking calls let other Python threads run, and so does giving up what they made."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

coterie = pytest.importorskip("coterie")

MODEL = "smollm2-135m"
LONG = "Tell me more about the history of the bicycle. " * 60
ROWS = [(f"word{i % 97} sort list number {i} in python", f"label{i % 5}") for i in range(1500)]


@pytest.fixture(autouse=True)
def no_preemption() -> Iterator[None]:
    """A thread then runs only while the others give up the GIL of their own accord."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


def others_run_during(call: Callable[[], Any]) -> Any:
    """The result of the call; fails unless another thread ran meanwhile."""
    ticks = 0
    started, ended = threading.Event(), threading.Event()

    def tick() -> None:
        nonlocal ticks
        started.set()
        while not ended.is_set():
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    started.wait()
    before = ticks
    result = call()
    after = ticks
    ended.set()
    thread.join()
    assert after > before, "the call kept the GIL from beginning to end"
    return result


def test_the_check_notices_a_call_that_keeps_the_gil() -> None:
    with pytest.raises(AssertionError, match="kept the GIL"):
        others_run_during(lambda: sum(range(3_000_000)))


def test_routers_fit_classify_and_evaluate_without_the_gil() -> None:
    router = others_run_during(lambda: coterie.Router.fit(ROWS))
    others_run_during(lambda: router.evaluate(ROWS))
    default = others_run_during(coterie.Router.default)
    others_run_during(lambda: [default.classify(LONG) for _ in range(30)])
    others_run_during(lambda: default.correct("sort my socks by colour", "general"))


@pytest.mark.model
def test_an_assistant_opens_answers_and_drops_answers_without_the_gil() -> None:
    assistant = others_run_during(lambda: coterie.Assistant.open(threads=2))
    settings: dict[str, Any] = {"expert": MODEL, "temperature": 0}
    others_run_during(lambda: assistant.generate("Say hi.", max_tokens=8, **settings))
    stream = assistant.stream(LONG, max_tokens=200, **settings)
    others_run_during(lambda: next(stream))
    others_run_during(lambda: [next(stream) for _ in range(20)])
    stream.close()
    others_run_during(lambda: stream.reply)
    dropped = [assistant.stream(LONG, max_tokens=200, **settings)]
    time.sleep(0.05)
    others_run_during(dropped.clear)


@pytest.mark.model
def test_an_expert_opens_and_computes_without_the_gil() -> None:
    from coterie.store import Store

    store = Store()
    record = store.find(MODEL)
    assert record is not None, f"coterie pull {MODEL}"
    path = store.path_of(record)
    expert = others_run_during(lambda: coterie.Expert.open(path, threads=2))
    ids = expert.tokenizer.encode(LONG)
    logits = others_run_during(lambda: expert.logits(ids[:100]))
    assert logits.shape == (100, expert.tokenizer.n_vocab) and logits.dtype.name == "float32"
    others_run_during(lambda: expert.generate("Say hi.", max_tokens=8))


@pytest.mark.model
def test_two_threads_answer_on_two_experts_at_once() -> None:
    assistant = coterie.Assistant.open(threads=2, memory_budget="2GiB")
    there = {str(expert["name"]) for expert in assistant.experts()}
    names = [name for name in (MODEL, "qwen2.5-coder-0.5b") if name in there]
    asked = [names[i % len(names)] for i in range(4)]
    settings: dict[str, Any] = {"max_tokens": 12, "temperature": 0}
    alone = [assistant.generate("Count to ten.", expert=name, **settings).text for name in asked]
    together: list[Any] = [None] * len(asked)

    def answer(i: int) -> None:
        together[i] = assistant.generate("Count to ten.", expert=asked[i], **settings)

    threads = [threading.Thread(target=answer, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.text for reply in together] == alone
    assert [reply.expert for reply in together] == asked
    assert all(expert["leases"] == 0 for expert in assistant.stats()["experts"])

"""fork() and the end of the interpreter: one clear error or a clean end, and never a hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("coterie")

MODEL = "smollm2-135m"


def python(program: str) -> str:
    """What a program prints; it ends well, in time, and with nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stderr)
    return done.stdout


def in_child(what: str) -> str:
    """A program that forks, runs `what` in the child, and prints what it prints or raises."""
    return f"""
    import os, sys, coterie
    router = coterie.Router.default()
    router.classify("sort a list")
    {{before}}
    child = os.fork()
    if child == 0:
        try:
            print({what})
        except coterie.Error as error:
            print(error.code, error)
        del router
        sys.stdout.flush()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("parent:", router.classify("sort a list").domain)
    """


def test_a_router_from_before_a_fork_says_so_in_the_child() -> None:
    out = python(in_child("router.classify('sort a list').domain").replace("{before}", ""))
    assert "failed_precondition this Router was opened before fork()" in out
    assert out.endswith("parent: code\n")


def test_a_child_may_open_its_own() -> None:
    out = python(
        in_child("coterie.Router.default().classify('sort a list').domain").replace("{before}", "")
    )
    assert out == "code\nparent: code\n"


@pytest.mark.model
def test_an_assistant_from_before_a_fork_says_so_and_a_new_one_answers() -> None:
    before = "assistant = coterie.Assistant.open(); stream = assistant.stream('hi', max_tokens=500)"
    for use in ("assistant.generate('hi')", "assistant.stats()", "next(stream)", "stream.reply"):
        out = python(in_child(use).replace("{before}", before))
        assert "was opened before fork()" in out and "parent: code" in out
    new = f"coterie.Assistant.open().generate('Hi', expert={MODEL!r}, max_tokens=3).expert"
    assert python(in_child(new).replace("{before}", before)).startswith(f"{MODEL}\n")


@pytest.mark.model
def test_multiprocessing_works_by_fork_and_by_spawn() -> None:
    for method in ("fork", "spawn"):
        out = python(f"""
        import multiprocessing
        import coterie

        def main():
            assistant = coterie.Assistant.open()
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print(*pool.map(coterie_domain, ["sort a list in python"] * 4))

        def coterie_domain(text):
            return coterie.Router.default().classify(text).domain

        if {method!r} == "spawn":  # A program given by -c has no module to import from.
            import operator
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print(*pool.map(operator.methodcaller("upper"), ["code"] * 4))
        else:
            main()
        """)
        assert out.split() in (["code"] * 4, ["CODE"] * 4)


def test_compiled_objects_refuse_to_be_pickled_in_words() -> None:
    out = python("""
    import copy, pickle, coterie
    router = coterie.Router.fit([("a b", "x"), ("c d", "y")])
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        try:
            attempt(router)
        except TypeError as error:
            print(error)
    """)
    assert out.count("a Router cannot be pickled or copied: open one in each process") == 3


@pytest.mark.model
@pytest.mark.parametrize(
    "ending",
    [
        "",
        "del assistant",
        "raise SystemExit(0)",
        "import atexit; atexit.register(lambda: print(next(stream, '')[:0], end=''))",
        "import gc; gc.disable(); stream.cycle = stream; del stream, assistant",
        "sys.stdout.flush(); os._exit(0)",
    ],
)
def test_the_interpreter_ends_cleanly_with_a_stream_open(ending: str) -> None:
    python(f"""
    import os, sys, coterie
    assistant = coterie.Assistant.open()
    stream = assistant.stream("Tell me a story.", expert={MODEL!r}, max_tokens=2000)
    next(stream)
    {ending}
    """)


@pytest.mark.model
def test_the_interpreter_ends_cleanly_under_daemon_threads() -> None:
    for _ in range(2):
        python(f"""
        import threading, time, coterie
        assistant = coterie.Assistant.open()
        router = coterie.Router.default()

        def answer():
            while True:
                assistant.generate("Tell me a story.", expert={MODEL!r}, max_tokens=20)

        def classify():
            while True:
                router.classify("sort a list in python")

        def fit():
            coterie.Router.fit([(f"w{{i % 97}} a {{i}}", str(i % 3)) for i in range(4000)])

        for work in (answer, answer, classify, fit):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.4)
        """)


@pytest.mark.model
def test_closing_is_idempotent_and_said_afterwards() -> None:
    out = python(f"""
    import coterie
    with coterie.Assistant.open() as assistant:
        with assistant.stream("hi", expert={MODEL!r}, max_tokens=500) as stream:
            next(stream)
        stream.close()
        print(stream.reply.finish_reason)
    assistant.close()
    try:
        assistant.stats()
    except coterie.Error as error:
        print(error)
    """)
    assert out == "cancelled\nthis Assistant is closed\n"

"""Feedback: in the command, in a chat, over HTTP and in Python."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coterie.cli import options
from coterie.cli.main import run
from coterie.protocol import Edited
from coterie.server.application import make_application
from fake_assistant import FakeAssistant
from fastapi.testclient import TestClient

MODEL = "smollm2-135m"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAssistant:
    assistant = FakeAssistant()
    monkeypatch.setattr(options, "open_assistant", lambda *given: assistant)
    return assistant


def test_the_command_gives_feedback(command: Command, fake: FakeAssistant) -> None:
    assert command("feedback", "r-1", "good")[0] == 0
    assert command("feedback", "r-1", "bad", "--domain", "code")[0] == 0
    assert command("feedback", "r-1", "edit", "better")[0] == 0
    assert command("feedback", "r-1", "edit", "-", stdin="two\nlines\n")[0] == 0
    code, out, _ = command("feedback", "r-1", "none", "--json")
    assert code == 0 and json.loads(out) == {"id": "r-1", "feedback": "none", "domain": None}
    assert fake.said == [
        ("r-1", "accepted", None),
        ("r-1", "rejected", "code"),
        ("r-1", Edited("better"), None),
        ("r-1", Edited("two\nlines"), None),
        ("r-1", "none", None),
    ]


@pytest.mark.parametrize(
    "arguments",
    [("r-1", "great"), ("r-1", "good", "text"), ("r-1", "edit"), ("r-1",)],
)
def test_feedback_that_says_nothing_is_bad_usage(
    command: Command, fake: FakeAssistant, arguments: tuple[str, ...]
) -> None:
    code, out, err = command("feedback", *arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert fake.said == []


def test_an_unknown_answer_is_one_error(command: Command, fake: FakeAssistant) -> None:
    code, _, err = command("feedback", "absent", "good")
    assert code == 1 and err == 'error: no interaction has this id: "absent"\n'


def test_a_chat_takes_feedback_and_goes_on_from_the_edit(
    command: Command, fake: FakeAssistant
) -> None:
    lines = ["/good", "one", "/good", "/bad", "/edit Much better.", "two", "/new", "/bad"]
    _, _, err = command("chat", stdin="\n".join(lines))
    assert err.count("there is no answer yet") == 2
    assert [what for _, what, _ in fake.said] == ["accepted", "rejected", Edited("Much better.")]
    assert [m["content"] for m in fake.asked[1][0]] == ["one", "Much better.", "two"]


def test_an_answer_that_cannot_be_logged_is_said_once(
    command: Command, fake: FakeAssistant
) -> None:
    fake.log_failure = "this answer could not be logged: the disk is full"
    code, out, err = command("run", "hi")
    assert code == 0 and out == "Hello, wörld!\n" and err.count("the disk is full") == 1
    assert "disk" not in command("run", "hi")[2]


def test_answers_are_kept_unless_the_user_says_no(command: Command, fake: FakeAssistant) -> None:
    command("run", "hi")
    command("run", "hi", "--no-log")
    command("chat", "--no-log", stdin="hi\n")
    assert [given["log"] for _, given in fake.asked] == [True, False, False]


def test_the_server_takes_feedback(fake: FakeAssistant) -> None:
    client = TestClient(make_application(fake), base_url="http://127.0.0.1:1")
    body: dict[str, Any] = {"model": "coterie", "messages": [{"role": "user", "content": "hi"}]}
    answer = client.post("/v1/chat/completions", json={**body, "store": False}).json()
    assert fake.asked[0][1]["log"] is False
    said = {"id": answer["coterie"]["id"], "feedback": "edited", "text": "better"}
    assert client.post("/v1/feedback", json={**said, "domain": "code"}).status_code == 200
    assert fake.said == [("r-1", Edited("better"), "code")]
    missing = client.post("/v1/feedback", json={"id": "x", "feedback": "accepted"})
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "interaction_not_found"
    for wrong in ({"feedback": "edited"}, {"feedback": "great"}, {**said, "feedback": "accepted"}):
        assert client.post("/v1/feedback", json={"id": "r-1", **wrong}).status_code == 400


@pytest.fixture
def coterie() -> Any:
    return pytest.importorskip("coterie")


def test_an_empty_log_has_no_last_answer(
    command: Command, coterie: Any, fake: FakeAssistant
) -> None:
    code, _, err = command("interactions", "show", "last")
    assert code == 1 and err == "error: nothing has been logged yet: there is no last answer\n"
    assert command("feedback", "last", "good")[0] == 1
    assert command("interactions", "list", "--json")[1] == "[]\n"
    assert command("interactions", "forget")[0] == 2


def test_a_configuration_that_keeps_nothing_is_said(
    command: Command, coterie: Any, tmp_path: Path
) -> None:
    config = tmp_path / "coterie.toml"
    config.write_text("[learning]\nlog = false\n")
    code, _, err = command("interactions", "list", "--config", config)
    assert code == 1 and "set log = true under [learning]" in err and err.count("\n") == 1


@pytest.mark.model
def test_an_answer_is_logged_said_something_of_and_forgotten(
    command: Command, tmp_path: Path
) -> None:
    asked = ("run", "Say hi.", "--expert", MODEL, "--max-tokens", 4, "--temperature", 0)
    reply = json.loads(command(*asked, "--json")[1])
    assert command("feedback", "last", "edit", "Hi!")[0] == 0
    shown = json.loads(command("interactions", "show", "last", "--json")[1])
    assert (shown["id"], shown["reply"]) == (reply["id"], reply["text"])
    assert (shown["feedback"], shown["edit"]) == ("edited", "Hi!")
    assert shown["messages"][-1] == {"role": "user", "content": "Say hi."}
    assert "edited: Hi!" in command("interactions", "show", reply["id"])[1]
    assert "Say hi." in command("interactions", "list", "--with-feedback")[1]
    file = tmp_path / "mine.jsonl"
    assert command("interactions", "export", file)[0] == 0
    assert json.loads(file.read_text())["id"] == reply["id"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("interactions", "export", "-")[1] == file.read_text()
    assert command("interactions", "forget", "--all")[0] == 0
    assert command("interactions", "list", "--json")[1] == "[]\n"
    code, _, err = command("interactions", "show", reply["id"])
    assert code == 1 and "coterie interactions list" in err


@pytest.mark.model
def test_feedback_in_python(coterie: Any) -> None:
    with coterie.Assistant.open() as assistant:
        options = {"expert": MODEL, "max_tokens": 4, "temperature": 0}
        reply = assistant.generate("Say hi.", **options)
        unlogged = assistant.generate("Say hi.", **options, log=False)
        assistant.feedback(reply.id, coterie.Edited("Hi!"), domain="code")
        log = coterie.InteractionLog.open()
        [kept] = log.list(with_feedback=True)
        assert (kept.id, kept.edit, kept.right_domain) == (reply.id, "Hi!", "code")
        assert kept.feedback_time is not None and kept.feedback_time >= kept.time
        assistant.feedback(reply.id, "none")
        assert log.get(reply.id).feedback == "none"
        with pytest.raises(KeyError, match="no interaction has this id"):
            assistant.feedback(unlogged.id, "accepted")
        with pytest.raises(ValueError, match="needs the text"):
            assistant.feedback(reply.id, coterie.Edited(""))
        with pytest.raises(ValueError, match="the router has no domain 'cooking'"):
            assistant.feedback(reply.id, "rejected", domain="cooking")
        with pytest.raises(ValueError, match="accepted"):
            assistant.feedback(reply.id, "great")  # type: ignore[arg-type]
        assistant.forget(reply.id)
        assert list(log) == [] and not log.encrypted and log.used_bytes > 0

"""The command: results on stdout, one line of error on stderr, exit codes 0, 1, 2."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from coterie.cli import options
from coterie.cli.main import run
from coterie.errors import Error
from coterie.store import Store
from fake_assistant import FakeAssistant
from file_server import FileServer
from model_sources import CONTENT, sha256


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def coterie(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "400")

    def command(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command


@pytest.fixture
def assistant(monkeypatch: pytest.MonkeyPatch) -> FakeAssistant:
    fake = FakeAssistant()
    monkeypatch.setattr(options, "open_assistant", lambda *given: fake)
    return fake


def one_error(outcome: Outcome) -> str:
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    return outcome.err


def test_run_writes_the_answer_and_nothing_else_to_stdout(
    coterie: Command, assistant: FakeAssistant
) -> None:
    outcome = coterie("run", "hi", "--expert", "small", "--system", "be brief", "--seed", 3)
    assert (outcome.code, outcome.out) == (0, "Hello, wörld!\n")
    assert "small" in outcome.err and "42.0 per second" in outcome.err
    messages, given = assistant.asked[0]
    assert [m["role"] for m in messages] == ["system", "user"]
    assert given["expert"] == "small" and given["seed"] == 3


def test_run_reads_stdin(coterie: Command, assistant: FakeAssistant) -> None:
    coterie("run", "-", stdin="from a pipe")
    assert assistant.asked[0][0][0]["content"] == "from a pipe"


def test_run_for_programs_is_one_json_object(coterie: Command, assistant: FakeAssistant) -> None:
    reply = json.loads(coterie("run", "hi", "--json").out)
    assert reply["text"] == "Hello, wörld!" and reply["expert"] == "coder"
    assert reply["timings"]["how"] == "load" and reply["route"]["confidence"] == 0.9


def test_route_names_expert_reason_and_domains(coterie: Command, assistant: FakeAssistant) -> None:
    out = coterie("route", "sort a list").out
    assert out.startswith("coder: code 0.90\n") and "0.900" in out
    assert json.loads(coterie("route", "x", "--json").out)["probabilities"]["general"] == 0.1


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_prompt_is_refused(coterie: Command, assistant: FakeAssistant, text: str) -> None:
    assert "empty" in one_error(coterie("run", text))


def test_an_unknown_expert_is_one_error(coterie: Command, assistant: FakeAssistant) -> None:
    assert 'there is no expert "absent"' in one_error(coterie("run", "hi", "--expert", "absent"))


def test_no_failure_shows_a_traceback(coterie: Command, assistant: FakeAssistant) -> None:
    for failure in (RuntimeError("odd\nlines"), MemoryError("too big"), OSError(5, "I/O", "f")):
        assistant.fail_after, assistant.failure = 0, failure
        assert "Traceback" not in one_error(coterie("run", "hi", "--json"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("run",),
        ("run", "hi", "--max-tokens", "0"),
        ("run", "hi", "--memory-budget", "much"),
        ("pull", "x", "--source", "ftp"),
        ("serve", "--port", "70000"),
    ],
)
def test_bad_usage_is_exit_code_2(coterie: Command, arguments: tuple[str, ...]) -> None:
    outcome = coterie(*arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert "(see coterie" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("serv",), "serve"),
        (("run", "hi", "--jsn"), "--json"),
        (("run", "hi", "--expert", "smal"), '"small"'),
        (("chat", "--expert", "codr"), '"coder"'),
        (("pull", "smolm2-135m"), '"smollm2-135m"'),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(
    coterie: Command, assistant: FakeAssistant, arguments: tuple[str, ...], meant: str
) -> None:
    outcome = coterie(*arguments)
    assert outcome.code in (1, 2)
    assert re.search("did you mean|possible options", outcome.err.lower())
    assert meant in outcome.err


def every_command(coterie: Command) -> list[list[str]]:
    """Each command's words, found by asking for help as a user would."""
    found, groups = [], [[]]
    while groups:
        words = groups.pop()
        out = coterie(*words, "--help").out
        listed = out.partition("\nCommands:\n")[2].partition("\n\n")[0]
        names = re.findall(r"^  ([a-z-]+)  ", listed, re.M)
        groups += [[*words, name] for name in names]
        if words and not names:
            found.append(words)
    return found


def test_every_help_has_examples_environment_and_exit_codes(coterie: Command) -> None:
    commands = every_command(coterie)
    assert len(commands) >= 11 and ["router", "fit"] in commands
    for words in commands:
        out = coterie(*words, "--help").out
        for title in ("Examples:", "Environment:", "Exit codes:"):
            assert f"\n  {title}\n" in out, f"{words} --help has no {title}"
        assert (
            f"\n    coterie {' '.join(words)} " in out
            or f"\n    coterie {' '.join(words)}\n" in out
        )
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)(.*)\n( {10,})?", out, re.M)
        assert "--json" in [name for name, _, _ in options], words
        for name, same_line, next_line in options:
            assert "  " in same_line.strip() or same_line.startswith("  ") or next_line, (
                words,
                name,
            )


def test_every_variable_that_is_read_is_in_the_help(coterie: Command) -> None:
    root = Path(__file__).resolve().parents[2]
    read = set()
    for folder in ("core", "experts", "router", "runtime", "python"):
        for path in [*(root / folder).rglob("*.cc"), *(root / folder).rglob("*.py")]:
            if "training" not in path.parts:
                pattern = r'(?:getenv\(|environ\.get\(|environ\[)"([A-Z_]+)"'
                read |= set(re.findall(pattern, path.read_text()))
    ours = {name for name in read if name.startswith("COTERIE_")}
    assert len(ours) >= 4
    out = coterie("--help").out
    assert [name for name in sorted(ours) if f"\n    {name} " not in out] == []


def test_the_version_is_the_packages(coterie: Command) -> None:
    import importlib.metadata

    out = coterie("--version").out
    assert out == f"coterie {importlib.metadata.version('coterie')}\n"


def test_shells_complete_commands_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        environment = {
            **os.environ,
            "_COTERIE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        command = [sys.executable, "-m", "coterie"]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    assert completed("coterie ru") == ["run"]
    assert "smollm2-135m" in completed("coterie pull smol")
    assert "--memory-budget" in completed("coterie run --mem")


def test_help_takes_less_than_four_tenths_of_a_second() -> None:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(3):
        before = cpu_s()
        subprocess.run([sys.executable, "-m", "coterie", "--help"], capture_output=True, check=True)
        took.append(cpu_s() - before)
    assert min(took) < 0.4, took  # Of a processor, so that a busy machine does not matter.


def test_chat_for_programs_is_one_json_line_an_answer(
    coterie: Command, assistant: FakeAssistant
) -> None:
    outcome = coterie("chat", "--json", stdin="one\n/stats\ntwo\n")
    first, stats, second = map(json.loads, outcome.out.splitlines())
    assert first["text"] == second["text"] == "Hello, wörld!"
    assert stats["budget_bytes"] == assistant.budget
    assert len(assistant.asked[1][0]) == 3


def test_sizes_reach_the_assistant_as_bytes(
    coterie: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def open_assistant(*arguments: Any) -> FakeAssistant:
        given.extend(arguments)
        return FakeAssistant()

    monkeypatch.setattr(options, "open_assistant", open_assistant)
    coterie("run", "hi", "--memory-budget", "1.5GiB", "--threads", "2")
    assert given == [None, 3 << 29, 2]


def test_chat_keeps_the_conversation(coterie: Command, assistant: FakeAssistant) -> None:
    outcome = coterie("chat", stdin="one\ntwo\n/new\nthree\n/quit\nfour\n")
    assert outcome.code == 0 and outcome.out == "Hello, wörld!\n" * 3
    first, second, third = assistant.asked
    assert [m["content"] for m in second[0]] == ["one", "Hello, wörld!", "two"]
    assert len(third[0]) == 1
    names = [given["conversation"] for _, given in assistant.asked]
    assert names[0] == names[1] != names[2]
    assert outcome.err.count("coder · code 0.90 · confidence 0.90 · loaded in 120 ms") == 3
    del first


def test_chat_commands_change_expert_and_budget(coterie: Command, assistant: FakeAssistant) -> None:
    lines = ["/expert absent", "/expert small", "a", "/expert auto", "b", "/budget 1GiB", "/stats"]
    outcome = coterie("chat", stdin="\n".join([*lines, "/help", "/wrong"]))
    assert [given["expert"] for _, given in assistant.asked] == ["small", None]
    assert assistant.budget == 1 << 30
    assert 'no expert "absent"; choose one of small, coder' in outcome.err
    assert "98 MB of 1.07 GB used" in outcome.err and "resident" in outcome.out
    assert "/budget SIZE" in outcome.err and "/wrong is no command" in outcome.err


def test_ctrl_c_stops_the_answer_and_not_the_chat(
    coterie: Command, assistant: FakeAssistant
) -> None:
    assistant.pieces = ["Hel", "^C"]
    outcome = coterie("chat", stdin="one\n/expert small\ntwo\n")
    assert outcome.code == 0 and outcome.out == "Hel\nHel\n"
    assert outcome.err.count("stopped") == 2
    assert all(stream.closed.is_set() for stream in assistant.streams)
    assert [m["content"] for m in assistant.asked[1][0]] == ["one", "Hel", "two"]


def test_a_failed_answer_leaves_the_chat_as_it_was(
    coterie: Command, assistant: FakeAssistant
) -> None:
    assistant.fail_after, assistant.failure = 0, Error("9000 tokens > 2048", "out_of_range")
    outcome = coterie("chat", stdin="one\ntwo\n")
    assert outcome.code == 0 and outcome.err.count("error: 9000 tokens > 2048\n") == 2
    assert len(assistant.asked[1][0]) == 1


def test_bench_measures_every_expert(coterie: Command, assistant: FakeAssistant) -> None:
    measured = json.loads(coterie("bench", "--json").out)
    assert [one["expert"] for one in measured] == ["small", "coder"]
    assert measured[0]["decode_tokens_per_second"] == 42.0
    assert "tokens/s" in coterie("bench", "--expert", "small").out
    assert "choose one of" in one_error(coterie("bench", "--expert", "absent"))


def test_bench_value_measures_every_expert_and_writes_the_table(
    coterie: Command, assistant: FakeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path))
    assistant.pieces = ["Canberra, ", "Everest"]
    log = str(tmp_path / "log.jsonl")
    command = ("bench", "value", "--domain", "general", "--tasks", "2", "--log", log, "--write")
    measured = json.loads(coterie(*command, "--json").out)
    assert {name: cells["general"]["quality"] for name, cells in measured.items()} == {
        "small": 0.5,
        "coder": 0.5,
    }
    written = json.loads((tmp_path / "measurements.json").read_text())
    assert {entry["base"] for entry in written["experts"]} == {"sha256:small", "sha256:coder"}
    n_asked = len(assistant.asked)
    assert "50 ±" in coterie(*command).out
    assert len(assistant.asked) == n_asked, "the log had every answer"
    assert "choose from" in one_error(coterie("bench", "value", "--domain", "cooking"))


def manifest_of(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_ENDPOINT", url)
    entry = {"name": "tiny", "file": "m.gguf", "license": "MIT", "bytes": len(CONTENT)}
    entry |= {"sha256": sha256(CONTENT), "wheels": [], "hf": {"repo": "o/r", "file": "m.gguf"}}
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"models": [entry]}))
    return path


def test_pull_names_source_and_licence_then_prints_the_path(
    coterie: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FileServer()
    try:
        server.files["/o/r/resolve/main/m.gguf"] = CONTENT
        manifest = manifest_of(tmp_path, server.url, monkeypatch)
        outcome = coterie("pull", "tiny", "--manifest", manifest)
    finally:
        server.stop()
    assert outcome.code == 0 and "licence MIT" in outcome.err and server.url in outcome.err
    assert outcome.out.startswith("tiny: 5 kB, fetched from hf in ")
    again = coterie("pull", "tiny", "--manifest", manifest, "--json")
    assert json.loads(again.out)[0]["source"] == "store"


def test_pulling_what_no_list_has_names_what_there_is(coterie: Command) -> None:
    assert "smollm2-135m" in one_error(coterie("pull", "gpt-5"))


def test_no_network_is_one_error(
    coterie: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(tmp_path, "http://127.0.0.1:9", monkeypatch)
    outcome = coterie("pull", "tiny", "--manifest", manifest)
    assert outcome.code == 1 and outcome.out == ""
    assert outcome.err.splitlines()[-1].startswith("error: no connection to 127.0.0.1")


def test_added_models_are_listed(
    coterie: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie.cli.models.compiled_inspect", lambda: None)
    path = tmp_path / "mine.gguf"
    path.write_bytes(CONTENT)
    assert coterie("add", path).out == f"mine: 5 kB: {path}\n"
    (Store().models / "broken.json").write_text("{")
    listed = coterie("models")
    assert "mine" in listed.out and "coterie pull" in listed.out
    assert "broken.json" in listed.err
    fields = json.loads(coterie("models", "--json").out)
    assert fields["models"][0]["path"] == str(path) and len(fields["problems"]) == 1
    path.unlink()
    assert "file is missing" in coterie("models").out


def test_inspect_takes_a_file_or_a_name(
    coterie: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "path": "mine.gguf",
        "architecture": "llama",
        "bytes": 98_000_000,
        "tensor_bytes": 97_000_000,
        "keys": {"general.license": 'string "mit"', "long": 'string "' + "x" * 500 + '"'},
        "tensors": [["token_embd.weight", "Q4_1", [49152, 576]]],
        "tensors_by_type": {"Q4_1": 1},
        "chat_template": "",
    }
    monkeypatch.setattr("coterie.cli.models.compiled_inspect", lambda: lambda path: facts)
    path = tmp_path / "mine.gguf"
    path.write_bytes(CONTENT)
    coterie("add", path)
    record = Store().find("mine")
    assert record is not None and record.license == "mit"
    shown = coterie("inspect", "mine").out
    assert "98 MB" in shown and "1 Q4_1; 97 MB" in shown and "x" * 101 not in shown
    assert "token_embd.weight" not in shown
    assert "49152 x 576" in coterie("inspect", path, "--tensors").out
    assert json.loads(coterie("inspect", path, "--json").out) == facts
    assert "neither a file nor a model" in one_error(coterie("inspect", "absent"))


def test_a_port_in_use_is_said_before_a_model_is_opened(
    coterie: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "open_assistant", lambda *given: pytest.fail("opened"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = one_error(coterie("serve", "--port", taken.getsockname()[1]))
    assert "in use" in error


def test_serve_prints_where_it_listens_and_heeds_the_configuration(
    coterie: Command, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(
        "coterie.server.listening.serve_forever",
        lambda application, sock: served.append(sock.getsockname()[1]),
    )
    outcome = coterie("serve", "--json", "--config", tmp_path / "coterie.toml")
    assert outcome.code == 0
    assert json.loads(outcome.out) == {"url": f"http://127.0.0.1:{served[0]}"}
    assert "--api-key" in one_error(coterie("serve", "--host", "0.0.0.0"))


def test_rows_that_are_no_rows_name_file_and_line(coterie: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n{"text": 5, "label": "b"}\n')
    assert "rows.jsonl, line 2: " in one_error(coterie("router", "eval", path))
    path.write_text("\n")
    assert "no rows" in one_error(coterie("router", "fit", path, "-o", tmp_path / "out"))


def test_help_needs_no_model_and_no_compiled_part(coterie: Command) -> None:
    outcome = coterie("--help")
    assert outcome.code == 0
    for command in ("pull", "add", "models", "inspect", "route", "run", "chat", "serve", "router"):
        assert command in outcome.out

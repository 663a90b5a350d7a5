"""What the tests of the package share. None of them reaches the network."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("coterie") is None:  # Not installed: the pure parts work from source.
    sys.path.insert(0, str(Path(__file__).parents[2] / "python"))

# A shell's background job ignores SIGINT, and hands that on to programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests on the user's own models keep nothing in the user's own log.
_logs = tempfile.TemporaryDirectory()
os.environ["COTERIE_INTERACTIONS"] = f"{_logs.name}/interactions.db"


@pytest.fixture(autouse=True)
def isolated_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty store, and none of the caches that the user of this machine has."""
    home = tmp_path / "home"
    if "model" not in request.keywords:
        monkeypatch.setenv("COTERIE_HOME", str(home))
    monkeypatch.setenv("COTERIE_INTERACTIONS", str(tmp_path / "interactions.db"))
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "COTERIE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # It hides output that is not flushed.
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield home


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped_in_ci(terminalreporter):
        terminalreporter.write_line("a test was skipped, which CI does not allow", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.exitstatus == 0 and skipped_in_ci(reporter):
        session.exitstatus = 1


def skipped_in_ci(reporter: pytest.TerminalReporter) -> bool:
    return bool(os.environ.get("CI")) and bool(reporter.stats.get("skipped"))

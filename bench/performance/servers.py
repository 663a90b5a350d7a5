"""The servers that a trace is replayed against: coterie serve, and llama-server in router mode."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
from performance.traces import Answer, Asked, Replayed, Trace

START_SECONDS = 60
ANSWER_SECONDS = 120
# A base model has no chat template. coterie lets it continue the text that it is given;
# llama-server would take the template of another model, unless it is given one.
CONTINUED = {"gemma-3-270m": "{% for m in messages %}{{ m.content }}{% endfor %}"}


class Server(ABC):
    """A process that answers OpenAI's chat requests on this machine, while it is entered."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._command = command
        self._log = folder / "server.log"
        self._environment = {**os.environ, **environment}
        self.url = ""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment
            )
        limits = httpx.Limits(max_keepalive_connections=0)  # A server may close those at any time.
        self._client = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False, limits=limits)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        return self._client.get(f"{self.url}{path}").raise_for_status().json()

    def replay(self, trace: Trace) -> Replayed:
        answers: list[Answer] = []
        begin = time.perf_counter()
        with ThreadPoolExecutor(max_workers=max(map(len, trace.turns()))) as threads:
            for turn in trace.turns():
                answers += threads.map(self.ask, turn)
        seconds = time.perf_counter() - begin
        loads, bytes_loaded = self.loaded()
        return Replayed(answers, loads, bytes_loaded, seconds, self.peak_bytes())

    def ask(self, asked: Asked) -> Answer:
        body = {
            "model": self.model_of(asked.expert),
            "messages": [{"role": "user", "content": asked.prompt}],
            "max_tokens": asked.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begin = time.perf_counter()
        url = f"{self.url}/v1/chat/completions"
        with self._client.stream("POST", url, json=body) as response:
            if response.is_error:
                raise SystemExit(f"{asked}: {response.read().decode(errors='replace')}")
            model, text, first, tokens = read_stream(response.iter_lines(), time.perf_counter)
        expert = model.removeprefix(self.model_of(""))
        return Answer(expert, text, 1e3 * (first - begin), tokens)

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise SystemExit(f"{' '.join(self._command)} ended:\n{self.said()}")
            try:
                if self.is_ready():
                    return
            except (httpx.TransportError, ValueError):
                pass
            time.sleep(0.05)
        raise SystemExit(f"{' '.join(self._command)} does not answer:\n{self.said()}")

    @abstractmethod
    def is_ready(self) -> bool: ...

    @abstractmethod
    def model_of(self, expert: str) -> str:
        """What a request calls an expert: something, and then its name."""

    @abstractmethod
    def loaded(self) -> tuple[int, int]:
        """Loads since the start, and their bytes."""

    def peak_bytes(self) -> int | None:
        return None


def read_stream(lines: Iterable[str], clock: Any) -> tuple[str, str, float, int]:
    """The model that answered, its text, when the first of it came, and the tokens it read."""
    model, text, first, tokens = "", "", 0.0, 0
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise SystemExit(f"an answer broke off: {chunk['error']}")
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            if piece and not text:
                first = clock()
            text += piece
        model = chunk["model"]
        tokens = (chunk.get("usage") or {}).get("prompt_tokens", tokens)
    return model, text, first, tokens


class Coterie(Server):
    """`coterie serve` with the experts of `paths` and nothing kept on disk but the request log."""

    def __init__(
        self, paths: dict[str, Path], budget: int, threads: int, policy: str, folder: Path
    ) -> None:
        self.request_log = folder / "requests.jsonl"
        config = folder / "coterie.toml"
        lines = [
            *("[cache]", f'policy = "{policy}"', f'request_log = "{self.request_log}"'),
            *("[learning]", "log = false"),
        ]
        for name, path in paths.items():
            lines += ["[[expert]]", f'name = "{name}"', f'model = "{path}"']
        config.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "coterie", "serve", "--port", "0", "--json"]
        settings = ["--config", config, "--memory-budget", budget, "--threads", threads]
        super().__init__([*command, *map(str, settings)], folder, {})

    def is_ready(self) -> bool:
        found = re.search(r'"url": "([^"]+)"', self.said())
        if found is None:
            return False
        self.url = found[1]
        return bool(self.get("/health")["status"] == "ok")

    def model_of(self, expert: str) -> str:
        return f"coterie/{expert}"

    def loaded(self) -> tuple[int, int]:
        counters = self.get("/v1/stats")["counters"]
        return counters["loads"], counters["bytes_loaded"]

    def peak_bytes(self) -> int:
        return int(self.get("/v1/stats")["peak_bytes"])


class LlamaServer(Server):
    """llama.cpp's `llama-server` in router mode, with at most so many of `paths` in memory.

    A process that loads a model makes a trial run and works out first what fits into memory, unless
    it is told not to: both only cost time here. Threads that wait sleep: two processes that answer
    at once on the same cores would else spin against each other.
    """

    def __init__(
        self, program: Path, paths: dict[str, Path], most: int, threads: int, folder: Path
    ) -> None:
        self._paths = paths
        presets = folder / "presets.ini"
        lines = ["version = 1"]
        for name, path in paths.items():
            lines += [f"[{name}]", f"model = {path}"]
            if name in CONTINUED:
                template = folder / f"{name}.jinja"
                template.write_text(CONTINUED[name])
                lines.append(f"chat-template-file = {template}")
        presets.write_text("\n".join(lines) + "\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [program, "--models-preset", presets, "--models-max", most, "--port", port]
        settings = ["--host", "127.0.0.1", "--threads", threads, "--ctx-size", 2048, "--offline"]
        settings += ["--no-warmup", "--fit", "off"]
        environment = {"LLAMA_CACHE": str(folder / "cache"), "OMP_WAIT_POLICY": "passive"}
        super().__init__([*map(str, [*command, *settings])], folder, environment)
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        return bool(self.get("/health")["status"] == "ok")

    def model_of(self, expert: str) -> str:
        return expert

    def loaded(self) -> tuple[int, int]:
        names = re.findall(r"spawning server instance with name=(\S+)", self.said())
        return len(names), sum(self._paths[name].stat().st_size for name in names)

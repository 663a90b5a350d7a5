"""A small HTTP server that serves files well or badly, for tests of downloads."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUT_BYTES = 1000


class FileServer:
    """Serves files by path. behaviours[path] lists what the next requests meet, then all is well.

    "cut": the connection ends after CUT_BYTES.  "hang": nothing comes.  "500", "404": the status.
    "whole": the range is ignored.  "short": fewer bytes exist.  "slow": a little at a time.
    "redirect", "redirect to another host": to /elsewhere + path.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviours: dict[str, list[str]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.requests]

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        owner = self.owner
        owner.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = self.path.removeprefix("/elsewhere")
        planned = owner.behaviours.get(path, [])
        behaviour = planned.pop(0) if planned else ""
        data = owner.files.get(path)
        if behaviour.startswith("redirect"):
            self.send_response(302)
            port = self.server.server_address[1]
            other = f"http://localhost:{port}" if behaviour == "redirect to another host" else ""
            self.send_header("Location", f"{other}/elsewhere{path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif behaviour.isdigit() or data is None:
            self.send_error(int(behaviour or 404))
        elif behaviour == "hang":
            owner.released.wait(10)
            self.close_connection = True
        else:
            self._serve(data[:-1] if behaviour == "short" else data, behaviour)

    def _serve(self, data: bytes, behaviour: str) -> None:
        start = 0
        asked = self.headers.get("Range", "")
        if asked and behaviour != "whole":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour == "cut":
            self.wfile.write(body[:CUT_BYTES])
            self.wfile.flush()
            self.close_connection = True
        elif behaviour == "slow":
            for i in range(0, len(body), CUT_BYTES):
                self.wfile.write(body[i : i + CUT_BYTES])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass

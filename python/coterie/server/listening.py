"""The server's socket, bound before models are opened: a taken port is said at once."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from coterie.errors import Error


def check_exposure(host: str, api_key: str | None) -> None:
    """Error "permission_denied" for an address that others can reach without a key."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not api_key:
        raise Error(
            f"{host} can be reached from other machines: set a key with --api-key or "
            "COTERIE_API_KEY, or stay on 127.0.0.1",
            "permission_denied",
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Error "unavailable" if the port is in use."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise Error(f"cannot open a socket: {error.strerror}", "unavailable") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
        return sock
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} on {host} is in use: stop the program that has it, or choose another "
                "with --port (0 takes any free one)"
            )
        else:
            message = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise Error(message, "unavailable") from None


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """SIGTERM lets answers end for a few seconds; Ctrl-C ends them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if sig == signal.SIGINT:
            self.force_exit = True


def make_server(application: FastAPI) -> uvicorn.Server:
    """Without an access log: prompts stay out of files, and stdout is for results."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=64 << 10,
    )
    return _Server(config)


def serve_forever(application: FastAPI, sock: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM."""
    make_server(application).run(sockets=[sock])

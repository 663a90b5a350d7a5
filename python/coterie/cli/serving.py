"""coterie serve: the OpenAI-compatible server."""

from __future__ import annotations

import socket
from typing import Annotated, Any

import typer

from coterie.cli import options
from coterie.cli.manual import ANSWERING, manual
from coterie.cli.options import Budget, Config, Json, Threads
from coterie.cli.output import print_json, remark

_DEFAULTS = {"host": "127.0.0.1", "port": 8642, "api_key": ""}


def register(app: typer.Typer) -> None:
    app.command(
        "serve",
        epilog=manual(
            "coterie serve",
            "coterie serve --port 0 --json",
            "COTERIE_API_KEY=secret coterie serve --host 0.0.0.0 --allow-host my.machine",
            environment=(*ANSWERING, "COTERIE_API_KEY"),
            files=("coterie.toml", "$COTERIE_HOME/prefixes"),
        ),
    )(serve)


def serve(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="N", help="8642 if not given; 0: any free one, see --json."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="127.0.0.1, this machine only, if not given; any other needs a key.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="COTERIE_API_KEY",
            metavar="KEY",
            help="Every request but /health must carry it as a bearer token; none if not given.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A page whose scripts may call, such as http://localhost:3000; may be repeated.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Another name by which this server is called; may be repeated."
        ),
    ] = None,
    max_body: Annotated[
        int,
        typer.Option(
            parser=options.size, metavar="SIZE", help="Largest request, such as 500kB or 8MiB."
        ),
    ] = 4 << 20,
    config: Config = None,
    memory_budget: Budget = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Serves OpenAI's chat API on this machine, until Ctrl-C or SIGTERM.

    POST /v1/chat/completions; GET /v1/models, /health, /metrics (Prometheus), /v1/stats (what
    `coterie stats` shows); POST /v1/route decides only. Model "coterie" lets the
    router choose, "coterie/NAME" asks for an expert.
    """
    # Imported here: the web framework takes longer to import than other commands to run.
    from coterie.server.application import Settings, make_application
    from coterie.server.listening import serve_forever, url_of

    given = {"port": port, "host": host, "api_key": api_key}
    assistant = None
    if config is not None:
        assistant = options.open_assistant(config, memory_budget, threads)
    place = _place(given, assistant.server_configuration() if assistant else _DEFAULTS)
    sock = _listen(place)
    try:
        name = f"[{place['host']}]" if ":" in place["host"] else place["host"]
        settings = Settings(
            api_key=place["api_key"] or None,
            hosts=(name, *(allow_host or ())),
            origins=tuple(allow_origin or ()),
            max_body_bytes=max_body,
        )
        # Without a configuration the port is taken first: if it is in use, nothing is opened.
        assistant = assistant or options.open_assistant(config, memory_budget, threads)
        application = make_application(assistant, settings)
        if json:
            print_json({"url": url_of(sock)})
        remark(f"listening on {url_of(sock)}/v1 (Ctrl-C ends)")
        serve_forever(application, sock)
    finally:
        sock.close()


def _place(given: dict[str, Any], configured: dict[str, Any]) -> dict[str, Any]:
    """Host, port and key: the command line over the configuration."""
    chosen = {key: value for key, value in given.items() if value is not None}
    return {**configured, **chosen}


def _listen(place: dict[str, Any]) -> socket.socket:
    from coterie.server.listening import check_exposure, listen

    check_exposure(place["host"], place["api_key"])
    return listen(place["host"], place["port"])

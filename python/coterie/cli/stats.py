"""coterie stats: memory, experts and counters of a running server."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from coterie.byte_size import format_bytes
from coterie.cli.manual import manual
from coterie.cli.options import Json
from coterie.cli.output import print_json, print_table, remark, results
from coterie.errors import Error

_SECONDS = 10.0  # Looking takes the server milliseconds.
_MAX_BYTES = 16 << 20


def register(app: typer.Typer) -> None:
    app.command(
        "stats",
        epilog=manual(
            "coterie stats",
            "coterie stats --json",
            "coterie stats --url http://127.0.0.1:9000",
            environment=("COTERIE_API_KEY",),
        ),
    )(stats)


def stats(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Where `coterie serve` says that it listens.")
    ] = "http://127.0.0.1:8642",
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="COTERIE_API_KEY", metavar="KEY", help="The server's; none if not given."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Shows what a running `coterie serve` has in memory, as `ollama ps` does, and its counters.

    Looking disturbs nothing: it loads no expert and counts as no use. docs/cache.md says what the
    fields of --json mean; GET /v1/stats gives the same.
    """
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f'"{url}" does not begin with http:// or https://')
    found = _ask(url.rstrip("/").removesuffix("/v1") + "/v1/stats", api_key)
    if json:
        print_json(found)
        return
    for line in summary(found):
        results().print(line, markup=False, soft_wrap=True)
    print_experts(found)


def summary(stats: dict[str, Any]) -> list[str]:
    """The budget, the queue and what is wrong, one line each."""
    used, budget, peak = (
        format_bytes(stats[f"{what}_bytes"]) for what in ("used", "budget", "peak")
    )
    counters = stats["counters"]
    lines = [
        f"{used} of {budget} used, {peak} at most; {counters['loads']} loads "
        f"({format_bytes(counters['bytes_loaded'])}), {counters['hits']} hits, "
        f"{counters['evictions']} evictions"
    ]
    if queue := stats.get("queue"):
        lines.append(
            f"{queue['running']} running, {queue['waiting']} waiting, "
            f"{queue['rejected']} rejected; "
            f"{counters['prefetches']} prefetches, {counters['prefetch_hits']} of them used"
        )
    if prefixes := stats.get("prefixes"):
        held, most = (format_bytes(prefixes[f"{what}bytes"]) for what in ("", "max_"))
        lines.append(
            f"prefixes: {held} of {most}; {prefixes['hits']} answers began with "
            f"{prefixes['cached_tokens']} known tokens, {prefixes['misses']} with none"
        )
    if lookup := stats.get("lookup"):
        lines.append(
            f"lookup: {lookup['lookup_tokens']} of {lookup['proposed_tokens']} proposed tokens came"
        )
    health = stats.get("health")
    if health and health["state"] != "ok":
        lines.append(f"memory: {health['state'].replace('_', ' ')}. {health['advice']}".rstrip())
    return lines


def print_experts(stats: dict[str, Any]) -> None:
    rows = [
        (
            expert["name"],
            format_bytes(expert["bytes"]),
            "resident" if expert["resident"] else "",
            expert["uses"],
        )
        for expert in stats["experts"]
    ]
    print_table(("expert", "size#", "", "uses#"), rows)


def print_stats(stats: dict[str, Any]) -> None:
    """Beside an answer: the lines to stderr."""
    for line in summary(stats):
        remark(line)
    print_experts(stats)


def _ask(url: str, api_key: str | None) -> dict[str, Any]:
    """The server's statistics. Errors say what to do."""
    # Imported here: --help does without.
    import urllib.error
    import urllib.request

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # A proxy is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as reply:
            found = json_format.loads(reply.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise Error(
                f"{url} asks for a key: give it with --api-key or COTERIE_API_KEY",
                "permission_denied",
            ) from None
        raise Error(f"{url} is no coterie of this version: HTTP {error.code}", "unknown") from None
    except (OSError, ValueError) as error:
        if isinstance(error, json_format.JSONDecodeError):
            raise Error(f"{url} did not answer with JSON: is it coterie?", "unknown") from None
        raise Error(
            f"no server answers at {url}: start one with `coterie serve`, or say where it is with "
            "--url; a chat shows its own statistics with /stats",
            "unavailable",
        ) from None
    if not isinstance(found, dict) or not {"budget_bytes", "counters", "experts"} <= found.keys():
        raise Error(f"{url} did not answer with statistics: is it coterie?", "unknown")
    return found

"""What an agent's parts do, for Prometheus; read when it asks."""

from __future__ import annotations

import ipaddress
import platform
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kinesis_nb.access.config import is_loopback
from kinesis_nb.agents.parts import running
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry

_GAUGES = {
    "rows": "rows committed by this agent since it took the part over",
    "commits": "commits since then",
    "pending": "rows read and not committed yet",
}


_servers: list[Any] = []  # the one that runs


def serve(port: int, host: str) -> None:
    """Serve the metrics of this process, and nothing to the page of another site.

    Raises
    ------
    AgentError
        Without the package ``prometheus-client``.
    """
    found = registry()
    from prometheus_client import start_http_server

    server, _ = start_http_server(port, host, found)
    app: Any = server.get_app()
    server.set_app(guarded(app, host))
    _servers.append(server)


def stop() -> None:
    """Serve no longer; the port is free then."""
    while _servers:
        server = _servers.pop()
        server.shutdown()
        server.server_close()


def guarded(
    app: Callable[..., Iterable[bytes]], listens_at: str
) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return a WSGI app that refuses what a web page asks in a browser, by its own name for this machine or by ours."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_ORIGIN" in environ or not _is_ours(environ.get("HTTP_HOST", ""), listens_at):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"not for web pages, and only by the name of this machine\n"]
        return app(environ, start_response)

    return answer


def _is_ours(header: str, listens_at: str) -> bool:
    """Whether a Host header names this machine; a name of somebody else's may lead anywhere, an address may not."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if is_loopback(listens_at):
        return is_loopback(name)
    return is_loopback(name) or name in (listens_at, platform.node().lower()) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def registry() -> CollectorRegistry:
    """Return the metrics of this process, and of nothing else in it."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise AgentError("prometheus-client is not installed", hint="pip install 'kinesis-nb[metrics]'") from None
    made = CollectorRegistry()
    made.register(_MetricsCollector())
    return made


class _MetricsCollector:
    """Makes the metrics anew whenever they are asked for."""

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        syncs = {key: (sync.stream, sync.status()) for key, sync in running().items()}
        for name, what in _GAUGES.items():
            gauge = GaugeMetricFamily(f"kinesis_nb_{name}", what, labels=("stream", "part"))
            for key, (stream, status) in syncs.items():
                gauge.add_metric((stream, key), getattr(status, name))
            yield gauge
        lag = GaugeMetricFamily("kinesis_nb_lag_seconds", "how far a shard is behind", labels=("stream", "shard"))
        rate = GaugeMetricFamily("kinesis_nb_rows_per_second", "of a shard, lately", labels=("stream", "shard"))
        for stream, status in syncs.values():
            for shard in status.shards:
                rate.add_metric((stream, shard.shard_id), shard.rate)
                if shard.millis_behind_latest is not None:
                    lag.add_metric((stream, shard.shard_id), shard.millis_behind_latest / 1000)
        yield from (lag, rate)

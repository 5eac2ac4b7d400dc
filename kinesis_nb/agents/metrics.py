"""Metrics of the parts that run in this process, for Prometheus; computed at each scrape."""

from __future__ import annotations

import ipaddress
import platform
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from kinesis_nb.access.config import is_loopback
from kinesis_nb.agents.parts import syncs_here
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

    from kinesis_nb.syncing.status import SyncStatus

_GAUGES = {
    "rows": "rows committed by this agent since it took over the part",
    "commits": "commits by this agent since it took over the part",
    "pending": "rows read and not committed yet",
}


_servers: list[WSGIServer] = []  # at most one


def serve(port: int, host: str) -> None:
    """Serve the metrics of this process, but not to web pages.

    Raises
    ------
    AgentError
        Without the package ``prometheus-client``.
    """
    found = registry()
    from prometheus_client import start_http_server

    server, _ = start_http_server(port, host, found)
    server.set_app(guarded(cast("WSGIApplication", server.get_app()), host))
    _servers.append(server)


def stop() -> None:
    """Stop serving, and free the port."""
    while _servers:
        server = _servers.pop()
        server.shutdown()
        server.server_close()


def guarded(app: WSGIApplication, listens_at: str) -> WSGIApplication:
    """Return a WSGI app that refuses requests of web pages, also of those whose own name resolves to this machine."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_ORIGIN" in environ or not _is_ours(environ.get("HTTP_HOST", ""), listens_at):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"not for web pages, and only by the name or an address of this machine\n"]
        return app(environ, start_response)

    return respond


def _is_ours(header: str, listens_at: str) -> bool:
    """Whether a Host header names this machine: a name may resolve to anywhere (DNS rebinding), an address may not."""
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
    """Return the metrics of the parts in this process; other libraries' metrics are not in it."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise AgentError("prometheus-client is not installed", hint="pip install 'kinesis-nb[metrics]'") from None
    made = CollectorRegistry()
    made.register(_MetricsCollector())
    return made


class _MetricsCollector:
    """Computes the metrics at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        syncs = {key: (sync.stream, sync.status()) for key, sync in syncs_here().items()}
        yield from _of_parts(syncs)
        yield from _of_shards(syncs.values())


def _of_parts(syncs: Mapping[str, tuple[str, SyncStatus]]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    for name, what in _GAUGES.items():
        gauge = GaugeMetricFamily(f"kinesis_nb_{name}", what, labels=("stream", "part"))
        for key, (stream, status) in syncs.items():
            gauge.add_metric((stream, key), getattr(status, name))
        yield gauge


def _of_shards(syncs: Iterable[tuple[str, SyncStatus]]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    labels, behind = ("stream", "shard"), "how far a shard is behind the tip of the stream"
    lag = GaugeMetricFamily("kinesis_nb_lag_seconds", behind, labels=labels)
    rate = GaugeMetricFamily("kinesis_nb_rows_per_second", "recent rate of a shard", labels=labels)
    for stream, shard in ((stream, shard) for stream, status in syncs for shard in status.shards):
        rate.add_metric((stream, shard.shard_id), shard.rate)
        if shard.millis_behind_latest is not None:
            lag.add_metric((stream, shard.shard_id), shard.millis_behind_latest / 1000)
    yield from (lag, rate)

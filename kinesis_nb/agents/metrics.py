"""What an agent's parts do, for Prometheus; read when it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinesis_nb.agents.worker import running
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

_GAUGES = {
    "rows": "rows committed by this agent since it took the part over",
    "commits": "commits since then",
    "pending": "rows read and not committed yet",
}


def serve(port: int, host: str) -> None:
    """Serve the metrics of this process.

    Raises
    ------
    AgentError
        Without the package ``prometheus-client``.
    """
    found = registry()
    from prometheus_client import start_http_server

    start_http_server(port, host, found)


def registry() -> CollectorRegistry:
    """Return the metrics of this process, and of nothing else in it."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise AgentError("prometheus-client is not installed", hint="pip install 'kinesis-nb[metrics]'") from None
    made = CollectorRegistry()
    made.register(_Collector())
    return made


class _Collector:
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

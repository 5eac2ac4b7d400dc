"""A registered consumer: its name, its state and its subscriptions."""

from __future__ import annotations

from typing import Protocol


class Session(Protocol):
    """What a consumer knows of a subscription."""

    started_ms: int

    def close(self) -> None: ...  # noqa: D102 - the subscription says it


class Consumer:
    """A registered consumer and its subscriptions."""

    def __init__(self, name: str, stream_arn: str, *, now_ms: int, active_ms: int) -> None:
        self.name = name
        self.created_ms = now_ms
        self.arn = f"{stream_arn}/consumer/{name}:{now_ms // 1000}"
        self.tags: dict[str, str] = {}
        self.subscriptions: dict[str, Session] = {}  # the last one to each shard
        self._active_ms = active_ms
        self._gone_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Consumer {self.name}, {len(self.subscriptions)} shards>"

    def status(self, now_ms: int) -> str:
        """Return CREATING, ACTIVE or DELETING."""
        if self._gone_ms is not None:
            return "DELETING"
        return "ACTIVE" if now_ms >= self._active_ms else "CREATING"

    def delete(self, due_ms: int) -> None:
        """Begin to go, which ends when `due_ms` has come."""
        self._gone_ms = due_ms
        self.close()

    def gone(self, now_ms: int) -> bool:
        """Return whether it has been deleted by now."""
        return self._gone_ms is not None and now_ms >= self._gone_ms

    def close(self) -> None:
        """End all its subscriptions."""
        for subscription in self.subscriptions.values():
            subscription.close()

    def describe(self, now_ms: int) -> dict[str, object]:
        """Return the consumer as the API shows it."""
        return {
            "ConsumerName": self.name,
            "ConsumerARN": self.arn,
            "ConsumerStatus": self.status(now_ms),
            "ConsumerCreationTimestamp": self.created_ms / 1000,
        }

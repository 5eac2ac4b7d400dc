"""Whether an action is allowed, found out without doing it: DryRun where the API has it, harmless calls elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from kinesis_nb.errors import AccessDenied, KinesisError
from kinesis_nb.wire.naming import named, named_beside_iterator

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY_DENIED = "KMSAccessDeniedException"
_AWS_KEY = "alias/aws/kinesis"  # everybody in the account may use it
_ALLOWED = "DryRunOperationException"  # the API's way to say yes to a call with DryRun


class Call(Protocol):
    """One call of the API."""

    def __call__(self, operation: str, stream: str = "", **params: object) -> Mapping[str, Any]:
        """Return the response, or raise a KinesisError."""
        ...


class Probe:
    """Asks for one action at a time.

    Parameters
    ----------
    trusts_dry_run
        Whether the server is AWS. Another one must first respond to a harmless call as AWS would: a server that does
        not know DryRun would write.
    """

    def __init__(self, call: Call, *, trusts_dry_run: bool) -> None:
        self._call = call
        self._trusts_dry_run = trusts_dry_run

    def may(self, action: str, stream: str) -> bool | None:
        """Return whether the action is allowed; None when that cannot be asked."""
        try:
            return self._ask(action, stream)
        except AccessDenied as error:
            return False if error.action in {"", f"kinesis:{action}"} else None
        except KinesisError as error:
            if error.code == _KEY_DENIED and action == "Decrypt":
                return False
            if error.code != _ALLOWED:
                raise
            return True

    def customer_key(self, stream: str) -> str | None:
        """Return the key of the customer's own that encrypts a stream; None without one, or when it may not be seen."""
        try:
            response = self._call("describe_stream", stream, **named(stream), Limit=1)
        except KinesisError:
            return None
        key = response.get("StreamDescription", {}).get("KeyId")
        return None if key is None or key.endswith(_AWS_KEY) else str(key)

    def _ask(self, action: str, stream: str) -> bool | None:
        match action:
            case "ListStreams":
                self._call("list_streams", Limit=1)
            case "DescribeStream":
                self._call("describe_stream", stream, **named(stream), Limit=1)
            case "DescribeStreamSummary":
                self._call("describe_stream_summary", stream, **named(stream))
            case "ListShards":
                self._first_shard(stream)
            case "GetShardIterator":
                self._iterator(stream, DryRun=True)
            case "GetRecords":
                self._call(
                    "get_records",
                    stream,
                    ShardIterator=self._iterator(stream),
                    **named_beside_iterator(stream),
                    Limit=1,
                    DryRun=True,
                )
            case "Decrypt":  # DryRun may not get as far as the key, a record does
                place = {"ShardIterator": self._iterator(stream, "TRIM_HORIZON"), **named_beside_iterator(stream)}
                return True if self._call("get_records", stream, **place, Limit=1).get("Records") else None
            case "PutRecords" if self._knows_dry_run(stream):
                nothing = [{"Data": b"", "PartitionKey": "0"}]
                self._call("put_records", stream, **named(stream), Records=nothing, DryRun=True)
            case _:
                return None
        return True

    def _knows_dry_run(self, stream: str) -> bool:
        if self._trusts_dry_run:
            return True
        try:
            self._iterator(stream, DryRun=True)
        except KinesisError as error:
            return error.code == _ALLOWED
        return False

    def _iterator(self, stream: str, kind: str = "LATEST", **dry: bool) -> str:
        try:
            shard = self._first_shard(stream)
        except AccessDenied:
            shard = "shardId-000000000000"  # the first of every stream; may have expired
        response = self._call(
            "get_shard_iterator", stream, **named(stream), ShardId=shard, ShardIteratorType=kind, **dry
        )
        return str(response["ShardIterator"])

    def _first_shard(self, stream: str) -> str:
        return str(self._call("list_shards", stream, **named(stream), MaxResults=1)["Shards"][0]["ShardId"])

"""The embedded Kinesis without its network: one account, all operations, a clock and a seed of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import consumers, listing, reading, resharding, settings, tagging, writing
from .clock import Clock, SystemClock
from .errors import AwsError
from .protocol import Params
from .quotas import Quotas
from .regions import Account, Region, Reply
from .rules import RULES
from .streams import FailureRule
from .subscriptions import Subscription, subscribe
from .validation import check

__all__ = ["Model", "Quotas", "Subscription"]

Operation = Callable[[Region, Params], Reply]

_OPERATIONS: dict[str, Operation] = {
    "AddTagsToStream": tagging.add_tags_to_stream,
    "CreateStream": settings.create_stream,
    "DecreaseStreamRetentionPeriod": settings.decrease_retention,
    "DeleteStream": settings.delete_stream,
    "DeregisterStreamConsumer": consumers.deregister,
    "DescribeLimits": listing.describe_limits,
    "DescribeStream": listing.describe_stream,
    "DescribeStreamConsumer": consumers.describe_consumer,
    "DescribeStreamSummary": listing.describe_stream_summary,
    "DisableEnhancedMonitoring": settings.disable_monitoring,
    "EnableEnhancedMonitoring": settings.enable_monitoring,
    "GetRecords": reading.get_records,
    "GetShardIterator": reading.get_shard_iterator,
    "IncreaseStreamRetentionPeriod": settings.increase_retention,
    "ListShards": listing.list_shards,
    "ListStreamConsumers": consumers.list_consumers,
    "ListStreams": listing.list_streams,
    "ListTagsForResource": tagging.list_tags_for_resource,
    "ListTagsForStream": tagging.list_tags_for_stream,
    "MergeShards": resharding.merge_shards,
    "PutRecord": writing.put_record,
    "PutRecords": writing.put_records,
    "RegisterStreamConsumer": consumers.register,
    "RemoveTagsFromStream": tagging.remove_tags_from_stream,
    "SplitShard": resharding.split_shard,
    "StartStreamEncryption": settings.start_encryption,
    "StopStreamEncryption": settings.stop_encryption,
    "TagResource": tagging.tag_resource,
    "UntagResource": tagging.untag_resource,
    "UpdateMaxRecordSize": settings.update_max_record_size,
    "UpdateShardCount": resharding.update_shard_count,
    "UpdateStreamMode": settings.update_stream_mode,
    "UpdateStreamRecordDistributionStrategy": settings.update_strategy,
}

# Operations of the API that are answered with an error of their own rather than taken for a misspelling.
_NOT_EMULATED = frozenset(
    """
    AcknowledgeDeadLetterQueueRecords AcknowledgeQueueRecords CreateChannel CreateQueue DeleteChannel DeleteQueue
    DeleteResourcePolicy DescribeAccountSettings DescribeChannel DescribeQueue GetResourcePolicy ListChannels
    ListQueues PutResourcePolicy ReceiveDeadLetterQueueRecords ReceiveQueueRecords RestoreDeadLetterQueueRecords
    UpdateAccountSettings UpdateChannel UpdateDeadLetterQueueRecordsVisibility UpdateQueue
    UpdateQueueRecordsVisibility UpdateStreamWarmThroughput
    """.split()  # noqa: SIM905 - so many names read better as a paragraph
)


class Model:
    """All streams of one account, safe to use from any thread.

    Parameters
    ----------
    clock
        Where the time comes from; a `ManualClock` makes iterators expire and data age in no time.
    seed
        Seed of everything random: the same calls give the same answers.
    quotas
        Throughput limits per shard; None for none.
    transition_seconds
        How long streams and consumers stay CREATING, UPDATING and DELETING.
    region, account
        The default region, and the account in all ARNs.

    Examples
    --------
    >>> model = Model()
    >>> _ = model.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    >>> model.call("PutRecord", {"StreamName": "orders", "PartitionKey": "a", "Data": b"1"})["ShardId"]
    'shardId-000000000000'
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        quotas: Quotas | None = None,
        transition_seconds: float = 0.0,
        region: str = "us-east-1",
        account: str = "000000000000",
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.region = region
        self.account = account
        self._account = Account(
            account, clock=self.clock, seed=seed, quotas=quotas, transition_seconds=transition_seconds
        )

    def __repr__(self) -> str:
        return f"<Model {self.account} {self.region}, {self._account.streams_made} streams made>"

    def call(self, operation: str, params: dict[str, Any], *, region: str | None = None) -> dict[str, Any]:
        """Answer one API call.

        Parameters
        ----------
        operation
            Its name, such as ``PutRecords``. SubscribeToShard has a method of its own: `subscribe`.
        params
            The request: blobs as bytes, timestamps as seconds since the epoch. It is not changed.
        region
            The region whose endpoint was called; by default the model's.

        Returns
        -------
        dict
            The answer, in the same form. Records in it are the stored ones: they must not be changed.

        Raises
        ------
        AwsError
            What the service would have answered instead.
        """
        action = _OPERATIONS.get(operation)
        if action is None:
            raise _unknown(operation)
        check(params, RULES[operation])
        with self._account.lock:
            return action(self._account.region(region or self.region), params)

    def subscribe(self, params: dict[str, Any], *, region: str | None = None) -> Subscription:
        """Answer one SubscribeToShard call; takes the same parameters and raises the same errors as the API's."""
        check(params, RULES["SubscribeToShard"])
        with self._account.lock:
            return subscribe(self._account.region(region or self.region), params)

    def fail_records(
        self, stream: str, pick: int | Callable[[dict[str, Any]], bool], code: str, *, region: str | None = None
    ) -> None:
        """Let records of coming PutRecords calls fail while others of the same call succeed.

        Parameters
        ----------
        stream
            Its name; it must exist.
        pick
            How many of the next records fail; or a function of the request's entry, which picks those of the first
            request in which it picks any. Each rule works once; the oldest that wants a record has it.
        code
            The record's ErrorCode: ``ProvisionedThroughputExceededException``, ``InternalFailure`` or another.
        region
            By default the model's.
        """
        with self._account.lock:
            self._account.region(region or self.region).require(stream).failures.append(FailureRule(pick, code))

    def gap(self, stream: str, shard_id: str, calls: int = 1, *, region: str | None = None) -> None:
        """Let the next GetRecords calls on a shard find nothing yet, as the service does in sparse shards.

        They answer no records, MillisBehindLatest above 0 and a fresh iterator for the same position.
        """
        with self._account.lock:
            where = self._account.region(region or self.region)
            where.readable_shard(where.require(stream), shard_id).empty_replies += calls

    def drop_shard(self, stream: str, shard_id: str, *, region: str | None = None) -> None:
        """Let a closed shard expire now, with the data it still has.

        Raises
        ------
        ValueError
            The shard is open: open shards do not expire.
        """
        with self._account.lock:
            where = self._account.region(region or self.region)
            shard = where.readable_shard(where.require(stream), shard_id)
            if shard.is_open:
                raise ValueError(f"{shard_id} of {stream} is open, and open shards do not expire")
            shard.dropped = True


def _unknown(operation: str) -> AwsError:
    if operation in _NOT_EMULATED:
        return AwsError("UnsupportedOperationException", f"{operation} is not emulated.", 501)
    return AwsError("UnknownOperationException", f"Unknown operation {operation}.")

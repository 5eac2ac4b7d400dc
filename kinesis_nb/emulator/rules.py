"""The shapes of all requests the emulator answers, with the limits of the service's API model."""

from __future__ import annotations

from dataclasses import replace

from .validation import Rule

_NAME = r"[a-zA-Z0-9_.-]+"
_STREAM_NAME = Rule(kind="String", low=1, high=128, pattern=_NAME)
_SHARD_ID = Rule(kind="String", low=1, high=128, pattern=_NAME)
_CONSUMER_NAME = Rule(kind="String", low=1, high=128, pattern=_NAME)
_STREAM_ARN = Rule(kind="String", low=1, high=2048, pattern=r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+")
_CONSUMER_ARN = Rule(
    kind="String",
    low=1,
    high=2048,
    pattern=r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+",
)
_RESOURCE_ARN = Rule(
    kind="String",
    required=True,
    low=1,
    high=2048,
    pattern=r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
)
_HASH_KEY = Rule(kind="String", pattern=r"0|([1-9]\d{0,38})")
_SEQUENCE_NUMBER = Rule(kind="String", pattern=r"0|([1-9]\d{0,128})")
_TIMESTAMP = Rule(kind="Timestamp")
_FLAG = Rule(kind="Boolean")
_COUNT = Rule(kind="Integer", low=1)
_NATURAL = Rule(kind="Integer", low=0)
_PAGE = Rule(kind="Integer", low=1, high=10_000)
_NEXT_TOKEN = Rule(kind="String", low=1, high=1_048_576)
_ITERATOR_TYPE = Rule(
    kind="String",
    required=True,
    choices=("AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"),
)
_TAG_KEY = Rule(kind="String", low=1, high=128)
_TAGS = Rule(kind="Map", low=1, high=200, keys=(1, 128), member=Rule(kind="String", low=0, high=256))
_TAG_KEYS = Rule(kind="List", required=True, low=1, high=50, member=_TAG_KEY)
_METRICS = (
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    "ALL",
)
_METRIC_LIST = Rule(kind="List", required=True, low=1, high=7, member=Rule(kind="String", choices=_METRICS))
_ENCRYPTION = Rule(kind="String", required=True, choices=("NONE", "KMS"))
_KEY_ID = Rule(kind="String", required=True, low=1, high=2048)
_STREAM_MODE = Rule(
    kind="Structure",
    members={"StreamMode": Rule(kind="String", required=True, choices=("PROVISIONED", "ON_DEMAND"))},
)
_STRATEGY = Rule(kind="String", choices=("AUTO", "USER_PARTITION_KEY"))
_MAX_RECORD = Rule(kind="Integer", low=1024, high=10_240)
_SHARD_FILTER = Rule(
    kind="Structure",
    members={
        "Type": Rule(
            kind="String",
            required=True,
            choices=(
                "AFTER_SHARD_ID",
                "AT_TRIM_HORIZON",
                "FROM_TRIM_HORIZON",
                "AT_LATEST",
                "AT_TIMESTAMP",
                "FROM_TIMESTAMP",
            ),
        ),
        "ShardId": _SHARD_ID,
        "Timestamp": _TIMESTAMP,
    },
)
_START = Rule(
    kind="Structure",
    required=True,
    members={"Type": _ITERATOR_TYPE, "SequenceNumber": _SEQUENCE_NUMBER, "Timestamp": _TIMESTAMP},
)
_STREAM = {"StreamName": _STREAM_NAME, "StreamARN": _STREAM_ARN}
_CONSUMER = {"StreamARN": _STREAM_ARN, "ConsumerName": _CONSUMER_NAME, "ConsumerARN": _CONSUMER_ARN}


def _required(rule: Rule) -> Rule:
    return replace(rule, required=True)


RECORD: dict[str, Rule] = {
    "PartitionKey": Rule(kind="String", low=1, high=256),
    "ExplicitHashKey": _HASH_KEY,
    "Data": Rule(kind="Blob", required=True, high=10_485_760),
}

# The records of PutRecords are left to the operation: it looks at each of them anyway, and does so faster.
RULES: dict[str, dict[str, Rule]] = {
    "AddTagsToStream": {**_STREAM, "Tags": _required(_TAGS)},
    "CreateStream": {
        "StreamName": _required(_STREAM_NAME),
        "ShardCount": _COUNT,
        "StreamModeDetails": _STREAM_MODE,
        "Tags": _TAGS,
        "WarmThroughputMiBps": _NATURAL,
        "MaxRecordSizeInKiB": _MAX_RECORD,
        "RecordDistributionStrategy": _STRATEGY,
    },
    "DecreaseStreamRetentionPeriod": {**_STREAM, "RetentionPeriodHours": Rule(kind="Integer", required=True)},
    "DeleteStream": {**_STREAM, "EnforceConsumerDeletion": _FLAG},
    "DeregisterStreamConsumer": _CONSUMER,
    "DescribeLimits": {},
    "DescribeStream": {**_STREAM, "Limit": _PAGE, "ExclusiveStartShardId": _SHARD_ID},
    "DescribeStreamConsumer": _CONSUMER,
    "DescribeStreamSummary": _STREAM,
    "DisableEnhancedMonitoring": {**_STREAM, "ShardLevelMetrics": _METRIC_LIST},
    "EnableEnhancedMonitoring": {**_STREAM, "ShardLevelMetrics": _METRIC_LIST},
    "GetRecords": {
        "ShardIterator": Rule(kind="String", required=True, low=1, high=512),
        "Limit": _PAGE,
        "StreamARN": _STREAM_ARN,
        "DryRun": _FLAG,
    },
    "GetShardIterator": {
        **_STREAM,
        "ShardId": _required(_SHARD_ID),
        "ShardIteratorType": _ITERATOR_TYPE,
        "StartingSequenceNumber": _SEQUENCE_NUMBER,
        "Timestamp": _TIMESTAMP,
        "DryRun": _FLAG,
    },
    "IncreaseStreamRetentionPeriod": {**_STREAM, "RetentionPeriodHours": Rule(kind="Integer", required=True)},
    "ListShards": {
        **_STREAM,
        "NextToken": _NEXT_TOKEN,
        "ExclusiveStartShardId": _SHARD_ID,
        "MaxResults": _PAGE,
        "StreamCreationTimestamp": _TIMESTAMP,
        "ShardFilter": _SHARD_FILTER,
    },
    "ListStreamConsumers": {
        "StreamARN": _required(_STREAM_ARN),
        "NextToken": _NEXT_TOKEN,
        "MaxResults": _PAGE,
        "StreamCreationTimestamp": _TIMESTAMP,
    },
    "ListStreams": {"Limit": _PAGE, "ExclusiveStartStreamName": _STREAM_NAME, "NextToken": _NEXT_TOKEN},
    "ListTagsForResource": {"ResourceARN": _RESOURCE_ARN},
    "ListTagsForStream": {
        **_STREAM,
        "ExclusiveStartTagKey": _TAG_KEY,
        "Limit": Rule(kind="Integer", low=1, high=50),
    },
    "MergeShards": {**_STREAM, "ShardToMerge": _required(_SHARD_ID), "AdjacentShardToMerge": _required(_SHARD_ID)},
    "PutRecord": {**_STREAM, **RECORD, "SequenceNumberForOrdering": _SEQUENCE_NUMBER, "DryRun": _FLAG},
    "PutRecords": {**_STREAM, "Records": Rule(kind="List", required=True, low=1, high=500), "DryRun": _FLAG},
    "RegisterStreamConsumer": {
        "StreamARN": _required(_STREAM_ARN),
        "ConsumerName": _required(_CONSUMER_NAME),
        "Tags": _TAGS,
    },
    "RemoveTagsFromStream": {**_STREAM, "TagKeys": _TAG_KEYS},
    "SplitShard": {**_STREAM, "ShardToSplit": _required(_SHARD_ID), "NewStartingHashKey": _required(_HASH_KEY)},
    "StartStreamEncryption": {**_STREAM, "EncryptionType": _ENCRYPTION, "KeyId": _KEY_ID},
    "StopStreamEncryption": {**_STREAM, "EncryptionType": _ENCRYPTION, "KeyId": _KEY_ID},
    "SubscribeToShard": {
        "ConsumerARN": _required(_CONSUMER_ARN),
        "ShardId": _required(_SHARD_ID),
        "StartingPosition": _START,
        "DryRun": _FLAG,
    },
    "TagResource": {"ResourceARN": _RESOURCE_ARN, "Tags": _required(_TAGS)},
    "UntagResource": {"ResourceARN": _RESOURCE_ARN, "TagKeys": _TAG_KEYS},
    "UpdateMaxRecordSize": {"StreamARN": _STREAM_ARN, "MaxRecordSizeInKiB": _required(_MAX_RECORD)},
    "UpdateShardCount": {
        **_STREAM,
        "TargetShardCount": _required(_COUNT),
        "ScalingType": Rule(kind="String", required=True, choices=("UNIFORM_SCALING",)),
    },
    "UpdateStreamMode": {"StreamARN": _required(_STREAM_ARN), "StreamModeDetails": _required(_STREAM_MODE)},
    "UpdateStreamRecordDistributionStrategy": {
        "StreamARN": _required(_STREAM_ARN),
        "RecordDistributionStrategy": _required(_STRATEGY),
    },
}

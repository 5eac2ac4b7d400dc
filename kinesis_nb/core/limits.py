"""The limits of the service, each in one place. What we choose within them is defined where it is used."""

from __future__ import annotations

from datetime import timedelta

# of a record; https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
KEY_CHARACTERS = 256  # Unicode characters of a partition key, not bytes; at least one
RECORD_BYTES = 2**20  # data and partition key, by default
LARGEST_RECORD_BYTES = 10 * 2**20  # what that limit can be raised to per stream

# of a PutRecords request, and of what a shard accepts in a second
PUT_RECORDS = 500
SHARD_WRITE_RECORDS, SHARD_WRITE_BYTES = 1_000, 2**20

# of a GetRecords response, and of what a shard gives in a second to all of its readers together
GET_RECORDS = 10_000
GET_BYTES = 10 * 2**20
SHARD_READ_CALLS, SHARD_READ_BYTES = 5, 2 * 2**20
FULL_RESPONSE_SECONDS = 5.0  # after a response of GET_BYTES, calls within this time are throttled

# of a stream
LEAST_RETENTION, MOST_RETENTION = timedelta(hours=24), timedelta(days=366)  # a year, which may be a leap year
SEQUENCE_NUMBER_DIGITS = 129

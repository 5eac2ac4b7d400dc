"""Rows -> PutRecords bytes, a column at a time, and the response's bytes -> what became of each record.

botocore's serializer and parser take ten times as long for 500 records as all the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl

from kinesis_nb.core.transport import PutResult  # noqa: TC001 - msgspec reads it when it makes the decoder
from kinesis_nb.errors import MalformedResponse
from kinesis_nb.wire.naming import named
from kinesis_nb.wire.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence


class _PutRecordsResponse(msgspec.Struct, rename="pascal"):
    records: list[PutResult]


_decoder = msgspec.json.Decoder(_PutRecordsResponse)


def encode_records(keys: pl.Series, data: pl.Series) -> list[bytes]:
    """Return each record as it is in the body of a request.

    Parameters
    ----------
    keys, data
        Partition keys (text) and data (bytes), without nulls.
    """
    columns = pl.DataFrame({"key": quoted(keys), "data": data.bin.encode("base64")})
    record = pl.concat_str(pl.lit('{"Data":"'), "data", pl.lit('","PartitionKey":'), "key", pl.lit("}"))
    encoded: list[bytes] = columns.select(record.cast(pl.Binary)).to_series().to_list()
    return encoded


def request_body(stream: str, records: Sequence[bytes]) -> bytes:
    """Return the body of a ``PutRecords`` request."""
    return b'%s,"Records":[%s]}' % (msgspec.json.encode(named(stream))[:-1], b",".join(records))


def decode_results(body: bytes, count: int) -> list[PutResult]:
    """Return what became of each of the `count` records of a request, in their order.

    Raises
    ------
    MalformedResponse
        Retryable, when the body is not a complete response for all of them: what was written is not known then.
    """
    try:
        results = _decoder.decode(body).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"a response of PutRecords was incomplete or invalid: {error}") from error
    if any(result.shard_id is None is result.error_code for result in results):
        raise _malformed("PutRecords did not say what became of a record")
    if len(results) != count:
        raise _malformed(f"PutRecords responded for {len(results)} of {count} records")
    return results


def _malformed(what: str) -> MalformedResponse:
    return MalformedResponse(what, hint="the records are sent again", retryable=True)

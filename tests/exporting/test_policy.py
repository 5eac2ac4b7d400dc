"""The least that a writer needs, on a server that refuses everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import polars as pl
import pytest

import kinesis_nb as kn
from tests.conftest import by_key
from tests.support.servers import ministack

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "kinesis:PutRecords", "Resource": "*"}],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ministack() as url:
        yield url


def client(service: str, url: str) -> Any:
    session = boto3.Session("root", "root", region_name="us-east-1")
    return session.client(service, endpoint_url=url)


def writer(url: str) -> kn.StaticCredentials:
    """Return the keys of a user who may only put records."""
    iam = client("iam", url)
    iam.create_user(UserName="writer")
    iam.put_user_policy(UserName="writer", PolicyName="put", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="writer")["AccessKey"]
    iam.close()
    return kn.StaticCredentials(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.mark.slow
def test_put_records_alone_is_enough(url: str) -> None:
    """With a policy of PutRecords and nothing else an export works, in order, and everything else is refused."""
    kinesis = client("kinesis", url)
    kinesis.create_stream(StreamName="out", ShardCount=2)
    arn = kinesis.describe_stream_summary(StreamName="out")["StreamDescriptionSummary"]["StreamARN"]
    kinesis.close()
    source = kn.connect(endpoint_url=url, auth=writer(url), exports_enabled=True)
    for refused in (source._kinesis.list_shards, source._kinesis.describe_extras, source._kinesis.describe_stream):
        with pytest.raises(kn.AccessDenied):
            refused("out")
    df = pl.DataFrame({"key": [f"key-{row % 7}" for row in range(600)], "n": range(600)})
    report = source.export_df(df, arn, progress=False)
    assert (report.rows, report.possible_duplicates, len(report.failed)) == (600, 0, 0)
    root = kn.connect(endpoint_url=url, auth=kn.StaticCredentials("root", "root"))
    assert by_key(root.read("out", progress=False)) == {f"key-{key}": list(range(key, 600, 7)) for key in range(7)}

"""Credentials, role and networking of a source -> a client of botocore."""

from __future__ import annotations

from typing import Any

import boto3
from botocore import exceptions as boto_errors
from botocore.config import Config

from kinesis_nb.config import Profile, SourceConfig, StaticCredentials
from kinesis_nb.service.translate import translate_local

CONNECT_SECONDS, READ_SECONDS = 5, 30
POOL = 256  # idle connections that are kept; no more calls than that are under way at a time, whatever the threads


def make_client(config: SourceConfig) -> Any:
    """Return a client of botocore for Kinesis."""
    keys: dict[str, str] = {}
    match config.auth:
        case Profile(name):
            keys["profile_name"] = name
        case StaticCredentials() as static:
            keys["aws_access_key_id"] = static.access_key_id
            keys["aws_secret_access_key"] = static.secret_access_key.reveal()
            if static.session_token:
                keys["aws_session_token"] = static.session_token.reveal()
        case None:
            pass
    settings = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=POOL,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1},  # ours is the only retry loop; botocore's would repeat PutRecords unseen
        proxies={"http": config.proxy, "https": config.proxy} if config.proxy else None,
        # a configured endpoint counts only where the user points to the configuration
        ignore_configured_endpoint_urls=not isinstance(config.auth, Profile),
    )
    try:
        boto = boto3.Session(region_name=config.region, **keys)
        return boto.client("kinesis", endpoint_url=config.endpoint_url, verify=config.verify, config=settings)
    except boto_errors.BotoCoreError as error:
        raise translate_local(error, "connect") from error

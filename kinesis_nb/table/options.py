"""The options of an object store: what a user may give, and how deltalake and Arrow get them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow.fs as pafs

from kinesis_nb.errors import ConfigError
from kinesis_nb.table.option_names import check_option_names

# The object store's own retries must end before ours are of use: what it waits for cannot be seen from outside.
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
_TIMEOUTS = {
    "connect_timeout": f"{CONNECT_SECONDS}s",
    "timeout": f"{REQUEST_SECONDS}s",
    "max_retries": "2",
    "retry_timeout": "10s",
}
_SHOWN = {"region", "endpoint", "endpoint_url", "allow_http", *_TIMEOUTS}


class StoreOptions(dict[str, str]):
    """What an object store needs, by the names of ``deltalake`` and ``polars``; shown without what may be secret."""

    def with_timeouts(self) -> StoreOptions:
        """Return the same with limits to how long deltalake retries by itself."""
        return StoreOptions({**_TIMEOUTS, **self})

    def __repr__(self) -> str:
        return repr({name: value if name in _SHOWN else "********" for name, value in self.items()})


def s3_of(options: Mapping[str, str]) -> pafs.FileSystem:
    """Return the object store as Arrow reaches it."""
    endpoint = endpoint_of(options)
    return pafs.S3FileSystem(
        access_key=options.get("access_key_id"),
        secret_key=options.get("secret_access_key"),
        session_token=options.get("session_token") or options.get("token"),
        region=options.get("region"),
        endpoint_override=endpoint,
        scheme=endpoint.partition("://")[0] if endpoint else "https",
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def endpoint_of(options: Mapping[str, str]) -> str | None:
    """Return where the object store is, when it is not S3 itself."""
    given = options.get("endpoint_url") or options.get("endpoint")
    return given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def read_options(options: Mapping[str, str] | None) -> dict[str, str]:
    """Return what a user gave as ``storage_options=``, by their short names.

    Raises
    ------
    ConfigError
        For anything but texts by name; the values are not shown, because some are secrets.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(text, str) for text in (*options, *options.values())):
        raise ConfigError("storage_options= must map names to texts", hint='give {"endpoint_url": "https://…"}')
    named = {name.lower().removeprefix("aws_"): value for name, value in options.items()}
    check_option_names(named)
    return named

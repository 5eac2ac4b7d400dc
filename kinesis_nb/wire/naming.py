"""How a call names its stream: by name, because an ARN moves the call to a host of the stream's account."""

from __future__ import annotations


def is_arn(stream: str) -> bool:
    """Return whether a stream is given by its ARN, as those of another account are."""
    return stream.startswith("arn:")


def named(stream: str) -> dict[str, str]:
    """Return the parameter that names a stream."""
    return {"StreamARN" if is_arn(stream) else "StreamName": stream}


def named_beside_iterator(stream: str) -> dict[str, str]:
    """Return what names a stream in a call with a shard iterator, which identifies the stream but not the account."""
    return named(stream) if is_arn(stream) else {}
